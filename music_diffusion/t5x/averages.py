"""Restoring averaged parameters where t5x restores parameters.

t5x has transformations of what it restores (`state_transformation_fns`), but with
Orbax they change no names. So the state that is restored is given other names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5x import checkpoints
from t5x.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class Averaged:
    """A state of t5x whose parameters have the name of their average in a checkpoint."""

    state: TrainState  # without an optimizer's

    def state_dict(self) -> dict[str, Any]:
        """See `TrainState.state_dict`."""
        own = self.state.state_dict()
        return {"state": {**own["state"], "param_states": {"ema_params": own["target"]}}}

    def restore_state(self, state_dict: Mapping[str, Any]) -> Averaged:
        """See `TrainState.restore_state`."""
        own = dict(state_dict["state"])
        target = own.pop("param_states")["ema_params"]
        return Averaged(self.state.restore_state({"target": target, "state": own}))

    def as_logical_axes(self) -> Averaged:
        """See `TrainState.as_logical_axes`."""
        return Averaged(self.state.as_logical_axes())


class AverageReader(checkpoints.OrbaxCheckpointManagerInterface):
    """Restores the averaged parameters of a run as its parameters."""

    def __init__(self, directory: str, train_state: TrainState, *arguments: Any, **others: Any):
        super().__init__(directory, Averaged(train_state), *arguments, **others)

    def restore(self, *arguments: Any, **others: Any) -> TrainState:
        """See `OrbaxCheckpointManagerInterface.restore`."""
        return super().restore(*arguments, **others).state
