"""Training batches of renders with their notes, through grain: for models that listen.

The folder is one of `data.audio_renders` with `midi`: audio files, the notes of
each beside it, and a table of how each was recorded.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator

import grain
import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from music_diffusion.audio.io import native_path
from music_diffusion.conditions.base import Example
from music_diffusion.data.audio_renders import COLUMNS, TABLE
from music_diffusion.data.rooms import Room, draw_room
from music_diffusion.data.sharding import shard_batches
from music_diffusion.errors import UserError
from music_diffusion.notes.activations import draw_activations
from music_diffusion.notes.frames import NUM_CLASSES
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM
from music_diffusion.paths import restored
from music_diffusion.tables import read_table

TableRow = dict[str, str]  # column → cell of the table of renders
# Notes, seconds at which the crop begins among them, its seconds, its row → what is learned of it.
Features = Callable[[Notes, float, float, TableRow], Example]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionTargets:
    """Targets of `models.transcriber`; see `notes.activations.draw_activations`."""

    frame_seconds: float = 0.025

    def __call__(self, notes: Notes, start: float, seconds: float, row: TableRow) -> Example:
        """Returns `onset`, `frame`, `velocity` [T, 88], `classes` [T, 88, 5] packed, `drums` [T, 61]."""
        frames = int(seconds / self.frame_seconds + 1e-6)
        drawn = draw_activations(notes, start, frames, self.frame_seconds)
        return {name: getattr(drawn, name)
                for name in ("onset", "frame", "velocity", "classes", "drums")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagTargets:
    """Targets of `models.tagger` for a clip: who plays, on which SoundFont, in which room."""

    fonts: tuple[str, ...]  # file names; -1 for others
    rooms: tuple[float, ...] = (0.45, 0.95)  # seconds of RT60 that part small, medium and large
    heard: float = 0.1  # seconds that the notes of an instrument must sound, in all
    patches: int = 1  # of a crop that are tagged, evenly spread from its first to its last
    patch_seconds: float = 0.975  # of each, where there is more than one

    def __call__(self, notes: Notes, start: float, seconds: float, row: TableRow) -> Example:
        """Returns `instruments` [35] 0 or 1, or [patches, 35]; `font` and `room` (0: dry) int32 []."""
        room = 1 + np.searchsorted(self.rooms, float(row["rt60"])) if row["rt60"] else 0
        font = self.fonts.index(row["soundfont"]) if row["soundfont"] in self.fonts else -1
        tags = {"font": np.asarray(font, np.int32), "room": np.asarray(room, np.int32)}
        if self.patches == 1:
            return tags | {"instruments": self._sounding(notes, start, seconds)}
        starts = start + np.linspace(0, seconds - self.patch_seconds, self.patches)
        return tags | {"instruments": np.stack([
            self._sounding(notes, float(first), self.patch_seconds) for first in starts])}

    def _sounding(self, notes: Notes, start: float, seconds: float) -> Float[np.ndarray, " K"]:
        """Returns 1 for the classes that sound long enough."""
        kind = np.where(notes.is_drum, DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM[notes.program])
        begin, end = notes.start - start, notes.end - start
        sounding = np.clip(end, 0, seconds) - np.clip(begin, 0, seconds)
        # Drums sound on after their notes: an onset is enough.
        hit = notes.is_drum & (begin >= 0) & (begin < seconds - self.heard)
        sounding = np.where(hit, self.heard, sounding)
        total = np.bincount(kind, sounding, minlength=NUM_CLASSES)
        return (total >= self.heard).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Varied:
    """Variation of a crop while training; shares are probabilities."""

    detune_cents: float = 40.0  # the greatest, up or down: played faster or slower
    gain_db: tuple[float, float] = (-20.0, 6.0)  # never above full scale
    noise: float = 0.5  # share of crops with noise
    noise_db: tuple[float, float] = (-60.0, -15.0)  # power of the noise, relative to the crop's
    tilt: float = 2.0  # noise power falls with frequency by a power in 0..tilt
    # Share of crops in a further room, up to a church: its sound goes on under the next notes.
    # `TagTargets` do not hear of it: their room is that of the file.
    room: float = 0.0
    rt60: tuple[float, float] = (0.3, 3.5)  # seconds
    wet_db: tuple[float, float] = (-12.0, 4.0)  # energy of the room relative to the direct sound

    def __post_init__(self):
        if not (self.detune_cents >= 0 and 0 <= self.noise <= 1 and self.tilt >= 0):
            raise UserError(f"Varied needs {self.detune_cents=} >= 0, {self.noise=} in 0..1 and "
                            f"{self.tilt=} >= 0")
        if not (self.gain_db[0] <= self.gain_db[1] and self.noise_db[0] <= self.noise_db[1]):
            raise UserError(f"Varied needs {self.gain_db=} and {self.noise_db=} as (lowest, highest)")
        if not (0 <= self.room <= 1 and 0 < self.rt60[0] <= self.rt60[1]
                and self.wet_db[0] <= self.wet_db[1]):
            raise UserError(f"Varied needs {self.room=} in 0..1 and ranges {self.rt60=} above 0 and "
                            f"{self.wet_db=} (lowest, highest)")

    def speed(self, rng: np.random.Generator) -> float:
        """Draws the factor by which the crop is played faster."""
        return float(2 ** (rng.uniform(-self.detune_cents, self.detune_cents) / 1200))

    def draw_room(self, rng: np.random.Generator) -> Room | None:
        """Draws a room; None for crops that stay where they are."""
        if not rng.random() < self.room:
            return None
        room = draw_room(rng)
        return dataclasses.replace(room, rt60=float(np.exp(rng.uniform(*np.log(self.rt60)))),
                                   wet_db=float(rng.uniform(*self.wet_db)))

    def __call__(self, samples: Float[np.ndarray, " S"], rng: np.random.Generator
                 ) -> Float[np.ndarray, " S"]:
        """Varies level and sign, and adds noise."""
        gain = 10 ** (rng.uniform(*self.gain_db) / 20)
        peak = float(np.abs(samples).max(initial=0.0))
        samples = samples * np.float32(rng.choice([-1, 1]) * min(gain, 1 / max(peak, 1e-9)))
        if rng.random() < self.noise:
            power = float(np.square(samples).mean())
            ratio = 10 ** (rng.uniform(*self.noise_db) / 10)
            samples = samples + np.float32(np.sqrt(power * ratio)) * self._noise(len(samples), rng)
        return samples

    def _noise(self, size: int, rng: np.random.Generator) -> Float[np.ndarray, " S"]:
        """Draws noise of power 1."""
        spectrum = np.fft.rfft(rng.standard_normal(size))
        bins = np.maximum(np.arange(len(spectrum)), size / 800)  # flat below 20 Hz at 16 kHz
        noise = np.fft.irfft(spectrum * bins ** (-0.5 * rng.uniform(0, self.tilt)), size)
        return (noise / max(float(np.sqrt(np.square(noise).mean())), 1e-12)).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingSource:
    """Random crops of renders with their targets."""

    folder: str  # written by `data.audio_renders` with midi
    features: Features
    samples: int = 81920  # S
    sample_rate: int = 16000  # Hz, of the files
    varied: Varied = Varied()
    eval_batch_count: int = 16  # batches of the validation split that `eval_batches` gives

    def __post_init__(self):
        if self.samples < 1 or self.eval_batch_count < 1:
            raise UserError(f"RecordingSource needs {self.samples=} and {self.eval_batch_count=} of at "
                            "least 1")

    def rows(self, split: str) -> list[TableRow]:
        """Reads the table's rows of a split. Raises UserError if the folder is no such folder."""
        table = pathlib.Path(self.folder) / TABLE
        make = "make it with `music-diffusion render --midi`"
        if not table.is_file():
            raise UserError(f"{self.folder}: no {TABLE} there; {make}")
        rows = [row | {"file": restored(row["file"])} for row in read_table(table, COLUMNS, advice=make)
                if row["split"] == split]
        if not rows:
            raise UserError(f"{table}: no file of split {split}; {make}")
        first = pathlib.Path(self.folder) / rows[0]["file"]
        if not first.with_suffix(".mid").is_file():
            raise UserError(f"{self.folder}: no notes beside the audio; {make}")
        rate = soundfile.info(native_path(str(first))).samplerate
        if rate != self.sample_rate:
            raise UserError(f"{self.folder}: its audio has {rate} Hz, not {self.sample_rate}; "
                            f"render it again with --rate {self.sample_rate}")
        return rows

    def _dataset(self, split: str, seed: int, varied: Varied | None) -> grain.MapDataset:
        data = grain.MapDataset.source(self.rows(split)).seed(seed).shuffle().repeat()
        return data.random_map(_Crop(self, varied))

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Yields endless batches of `audio` [B, S] and the features; resumable (get_state / set_state)."""
        data = self._dataset("train", seed, self.varied)
        return shard_batches(data, batch_size, shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields the same crops every time, as they were recorded."""
        data = self._dataset("validation", 0, None).batch(batch_size)
        for i in range(self.eval_batch_count):
            yield data[i]


