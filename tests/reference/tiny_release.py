"""A released model that anyone can make in a second: tiny, untrained, but not silent."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import jax
import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict
from reference import compiled

from music_diffusion.conditions.performances import (
    FILE,
    Performance,
    Performances,
    write_performances,
)
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig

MODEL = FrameDiffusionModel(
    config=ScoreDenoiserConfig(
        timbre=NoteTimbreConfig(width=8, layers=1),
        unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4)),
    num_steps=2)
# The same model as a person would write it.
GIN = """
released.model = @FrameDiffusionModel()
FrameDiffusionModel.config = @ScoreDenoiserConfig()
FrameDiffusionModel.num_steps = 2
ScoreDenoiserConfig.timbre = @NoteTimbreConfig()
ScoreDenoiserConfig.unet = @UNet1DConfig()
NoteTimbreConfig.width = 8
NoteTimbreConfig.layers = 1
UNet1DConfig.widths = (8, 8)
UNet1DConfig.blocks = 1
UNet1DConfig.time_features = 4
UNet1DConfig.heads = 1
UNet1DConfig.head_dim = 4
"""


PERFORMANCES = PerformanceConfig(count=3, features=4)
NAMES = ("studio", "hall", "church")


def with_performances() -> FrameDiffusionModel:
    """The same model with three performances, each with its own notes."""
    timbre = dataclasses.replace(MODEL.config.timbre, performances=PERFORMANCES)
    return dataclasses.replace(MODEL, config=dataclasses.replace(
        MODEL.config, timbre=timbre, performances=PERFORMANCES))


def tiny_params(model: FrameDiffusionModel = MODEL, seed: int = 0) -> dict:
    """Random where a fresh network is zero, so that noise and notes both show; fits float16."""
    return jax.tree.map(np.copy, _tiny_params(model, seed))


@functools.cache
def _tiny_params(model: FrameDiffusionModel, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    flat = flatten_dict(unfreeze(jax.jit(lambda: compiled.init(model, key=seed)["params"])()))
    zero = ("unet", "map_film", "performed", "film_0")
    return unflatten_dict({
        k: np.asarray(v + 0.1 * rng.normal(size=v.shape) * any(name in zero for name in k[:2]), np.float16)
        .astype(np.float32) for k, v in flat.items()})


def write_release(folder: pathlib.Path, params: dict, config: str = GIN) -> pathlib.Path:
    """The folder of a released model; of another one with its `config.gin`."""
    folder.mkdir(parents=True)
    save_safetensors(folder / WEIGHTS, params)
    (folder / CONFIG).write_text(config)
    (folder / "README.md").write_text("# A tiny model\n")
    return folder


def write_release_with_performances(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a released model with three performances."""
    params = tiny_params(with_performances())
    write_release(folder, params)
    (folder / CONFIG).write_text(GIN + f"""
ScoreDenoiserConfig.performances = @PerformanceConfig()
NoteTimbreConfig.performances = @PerformanceConfig()
PerformanceConfig.count = {PERFORMANCES.count}
PerformanceConfig.features = {PERFORMANCES.features}
""")
    listed = Performances(performances=tuple(Performance(name=name) for name in NAMES), default=NAMES[0])
    write_performances(folder / FILE, listed.with_table(params))
    return folder
