"""Notes → audio with a SoundFont, the source of training renders and references.

FluidSynth is the reference synthesizer of the SoundFont format. It does not
low-pass the font's 44.1 kHz samples, so it plays at a higher rate than is
wanted, where what folds down stays above the wanted band, and soxr takes that
away: at 16 kHz itself a log-mel spectrogram is off by 0.15 nat in the mean and
by 0.4 in its upper quarter. It interpolates to 4th order, its default. 7th
order takes a quarter more time for 0.01 nat (0.07 in fonts whose samples have
11 or 22 kHz); linear interpolation, a fifth faster, is off by 0.03 (0.16).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
import os
import types
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

BLOCK = 64  # FluidSynth starts notes on multiples of this many samples
DRUM_CHANNEL = 9
CHANNELS = 144  # one for each program and the drums
POLYPHONY = 256  # voices, as FluidSynth has it; with 1024 no excerpt of a hundred changes by 0.001 nat
AFTER = 0.02  # seconds past an asked length, which the resampler's filter sees
FONT_BAND = 22050.0  # Hz, up to where samples of a font go
FINE_TUNE = 52  # the format's generator of detuning in cents (SoundFont 2.04, section 8.1.2)
HIGHEST_RATE = 96000  # Hz, of FluidSynth


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundFontRenderer:
    """Renders notes dry (no reverb, no chorus), mono, at fixed gain.

    Needs the extra `soundfont` (pyfluidsynth) and the FluidSynth library.
    """

    path: str  # a .sf2 or .sf3 file
    sample_rate: int = 16000  # Hz, of the result
    oversample: int = 2  # FluidSynth runs at sample_rate * oversample; more if it must (`rate`)
    gain: float = 0.5  # FluidSynth's master gain, 0..10
    tail: float = 2.0  # seconds rendered after the last note ends
    tuning: float = 0.0  # cents, of everything but drums

    def __post_init__(self):
        if not os.path.isfile(self.path):
            raise UserError(f"{self.path}: no such SoundFont; give a .sf2 or .sf3 file")
        if not 0 < self.sample_rate <= HIGHEST_RATE:
            raise UserError(f"SoundFonts cannot be rendered at {self.sample_rate} Hz; "
                            f"choose at most {HIGHEST_RATE} Hz")
        if not (math.isfinite(self.tuning) and 0 <= self.tail < math.inf):
            raise UserError(f"a SoundFont needs {self.tuning=} in cents and {self.tail=} in seconds")

    @property
    def rate(self) -> int:
        """Returns FluidSynth's rate in Hz: what the font holds folds down to above the wanted band."""
        wanted = max(self.oversample, math.ceil(FONT_BAND / self.sample_rate + 0.5))
        return self.sample_rate * min(wanted, HIGHEST_RATE // self.sample_rate)

    def keys(self, program: int) -> Sequence[int]:
        """Returns all pitches: which the font has is known when it plays."""
        return range(128)

    def __call__(self, notes: Notes, seconds: float | None = None) -> Waveform:
        """Renders notes; sample 0 is time 0 (to half a block of FluidSynth, 1 ms). Calls repeat each other.

        Args:
          notes: what to play.
          seconds: length of the result; None takes all notes and the tail (to 2 ms).

        Raises:
          UserError: FluidSynth is not there, or cannot read the font, or the font
            lacks a program.
        """
        font = _font(self.path, self.rate, self.gain)
        if seconds is None:
            blocks = math.ceil((notes.duration + self.tail) * self.rate / BLOCK)
            audio = _play(font, notes, blocks, tuning=self.tuning)
            samples = soxr.resample(audio, self.rate, self.sample_rate, quality="HQ")
            return Waveform(samples, self.sample_rate)
        blocks = math.ceil((seconds + AFTER) * self.rate / BLOCK)
        audio = _play(font, notes, blocks, whole=False, tuning=self.tuning)
        samples = soxr.resample(audio, self.rate, self.sample_rate, quality="HQ")
        return Waveform(samples[:round(seconds * self.sample_rate)], self.sample_rate)


def check_library() -> None:
    """Raises UserError where FluidSynth is not installed."""
    _library()


class _Font:
    """A loaded SoundFont, which synthesizers share, and their settings."""

    def __init__(self, path: str, rate: int, gain: float):
        library, calls = _library(), _calls()
        loader = library.Synth(gain=gain, samplerate=float(rate), channels=CHANNELS, **{
            "synth.reverb.active": 0, "synth.chorus.active": 0, "synth.polyphony": POLYPHONY})
        weakref.finalize(self, loader.delete)
        number = loader.sfload(path)
        if number < 0:
            raise UserError(f"{path}: FluidSynth cannot read this SoundFont")
        self.path, self.rate, self.settings = path, rate, loader.settings
        self.pointer = calls.fluid_synth_get_sfont_by_id(loader.synth, number)


@functools.lru_cache(maxsize=2)  # loading a large font takes longer than rendering a piece
def _font(path: str, rate: int, gain: float) -> _Font:
    return _Font(path, rate, gain)


def _library():
    try:
        import fluidsynth
    except ImportError as e:
        raise UserError("rendering SoundFonts needs FluidSynth: pip install "
                        "'music-diffusion[soundfont]' and your system's libfluidsynth") from e
    return fluidsynth


@functools.cache
def _calls() -> types.SimpleNamespace:
    """Returns FluidSynth's functions that pyfluidsynth lacks, or wraps with more work than a note takes."""
    library = _library()._fl
    pointer, number = ctypes.c_void_p, ctypes.c_int
    signatures: dict[str, tuple[Any, ...]] = {  # result and arguments
        "new_fluid_synth": (pointer, pointer),
        "delete_fluid_synth": (None, pointer),
        "fluid_synth_get_sfont_by_id": (pointer, pointer, number),
        "fluid_synth_add_sfont": (number, pointer, pointer),
        "fluid_synth_remove_sfont": (number, pointer, pointer),
        "fluid_synth_program_select": (number, pointer, number, number, number, number),
        "fluid_synth_unset_program": (number, pointer, number),
        "fluid_synth_set_gen": (number, pointer, number, number, ctypes.c_float),
        "fluid_synth_noteon": (number, pointer, number, number, number),
        "fluid_synth_noteoff": (number, pointer, number, number),
        "fluid_synth_write_float": (number, pointer, number, *(pointer, number, number) * 2)}
    return types.SimpleNamespace(**{
        name: ctypes.CFUNCTYPE(*kinds)((name, library)) for name, kinds in signatures.items()})


def _play(font: _Font, notes: Notes, blocks: int, whole: bool = True, tuning: float = 0.0
          ) -> Float[np.ndarray, "S"]:
    """Plays so many blocks; returns the mean of both channels at the font's rate.

    whole: as many blocks more as it takes until all notes have ended.
    tuning: cents, of all channels but that of the drums.
    """
    calls = _calls()
    # A synthesizer of its own (it takes 2 ms): in a used one, voices fade from the panning of what
    # they played before, and a render would depend on the one before it.
    synth = calls.new_fluid_synth(font.settings)
    try:
        number = calls.fluid_synth_add_sfont(synth, font.pointer)
        channel_of = _channels(notes)
        for (drum, program), channel in channel_of.items():
            bank, preset = (128, 0) if drum else (0, program)
            if calls.fluid_synth_program_select(synth, channel, number, bank, preset) < 0:
                raise UserError(f"{font.path}: has no {'drums' if drum else f'program {program}'}; "
                                "choose a General MIDI SoundFont")
            if tuning and not drum:
                calls.fluid_synth_set_gen(synth, channel, FINE_TUNE, tuning)
        audio = _drive(synth, notes, channel_of, font.rate, blocks, whole)
    finally:
        for channel in range(CHANNELS):  # FluidSynth would warn of each that has no font any more
            calls.fluid_synth_unset_program(synth, channel)
        calls.fluid_synth_remove_sfont(synth, font.pointer)
        calls.delete_fluid_synth(synth)
    return 0.5 * (audio[0] + audio[1])


def _drive(synth: int, notes: Notes, channel_of: dict[tuple[bool, int], int], rate: int, blocks: int,
           whole: bool) -> Float[np.ndarray, "2 S"]:
    """Plays note by note at absolute sample positions; in float, as 16 bit would add noise."""
    calls = _calls()
    on = np.round(notes.start * rate / BLOCK).astype(np.int64) * BLOCK
    off = np.maximum(np.round(notes.end * rate / BLOCK).astype(np.int64) * BLOCK, on + BLOCK)
    events = [(t, 0, i) for i, t in enumerate(off.tolist())]
    events += [(t, 1, i) for i, t in enumerate(on.tolist())]
    events.sort(key=lambda e: e[:2])
    total = max(blocks * BLOCK, int(off.max(initial=0)) if whole else 0)
    audio, now = np.zeros((2, total), np.float32), 0
    left, right = (channel.ctypes.data for channel in audio)
    pitch, velocity = notes.pitch.tolist(), notes.velocity.tolist()
    channel = [channel_of[d, p] for d, p in zip(notes.is_drum.tolist(), notes.program.tolist(),
                                                strict=True)]
    # One key of one channel may be held by several notes: only the last release counts.
    held: dict[tuple[int, int], int] = {}
    for time, is_on, i in events:
        if time >= total:
            break
        if time > now:
            calls.fluid_synth_write_float(synth, time - now, left, now, 1, right, now, 1)
            now = time
        key = (channel[i], pitch[i])
        if is_on:
            held[key] = held.get(key, 0) + 1
            calls.fluid_synth_noteon(synth, channel[i], pitch[i], velocity[i])
        else:
            held[key] -= 1
            if held[key] == 0:
                calls.fluid_synth_noteoff(synth, channel[i], pitch[i])
    if now < total:
        calls.fluid_synth_write_float(synth, total - now, left, now, 1, right, now, 1)
    return audio


def _channels(notes: Notes) -> dict[tuple[bool, int], int]:
    """Gives every program a channel; all drums share theirs."""
    melodic = (c for c in range(CHANNELS) if c != DRUM_CHANNEL)
    result = {(False, p): next(melodic) for p in np.unique(notes.program[~notes.is_drum]).tolist()}
    result.update({(True, p): DRUM_CHANNEL for p in np.unique(notes.program[notes.is_drum]).tolist()})
    return result
