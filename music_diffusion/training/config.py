"""Settings of a training run, and what it sees of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from music_diffusion.errors import UserError
from music_diffusion.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run: how long, how much at once, how often."""

    total_steps: int  # updates, counted from the very first run, >= 1
    batch_size: int  # examples an update, over all devices and processes, >= 1
    microbatches: int = 1  # parts of a batch that are computed one after the other, to save memory
    seed: int = 0  # of initial parameters, data order and every step's randomness
    clip_norm: float | None = 1.0  # global norm above which gradients are scaled down; None: never
    ema_decay: float = 0.999  # of the parameters' moving average, 0..1; 0: no average
    ema_warmup: bool = True  # decay from 0.1 upwards at first: min(ema_decay, (1+t)/(10+t))
    log_every: int = 50  # updates; metrics are means over them, and non-finite losses are noticed
    eval_every: int = 1000  # updates; 0: never
    checkpoint_every: int = 1000  # updates; also at the end of every run
    keep: int = 2  # newest checkpoints that stay on disk
    time_limit_minutes: float | None = None  # of this run; then checkpoint and stop; None: no limit
    # First and last update of a profiler trace, which goes to model_dir/profile; None: no trace.
    profile_steps: tuple[int, int] | None = None

    def __post_init__(self):
        for name in ("total_steps", "batch_size", "microbatches", "log_every", "checkpoint_every",
                     "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"TrainConfig.{name}={getattr(self, name)} must be at least 1")
        if self.batch_size % self.microbatches:
            raise UserError(f"TrainConfig.batch_size={self.batch_size} must be a multiple of "
                            f"microbatches={self.microbatches}")
        if self.eval_every < 0:
            raise UserError(f"TrainConfig.eval_every={self.eval_every} must be at least 0")
        for name in ("clip_norm", "time_limit_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"TrainConfig.{name}={value} must be positive or None")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"TrainConfig.ema_decay={self.ema_decay} must be in 0..1, below 1")
        if self.profile_steps is not None and not (
                len(self.profile_steps) == 2 and 1 <= self.profile_steps[0] <= self.profile_steps[1]):
            raise UserError(f"TrainConfig.profile_steps={self.profile_steps} must be (first, last), "
                            "counted from 1, or None")


class DataSource(Protocol):
    """A data set as the trainer sees it. Batches are dicts of NumPy arrays [B, ...]."""

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> Any:
        """Endless batches of `batch_size` examples; has get_state and set_state.

        The k-th batches of all shards, one after the other, are the k-th batch of
        `batch_size * shard_count` examples that a single shard would be. The state
        is the same in all shards: a run may go on with another number of them.
        """
        ...

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """The same batches on every call and in every process."""
        ...
