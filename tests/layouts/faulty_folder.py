"""A folder of MIDI files and recordings of them, in which ten items have one fault each."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import soxr
from layouts.common import write_wav

from music_diffusion.notes.frames import NUM_CLASSES
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM

RATE = 22050  # Hz
SECONDS = 8.0
PIANO, VIOLIN = 0, 40
BOWED = 50  # program of what is bowed here: synthetic strings, which no tagger is asked to judge
BOW_HERTZ = 6000.0  # the bow's noise lies above; nothing else does
HEALTHY = tuple(f"{split}/healthy_{i}" for split, count in (("train", 7), ("validation", 2), ("test", 2))
                for i in range(count))
# Name of the item → the kind of its fault.
FAULTS = {
    "train/late": "misaligned", "train/mute": "silent", "train/hot": "clipped",
    "train/other_instrument": "mis-programmed", "train/healthy_0_again": "duplicated",
    "train/noteless": "empty", "train/telephone": "wrong rate", "train/flac_inside": "wrong codec",
    "train/even": "velocity-less", "validation/healthy_1_transposed": "leak"}


def melody(seed: int, seconds: float = SECONDS, program: int = PIANO) -> Notes:
    """Two voices of random pitches, lengths and velocities."""
    rng = np.random.default_rng(seed)
    voices = []
    for low in (48, 62):
        start = 0.1 + np.cumsum(rng.choice([0.15, 0.2, 0.3, 0.45, 0.6], round(6 * seconds)))
        start = start[start < seconds - 0.7]
        length = rng.uniform(0.1, 0.45, len(start))
        voices.append(Notes(start, start + length, rng.integers(low, low + 17, len(start)),
                            rng.integers(50, 110, len(start)), np.full(len(start), program),
                            np.zeros(len(start), bool)))
    return Notes.concatenate(voices)


def play(notes: Notes, seconds: float = SECONDS, rate: int = RATE, bowed: bool = False,
         seed: int = 0) -> np.ndarray:
    """Five partials a note, struck ones decaying and bowed ones with a noise above BOW_HERTZ."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * rate))
    for start, end, pitch, velocity in zip(notes.start, notes.end, notes.pitch, notes.velocity,
                                           strict=True):
        first, last = round(start * rate), min(round((end + 0.05) * rate), len(out))
        if first >= last:
            continue
        time = np.arange(last - first) / rate
        partials = np.arange(1, 6) / (1 if bowed else 1.0)
        hertz = 440 * 2 ** ((int(pitch) - 69) / 12) * partials
        tone = sum(np.sin(2 * np.pi * h * time + k) / (k + 1) for k, h in enumerate(hertz))
        fade = np.minimum(1, (time[-1] - time) / 0.02) * np.minimum(1, time / 0.005)
        shape = fade if bowed else fade * np.exp(-5 * time)
        out[first:last] += velocity / 127 * tone * shape
        if bowed:
            out[first:last] += 0.1 * shape * _high_noise(len(time), rate, rng)
    out += 1e-4 * rng.normal(size=len(out))  # no recording is without noise
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def _high_noise(length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.normal(size=length))
    hertz = np.fft.rfftfreq(length, 1 / rate)
    return np.fft.irfft(np.where((hertz > BOW_HERTZ) & (hertz < 7800), spectrum, 0), length)


@dataclasses.dataclass(frozen=True)
class HearBow:
    """Stands for a tagger: bow noise is a violin, its absence a piano."""

    def __call__(self) -> Callable[[np.ndarray], np.ndarray]:
        return tag


def tag(samples: np.ndarray) -> np.ndarray:
    """[n, 35] probabilities of patches of 0.96 s at 16 kHz."""
    size = 15360
    patches = samples[:len(samples) // size * size].reshape(-1, size)
    power = np.square(np.abs(np.fft.rfft(patches, axis=1)))
    high = power[:, round(BOW_HERTZ * 0.96):].sum(axis=1) / power.sum(axis=1)
    result = np.full((len(patches), NUM_CLASSES), 0.005)
    bowed = high > 1e-4
    result[bowed, SLAKH_CLASS_OF_PROGRAM[VIOLIN]] = 0.9
    result[~bowed, SLAKH_CLASS_OF_PROGRAM[PIANO]] = 0.9
    return result


def build(folder: pathlib.Path) -> dict[str, str]:
    """Writes HEALTHY and the FAULTS, and returns these."""
    def put(name: str, notes: Notes, samples: np.ndarray, rate: int = RATE, **options) -> None:
        write_wav(folder / f"{name}.wav", samples, rate, **options)
        write_midi(notes, folder / f"{name}.mid")

    for i, name in enumerate(HEALTHY):
        bowed = i % 2 == 1
        notes = melody(i, program=BOWED if bowed else PIANO)
        put(name, notes, play(notes, bowed=bowed, seed=i))
    late = melody(100)
    put("train/late", late, play(late.shift(0.6)))
    mute = melody(101)
    put("train/mute", mute, 1e-3 * play(mute))
    hot = melody(102)
    put("train/hot", hot, np.clip(3 * play(hot), -0.7, 0.7))
    other = melody(103, program=VIOLIN)
    put("train/other_instrument", other, play(other))
    first = melody(0)
    put("train/healthy_0_again", first, 0.4 * soxr.resample(play(first, seed=0), RATE, 32000), 32000)
    noteless = melody(104)
    put("train/noteless", Notes.empty(), play(noteless))
    telephone = melody(105, program=VIOLIN)  # whose bow is heard no more
    put("train/telephone", telephone, soxr.resample(play(telephone, bowed=True), RATE, 8000), 8000)
    inside = melody(106)
    put("train/flac_inside", inside, play(inside), format="FLAC")
    even = melody(107)
    even = dataclasses.replace(even, velocity=np.full(len(even), 64))
    put("train/even", even, play(even))
    leak = melody(1, program=PIANO)  # that of train/healthy_1, on another instrument
    leak = dataclasses.replace(leak, pitch=leak.pitch + 2, start=1.1 * leak.start, end=1.1 * leak.end)
    put("validation/healthy_1_transposed", leak, play(leak, 1.1 * SECONDS, seed=99))
    return FAULTS
