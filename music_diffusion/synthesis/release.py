"""The configuration of a released model: what built it, and nothing of its training.

It is a gin file that binds `released.model` and every parameter of every part
of the model, so that later changes of defaults do not change the model.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.errors import UserError


def released(*, model: Any) -> Any:
    """The configurable that a released configuration binds."""
    return model


@contextlib.contextmanager
def _private_gin() -> Iterator[Any]:
    """gin with an empty configuration; the caller's own is back afterwards."""
    import gin

    names = ("_CONFIG", "_CONFIG_PROVENANCE", "_OPERATIVE_CONFIG", "_IMPORTS", "_CONSTANTS")
    kept = {n: type(v)(v) if isinstance(v, (dict, set)) else v
            for n in names if (v := getattr(gin.config, n, None)) is not None}
    with gin.unlock_config():
        gin.clear_config()
        try:
            yield gin
        finally:
            gin.clear_config()
            for name, value in kept.items():
                store = getattr(gin.config, name)
                if isinstance(store, (dict, set)):
                    store.clear()
                    store.update(value)


def released_model(path: str | os.PathLike) -> Any:
    """Builds the model that a released configuration describes.

    Raises UserError if the file is not such a configuration.
    """
    text = pathlib.Path(path).read_text()
    with _private_gin() as gin:
        gin_setup.register_configurables(models_only=True)
        try:
            gin.parse_config(text)
            return gin.get_configurable("released")()
        except (ValueError, TypeError, SyntaxError) as e:
            raise UserError(f"{path}: not a released configuration of this version "
                            f"({' '.join(str(e).split())[:160]})") from e


def released_config(training_config: str, bindings: Sequence[str] = ()) -> str:
    """From a training run's configuration to that of its model.

    Args:
      training_config: gin text.
      bindings: what rendering does otherwise, such as 'FrameDiffusionModel.num_steps = 8'.

    Raises UserError if the run binds no `train.model`.
    """
    with _private_gin() as gin:
        gin_setup.register_configurables()
        gin.parse_config(training_config)
        try:
            model = gin.query_parameter("train.model")
        except ValueError as e:
            raise UserError("the training configuration binds no train.model") from e
        gin.parse_config(f"released.model = {model}")
        if model.selector.endswith("FrameDiffusionModel"):
            gin.parse_config("FrameDiffusionModel.timbre_weights = None")  # now among the weights
        gin.parse_config(list(bindings))
        gin.get_configurable("released")()
        return gin.operative_config_str()


def release(model_dir: str, out_dir: str, *, step: int | None = None,
            bindings: Sequence[str] = ()) -> None:
    """Writes a released model (fp16 weights and configuration) of a training run.

    Args:
      model_dir: of the run.
      out_dir: folder of the model.
      step: which checkpoint; None for the newest.
      bindings: see `released_config`.
    """
    from music_diffusion.models.weights import CONFIG
    from music_diffusion.training.export import export

    weights = export(model_dir, out_dir, step=step)
    config = weights.parent / CONFIG
    config.write_text(released_config(config.read_text(), bindings))