@functools.lru_cache(maxsize=20000)
def _notes(path: str) -> Notes:
    return read_midi(path)


class _Crop(grain.transforms.RandomMap):
    """A crop of a file, perhaps played faster or slower, and its features."""

    def __init__(self, source: RecordingSource, varied: Varied | None):
        self._source, self._varied = source, varied

    def random_map(self, row: TableRow, rng: np.random.Generator) -> Example:
        s = self._source
        path = pathlib.Path(s.folder) / row["file"]
        speed = self._varied.speed(rng) if self._varied else 1.0
        room = self._varied.draw_room(rng) if self._varied else None
        with soundfile.SoundFile(native_path(os.fspath(path))) as file:
            needed = int(np.ceil(s.samples * speed)) + 1
            first = int(rng.integers(max(0, file.frames - needed) + 1))
            # What sounded before is still heard in the room.
            lead = min(first, int(room.rt60 * s.sample_rate)) if room else 0
            file.seek(first - lead)
            samples = file.read(lead + needed, dtype="float32", always_2d=True).mean(axis=1)
        if speed != 1.0:
            samples = soxr.resample(samples, s.sample_rate * speed, s.sample_rate)
        if room is not None:
            samples = room(samples, s.sample_rate)[round(lead / speed):]
        samples = np.pad(samples, (0, max(0, s.samples - len(samples))))[:s.samples]
        if self._varied:
            samples = self._varied(samples, rng)
        notes = _notes(str(path.with_suffix(".mid")))
        notes = dataclasses.replace(notes, start=notes.start / speed, end=notes.end / speed)
        start, seconds = first / s.sample_rate / speed, s.samples / s.sample_rate
        found = s.features(notes.between(start - 1.0, start + seconds + 1.0), start, seconds, row)
        return {"audio": samples.astype(np.float32)} | found
