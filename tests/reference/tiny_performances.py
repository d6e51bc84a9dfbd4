"""The tiny model of `tiny_release`, with three performances that differ in sound."""

from __future__ import annotations

import dataclasses
import pathlib

from reference import tiny_release

from music_diffusion.conditions.performances import (
    FILE,
    Performance,
    Performances,
    write_performances,
)
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.performance import PerformanceConfig

TABLE = PerformanceConfig(count=3, features=4)
MODEL = dataclasses.replace(tiny_release.MODEL, config=dataclasses.replace(
    tiny_release.MODEL.config, performances=TABLE,
    timbre=dataclasses.replace(tiny_release.MODEL.config.timbre, performances=TABLE)))
GIN = tiny_release.GIN + """
ScoreDenoiserConfig.performances = @PerformanceConfig()
NoteTimbreConfig.performances = @PerformanceConfig()
PerformanceConfig.count = 3
PerformanceConfig.features = 4
"""
PERFORMANCES = Performances(default="studio", performances=(
    Performance(name="studio", source="a.sf2", instruments=("Violin", "Viola", "Cello", "Oboe", "Flute"),
                room="dry [close]", minutes=12.34),
    Performance(name="church", source="b.sf2", minutes=5.0), Performance(name="kim")))


def tiny_params(seed: int = 0) -> dict:
    """Random where a fresh network is zero, so that performances show; fits float16."""
    return tiny_release.tiny_params(MODEL, seed)


def write_release(folder: pathlib.Path, params: dict, listed: Performances | None = PERFORMANCES
                  ) -> pathlib.Path:
    """The folder of a released model; without names where `listed` is None."""
    folder.mkdir(parents=True)
    save_safetensors(folder / WEIGHTS, params)
    (folder / CONFIG).write_text(GIN)
    if listed is not None:
        write_performances(folder / FILE, listed.with_table(params))
    return folder
