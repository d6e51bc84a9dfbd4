"""The toy regression as gin files name it; recipes import this module."""

import dataclasses
import time

from reference.toy_regression import ToyModel, ToySource

from music_diffusion import gin_setup

RECIPE = """
import reference.toy_recipe
include 'runs/train.gin'
TOTAL_STEPS = 24
BATCH_SIZE = 16
SLEEP = 0.0
train.model = @ToyRegression()
train.data = @ToyExamples()
train.optimizer = @adamw()
ToyExamples.sleep = %SLEEP
adamw.learning_rate = 1e-4
adamw.weight_decay = 0.0
"""


@gin_setup.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyRegression(ToyModel):
    """See `toy_regression`."""


@gin_setup.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyExamples(ToySource):
    """Examples that take time to be evaluated."""

    sleep: float = 0.0  # seconds

    def eval_batches(self, batch_size):
        time.sleep(self.sleep)
        yield from super().eval_batches(batch_size)
