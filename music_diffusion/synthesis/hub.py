"""Released models: where they lie, and how one becomes a `Synthesizer`.

A released model is a folder with `weights.safetensors`, `config.gin` and a
model card `README.md`; for a model with performances also `performances.json`.
"""

from __future__ import annotations

import difflib
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.soundstream import HUB_URL, SoundStreamHub, SoundStreamONNX
from music_diffusion.conditions.performances import (
    FILE,
    Performance,
    Performances,
    read_performances,
)
from music_diffusion.errors import UserError
from music_diffusion.models.base import Generator, Invertible, Model, Tagging, Transcribing
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.models.weights import CONFIG, WEIGHTS, load_safetensors
from music_diffusion.synthesis.release import released_model, trained_model
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.training.runs import is_run
from music_diffusion.types import Params

Trained = TypeVar("Trained")

DEFAULT_INVERTER = "inverter"  # its name among those that come with the package
DEFAULT_TRANSCRIBER, DEFAULT_TAGGER = "transcriber", "tagger"


def weights_root() -> pathlib.Path:
    """Returns the folder of the models that come with the package."""
    return pathlib.Path(__file__).parent.parent / "weights"


def available() -> list[str]:
    """Returns the names of the models that come with the package."""
    return sorted(p.parent.name for p in weights_root().glob(f"*/{WEIGHTS}"))


def find(name_or_path: str | os.PathLike) -> pathlib.Path:
    """Finds the folder of a model. Raises UserError that lists the names there are."""
    for folder in (weights_root() / name_or_path, pathlib.Path(name_or_path)):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    raise UserError(f"{name_or_path}: no such model; give a folder with {WEIGHTS} and {CONFIG}, "
                    f"or one of: {', '.join(available())}")


def load(name_or_path: str | os.PathLike = "default", inverter: str | None = None) -> Synthesizer:
    """Opens a model.

    Args:
      name_or_path: a name of `available`, or a folder.
      inverter: see `load_inverter`; None takes the one that comes with the
        package, or Griffin-Lim for models of another codec.

    Raises:
      UserError: no such model or inverter, broken weights, a configuration of
        another version, or a model that generates nothing.
    """
    folder, model, read_params = _open(name_or_path)
    if isinstance(model, Invertible):
        raise UserError(f"{folder}: this is an inverter; use it with --inverter, or with reconstruct")
    if not isinstance(model, Generator):
        raise UserError(f"{folder}: {type(model).__name__} cannot be rendered by this version")
    params = read_params()
    codec = model.space.codec
    chosen = load_inverter(inverter, codec) if inverter is not None else default_inverter(codec)
    return Synthesizer(name=folder.name, model=model, params=params, inverter=chosen,
                       performances=_performances(folder, model, params))


def load_performances(name_or_path: str | os.PathLike) -> Performances | None:
    """Reads the performances that a model knows; None if it knows none. Raises UserError as `load` does."""
    folder, model, read_params = _open(name_or_path)
    return None if model.performances is None else _performances(folder, model, read_params())


def _performances(folder: pathlib.Path, model: Model, params: Params) -> Performances | None:
    """Reads the performances of the file in the folder; a training run without one has them by number."""
    table = model.performances
    if table is None:
        return None
    if (folder / FILE).is_file():
        performances = read_performances(folder / FILE)
    elif (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: has no {FILE}, the names of its {table.count} performances; take "
                        "the one that came with the weights")
    else:
        numbers = tuple(Performance(name=str(i)) for i in range(table.count))
        performances = Performances(performances=numbers, default="0")
    performances.check(params, folder / FILE)
    return performances


def default_inverter(codec: MelCodec) -> Inverter:
    """Opens the inverter that comes with the package; for spectrograms of another codec Griffin-Lim."""
    if DEFAULT_INVERTER in available():
        inverter = load_inverter(DEFAULT_INVERTER)
        if inverter.codec == codec:
            return inverter
    return GriffinLim(codec=codec)


def load_inverter(spec: str, codec: MelCodec | None = None) -> Inverter:
    """Opens an inverter.

    Args:
      spec: 'griffin_lim' (interpolated), 'griffin_lim_hop' (at the codec's hop);
        'soundstream' or 'soundstream:HANDLE' (a URL or SavedModel folder);
        'soundstream_onnx:FILE'; or the name or folder of a trained one.
      codec: of the spectrograms to invert; None takes the inverter's own.

    Raises:
      UserError: no such inverter, broken weights, or one for another codec.
    """
    inverter = _inverter(spec, codec)
    if codec is not None:
        inverter.codec.check_same(codec)
    return inverter


