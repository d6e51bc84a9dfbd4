"""Notes → audio with recorded notes: instruments of files, as `data.instruments` describes them."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.instruments import read_instruments
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.data.samples import Vibrato
from music_diffusion.data.zones import SUSTAINED, Instrument, Zone
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

LEVEL = 0.25  # peak of a usual note of velocity 127; chords are not to clip
SIXTY_DB = math.log(1000.0)  # nat of amplitude
SHORTEST_RELEASE = 0.005  # seconds; less would click
HI_HAT = (42, 44, 46)  # drum keys of which each ends the others
CHOKE = 0.05  # seconds for 60 dB
MOST_TUNING = 100.0  # cents


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerRenderer:
    """Renders notes with recorded ones, dry (but for the room that they were recorded in) and mono.

    A note starts at its sample: the onset of the file lies at round(start * sample_rate). Amplitude is
    the square of velocity, over all layers. Calls repeat each other.
    """

    path: str  # folder, table or .sfz file (`data.instruments.read_instruments`), with @PROGRAMS or without
    sample_rate: int = 16000  # Hz, of the result
    tail: float = 2.0  # seconds rendered after the last note ends
    most_shift: float = 4.0  # semitones from a sample to the key that it may sound for
    tuning: float = 0.0  # cents, of everything but drums
    vibrato: Vibrato | None = None  # of sustained instruments
    take: int = 0  # of several instruments of a program the one of this number (modulo their count)
    # What plays the notes that no sample is for; None: a UserError.
    fallback: Callable[[Notes, float | None], Waveform] | None = None

    def __post_init__(self):
        # So put that NaN fails.
        if not (self.sample_rate >= 1 and self.most_shift >= 0 and 0 <= self.tail < math.inf
                and abs(self.tuning) <= MOST_TUNING):
            raise UserError(f"a sampler needs {self.sample_rate=} above 0, {self.most_shift=} from 0, a "
                            f"{self.tail=} and {self.tuning=} within ±{MOST_TUNING:g} cents")
        _ = self.instruments  # checks that they are there

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """Returns the instruments that it plays."""
        return read_instruments(self.path)

    def keys(self, program: int) -> Sequence[int]:
        """Returns the keys that samples are for, in order; () where no instrument plays the program."""
        return _keys(self.path, self.take, self.most_shift, program)

    def __call__(self, notes: Notes, seconds: float | None = None) -> Waveform:
        """Renders notes; sample 0 is time 0.

        Args:
          notes: what to play.
          seconds: length of the result; None takes all notes and the tail.

        Raises UserError: no instrument plays a program or a key and there is no fallback, or a file
        cannot be read.
        """
        whole = notes.duration + self.tail if seconds is None else seconds
        mixed = np.zeros(round(whole * self.sample_rate), np.float32)
        end, missing = _ends(notes), np.zeros(len(notes), bool)
        repetitions: collections.Counter[tuple[int, int]] = collections.Counter()
        for i in range(len(notes)):
            program = DRUM_PROGRAM if notes.is_drum[i] else int(notes.program[i])
            key, velocity = int(notes.pitch[i]), int(notes.velocity[i])
            instrument = self._instrument(program, key)
            if instrument is None or not instrument.played(key, velocity, 0, self.most_shift):
                if self.fallback is None:
                    raise UserError(self._lacking(program, key))
                missing[i] = True
                continue
            for zone in instrument.played(key, velocity, repetitions[program, key], self.most_shift):
                self._add(mixed, instrument, zone, key, velocity, float(notes.start[i]), float(end[i]))
            repetitions[program, key] += 1
        if missing.any():
            assert self.fallback is not None
            other = self.fallback(notes[missing], whole).samples[:len(mixed)]
            mixed[:len(other)] += other
        return Waveform(mixed, self.sample_rate)

    def _instrument(self, program: int, key: int) -> Instrument | None:
        """Returns the instrument of a program; of drums, one that has the key."""
        able = _of_program(self.path, program)
        if program == DRUM_PROGRAM:
            able = tuple(x for x in able if x.played(key, 64, 0, self.most_shift))
        return able[self.take % len(able)] if able else None

    def _lacking(self, program: int, key: int) -> str:
        if not _of_program(self.path, program):
            what = "drums" if program == DRUM_PROGRAM else f"program {program}"
            return f"{self.path}: no instrument plays {what}; add one, or give a SoundFont for the rest"
        what = f"drum key {key}" if program == DRUM_PROGRAM else f"key {key} of program {program}"
        return (f"{self.path}: has no sample within {self.most_shift:g} semitones of {what}; add one, or "
                "give a SoundFont for the rest")

    def _add(self, mixed: np.ndarray, instrument: Instrument, zone: Zone, key: int, velocity: int,
             start: float, end: float) -> None:
        """Adds a note to the mix."""
        rate = self.sample_rate
        release = instrument.release if zone.release is None else zone.release
        if math.isfinite(end) and instrument.programs == (DRUM_PROGRAM,):
            release = CHOKE
        release = max(release, SHORTEST_RELEASE)
        length = min(end - start + release, len(mixed) / rate - start)
        if length <= 0:
            return
        sustained = instrument.kind == SUSTAINED
        semitones = zone.shift(key) + (0.01 * self.tuning if zone.pitch is not None else 0.0)
        samples, onset = zone.sample.played(
            length if sustained or zone.sample.loop else 0.0, semitones, rate,
            self.vibrato if sustained else None)
        first = round(start * rate) - onset
        held = onset + round((end - start) * rate) if math.isfinite(end) else len(samples)
        if math.isfinite(release) and held < len(samples):
            samples = released(samples, held, round(release * rate))
        skip = max(0, -first)
        part = samples[skip:max(skip, len(mixed) - first)]
        mixed[first + skip:first + skip + len(part)] += np.float32(LEVEL * zone.amplitude(velocity)) * part


def released(samples: Float[np.ndarray, "S"], at: int, length: int) -> Float[np.ndarray, "R"]:
    """Returns the samples up to `at`, and an exponential decay of 60 dB over the next `length`, to 0."""
    tail = samples[at:at + length]
    decay = np.exp(-SIXTY_DB * np.arange(len(tail)) / length)
    floor = math.exp(-SIXTY_DB)
    return np.concatenate([samples[:at], (tail * (decay - floor) / (1 - floor)).astype(np.float32)])


def _ends(notes: Notes) -> np.ndarray:
    """Returns when notes are damped [N]; drums ring on, but for a hi-hat that is struck again."""
    end = np.where(notes.is_drum, math.inf, notes.end)
    hats = np.flatnonzero(notes.is_drum & np.isin(notes.pitch, HI_HAT))
    later = notes.start[hats]
    for i in hats:
        after = later[later > notes.start[i]]
        end[i] = after.min() if len(after) else math.inf
    return end


@functools.lru_cache(maxsize=1024)
def _of_program(path: str, program: int) -> tuple[Instrument, ...]:
    return tuple(x for x in read_instruments(path) if program in x.programs)


@functools.lru_cache(maxsize=1024)
def _keys(path: str, take: int, most_shift: float, program: int) -> tuple[int, ...]:
    able = _of_program(path, program)
    if program == DRUM_PROGRAM:
        return tuple(sorted({key for x in able for key in x.range(most_shift)}))
    return able[take % len(able)].range(most_shift) if able else ()
