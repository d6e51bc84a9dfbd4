"""A released inverter that anyone can make in a second: tiny, untrained, but not silent."""

from __future__ import annotations

import pathlib

from flax.core import unfreeze
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.models.spectrogram_inverter import SpectrogramInverterModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.istft_head import ISTFTHeadConfig

MODEL = SpectrogramInverterModel(
    codec=MelCodec(sample_rate=8000, hop=160, window=320, fft=512, fmax=4000.0, mels=32),
    generator=ISTFTHeadConfig(trunk=ConvNeXtConfig(dim=8, hidden=8, blocks=1, kernel=3), hop=160,
                              mels=32, upsample=1, fft=320, codec_window=320))
GIN = """
released.model = @SpectrogramInverterModel()
SpectrogramInverterModel.codec = @MelCodec()
SpectrogramInverterModel.generator = @ISTFTHeadConfig()
MelCodec.sample_rate = 8000
MelCodec.hop = 160
MelCodec.window = 320
MelCodec.fft = 512
MelCodec.fmax = 4000.0
MelCodec.mels = 32
ISTFTHeadConfig.trunk = @ConvNeXtConfig()
ISTFTHeadConfig.hop = 160
ISTFTHeadConfig.mels = 32
ISTFTHeadConfig.upsample = 1
ISTFTHeadConfig.fft = 320
ISTFTHeadConfig.codec_window = 320
ConvNeXtConfig.dim = 8
ConvNeXtConfig.hidden = 8
ConvNeXtConfig.blocks = 1
ConvNeXtConfig.kernel = 3
"""


def tiny_inverter_params() -> dict:
    return unfreeze(compiled.init(MODEL)["params"])


def write_inverter(folder: pathlib.Path, params: dict | None = None, gin: str = GIN) -> pathlib.Path:
    """The folder of a released inverter."""
    folder.mkdir(parents=True)
    params = tiny_inverter_params() if params is None else params
    save_safetensors(folder / WEIGHTS, params, dtype="float32")
    (folder / CONFIG).write_text(gin)
    return folder
