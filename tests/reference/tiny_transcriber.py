"""A released transcriber that anyone can make in a second: tiny and untrained."""

from __future__ import annotations

import pathlib

from flax.core import unfreeze
from reference import compiled

from music_diffusion.audio.log_frequency import LogFrequencyConfig
from music_diffusion.models.transcriber import TranscriberModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.pitch_net import PitchNetConfig

MODEL = TranscriberModel(
    spectrum=LogFrequencyConfig(sample_rate=8000, hop=200, windows=(512,), bins_per_semitone=1,
                                highest_pitch=106),
    network=PitchNetConfig(bins_per_semitone=1, harmonics=(1.0, 2.0), channels=4, shared=2, told=1,
                           hidden=4, frames=3, cells=8, timbre=6,
                           trunk=ConvNeXtConfig(dim=8, hidden=8, blocks=1, kernel=3)))
GIN = """
released.model = @TranscriberModel()
TranscriberModel.spectrum = @LogFrequencyConfig()
TranscriberModel.network = @PitchNetConfig()
LogFrequencyConfig.sample_rate = 8000
LogFrequencyConfig.hop = 200
LogFrequencyConfig.windows = (512,)
LogFrequencyConfig.bins_per_semitone = 1
LogFrequencyConfig.highest_pitch = 106
PitchNetConfig.bins_per_semitone = 1
PitchNetConfig.harmonics = (1.0, 2.0)
PitchNetConfig.channels = 4
PitchNetConfig.shared = 2
PitchNetConfig.told = 1
PitchNetConfig.hidden = 4
PitchNetConfig.frames = 3
PitchNetConfig.cells = 8
PitchNetConfig.timbre = 6
PitchNetConfig.trunk = @ConvNeXtConfig()
ConvNeXtConfig.dim = 8
ConvNeXtConfig.hidden = 8
ConvNeXtConfig.blocks = 1
ConvNeXtConfig.kernel = 3
"""


def tiny_transcriber_params() -> dict:
    return unfreeze(compiled.init(MODEL)["params"])


def write_transcriber(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a released transcriber."""
    folder.mkdir(parents=True)
    save_safetensors(folder / WEIGHTS, tiny_transcriber_params(), dtype="float32")
    (folder / CONFIG).write_text(GIN)
    return folder
