"""Notes → audio with a SoundFont, the source of training renders and references.

FluidSynth is the reference synthesizer of the SoundFont format. It plays at
twice the wanted rate and soxr halves it: FluidSynth does not low-pass the
font's 44.1 kHz samples, so at 16 kHz they would alias.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os

import numpy as np
import soxr

from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

BLOCK = 64  # FluidSynth starts notes on multiples of this many samples
DRUM_CHANNEL = 9
CHANNELS = 144  # one for each program and the drums


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundFontRenderer:
    """Renders notes dry (no reverb, no chorus), mono, at fixed gain.

    Needs the extra `soundfont` (pyfluidsynth) and the FluidSynth library.
    """

    path: str  # a .sf2 or .sf3 file
    sample_rate: int = 16000  # Hz, of the result
    oversample: int = 2  # FluidSynth runs at sample_rate * oversample
    gain: float = 0.5  # FluidSynth's master gain, 0..10
    tail: float = 2.0  # seconds rendered after the last note ends

    def __post_init__(self):
        if not os.path.isfile(self.path):
            raise UserError(f"{self.path}: no such SoundFont; give a .sf2 or .sf3 file")

    def __call__(self, notes: Notes) -> Waveform:
        """Renders all notes; sample 0 is time 0, length = last end + tail (to 2 ms).

        Calls repeat each other but for the first 2 ms of notes, where
        FluidSynth fades from the panning of whatever its voice played before.
        """
        rate = self.sample_rate * self.oversample
        synth, font = _synth(self.path, rate, self.gain)
        synth.system_reset()
        audio = _play(synth, font, notes, rate, self.tail, self.path)
        return Waveform(soxr.resample(audio, rate, self.sample_rate, quality="HQ"), self.sample_rate)


@functools.lru_cache(maxsize=2)  # loading a large font takes longer than rendering a piece
def _synth(path: str, rate: int, gain: float):
    fluidsynth = _library()
    synth = fluidsynth.Synth(gain=gain, samplerate=float(rate), channels=CHANNELS, **{
        "synth.reverb.active": 0, "synth.chorus.active": 0, "synth.polyphony": 1024})
    font = synth.sfload(path)
    if font < 0:
        raise UserError(f"{path}: FluidSynth cannot read this SoundFont")
    return synth, font


def _library():
    try:
        import fluidsynth
    except ImportError as e:
        raise UserError("rendering SoundFonts needs FluidSynth: pip install "
                        "'music-diffusion[soundfont]' and your system's libfluidsynth") from e
    return fluidsynth


def _play(synth, font: int, notes: Notes, rate: int, tail: float, path: str) -> np.ndarray:
    """Drives the synthesizer note by note at absolute sample positions."""
    channel_of = _channels(notes)
    for (drum, program), channel in channel_of.items():
        if synth.program_select(channel, font, 128 if drum else 0, 0 if drum else program) < 0:
            raise UserError(f"{path}: has no {'drums' if drum else f'program {program}'}; "
                            "choose a General MIDI SoundFont")
    on = np.round(notes.start * rate / BLOCK).astype(np.int64) * BLOCK
    off = np.maximum(np.round(notes.end * rate / BLOCK).astype(np.int64) * BLOCK, on + BLOCK)
    events = [(t, 0, i) for i, t in enumerate(off.tolist())]
    events += [(t, 1, i) for i, t in enumerate(on.tolist())]
    events.sort(key=lambda e: e[:2])
    total = int(np.ceil((notes.duration + tail) * rate / BLOCK)) * BLOCK
    total = max(total, int(off.max(initial=0)))
    audio, now = np.zeros(total, np.float32), 0
    pitch, velocity = notes.pitch.tolist(), notes.velocity.tolist()
    channel = [channel_of[bool(d), int(p)] for d, p in zip(notes.is_drum, notes.program, strict=True)]
    # One key of one channel may be held by several notes: only the last release counts.
    held: dict[tuple[int, int], int] = {}
    for time, is_on, i in events:
        if time > now:
            audio[now:time] = _samples(synth, time - now)
            now = time
        key = (channel[i], pitch[i])
        if is_on:
            held[key] = held.get(key, 0) + 1
            synth.noteon(channel[i], pitch[i], velocity[i])
        else:
            held[key] -= 1
            if held[key] == 0:
                synth.noteoff(channel[i], pitch[i])
    audio[now:] = _samples(synth, total - now)
    return audio


def _channels(notes: Notes) -> dict[tuple[bool, int], int]:
    """One channel per program; all drums share theirs."""
    melodic = (c for c in range(CHANNELS) if c != DRUM_CHANNEL)
    result = {(False, p): next(melodic) for p in np.unique(notes.program[~notes.is_drum]).tolist()}
    result.update({(True, p): DRUM_CHANNEL for p in np.unique(notes.program[notes.is_drum]).tolist()})
    return result


def _samples(synth, count: int) -> np.ndarray:
    """The next `count` samples as the mean of both channels, in float (16 bit would add noise)."""
    left, right = np.zeros(count, np.float32), np.zeros(count, np.float32)
    pointer = ctypes.POINTER(ctypes.c_float)
    write = _library()._fl.fluid_synth_write_float
    write(ctypes.c_void_p(synth.synth), ctypes.c_int(count),
          left.ctypes.data_as(pointer), ctypes.c_int(0), ctypes.c_int(1),
          right.ctypes.data_as(pointer), ctypes.c_int(0), ctypes.c_int(1))
    return 0.5 * (left + right)
