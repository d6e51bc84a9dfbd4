"""The sound of one note: a network from a note's state to its mel frame.

The map of a score on the mel axis that conditions the frame-wise denoiser is
the power sum of these frames over all notes that sound or ring. Structure is
given where physics knows it (a pitch's harmonics lie at multiples of its
frequency) and learned where it does not (envelope, noise, attack, decay).

With performances (`networks.performance`), FiLM in every block and offsets of
each program and key say how a note sounds in one of them; without one of them,
as it does in the network without.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.networks.film import FiLMLayer
from music_diffusion.networks.layers import DTYPES, Dense, Embed, RMSNorm, check_choice
from music_diffusion.networks.performance import PerformanceConfig, PerformanceTable

PROGRAMS = 129  # General MIDI and the drum kit
KEYS = 256  # melodic pitches, then drum keys
COMB_FLOOR = -7.0  # nat below the strongest bin; the noise part fills what lies lower


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteTimbreConfig:
    """Sizes of the note timbre network."""

    width: int = 320  # features
    layers: int = 3  # residual blocks
    codec: MelCodec = MelCodec()
    dtype: str = "float32"  # of the blocks' matrix products; what they add up to is float32
    performances: PerformanceConfig | None = None  # None: a note sounds one way

    def __post_init__(self):
        check_choice(self, "dtype", DTYPES)


@functools.cache  # every compilation asks for it
def harmonic_comb(codec: MelCodec) -> np.ndarray:
    """Log-mel frame of a tone with equal harmonics, for every key: [KEYS, F], 0 at the peak.

    A harmonic at f appears as the window's main lobe around f; its magnitude
    is projected by the codec's own mel matrix. Drum keys have a flat comb.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(codec.window) / codec.window)
    fine = 16
    lobe = np.abs(np.fft.rfft(window, codec.fft * fine))  # |W(f)| at 1/16 bin
    bins = np.arange(codec.fft // 2 + 1)
    comb = np.zeros((KEYS, codec.mels), np.float64)
    for pitch in range(128):
        f0 = 440.0 * 2 ** ((pitch - 69) / 12)
        harmonics = np.arange(1, int(codec.sample_rate / 2 / f0) + 1) * f0
        if not len(harmonics):
            continue
        at = harmonics * codec.fft / codec.sample_rate
        distance = np.abs(bins[:, None] - at[None])
        index = np.minimum(np.round(distance * fine).astype(int), len(lobe) - 1)
        magnitude = np.where(distance < 8, lobe[index], 0.0).sum(1)
        mel = magnitude @ codec.mel_matrix
        comb[pitch] = np.maximum(np.log(np.maximum(mel / mel.max(), 1e-9)), COMB_FLOOR)
    comb = comb.astype(np.float32)
    comb.setflags(write=False)
    return comb


def _bumps(x: jax.Array, low: float, high: float, count: int) -> jax.Array:
    """Gaussian bumps at `count` even centres over [low, high]: [...] → [..., count]."""
    width = (high - low) / (count - 1)
    x = jnp.clip(x, low, high)[..., None]
    centres = np.linspace(low, high, count, dtype=np.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.exp(-0.5 * ((x - centres) / width) ** 2)


def time_features(age: jax.Array, release: jax.Array) -> jax.Array:
    """Seconds since onset and since note-off as bumps, finest around zero."""
    return jnp.concatenate([
        _bumps(jnp.arcsinh(age / 0.02), -0.9, 6.9, 28),
        _bumps(jnp.arcsinh(release / 0.02), -1.2, 5.4, 24)], -1)


class PerformedRows(nn.Module):
    """Rows of tables that a performance makes: what its instruments and keys are like."""

    counts: tuple[int, ...]  # ids of each table
    features: int

    @nn.compact
    def __call__(self, performance: Float[Array, "B D"], ids: Sequence[Int[Array, "B N"]],
                 *, one_hot: bool) -> Float[Array, "B N W"]:
        """The sum of the rows of one id of each table; zeros for a performance of zeros."""
        total = sum(self.counts)
        dense = Dense(total * self.features, axes=("embed", "mlp"), kernel_init=nn.initializers.zeros,
                      name="DenseGeneral_0")
        table = dense(performance).reshape(-1, total, self.features)
        first = np.cumsum((0, *self.counts[:-1]))
        if one_hot:
            picked = sum(jax.nn.one_hot(i + int(f), total) for i, f in zip(ids, first, strict=True))
            return jnp.einsum("BNI,BIW->BNW", picked, table)
        return functools.reduce(jnp.add, [jnp.take_along_axis(table, (i + int(f))[..., None], 1)
                                          for i, f in zip(ids, first, strict=True)])


class NoteTimbre(nn.Module):
    """(program, pitch, velocity, age, release) [...] → log-mel [..., F] in nat."""

    config: NoteTimbreConfig

    @nn.compact
    def __call__(self, program, pitch, velocity, age, release,
                 performance: Float[Array, "B R"] | None = None, *, one_hot: bool = False):
        """Frames of notes.

        Args:
          program, pitch, velocity, age, release: [...], and [B, ...] with performances.
          performance: weights of the performances, with `config.performances` only; all 0 for none.
          one_hot: look rows up by matrix products, whose gradient is fast (see `Embed`).
        """
        c = self.config
        if (performance is None) != (c.performances is None):
            verb = "takes no" if c.performances is None else "needs a"
            raise UserError(f"NoteTimbreConfig.performances = {c.performances}: the network {verb} "
                            "performance")
        key = pitch + 128 * (program == PROGRAMS - 1)

        def rows(count: int, ids, name: str):
            table = Embed(count, c.width, name=name)
            flat = table(ids.reshape(1, -1), one_hot=one_hot)
            return flat.reshape(*ids.shape, c.width)

        state = jnp.concatenate([_bumps(velocity / 127.0, 0.0, 1.0, 8),
                                 time_features(age, release)], -1)
        x = Dense(c.width, axes=("features", "embed"), use_bias=True, name="input")(state)
        x = x + rows(PROGRAMS, program, "input_program") + rows(KEYS, key, "input_key")
        if c.performances is not None:
            row = PerformanceTable(c.performances, name="performances")(performance)
            ids = [i.reshape(len(row), -1) for i in (program, key)]
            offsets = PerformedRows((PROGRAMS, KEYS), c.width, name="performed")(
                row, ids, one_hot=one_hot)
            x = x + offsets.reshape(x.shape)
        gate = rows(PROGRAMS, program, "gate_program") + rows(KEYS, key, "gate_key")
        x = nn.gelu(x) * (1 + 0.25 * gate)
        dtype = DTYPES[c.dtype]
        for i in range(c.layers):
            h = RMSNorm(dtype=dtype, name=f"norm_{i}")(x)
            if c.performances is not None:
                film = FiLMLayer(dtype=dtype, kernel_init=nn.initializers.zeros, name=f"film_{i}")
                h = film(h.reshape(len(row), -1, c.width), row).reshape(h.shape)
            h = Dense(c.width, ("embed", "mlp"), use_bias=True, dtype=dtype, name=f"wi_{i}")(h)
            h = Dense(c.width, ("mlp", "embed"), use_bias=True, dtype=dtype, name=f"wo_{i}")(nn.gelu(h))
            x = x + h
        out = Dense(2 * c.codec.mels, axes=("embed", "mel"), use_bias=True, name="output")(x)
        harmonic, noise = jnp.split(4.0 * out - 6.0, 2, -1)  # starts in the codec's mid range
        comb = jnp.asarray(harmonic_comb(c.codec))
        return jnp.logaddexp(harmonic + jnp.take(comb, key, axis=0), noise)


def power_sum(mel_TxPxF, weight_TxP, clip_min: float = 1e-5) -> jax.Array:
    """Log-mel of notes that sound together, phases unknown: ½ ln Σ_p w_p exp(2 mel_p).

    [..., P, F], [..., P] → [..., F]; −∞ is avoided by the codec's floor `clip_min` being added.
    """
    power = jnp.einsum("...PF,...P->...F", jnp.exp(2 * mel_TxPxF), weight_TxP)
    return 0.5 * jnp.log(power + clip_min**2)
