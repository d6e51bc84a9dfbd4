"""A tiny generator of sound from noise, random where a fresh network has zeros."""

import jax
import numpy as np

from music_diffusion.models.unconditional import UnconditionalModel
from music_diffusion.networks.unconditional import UnconditionalConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.synthesis.synthesizer import Synthesizer


def tiny_generator() -> Synthesizer:
    """Segments of 64 frames, of which 32 are those of the segment before."""
    unet = UNet1DConfig(widths=(12, 12), blocks=1, time_features=4, heads=1, head_dim=4, output=128)
    model = UnconditionalModel(config=UnconditionalConfig(unet=unet, regions=True), frames=64, context=32,
                               num_steps=2)
    params = jax.tree.map(lambda v: v + 0.1 * np.random.default_rng(v.size).normal(size=v.shape),
                          model.init(jax.random.key(0), {})["params"])
    return Synthesizer(name="tiny", model=model, params=params)
