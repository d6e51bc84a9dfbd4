"""Configuration of a released model: what built it, and nothing of its training.

It is a gin file that binds `released.model` and every parameter of every part
of the model, so that later changes of defaults do not change the model.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.conditions.performances import (
    FILE,
    Performances,
    read_performances,
    write_performances,
)
from music_diffusion.errors import UserError
from music_diffusion.models.base import Model
from music_diffusion.paths import shown
from music_diffusion.types import Params

# Parameters that name the file by which performances are numbered.
NUMBERING = {("PerformanceNumbers", "file"), ("PerformedNoteSource", "performances")}


def released(*, model: Any) -> Any:
    """Returns the model: the configurable that a released configuration binds."""
    return model


def released_model(path: str | os.PathLike) -> Any:
    """Builds the model that a released configuration describes.

    Raises UserError if the file is not such a configuration.
    """
    try:
        return _model_of(pathlib.Path(path).read_text())
    except (*gin_setup.GIN_ERRORS, OSError) as e:
        raise UserError(f"{path}: not a released configuration of this version "
                        f"({_reason(e)})") from e


def _model_of(text: str) -> Any:
    with gin_setup.private_gin() as gin:
        gin_setup.register_configurables(models_only=True)
        gin.parse_config(gin_setup.without_retired(text))
        model = gin.get_configurable("released")()
        if not isinstance(model, Model):
            raise TypeError(f"released.model is {type(model).__name__}, no model")
        return model


def _reason(error: Exception) -> str:
    """Returns gin's message in one line."""
    return " ".join(str(error).split())[:160]


def released_config(training_config: str, bindings: Sequence[str] = ()) -> str:
    """Returns the configuration of a training run's model.

    Args:
      training_config: gin text.
      bindings: what rendering does otherwise, such as 'FrameDiffusionModel.num_steps = 8'.

    Raises UserError if the run binds no `train.model`, or for a binding that does not fit.
    """
    with gin_setup.private_gin() as gin:
        gin_setup.register_configurables()
        try:
            _parse_training(gin, training_config)
            model = gin.query_parameter("train.model")
            if not isinstance(model, gin.config.ConfigurableReference):
                raise ValueError(f"train.model is {type(model).__name__}")
        except gin_setup.GIN_ERRORS as e:
            raise UserError("the training configuration binds no train.model that this version "
                            f"knows ({_reason(e)})") from e
        gin.parse_config(f"released.model = {model}")
        gin.parse_config(_without_training(gin, model.selector))
        try:
            gin.parse_config(list(bindings))
            gin.get_configurable("released")()
        except gin_setup.GIN_ERRORS as e:
            source = ", ".join(bindings) or "the training configuration"
            raise UserError(f"{source}: {_reason(e)}") from e
        return gin.operative_config_str()


def _without_training(gin: Any, selector: str) -> list[str]:
    """Returns bindings that leave out what only training needs of a model, by its class."""
    # gin wraps what it makes configurable; the class is what it wraps.
    configurable = inspect.unwrap(gin.get_configurable(selector))
    values = inspect.getattr_static(configurable, "training_only", {})
    return [f"{selector}.{name} = {value!r}" for name, value in values.items()]


def rebound_config(text: str, bindings: Sequence[str]) -> str:
    """Returns a released configuration with other values. Raises UserError for one that does not fit."""
    with gin_setup.private_gin() as gin:
        gin_setup.register_configurables(models_only=True)
        try:
            gin.parse_config(gin_setup.without_retired(text))
            gin.parse_config(list(bindings))
            gin.get_configurable("released")()
        except gin_setup.GIN_ERRORS as e:
            raise UserError(f"{', '.join(bindings)}: {_reason(e)}") from e
        return gin.operative_config_str()


def _parse_training(gin: Any, config: str) -> None:
    """Reads a training run's configuration; of a run of t5x only the recipe's part."""
    lines = gin_setup.without_retired(config).splitlines()
    ours = [line for line in lines if not line.startswith("import ")]
    gin.parse_config("\n".join(ours), skip_unknown=len(ours) < len(lines))


def trained_model(model_dir: str | os.PathLike, *, step: int | None = None,
                  bindings: Sequence[str] = ()) -> tuple[Any, Params, int, str]:
    """Returns (model, its parameters, step, released configuration) of a run of either trainer.

    Args:
      model_dir: of the run.
      step: which checkpoint; None for the newest.
      bindings: see `released_config`.
    """
    return _trained(model_dir, step, bindings)[:4]