def _inverter(spec: str, codec: MelCodec | None) -> Inverter:
    kind, _, where = spec.partition(":")
    if spec == "griffin_lim":
        return GriffinLim(codec=codec or MelCodec())
    if spec == "griffin_lim_hop":
        return GriffinLim(codec=codec or MelCodec(), upsample=1)
    if kind == "soundstream":
        return SoundStreamHub(where or HUB_URL)
    if kind == "soundstream_onnx" and where:
        return SoundStreamONNX(where)
    names = ["griffin_lim", "griffin_lim_hop", "soundstream:HANDLE", "soundstream_onnx:FILE"]
    if spec not in available() and not (pathlib.Path(spec) / CONFIG).is_file():
        close = difflib.get_close_matches(spec, names + available(), 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"{spec}: no such inverter; {hint}There are {', '.join(names)} "
                        "and the folders of trained inverters")
    folder, model, read_params = _open(spec)
    if not isinstance(model, Invertible):
        raise UserError(f"{folder}: {type(model).__name__} is no inverter; "
                        f"give the folder of one, or {', '.join(names)}")
    return model.inverter(read_params())


def load_trained(name_or_path: str | os.PathLike, kind: type[Trained], what: str
                 ) -> tuple[pathlib.Path, Trained, Params]:
    """Opens a released model of one kind: its folder, the model and its parameters.

    Args:
      name_or_path: a name of `available`, or a folder.
      kind: what the model can do, a protocol of `models.base`; object: any model.
      what: such a model is called so in the message of the error.

    Raises:
      UserError: no such model, one of another kind, or broken weights.
    """
    folder, model, read_params = _open(name_or_path)
    if not isinstance(model, kind):
        raise UserError(f"{folder}: {type(model).__name__} is no {what}; give the folder of one")
    return folder, model, read_params()


def load_transcriber(name_or_path: str | os.PathLike = DEFAULT_TRANSCRIBER) -> Transcriber:
    """Opens a transcriber, by default the one that comes with the package; see `load_trained`.

    The tagger that comes with the package, if any, helps it to name instruments.
    """
    folder, model, params = load_trained(name_or_path, Transcribing, "transcriber")
    presence = None
    if DEFAULT_TAGGER in available():
        _, tagger, its_params = load_trained(DEFAULT_TAGGER, Tagging, "tagger")
        presence = tagger.presence(its_params)
    return model.transcriber(params, folder.name, presence)


def _open(name_or_path: str | os.PathLike
          ) -> tuple[pathlib.Path, Model, Callable[[], Params]]:
    """Returns (folder, model, reader of its parameters) of a released model or of a training run."""
    path = pathlib.Path(name_or_path)
    if str(name_or_path) not in available() and not (path / WEIGHTS).is_file() and is_run(path):
        return _open_run(path)
    folder = find(name_or_path)
    model = released_model(folder / CONFIG)
    return folder, model, lambda: _params(model, folder)


def _open_run(folder: pathlib.Path) -> tuple[pathlib.Path, Model, Callable[[], Params]]:
    try:
        model, params, _, _ = trained_model(folder)
    except ModuleNotFoundError as e:
        raise UserError(f"{folder}: a training run; to open it install {e.name}, by pip install "
                        "'music-diffusion[train]', or release it where it was trained") from e

    def checked() -> Params:
        check_params(model, params, folder)
        return params

    return folder, model, checked


def _params(model: Model, folder: pathlib.Path) -> Params:
    params = load_safetensors(folder / WEIGHTS)
    check_params(model, params, folder)
    return params


def check_params(model: Model, params: Params, folder: str | os.PathLike) -> None:
    """Raises UserError unless the weights are exactly those that the model is released with."""
    import jax
    from flax.traverse_util import flatten_dict

    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))["params"]
    abstract = model.released_params(abstract)
    expected = {k: v.shape for k, v in flatten_dict(abstract, sep="/").items()}
    found = {k: v.shape for k, v in flatten_dict(params, sep="/").items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        raise UserError(f"{folder}: weights do not fit the configuration ({len(wrong)} parameters "
                        f"differ, first {wrong[0]}: {found.get(wrong[0])}, not {expected.get(wrong[0])})")
