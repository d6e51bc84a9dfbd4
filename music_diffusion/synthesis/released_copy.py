"""Copies of released models: other storage of the weights, other settings of rendering."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence

from music_diffusion.conditions.performances import FILE, read_performances
from music_diffusion.errors import UserError
from music_diffusion.files import write_bytes, write_text
from music_diffusion.models.base import Model
from music_diffusion.models.between import weights_between
from music_diffusion.models.weights import (
    CONFIG,
    WEIGHTS,
    check_dtype,
    read_facts,
    save_safetensors,
    weight_files,
)
from music_diffusion.synthesis.hub import available, find, load_trained
from music_diffusion.synthesis.release import model_folder, rebound_config
from music_diffusion.tables import read_text
from music_diffusion.training.runs import is_run
from music_diffusion.types import Params

CARD = "README.md"
NOTE = re.compile(r"^> These weights are a copy:.*\n(?:>.*\n)*\n?", re.MULTILINE)  # of a card
WORDS = {"int8": "large matrices in 8 bits with a float32 scale per row, the rest in float16"}


def is_released(name_or_path: str | os.PathLike) -> bool:
    """Returns whether it is a released model, in the package or a folder, and no training run."""
    path = pathlib.Path(name_or_path)
    if path.exists():
        return (path / WEIGHTS).is_file() and not is_run(path)
    return str(name_or_path) in available()


def release_copy(name_or_path: str | os.PathLike, out_dir: str | os.PathLike, *, dtype: str = "float16",
                 bindings: Sequence[str] = (), start: str | None = None, start_share: float = 0.5) -> None:
    """Writes a released model again, into another folder: the same one, with its weights as `dtype`.

    Args:
      name_or_path: a name of `available`, or a folder.
      out_dir: folder of the copy.
      dtype: see `models.weights.save_safetensors`.
      bindings: what rendering does otherwise, such as 'FrameDiffusionModel.num_steps = 8'.
      start, start_share: see `models.between.weights_between`; None: the weights as they are.

    Raises UserError, before anything is written: no such model or broken weights, an unknown dtype, a
    binding that does not fit, or the model's own folder as the copy's.
    """
    check_dtype(dtype)
    folder, out = find(name_or_path), pathlib.Path(out_dir)
    if out.is_dir() and out.samefile(folder):
        raise UserError(f"{out}: is the model itself; give another folder")
    opened: tuple[pathlib.Path, Model, Params] = load_trained(folder, Model, "model")
    _, model, params = opened
    if start is not None:
        params = weights_between(model, params, start, start_share)
    config = read_text(folder / CONFIG)
    if bindings:
        config = rebound_config(config, bindings)
    if model.performances is not None:
        read_performances(folder / FILE).check(params, folder / FILE)
    with model_folder(out, named=model.performances is not None):
        save_safetensors(out / WEIGHTS, params, dtype=dtype, facts=read_facts(folder / WEIGHTS))
        write_text(out / CONFIG, config)
        if model.performances is not None:
            write_bytes(out / FILE, (folder / FILE).read_bytes())
        if (folder / CARD).is_file():
            write_text(out / CARD, _card(read_text(folder / CARD), dtype, out / WEIGHTS))


def without_storage(card: str) -> str:
    """Returns a model card without what it says of the storage of a copy."""
    return NOTE.sub("", card)


def _card(card: str, dtype: str, weights: pathlib.Path) -> str:
    size = sum(path.stat().st_size for path in weight_files(weights))
    title, _, rest = without_storage(card).partition("\n")
    # First, because what follows gives the size of the original.
    return (f"{title}\n\n> These weights are a copy: {WORDS.get(dtype, dtype)}, {size / 1e6:.1f} MB.\n"
            f"> Figures and sizes below are those of the original.\n\n{rest.lstrip()}")
