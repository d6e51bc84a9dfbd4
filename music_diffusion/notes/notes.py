"""Notes as a plain struct of arrays."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Notes:
    """N notes in order of onset, sustain pedal already applied.

    All arrays have shape [N]. The constructor sorts by (start, program,
    pitch) and checks; it does not copy arrays that are already in order.
    """

    start: np.ndarray  # float64, seconds, >= 0
    end: np.ndarray  # float64, seconds, >= start
    pitch: np.ndarray  # int32, 0..127 (for drums: the General MIDI drum key)
    velocity: np.ndarray  # int32, 1..127
    program: np.ndarray  # int32, 0..127 (0 for drums)
    is_drum: np.ndarray  # bool

    def __post_init__(self):
        kinds = dict(start=np.float64, end=np.float64, pitch=np.int32,
                     velocity=np.int32, program=np.int32, is_drum=np.bool_)
        for name, dtype in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
            if getattr(self, name).shape != self.start.shape or self.start.ndim != 1:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not that of start")
        if len(self.start) and not (np.isfinite(self.start).all() and np.isfinite(self.end).all()):
            raise ValueError("note times must be finite")
        if len(self.start) and (self.start.min() < 0 or (self.end < self.start).any()):
            raise ValueError("notes must start at or after 0 and end after they start")
        for name, low, high in (("pitch", 0, 127), ("velocity", 1, 127), ("program", 0, 127)):
            values = getattr(self, name)
            if len(values) and (values.min() < low or values.max() > high):
                raise ValueError(f"{name} must be in {low}..{high}, got {values.min()}..{values.max()}")
        order = np.lexsort((self.pitch, self.program, self.is_drum, self.start))
        if not np.array_equal(order, np.arange(len(order))):
            for name in kinds:
                object.__setattr__(self, name, getattr(self, name)[order])

    @classmethod
    def empty(cls) -> Notes:
        return cls(*(np.zeros(0) for _ in range(6)))

    @classmethod
    def concatenate(cls, parts: list[Notes]) -> Notes:
        if not parts:
            return cls.empty()
        fields = [f.name for f in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in fields))

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index) -> Notes:
        """Selects notes by a mask, slice or index array."""
        fields = [f.name for f in dataclasses.fields(self)]
        return Notes(*(getattr(self, name)[index] for name in fields))

    @property
    def duration(self) -> float:
        """End of the last note in seconds; 0 without notes."""
        return float(self.end.max()) if len(self) else 0.0

    def between(self, start: float, end: float) -> Notes:
        """Notes that sound somewhere in [start, end), at their own times."""
        return self[(self.start < end) & (self.end > start)]

    def shift(self, seconds: float) -> Notes:
        """All notes moved in time; starts before 0 are clipped to 0."""
        return dataclasses.replace(
            self, start=np.maximum(self.start + seconds, 0), end=np.maximum(self.end + seconds, 0))
