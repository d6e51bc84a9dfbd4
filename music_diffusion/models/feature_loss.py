"""Distance of spectrograms as an audio network hears them.

The network is VGGish's, of the package's tagger or with the published weights; it hears spectrograms
by `audio.mel_bridge`. It is given, not trained, but its input has a gradient: in the code of Prioteasa and
Stempel-Hauburger it had none, and their style loss never moved.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.mel_bridge import vggish_patches
from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.models.base import Variables
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.conv import Conv
from music_diffusion.networks.vggish import VGGish, VGGishConfig
from music_diffusion.types import Params

EARS = "ears"  # name of the part among a model's parameters
FROZEN = f"^{EARS}/"  # pattern of what training leaves alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureLoss:
    """The network that listens; sizes as those of its weights."""

    network: VGGishConfig = VGGishConfig()
    front: VGGishMel = VGGishMel()
    weights: str | None = None  # safetensors of a tagger, or of VGGish; None: random, for tests

    def __post_init__(self):
        if (self.network.frames, self.network.mels) != (self.front.patch_frames, self.front.mels):
            raise UserError("VGGishConfig.frames and mels must be those of VGGishMel")

    def init(self, rng: PRNGKeyArray) -> Variables:
        """Returns `params` and `params_axes`. Raises UserError for weights of another network."""
        patch = jnp.zeros((1, self.network.frames, self.network.mels))
        variables = dict(jax.jit(VGGish(self.network).init)(rng, patch))
        if self.weights is not None:
            stored = load_safetensors(self.weights)
            stored = stored.get("vggish", stored)
            shapes = [jax.tree.map(jnp.shape, dict(tree)) for tree in (stored, variables["params"])]
            if shapes[0] != shapes[1]:
                raise UserError(f"{self.weights}: not the weights of {self.network}")
            variables["params"] = stored
        return variables

    def features(self, params: Params, codec: MelCodec, scaled: Float[Array, "B T F"]
                 ) -> list[Float[Array, "B n H W C"]]:
        """Returns the maps of all convolutions, of spectrograms in the model's range."""
        patches = vggish_patches(codec, self.front, codec.unscale(scaled))
        size, count = patches.shape[:2]
        _, state = VGGish(self.network).apply(
            {"params": jax.lax.stop_gradient(params)}, patches.reshape(-1, *patches.shape[2:]),
            capture_intermediates=lambda module, _: isinstance(module, Conv), mutable=["intermediates"])
        maps = [state["intermediates"][name]["__call__"][0] for name in sorted(state["intermediates"])
                if name.startswith("conv_")]
        return [jax.nn.relu(m).reshape(size, count, *m.shape[1:]) for m in maps]

    def perceptual(self, params: Params, codec: MelCodec, real: Float[Array, "B T F"],
                   made: Float[Array, "B T F"]) -> Float[Array, ""]:
        """Returns the mean over layers of the squared difference of maps, in units of the real ones'."""
        return _mean_over_layers(self.features(params, codec, real), self.features(params, codec, made))


def _mean_over_layers(real: list[Array], made: list[Array]) -> Float[Array, ""]:
    terms = []
    for r, m in zip(real, made, strict=True):
        r = jax.lax.stop_gradient(r)
        terms.append(jnp.mean(jnp.square(m - r)) / jnp.maximum(jnp.mean(jnp.square(r)), 1e-6))
    return sum(terms, jnp.zeros(())) / len(terms)
