"""Made-up pieces, for tests and for the tiny recipe: nothing on disk is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import grain
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import Example, Excerpt, RecordConditions
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.data.records import Record
from music_diffusion.data.sharding import shard_batches
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

TRAIN_SEGMENTS = 4096
DECAY_NAT_PER_SECOND = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticSource:
    """Segments of random notes with decaying harmonics on the mel axis.

    Segment i is a function of i alone; the training split is i < 4096.
    """

    codec: MelCodec = MelCodec()
    frames: int = 64  # T
    notes: int = 8  # N, notes a segment
    conditions: RecordConditions = NoteFrames()  # of the notes, and of the spectrogram itself
    eval_batch_count: int = 2  # batches of unseen segments that `eval_batches` gives

    def segment(self, index: int) -> Example:
        """Returns `targets` [T, F] scaled mel and the conditions."""
        rng = np.random.default_rng(index)
        hop = self.codec.hop / self.codec.sample_rate
        start = rng.uniform(0, self.frames * hop, self.notes)
        notes = Notes(
            start=start, end=start + rng.uniform(0.1, 0.5, self.notes),
            pitch=rng.integers(36, 84, self.notes), velocity=np.full(self.notes, 100),
            program=np.zeros(self.notes), is_drum=np.zeros(self.notes, bool))
        mel = self._mel(notes, (np.arange(self.frames) + 1) * hop)
        excerpt = Excerpt(record=Record(mel=mel, notes=notes, source=mel), number=index, first=0,
                          frames=self.frames, codec=self.codec, records=self)
        return {"targets": self.codec.scale(mel)} | self.conditions.of_record(excerpt)

    folder: ClassVar[str] = "made-up pieces"
    classes: ClassVar[Mapping[str, Sequence[str]]] = {}

    def describe(self, record: int) -> str:
        """Returns words for a segment, to name it in messages."""
        return f"{self.folder}: segment {record}"

    def another(self, kind: str, label: int, record: int, frames: int, rng: object) -> np.ndarray:
        """Raises UserError: made-up pieces have no styles."""
        raise UserError(f"{self.folder} have no {kind}")

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Yields endless shuffled batches; resumable through get_state / set_state."""
        data = grain.MapDataset.range(TRAIN_SEGMENTS).seed(seed).shuffle().repeat()
        data = data.map(lambda i: self.segment(int(i)))
        return shard_batches(data, batch_size, shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields segments outside the training split, the same every time."""
        for first in range(self.eval_batch_count):
            indices = TRAIN_SEGMENTS + first * batch_size + np.arange(batch_size)
            examples = [self.segment(int(i)) for i in indices]
            yield {k: np.stack([e[k] for e in examples]) for k in examples[0]}

    def _mel(self, notes: Notes, time: np.ndarray) -> np.ndarray:
        """Returns [T, F] nat: each note's eight harmonics with amplitude k^-1, fading exponentially."""
        bins = np.arange(self.codec.fft // 2 + 1)
        power = np.zeros((len(time), len(bins)))
        for note_start, note_end, pitch in zip(notes.start, notes.end, notes.pitch, strict=True):
            hertz = 440.0 * 2 ** ((int(pitch) - 69) / 12) * np.arange(1, 9)
            at = hertz * self.codec.fft / self.codec.sample_rate
            lobe = np.exp(-0.5 * (bins[:, None] - at) ** 2) / np.arange(1, 9)
            sounding = (time >= note_start) & (time < note_end)
            level = sounding * np.exp(-DECAY_NAT_PER_SECOND * (time - note_start))
            power += level[:, None] * lobe.sum(1)
        mel = 10.0 * power @ self.codec.mel_matrix
        return np.log(np.maximum(mel, self.codec.clip_min)).astype(np.float32)
