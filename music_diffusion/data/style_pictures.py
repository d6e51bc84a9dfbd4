"""Spectrograms as 8-bit pictures, in folders by instrument, and pairs of them that were drawn beforehand.

Prioteasa & Stempel-Hauburger 2025 ("Musical style transfer using latent diffusion models", section 3):
recordings at 22,050 Hz, silence of their ends trimmed at 20 dB, cut into pieces of 3 s, each 80 dB of
mel below its loudest cell in a picture of 128 × 128. Their mel is librosa's (Slaney's scale, filters of one
area), here it is the codec's, so that every inverter can play it.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Float, UInt8

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio
from music_diffusion.conditions.base import Example
from music_diffusion.data.audio_folder import find_audio
from music_diffusion.data.sharding import shard_batches
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write
from music_diffusion.types import Mel, StepProgress

DECIBELS = 80.0  # from a picture's black to its white
# A picture's white is 0 nat, its black 80 dB below.
PICTURE_CODEC = MelCodec(sample_rate=22050, hop=512, window=2048, fft=2048, mels=128, fmax=11025.0,
                         log_min=-DECIBELS / 20 * float(np.log(10.0)), log_max=0.0)
FRAMES = 128  # of a picture
TRIM_DB = 20.0  # below a recording's loudest moment, where its ends are silent
TRIM_WINDOW, TRIM_HOP = 2048, 512  # samples by which that is measured
PAIRS = "pairs.csv"  # label, index, label, index: content and style
NAME = "{stem}_chunk{number}.png"
HELD_OUT = 20  # one pair in so many is for validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicturePlan:
    """Plan of what is written."""

    source: str  # folder with a folder of recordings for each instrument
    seconds: float = 3.0  # of a piece
    minutes: float = 30.0  # of a recording, at most
    pairs: int = 15000
    seed: int = 0  # of the pairs

    def __post_init__(self):
        if not self.seconds * PICTURE_CODEC.frame_rate >= FRAMES:
            raise UserError(f"pieces of {self.seconds:g} s: give "
                            f"{FRAMES / PICTURE_CODEC.frame_rate:.2f} s or more, of which the first are "
                            "shown")
        if not self.minutes > 0 or self.pairs < 1:
            raise UserError(f"{self.minutes=} must be above 0, and {self.pairs=} at least 1")


def write_pictures(plan: PicturePlan, destination: str, progress: StepProgress = lambda i, n: None
                   ) -> dict[str, int]:
    """Writes INSTRUMENT/RECORDING_chunk0.png …, and pairs of them.

    Returns the number of pictures of each instrument.

    Raises UserError: no recordings in folders, fewer than two instruments, or a folder with other files.
    """
    folder = pathlib.Path(destination)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{destination}: is there already; give another folder")
    found = [file.path for file in find_audio(plan.source)[0] if "/" in file.path]
    counts: dict[str, int] = {}
    for i, name in enumerate(found):
        label = name.split("/")[0]
        stem = os.path.splitext(name)[0].split("/", 1)[1].replace("/", "_")
        wave = read_audio(os.path.join(plan.source, name)).mono().resample(PICTURE_CODEC.sample_rate)
        for number, piece in enumerate(pieces(wave.samples, plan)):
            path = folder / label / NAME.format(stem=stem, number=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, PICTURE_CODEC.encode(piece)[:FRAMES])
            counts[label] = counts.get(label, 0) + 1
        progress(i + 1, len(found))
    if len(counts) < 2:
        raise UserError(f"{plan.source}: has sound in {len(counts)} folders; give a folder of recordings "
                        "for each of two instruments or more")
    rows = draw_pairs(counts, plan.pairs, plan.seed)
    with atomic_write(folder / PAIRS) as part, open(part, "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(rows)
    return counts


def trimmed(samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, " n"]:
    """Returns samples without the silence of their ends; nothing where all of them are 0."""
    if not np.any(samples):
        return samples[:0]
    padded = np.pad(samples, TRIM_WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, TRIM_WINDOW)[::TRIM_HOP]
    power = np.square(windows.astype(np.float64)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-TRIM_DB / 10))
    return samples[loud[0] * TRIM_HOP:min((loud[-1] + 1) * TRIM_HOP, len(samples))]


def pieces(samples: Float[np.ndarray, " S"], plan: PicturePlan) -> Iterator[Float[np.ndarray, " n"]]:
    """Yields the pieces of a recording at the codec's rate, the last with silence behind."""
    size = round(plan.seconds * PICTURE_CODEC.sample_rate)
    kept = trimmed(samples)[:round(60 * plan.minutes * PICTURE_CODEC.sample_rate)]
    for first in range(0, len(kept), size):
        part = kept[first:first + size]
        yield np.pad(part, (0, size - len(part)))


