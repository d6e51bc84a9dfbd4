"""Training batches of raw audio, through grain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Float, Int16

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import Example
from music_diffusion.data import audio_records, records
from music_diffusion.data.sharding import shard_batches
from music_diffusion.errors import UserError

SILENCE = audio_records.FULL_SCALE * 10 ** (-60 / 20)  # peak of a crop that is drawn again
TRIES = 8  # crops of a piece, of which the first that is not silent is taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioSource:
    """Random crops of the pieces in a folder of audio records, as one channel each.

    Pieces shorter than a crop are followed by silence. A stereo piece gives its
    left or right channel, their mean (mid) or half their difference (side), drawn
    evenly, so that a model of one channel serves all of them; evaluation takes
    the mean.
    """

    folder: str  # written by `data.audio_folder`
    codec: MelCodec = MelCodec()  # the folder must have its sample rate
    samples: int = 32000  # S
    gain_db: tuple[float, float] = (-12.0, 6.0)  # random gain while training; never above full scale
    eval_batch_count: int = 8  # batches of the validation split that `eval_batches` gives

    def __post_init__(self):
        if self.samples < 1 or self.eval_batch_count < 1:
            raise UserError(f"AudioSource.samples={self.samples} and eval_batch_count="
                            f"{self.eval_batch_count} must be at least 1")
        if len(self.gain_db) != 2 or not self.gain_db[0] <= self.gain_db[1]:
            raise UserError(f"AudioSource.gain_db={self.gain_db} must be (lowest, highest)")

    def _dataset(self, split: str, seed: int, crop: _Crop) -> grain.MapDataset:
        audio_records.read_audio_manifest(self.folder, self.codec.sample_rate)
        source = grain.sources.ArrayRecordDataSource(records.shard_paths(self.folder, split))
        return grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(crop)

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Yields endless batches {"audio": [B, S] float32}; resumable through get_state / set_state."""
        crop = _Crop(self.samples, self.gain_db)
        return shard_batches(self._dataset("train", seed, crop), batch_size, shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields the same crops every time, as they were recorded, from all over the validation split."""
        data = self._dataset("validation", 0, _Crop(self.samples, None)).batch(batch_size)
        for i in range(self.eval_batch_count):
            yield data[i]


class _Crop(grain.transforms.RandomMap):
    """Cuts a segment from a record; with a range of gains, varies channel, level and sign."""

    def __init__(self, samples: int, gain_db: tuple[float, float] | None):
        self._samples, self._gain_db = samples, gain_db

    def random_map(self, message: bytes, rng: np.random.Generator) -> Example:
        audio = audio_records.AudioRecord.from_bytes(message).audio
        mono = self._mix(self._cut(audio, rng), rng)
        if self._gain_db is not None:
            gain = 10 ** (rng.uniform(*self._gain_db) / 20)
            peak = float(np.abs(mono).max(initial=0.0))
            mono = mono * np.float32(rng.choice([-1, 1]) * min(gain, 1 / max(peak, 1e-9)))
        return {"audio": np.pad(mono, (0, self._samples - len(mono)))}

    def _cut(self, audio: Int16[np.ndarray, "S C"], rng: np.random.Generator
             ) -> Int16[np.ndarray, "n C"]:
        """Returns a crop of n <= samples that is not silent, if a few tries find one."""
        spare = max(0, len(audio) - self._samples)
        for _ in range(TRIES if spare else 1):
            first = int(rng.integers(spare + 1))
            crop = audio[first:first + self._samples]
            if max(int(crop.max()), -int(crop.min())) > SILENCE:
                break
        return crop

    def _mix(self, crop: Int16[np.ndarray, "n C"], rng: np.random.Generator
             ) -> Float[np.ndarray, "n"]:
        audio = crop.astype(np.float32) / np.float32(audio_records.FULL_SCALE)
        if audio.shape[1] == 1:
            return audio[:, 0]
        left, right = audio[:, 0], audio[:, 1]
        if self._gain_db is None:
            return 0.5 * (left + right)
        mixes = (left, right, 0.5 * (left + right), 0.5 * (left - right))
        return mixes[rng.integers(4)]