def _trained(model_dir: str | os.PathLike, step: int | None, bindings: Sequence[str]
             ) -> tuple[Any, Params, int, str, str]:
    """Returns what `trained_model` does, and the configuration of the training."""
    from music_diffusion.training.runs import read_run

    params, step, training_config = read_run(model_dir, step)
    text = released_config(training_config, bindings)
    model = _model_of(text)
    return model, model.released_params(params), step, text, training_config


def release(model_dir: str, out_dir: str, *, step: int | None = None,
            bindings: Sequence[str] = (), performances: str | os.PathLike | None = None,
            dtype: str = "float16", start: str | None = None, start_share: float = 0.5) -> None:
    """Writes a released model (weights and configuration) of a training run.

    Args:
      model_dir: of the run, of the built-in trainer or of t5x.
      out_dir: folder of the model.
      step: which checkpoint; None for the newest.
      bindings: see `released_config`.
      performances: the file that names the performances of a model that has some; None takes
        the one in the run's folder, or the one that the training data was numbered by.
      dtype: of the weights; see `models.weights.save_safetensors`.
      start, start_share: see `models.between.weights_between`; None: the run's weights as they are.

    Raises:
      UserError: no such run; an unknown dtype; no names for a model with performances, names for one
        without, or names of another model; as `weights_between` does.
    """
    from music_diffusion.models.between import weights_between
    from music_diffusion.models.weights import CONFIG, WEIGHTS, check_dtype, save_safetensors

    check_dtype(dtype)
    # Before anything is written.
    model, params, step, text, training_config = _trained(model_dir, step, bindings)
    if start is not None:
        params = weights_between(model, params, start, start_share)
    named = _named(model, params, model_dir, training_config, performances)
    with model_folder(out_dir, named=named is not None) as out:
        save_safetensors(out / WEIGHTS, params, dtype=dtype, facts={"step": step})
        (out / CONFIG).write_text(text)
        if named is not None:
            write_performances(out / FILE, named)


@contextlib.contextmanager
def model_folder(out_dir: str | os.PathLike, *, named: bool) -> Iterator[pathlib.Path]:
    """Yields the folder to write a released model into; what it held of another model is gone afterwards.

    It may be the folder of a training run, too. `named`: the model comes with names of performances.

    Raises UserError: it holds other things, which are left alone.
    """
    from music_diffusion.models.weights import CONFIG, WEIGHTS, weight_files
    from music_diffusion.training.runs import is_run

    out = pathlib.Path(out_dir)
    if out.exists() and not out.is_dir():
        raise UserError(f"{shown(out)}: is a file; give a folder for the model")
    before = {path for path in out.iterdir() if not path.name.startswith(".")} if out.exists() else set()
    if before and not is_run(out) and not (out / WEIGHTS in before and out / CONFIG in before):
        raise UserError(f"{shown(out)}: holds other files than a model's; give a new or empty folder")
    stale = {path for path in before if path.match("weights.*.safetensors")}
    out.mkdir(parents=True, exist_ok=True)
    yield out
    for path in stale - set(weight_files(out / WEIGHTS)):
        path.unlink()
    if not named:
        (out / FILE).unlink(missing_ok=True)


def _named(model: Model, params: Params, model_dir: str, training_config: str,
           path: str | os.PathLike | None) -> Performances | None:
    """Returns the names of the model's performances, as those of these parameters."""
    if model.performances is None:
        if path is not None:
            raise UserError(f"--performances {path}: the model of {model_dir} knows no performances; "
                            "leave it out")
        return None
    if path is None:
        beside = pathlib.Path(model_dir) / FILE
        path = beside if beside.is_file() else _numbered_by(training_config)
    if path is None:
        raise UserError(f"{model_dir}: its model knows performances; give their names by "
                        f"--performances {FILE} (`models performances` writes it)")
    performances = read_performances(path)
    performances.check(params, path)
    return performances.with_table(params)


def _numbered_by(training_config: str) -> str | None:
    """Finds the file of performances that the training data was numbered by, if it is still there."""
    with gin_setup.private_gin() as gin:
        gin_setup.register_configurables()
        _parse_training(gin, training_config)
        bound = gin_setup.bindings()
        for key, value in bound.items():
            if (gin_setup.short(key.selector), key.parameter) not in NUMBERING:
                continue
            while isinstance(value, gin.config.ConfigurableReference) and value.selector == gin_setup.MACRO:
                value = bound.get(gin_setup.Key("/".join(value.scopes), gin_setup.MACRO, "value"))
            if isinstance(value, str) and pathlib.Path(value).is_file():
                return value
    return None
