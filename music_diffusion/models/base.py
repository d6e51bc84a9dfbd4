"""What every member of the zoo is: a model that trains, evaluates and predicts.

The four functions are those that `t5x.models.BaseModel` asks for, so that one
object serves the built-in trainer and, through an adapter, T5X.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.errors import UserError
from music_diffusion.types import Batch, Params

Variables = Mapping[str, Any]  # {"params": …, "params_axes": …}
Metrics = dict[str, Float[Array, ""]]
Progress = Callable[[int, int], None]  # (steps done, steps in all)


class Model(Protocol):
    """A network with its loss and its way of sampling. Pure: state is in the arguments."""

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Fresh variables: float32 `params` and the logical names of their axes, `params_axes`.

        Args:
          rng: key of the initialisation.
          shapes: shape of every feature of a batch, the batch axis first.
        """
        ...

    def loss_fn(
        self, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Training loss of a batch, with dropout; and scalars to log."""
        ...

    def eval_fn(
        self, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """The same loss without any dropout; `rng` draws noise times and noise."""
        ...

    def predict_batch(
        self, params: Params, batch: Batch, rng: PRNGKeyArray, *, progress: Progress | None = None
    ) -> jax.Array:
        """What the model makes of the batch's conditions, such as scaled mel [B, T, F]."""
        ...


def split_variables(variables: Variables) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, their logical axes as PartitionSpecs of names), two trees of one structure."""
    axes = get_axis_names(variables["params_axes"])
    return unfreeze(variables["params"]), unfreeze(axes)


def require_features(batch: Batch, names: tuple[str, ...]) -> None:
    """Raises UserError that names the features that the batch lacks."""
    missing = [name for name in names if name not in batch]
    if missing:
        raise UserError(
            f"the batch has no {', '.join(missing)}: "
            f"give the features {', '.join(names)}, got {', '.join(sorted(batch))}"
        )
