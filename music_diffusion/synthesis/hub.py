"""Released models: where they lie, and how one becomes a `Synthesizer`.

A released model is a folder with `weights.safetensors`, `config.gin` and a
model card `README.md`.
"""

from __future__ import annotations

import os
import pathlib

from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, load_safetensors
from music_diffusion.synthesis.context import ContextJoining
from music_diffusion.synthesis.joining import Joining
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.release import released_model
from music_diffusion.synthesis.synthesizer import Synthesizer

# How each kind of model makes long pieces.
JOININGS: dict[type, Joining] = {
    FrameDiffusionModel: OverlapJoining(), SpectrogramDiffusionModel: ContextJoining()}


def weights_root() -> pathlib.Path:
    """The folder of the models that come with the package."""
    return pathlib.Path(__file__).parent.parent / "weights"


def available() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in weights_root().glob(f"*/{WEIGHTS}"))


def find(name_or_path: str | os.PathLike) -> pathlib.Path:
    """The folder of a model. Raises UserError that lists the names there are."""
    for folder in (weights_root() / name_or_path, pathlib.Path(name_or_path)):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    raise UserError(f"{name_or_path}: no such model; give a folder with {WEIGHTS} and {CONFIG}, "
                    f"or one of: {', '.join(available())}")


def load(name_or_path: str | os.PathLike = "default") -> Synthesizer:
    """Opens a model.

    Args:
      name_or_path: a name of `available`, or a folder.

    Raises:
      UserError: no such model, broken weights, or a configuration of another version.
    """
    folder = find(name_or_path)
    model = released_model(folder / CONFIG)
    joining = JOININGS.get(type(model))
    if joining is None:
        raise UserError(f"{folder}: {type(model).__name__} cannot be rendered by this version")
    params = load_safetensors(folder / WEIGHTS)
    check_params(model, params, folder)
    return Synthesizer(name=folder.name, model=model, params=params, joining=joining)


def check_params(model, params, folder) -> None:
    """Raises UserError unless the weights are exactly those that the model has."""
    import jax
    from flax.traverse_util import flatten_dict

    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))["params"]
    expected = {k: v.shape for k, v in flatten_dict(abstract, sep="/").items()}
    found = {k: v.shape for k, v in flatten_dict(params, sep="/").items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        raise UserError(f"{folder}: weights do not fit the configuration ({len(wrong)} parameters "
                        f"differ, first {wrong[0]}: {found.get(wrong[0])}, not {expected.get(wrong[0])})")
