"""Embeddings of audio, which a Fréchet distance compares, from networks that are handed in.

Every embedder cuts audio into the windows of its network. A window gives one
embedding; what is left after the last whole window is dropped, and audio shorter
than a window is padded with silence. Long audio goes through in blocks of windows,
so that memory does not grow with it; the cuts make no difference.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from music_diffusion.audio.codec import check_mono
from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import array_digest
from music_diffusion.networks.vggish import VGGish, VGGishConfig
from music_diffusion.types import Params

BLOCK_WINDOWS = 32  # windows embedded at once (about 100 MB of maps in the published VGGish)
PUBLISHED = VGGishConfig()
PUBLISHED_MEL = VGGishMel()


class Embedder(Protocol):
    """Mono audio → embeddings."""

    @property
    def name(self) -> str:
        """Returns 'tagger', 'vggish', 'vggish_hub' or 'trill'."""
        ...

    @property
    def settings(self) -> str:
        """Returns one line: layer, rate, normalisation, and which weights."""
        ...

    @property
    def stand_in(self) -> bool:
        """Returns whether it is the project's own network, whose figures are not those of the papers."""
        ...

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate that it wants, Hz."""
        ...

    @property
    def dim(self) -> int:
        """Returns D of its embeddings."""
        ...

    def __call__(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        """Returns embeddings, float32, n >= 1. Raises UserError: not one-dimensional, or not finite."""
        ...


@runtime_checkable
class Tagger(Protocol):
    """The abilities of the project's tagging model that `TaggerEmbedder` needs."""

    @property
    def front(self) -> VGGishMel:
        """Returns its front end, whose patches are its windows."""
        ...

    def embed(self, params: Params, audio: Float[Array, "B S"]) -> Float[Array, "B n D"]:
        """Returns the embeddings of every whole patch."""
        ...


def window_blocks(samples: Float[np.ndarray, " S"], *, window: int, hop: int, most: int
                  ) -> Iterator[tuple[Float[np.ndarray, " S"], int]]:
    """Yields the samples of the next n windows, and n <= most; together these are all whole windows.

    Args:
      samples: mono audio; shorter than a window, it is padded with zeros to one.
      window: samples of a window.
      hop: samples from window to window.
      most: windows of a block.

    Raises UserError: not one-dimensional, or not finite.
    """
    samples = check_mono(samples).astype(np.float32, copy=False)
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    count = 1 + (len(samples) - window) // hop
    for first in range(0, count, most):
        n = min(most, count - first)
        yield samples[first * hop:(first + n - 1) * hop + window], n


def compiled_size(n: int, most: int) -> int:
    """Returns the next power of two, at most `most`: few sizes are compiled, and little is wasted."""
    return min(most, 1 << (n - 1).bit_length())


def weights_digest(params: Params) -> str:
    """Returns eight hex digits by which weights differ."""
    return array_digest({name: np.asarray(value)
                         for name, value in flatten_dict(dict(params), sep="/").items()})[:8]


class VGGishEmbedder:
    """The output of VGGish (see `models.vggish_import` for the public weights).

    The published settings are the defaults: windows of 0.96 s that do not overlap, as in
    Hawthorne et al. 2022 (arXiv:2206.05408, section 5.1). The Fréchet audio distance's own
    windows (Kilgour et al. 2019, arXiv:1812.08466) begin every half second:
    `VGGishMel(patch_hop=50)`. Loudness is left as it is.

    Args:
      params: of `networks.vggish.VGGish(config)`.
      config: sizes of the network.
      mel: the front end.
      block: windows embedded at once.
    """

    name = "vggish"
    stand_in = False

    def __init__(self, params: Params, config: VGGishConfig = PUBLISHED,
                 mel: VGGishMel = PUBLISHED_MEL, *, block: int = BLOCK_WINDOWS):
        if (mel.patch_frames, mel.mels) != (config.frames, config.mels):
            raise ValueError(f"{mel=} does not make the patches of {config=}")
        self._params, self._config, self._mel, self._block = params, config, mel, block
        network = VGGish(config)

        @jax.jit
        def forward(params: Any, patches: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("float32"):  # the same figures on every device
                return network.apply({"params": params}, patches)

        self._forward = forward

    @property
    def sample_rate(self) -> int:
        return self._mel.sample_rate

    @property
    def dim(self) -> int:
        return self._config.embedding

    @functools.cached_property
    def settings(self) -> str:
        relu = "after" if self._config.final_activation else "before"
        return (f"VGGish's output layer {relu} ReLU ({self.dim}), {_rate(self._mel)}, "
                f"no loudness normalisation, weights {weights_digest(self._params)}")

    def __call__(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        mel, most, parts = self._mel, self._block, []
        for block, n in window_blocks(samples, window=mel.patch_samples, hop=mel.patch_hop_samples,
                                      most=most):
            patches = np.pad(mel.encode(block), ((0, compiled_size(n, most) - n), (0, 0), (0, 0)))
            parts.append(np.asarray(self._forward(self._params, patches), np.float32)[:n])
        return np.concatenate(parts)


class TaggerEmbedder:
    """The embedding of the project's own tagging network: a stand-in that comes with the package.

    Args:
      model: the tagger.
      params: its parameters.
      block: windows embedded at once.
    """

    name = "tagger"
    stand_in = True

    def __init__(self, model: Tagger, params: Params, *, block: int = BLOCK_WINDOWS):
        self._model, self._params, self._block = model, params, block

        @jax.jit
        def forward(params: Any, audio: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("float32"):
                return model.embed(params, audio)

        self._forward = forward

    @property
    def sample_rate(self) -> int:
        return self._model.front.sample_rate

    @functools.cached_property
    def dim(self) -> int:
        audio = jax.ShapeDtypeStruct((1, self._model.front.patch_samples), np.float32)
        return int(jax.eval_shape(self._model.embed, self._params, audio).shape[-1])

    @functools.cached_property
    def settings(self) -> str:
        return (f"embedding of the project's own tagging network ({self.dim}), "
                f"{_rate(self._model.front)}, weights {weights_digest(self._params)}")

    def __call__(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        front, most, parts = self._model.front, self._block, []
        hop = front.patch_hop_samples
        for block, n in window_blocks(samples, window=front.patch_samples, hop=hop, most=most):
            size = compiled_size(n, most)
            audio = np.pad(block, (0, (size - n) * hop))[None]
            got = np.asarray(self._forward(self._params, audio), np.float32)
            if got.shape[:2] != (1, size):
                raise UserError(f"the tagger gives {got.shape} for {size} patches; "
                                "its model and its front end do not belong together")
            parts.append(got[0, :n])
        return np.concatenate(parts)


def _rate(mel: VGGishMel) -> str:
    """Describes length and rate of windows in words."""
    return (f"{mel.patch_samples / mel.sample_rate:.3f} s every "
            f"{mel.patch_hop_samples / mel.sample_rate:.2f} s at {mel.sample_rate} Hz")
