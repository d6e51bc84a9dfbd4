"""Protocols of the zoo's members: a model trains, evaluates and predicts.

The four functions are those that `t5x.models.BaseModel` asks for, so that one
object serves the built-in trainer and, through an adapter, T5X. What only some
models can do is declared here, too: `ModelBase` has the answers of those that cannot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import jax
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.inverter import Inverter
from music_diffusion.conditions.base import Conditions
from music_diffusion.diffusion.sampling import TimeGrid
from music_diffusion.diffusion.solvers import Solver
from music_diffusion.errors import UserError
from music_diffusion.models.spaces import Space
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.types import Batch, Params, StepProgress

Variables = Mapping[str, Any]  # {"params": …, "params_axes": …}
Metrics = dict[str, Float[Array, ""]]


@runtime_checkable
class Model(Protocol):
    """A network with its loss and its way of sampling. Pure: state is in the arguments."""

    # Fields that only training reads, with the values that a released model has.
    training_only: ClassVar[Mapping[str, Any]]

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns patterns of parameters that training leaves alone."""
        ...

    @property
    def feature_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns the shapes of the features of one example that `init` needs."""
        ...

    @property
    def performances(self) -> PerformanceConfig | None:
        """Returns the table of performances that the model knows; None if it knows none."""
        ...

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh variables: float32 `params` and the logical names of their axes, `params_axes`.

        Args:
          rng: key of the initialisation.
          shapes: shape of every feature of a batch, the batch axis first.
        """
        ...

    def loss_fn(
        self, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the training loss of a batch, with dropout; and scalars to log."""
        ...

    def eval_fn(
        self, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the same loss without any dropout; `rng` draws noise times and noise."""
        ...

    def predict_batch(
        self, params: Params, batch: Batch, rng: PRNGKeyArray, *, progress: StepProgress | None = None
    ) -> jax.Array:
        """Returns what the model makes of the batch's conditions, such as scaled mel [B, T, F]."""
        ...

    def adopt(self, params: Params, stored: Params) -> Params:
        """Returns stored parameters as this model takes them, perhaps those of a smaller one.

        Args:
          params: fresh ones of this model.
          stored: of an earlier run or a released model.
        """
        ...

    def require_start(self) -> None:
        """Raises UserError where fresh parameters lack what training does not give them."""
        ...

    def released_params(self, params: Params) -> Params:
        """Returns the parameters that a released model has."""
        ...

    def one_more_performance(self) -> Self:
        """Returns a model of one performance more, with a feature of its own; its parameters are larger.

        Raises UserError: it has none.
        """
        ...


class ModelBase:
    """The answers of a model that can do nothing beyond training, evaluating and predicting."""

    training_only: ClassVar[Mapping[str, Any]] = {}

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns none: all parameters are trained."""
        return ()

    @property
    def feature_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns none: parameters depend on the configuration alone."""
        return {}

    @property
    def performances(self) -> PerformanceConfig | None:
        """Returns None: the model knows one sound."""
        return None

    def adopt(self, params: Params, stored: Params) -> Params:
        """Returns stored parameters as they are."""
        return stored

    def require_start(self) -> None:
        """Passes: training gives everything."""

    def released_params(self, params: Params) -> Params:
        """Returns all parameters."""
        return params

    def one_more_performance(self) -> Self:
        """Raises UserError: the model has no performances."""
        raise UserError(f"a {type(self).__name__} without performances cannot be adapted; train one with "
                        "performances (gin/recipes/performance_*.gin), or use `train --data`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentLength:
    """Number of frames that a generator makes at once, in frames of its space."""

    frames: int = 256  # where nothing else is asked for
    multiple: int | None = None  # other lengths are multiples of this; None: there are no others
    same_noise: bool = False  # segments that are joined by SEPARATE all begin with the same noise
    # Frames of the segment before with which one that is joined by CONTEXT begins; 0: the one before is
    # heard whole, and goes before.
    context: int = 0

    @property
    def around(self) -> int:
        """Returns the frames that are heard on either side of what is made anew."""
        return self.context or self.frames // 2


# How a generator's segments become a piece: denoised together along overlaps, each with the one
# before as context, or each by itself.
OVERLAP, CONTEXT, SEPARATE = "overlap", "context", "separate"


@runtime_checkable
class Generator(Model, Protocol):
    """A model that samples what it makes of its conditions, from noise that it is given."""

    @property
    def conditions(self) -> Conditions:
        """Returns what it is conditioned on."""
        ...

    @property
    def space(self) -> Space:
        """Returns where its noise is."""
        ...

    @property
    def segment(self) -> SegmentLength:
        """Returns how much it makes at once."""
        ...

    @property
    def joinings(self) -> tuple[str, ...]:
        """Returns the ways in which its segments can be joined, the usual one first."""
        ...

    @property
    def hears(self) -> bool:
        """Returns whether a recording has to be heard before it is changed; see `synthesis.transfer`."""
        ...

    @property
    def restyles(self) -> bool:
        """Returns whether it takes a style's recording; see `synthesis.restyle`."""
        ...

    @property
    def likes(self) -> bool:
        """Returns whether it takes the embedding of a recording that it should sound like."""
        ...

    @property
    def sampling(self) -> Sampling:
        """Returns how it samples."""
        ...

    def sampled_by(self, sampling: Sampling) -> Self:
        """Returns the model that samples so. Raises UserError for what it cannot do."""
        ...

    def sample(self, params: Params, batch: Batch, z_T: Float[Array, "B W C"], rng: PRNGKeyArray, *,
               x0_hook: Callable[[Array], Array] | None = None,
               progress: StepProgress | None = None) -> Float[Array, "B W C"]:
        """Returns what the conditions and the noise become, in the model's space.

        Args:
          params: as from `init`.
          batch: the conditions of B windows (`conditions.base.Piece.windows`).
          z_T: unit noise.
          rng: draws the solver's noise.
          x0_hook: applied to every predicted x0; see `diffusion.sampling.sample`.
          progress: called on the host after each step.
        """
        ...


class GeneratorBase(ModelBase):
    """The answers of a generator whose segments overlap and whose sampling leaves nothing to choose."""

    @property
    def segment(self) -> SegmentLength:
        """Returns that any length will do, usually 256 frames."""
        return SegmentLength(multiple=1)

    @property
    def joinings(self) -> tuple[str, ...]:
        """Returns overlap alone."""
        return (OVERLAP,)

    @property
    def hears(self) -> bool:
        """Returns that nothing has to be heard."""
        return False

    @property
    def restyles(self) -> bool:
        """Returns that it takes no style."""
        return False

    @property
    def likes(self) -> bool:
        """Returns that it takes no embedding."""
        return False

    @property
    def sampling(self) -> Sampling:
        """Returns that there is nothing to choose."""
        return Sampling()

    def sampled_by(self, sampling: Sampling) -> Self:
        """Returns the model itself. Raises UserError where something is chosen."""
        for name, value in vars(sampling).items():
            if value is not None:
                raise UserError(f"--{name.replace('_', '-')} {value}: a {type(self).__name__} has nothing "
                                "of this kind to choose; leave it out")
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of a generator's sampling; None for what it does not have."""

    steps: int | None = None  # sampling steps, from 1
    solver: Solver | None = None
    grid: TimeGrid | None = None  # noise levels of the steps
    guidance: float | None = None  # weight of classifier-free guidance; 1 is none
    performance_guidance: float | None = None  # … of the performance
    content_guidance: float | None = None  # … of the content, beside a style
    temperature: float | None = None  # deviation of the starting noise, from 0; 1 as in training
    texture: float | None = None  # … of its fast part (`diffusion.sampling.tempered`)
    # In 0..1, above 0: the share of the sampler's way (`TimeGrid.begun`) that what is given goes; 1: only
    # noise is left.
    strength: float | None = None
    passes: int | None = None  # how often each step is done where a part is given; see `models.regions`


@runtime_checkable
class Invertible(Protocol):
    """A model that turns spectrograms into audio."""

    def inverter(self, params: Params) -> Inverter:
        """Returns the inverter that these parameters make of it."""
        ...


@runtime_checkable
class NoteMapped(Generator, Protocol):
    """A generator of notes whose conditions are maps that a network of its own draws."""

    @property
    def ring(self) -> float:
        """Returns the seconds that its maps hear a note after its end."""
        ...

    def note_timbre(self, params: Params) -> tuple[NoteTimbreConfig, Params]:
        """Returns the network that draws the maps, and its parameters."""
        ...

    def map_model(self) -> Model:
        """Returns the map as a model of the same parameters, which is trained to be what is recorded."""
        ...


@runtime_checkable
class Transcribing(Protocol):
    """A model that hears notes."""

    def transcriber(self, params: Params, name: str, presence: Any = None) -> Any:
        """Returns the `models.transcriber.Transcriber` that these parameters make of it.

        `presence` is a `models.tagger.Presence` that helps to name instruments.
        """
        ...


@runtime_checkable
class Tagging(Protocol):
    """A model that hears which instruments play, and describes what it hears."""

    def presence(self, params: Params) -> Any:
        """Returns the `models.tagger.Presence` that these parameters make of it."""
        ...

    def embed(self, params: Params, audio: Float[Array, "B S"]) -> Float[Array, "B n D"]:
        """Returns n embeddings of each clip."""
        ...


NOISE = ("temperature", "texture")  # fields of the starting noise, of which a model may have none


class DiffusionBase(GeneratorBase):
    """The sampling of generators that have these fields."""

    num_steps: int
    solver: Solver
    times: TimeGrid
    guidance_weight: float
    performance_guidance: float
    passes: int

    def _check_sampling(self) -> None:
        """Raises UserError for numbers of steps or passes that cannot be."""
        if self.num_steps < 1 or self.passes < 1:
            raise UserError(f"{self.num_steps=} and {self.passes=} must be at least 1")

    @property
    def sampling(self) -> Sampling:
        """Returns how it samples."""
        guidance = None if self.performances is None else self.performance_guidance
        return Sampling(steps=self.num_steps, solver=self.solver, grid=self.times,
                        guidance=self.guidance_weight, performance_guidance=guidance, passes=self.passes,
                        **{name: getattr(self, name, None) for name in NOISE})

    def sampled_by(self, sampling: Sampling) -> Self:
        """Returns the model that samples so; what is None stays. Raises UserError for a bad value."""
        noise = {name: getattr(sampling, name) for name in NOISE}
        super().sampled_by(Sampling(
            strength=sampling.strength, content_guidance=sampling.content_guidance,
            **{name: value for name, value in noise.items() if not hasattr(self, name)}))
        changes = noise | {"num_steps": sampling.steps, "solver": sampling.solver, "times": sampling.grid,
                   "guidance_weight": sampling.guidance,
                   "performance_guidance": sampling.performance_guidance, "passes": sampling.passes}
        return dataclasses.replace(self, **{  # type: ignore[type-var]
            k: v for k, v in changes.items() if v is not None})


def split_variables(variables: Variables) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (params, their logical axes as PartitionSpecs of names), two trees of one structure."""
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