def to_picture(mel: Mel) -> UInt8[np.ndarray, "F T"]:
    """Returns log-mel in nat as a picture, its loudest cell white; the lowest bin comes first."""
    unit = PICTURE_CODEC.scale(mel - mel.max(initial=PICTURE_CODEC.log_min)) / 2 + 0.5
    return np.round(255 * unit.T).astype(np.uint8)


def write_picture(path: str | os.PathLike, mel: Mel) -> None:
    """Writes log-mel in nat as a grayscale PNG."""
    from PIL import Image

    with atomic_write(path) as part:
        Image.fromarray(to_picture(mel)).save(part, format="PNG")


def read_picture(path: str | os.PathLike) -> Float[np.ndarray, "T F"]:
    """Returns scaled mel in [-1, 1] of a picture. Raises UserError: it is none, or of another size."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
    except (OSError, ValueError) as e:
        raise UserError(f"{os.fspath(path)}: cannot be read as a picture; write it with `prepare "
                        "pictures`") from e
    if pixels.shape[0] != PICTURE_CODEC.mels or pixels.shape[1] < FRAMES:
        raise UserError(f"{os.fspath(path)}: has {pixels.shape[0]} × {pixels.shape[1]} pixels, not "
                        f"{PICTURE_CODEC.mels} × {FRAMES} or more")
    return (pixels[:, :FRAMES].T / np.float32(127.5) - 1).astype(np.float32)


def draw_pairs(counts: dict[str, int], number: int, seed: int) -> list[tuple[str, int, str, int]]:
    """Draws pairs of different instruments, as many of each two, with any picture of either.

    Returns rows (label of the content, its index, label of the style, its index), shuffled.
    """
    rng, labels = np.random.default_rng(seed), sorted(counts)
    both = [(a, b) for a in labels for b in labels if a != b]
    rows = [(a, int(rng.integers(counts[a])), b, int(rng.integers(counts[b])))
            for a, b in (both[k % len(both)] for k in range(number))]
    return [rows[k] for k in rng.permutation(number)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicturePairSource:
    """Pairs of pictures, `targets`, the content, and `style`, [T, F] each; a data source of the trainer."""

    folder: str  # that `write_pictures` wrote
    shuffle: bool = True  # an order of its own in every epoch; False: that of the table
    eval_batch_count: int = 8  # batches that `eval_batches` gives

    def _rows(self) -> list[tuple[str, int, str, int]]:
        path = pathlib.Path(self.folder, PAIRS)
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [(a, int(i), b, int(j)) for a, i, b, j in csv.reader(file)]
        except (OSError, ValueError) as e:
            raise UserError(f"{path}: cannot be read; make the folder with `prepare pictures`") from e
        if len(rows) < HELD_OUT:
            raise UserError(f"{path}: has {len(rows)} pairs; give {HELD_OUT} or more")
        return rows

    def _examples(self, held_out: bool) -> grain.MapDataset:
        rows = [row for k, row in enumerate(self._rows()) if (k % HELD_OUT == 0) == held_out]
        files = {folder.name: sorted(folder.glob("*.png"), key=_in_order)
                 for folder in pathlib.Path(self.folder).iterdir() if folder.is_dir()}

        def example(row: tuple[str, int, str, int]) -> Example:
            content, i, style, j = row
            try:
                paths = files[content][i], files[style][j]
            except (KeyError, IndexError) as e:
                raise UserError(f"{self.folder}: lacks a picture of its {PAIRS}, {row}; make the folder "
                                "again") from e
            return {"targets": read_picture(paths[0]), "style": read_picture(paths[1])}

        return grain.MapDataset.source(rows).map(example)

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Yields endless batches; resumable through get_state / set_state."""
        examples = self._examples(held_out=False)
        if self.shuffle:
            examples = examples.seed(seed).shuffle()
        return shard_batches(examples.repeat(), batch_size, shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields held-out pairs, the same every time; at least one batch."""
        examples = self._examples(held_out=True).repeat().batch(batch_size)
        whole = len(self._rows()) // HELD_OUT // batch_size
        for i in range(max(1, min(self.eval_batch_count, whole))):
            yield examples[i]


def _in_order(path: pathlib.Path) -> tuple[str, int]:
    """Returns the recording's name and the piece's number, by which indices count."""
    stem, _, number = path.stem.rpartition("_chunk")
    return stem, int(number) if number.isdecimal() else 0

