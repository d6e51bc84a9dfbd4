"""The encoder-decoder transformer of spectrogram diffusion (arXiv 2206.05408, section 3).

T5.1.1 without causal mask: an encoder of note tokens, an optional encoder of
the previous segment's spectrogram, and a decoder that denoises a spectrogram
under FiLM of the noise time. Paths and shapes of the parameters are those of
the published checkpoints.

With performances (Maman et al. 2024, arXiv 2309.12283, section 3.2) the FiLM of
the decoder takes noise time and performance, concatenated, and the encoders get
FiLM of the performance in the same places.

Sampling calls `performance_rows` and `encode` once a segment and `decode` at every step.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from music_diffusion.errors import UserError
from music_diffusion.networks import positions
from music_diffusion.networks.film import FiLMLayer, embed_time
from music_diffusion.networks.layers import (
    DTYPES,
    Dense,
    Embed,
    GatedMLP,
    MultiHeadAttention,
    RMSNorm,
    check_choice,
)
from music_diffusion.networks.performance import PerformanceConfig, PerformanceTable
from music_diffusion.networks.remat import POLICIES, rematerialized


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """Sizes of the transformer. The published ones are in gin/sizes/t5_{small,base}.gin."""

    embed_dim: int  # E, features between blocks; even, at least 4
    num_heads: int  # attention heads
    head_dim: int  # features of one head
    mlp_dim: int  # hidden features of the gated MLP
    encoder_layers: int  # of each encoder
    decoder_layers: int
    context: bool = True  # whether the previous segment's spectrogram is encoded too
    vocab_size: int = 1536  # rows of the note embedding: 1491 ids rounded up to 128
    max_tokens: int = 2048  # note tokens of a segment; id 0 is padding
    frames: int = 256  # mel frames of a segment
    context_frames: int = 256  # mel frames of the context
    mel_bins: int = 128
    max_time: float = 20_000.0  # factor on noise time in [0, 1], and largest timescale
    dropout_rate: float = 0.1  # in [0, 1); active in training only
    dtype: str = "float32"  # of the matrix products: float32 or bfloat16
    remat: str = "none"  # what a layer computes again for its gradient: none, dots or full
    performances: PerformanceConfig | None = None  # None: one sound, and the published layout
    encoder_film: bool = True  # whether the performance modulates the encoders, or the decoder alone

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not (isinstance(value, int) and value >= 1):
                raise UserError(f"T5Config.{field.name} = {value!r}: give a whole number from 1")
        if self.embed_dim < 4 or self.embed_dim % 2:
            raise UserError(f"T5Config.embed_dim = {self.embed_dim}: give an even number from 4")
        if not 0 <= self.dropout_rate < 1:
            raise UserError(f"T5Config.dropout_rate = {self.dropout_rate}: give one in [0, 1)")
        if not self.max_time > 1:
            raise UserError(f"T5Config.max_time = {self.max_time}: give a number above 1")
        check_choice(self, "dtype", DTYPES)
        check_choice(self, "remat", POLICIES)


@flax.struct.dataclass
class Encoded:
    """The conditions as cross-attention needs them; the same at every sampling step."""

    keys_values: tuple[tuple[jax.Array, jax.Array], ...]  # per decoder layer, each [B N H D]
    mask: Bool[Array, "B N"]  # N = note tokens, then context frames; False: not attended


def _norm(config: T5Config) -> RMSNorm:
    return RMSNorm(dtype=DTYPES[config.dtype])


def _attention(config: T5Config, name: str | None = None) -> MultiHeadAttention:
    c = config
    return MultiHeadAttention(
        c.embed_dim, c.num_heads, c.head_dim, c.dropout_rate, DTYPES[c.dtype], name=name
    )


def _mlp(config: T5Config) -> GatedMLP:
    return GatedMLP(config.mlp_dim, config.dropout_rate, DTYPES[config.dtype])


def _dropout(config: T5Config) -> nn.Dropout:
    return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))  # one mask for all positions


class EncoderLayer(nn.Module):
    """norm → FiLM → self-attention → add; norm → FiLM → MLP → add. FiLM with performances only."""

    config: T5Config

    def setup(self) -> None:
        self.pre_attention_layer_norm = _norm(self.config)
        self.attention = _attention(self.config)
        self.pre_mlp_layer_norm = _norm(self.config)
        self.mlp = _mlp(self.config)
        self.dropout = _dropout(self.config)
        if self.config.performances is not None and self.config.encoder_film:
            # Zero: a new layer begins as it is without performances.
            dtype, zeros = DTYPES[self.config.dtype], nn.initializers.zeros
            self.film_attention = FiLMLayer(dtype, zeros, name="FiLMLayer_0")
            self.film_mlp = FiLMLayer(dtype, zeros, name="FiLMLayer_1")

    def __call__(
        self,
        x: Float[Array, "B N E"],
        mask: Bool[Array, "B N"],
        performance: Float[Array, "B D"] | None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B N E"]:
        h = self.pre_attention_layer_norm(x)
        if performance is not None:
            h = self.film_attention(h, performance)
        h = self.attention(h, mask, deterministic=deterministic)
        x = x + self.dropout(h, deterministic=deterministic)
        h = self.pre_mlp_layer_norm(x)
        if performance is not None:
            h = self.film_mlp(h, performance)
        h = self.mlp(h, deterministic=deterministic)
        return x + self.dropout(h, deterministic=deterministic)


class _Encoder(nn.Module):
    """The stack that both encoders share, without their inputs."""

    config: T5Config

    def _setup_stack(self) -> None:
        c = self.config
        self.layers = [EncoderLayer(c) for _ in range(c.encoder_layers)]
        self.encoder_norm = _norm(c)
        self.dropout = _dropout(c)

    def _stack(
        self,
        x: Float[Array, "B N E"],
        mask: Bool[Array, "B N"],
        performance: Float[Array, "B D"] | None,
        deterministic: bool,
    ) -> Float[Array, "B N E"]:
        x = self.dropout(x, deterministic=deterministic)
        performance = performance if self.config.encoder_film else None
        for layer in self.layers:
            x = rematerialized(
                self.config.remat, layer, x, mask, performance, deterministic=deterministic
            )
        return self.dropout(self.encoder_norm(x), deterministic=deterministic)


class TokenEncoder(_Encoder):
    """Note tokens → encodings. Tokens of id 0 are padding and are not attended to."""

    def setup(self) -> None:
        c = self.config
        self.token_embedder = Embed(c.vocab_size, c.embed_dim, DTYPES[c.dtype])
        self.positions = positions.FixedPositions(
            c.max_tokens, c.embed_dim, DTYPES[c.dtype], name=positions.POSITION_TABLE
        )
        self._setup_stack()

    def __call__(
        self,
        tokens: Int[Array, "B N"],
        performance: Float[Array, "B D"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B N E"]:
        x = self.token_embedder(tokens, one_hot=not deterministic)
        x = x + self.positions(tokens.shape[1])
        return self._stack(x, tokens > 0, performance, deterministic)


class ContinuousEncoder(_Encoder):
    """Spectrogram of the previous segment → encodings, positions relative to its end."""

    def setup(self) -> None:
        c = self.config
        self.input_proj = Dense(c.embed_dim, axes=("mel", "embed"), dtype=DTYPES[c.dtype])
        self.positions = positions.FixedPositions(
            c.context_frames, c.embed_dim, DTYPES[c.dtype], name=positions.POSITION_TABLE
        )
        self._setup_stack()

    def __call__(
        self,
        mel: Float[Array, "B T F"],
        mask: Bool[Array, "B T"],
        performance: Float[Array, "B D"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T E"]:
        lengths = jnp.sum(mask.astype(jnp.int32), axis=-1)
        x = self.input_proj(mel) + self.positions(mel.shape[1], lengths)
        return self._stack(x, mask, performance, deterministic)


class DecoderLayer(nn.Module):
    """norm → FiLM → self-attention → add; norm → cross-attention → add; norm → FiLM → MLP → add."""

    config: T5Config

    def setup(self) -> None:
        c = self.config
        self.pre_self_attention_layer_norm = _norm(c)
        self.film_attention = FiLMLayer(DTYPES[c.dtype], name="FiLMLayer_0")
        self.self_attention = _attention(c)
        self.pre_cross_attention_layer_norm = _norm(c)
        self.cross_attention = _attention(c, name="MultiHeadDotProductAttention_0")
        self.pre_mlp_layer_norm = _norm(c)
        self.film_mlp = FiLMLayer(DTYPES[c.dtype], name="FiLMLayer_1")
        self.mlp = _mlp(c)
        self.dropout = _dropout(c)

    def keys_values(self, encodings: Float[Array, "B N E"]) -> tuple[jax.Array, jax.Array]:
        """Keys and values of this layer's cross-attention."""
        return self.cross_attention.keys_values(encodings)

    def __call__(
        self,
        x: Float[Array, "B T E"],
        conditioning: Float[Array, "B K"],
        keys_values: tuple[jax.Array, jax.Array] | None,
        mask: Bool[Array, "B N"] | None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B T E"]:
        h = self.film_attention(self.pre_self_attention_layer_norm(x), conditioning)
        h = self.self_attention(h, deterministic=deterministic)
        x = x + self.dropout(h, deterministic=deterministic)
        if keys_values is not None:  # without conditions this block would add exactly zero
            h = self.pre_cross_attention_layer_norm(x)
            h = self.cross_attention.attend(h, *keys_values, mask, deterministic=deterministic)
            x = x + self.dropout(h, deterministic=deterministic)
        h = self.film_mlp(self.pre_mlp_layer_norm(x), conditioning)
        h = self.mlp(h, deterministic=deterministic)
        return x + self.dropout(h, deterministic=deterministic)


class Decoder(nn.Module):
    """Noisy spectrogram, noise time and encodings → what the parameterization predicts."""

    config: T5Config

    def setup(self) -> None:
        c = self.config
        dtype = DTYPES[c.dtype]
        # One row an example, and the noise level decides how much of the output to believe: float32.
        self.time_emb_dense0 = Dense(4 * c.embed_dim, axes=("embed", "mlp"))
        self.time_emb_dense1 = Dense(4 * c.embed_dim, axes=("mlp", "embed"))
        self.continuous_inputs_projection = Dense(c.embed_dim, axes=("mel", "embed"), dtype=dtype)
        self.positions = positions.FixedPositions(
            c.frames, c.embed_dim, dtype, name=positions.POSITION_TABLE
        )
        self.layers = [DecoderLayer(c) for _ in range(c.decoder_layers)]
        self.decoder_norm = _norm(c)
        self.spec_out_dense = Dense(c.mel_bins, axes=("embed", "mel"))  # float32 out
        self.dropout = _dropout(c)

    def keys_values(
        self, encodings: Float[Array, "B N E"]
    ) -> tuple[tuple[jax.Array, jax.Array], ...]:
        """Cross-attention keys and values of every layer."""
        return tuple(layer.keys_values(encodings) for layer in self.layers)

    def __call__(
        self,
        z: Float[Array, "B T F"],
        time: Float[Array, " B"],
        encoded: Encoded | None,
        performance: Float[Array, "B D"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T F"]:
        c = self.config
        film = embed_time(
            time,
            self.time_emb_dense0,
            self.time_emb_dense1,
            features=c.embed_dim,
            max_time=c.max_time,
        )
        if performance is not None:
            film = jnp.concatenate([film, performance], axis=-1)
        x = self.continuous_inputs_projection(z) + self.positions(z.shape[1])
        x = self.dropout(x, deterministic=deterministic)
        for i, layer in enumerate(self.layers):
            kv, mask = (None, None) if encoded is None else (encoded.keys_values[i], encoded.mask)
            x = rematerialized(c.remat, layer, x, film, kv, mask, deterministic=deterministic)
        x = self.dropout(self.decoder_norm(x), deterministic=deterministic)
        return self.spec_out_dense(x)


class SpectrogramTransformer(nn.Module):
    """Encoders and decoder in one parameter tree."""

    config: T5Config

    def setup(self) -> None:
        self.token_encoder = TokenEncoder(self.config)
        if self.config.context:
            self.continuous_encoder = ContinuousEncoder(self.config)
        self.decoder = Decoder(self.config)
        if self.config.performances is not None:
            self.performances = PerformanceTable(self.config.performances)

    def performance_rows(self, weights: Float[Array, "B R"]) -> Float[Array, "B D"]:
        """Returns what `encode` and `decode` need of the performances; with `config.performances` only.

        Args:
          weights: of the performances; all 0, the dropped condition, give zeros.
        """
        self._check_performance(weights)
        return self.performances(weights)

    def _check_performance(self, given: jax.Array | None) -> None:
        if (given is None) != (self.config.performances is None):
            verb = "takes no" if self.config.performances is None else "needs a"
            raise UserError(f"T5Config.performances = {self.config.performances}: the network {verb} "
                            "performance")

    def encode(
        self,
        tokens: Int[Array, "B N"],
        context: Float[Array, "B T F"] | None = None,
        context_mask: Float[Array, "B T"] | None = None,
        *,
        performance: Float[Array, "B D"] | None = None,
        deterministic: bool = True,
    ) -> Encoded:
        """Encodes the conditions of a segment, down to each layer's keys and values.

        Args:
          tokens: note ids, 0 for padding. Padding at the end may be cut off: the
            prediction stays the same and costs less.
          context: scaled mel of the previous segment; with `config.context` only.
          context_mask: 1 for valid frames of it.
          performance: from `performance_rows`; with `config.performances` only.
          deterministic: False turns dropout on (needs the "dropout" rng).
        """
        self._check_performance(performance)
        encodings = self.token_encoder(tokens, performance, deterministic=deterministic)
        mask = tokens > 0
        given = [x is not None for x in (context, context_mask)]
        if given != [self.config.context] * 2:
            verb = "needs" if self.config.context else "takes no"
            raise UserError(
                f"T5Config.context = {self.config.context}: the network {verb} context and its mask"
            )
        if context is not None and context_mask is not None:
            valid = context_mask > 0
            extra = self.continuous_encoder(
                context, valid, performance, deterministic=deterministic
            )
            encodings = jnp.concatenate([encodings, extra], axis=1)
            mask = jnp.concatenate([mask, valid], axis=1)
        return Encoded(keys_values=self.decoder.keys_values(encodings), mask=mask)

    def decode(
        self,
        z: Float[Array, "B T F"],
        time: Float[Array, " B"],
        encoded: Encoded | None,
        *,
        performance: Float[Array, "B D"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T F"]:
        """One denoising step's prediction.

        Args:
          z: noisy scaled mel.
          time: noise time in [0, 1].
          encoded: from `encode`; None is the unconditional prediction, the same as
            with all ids and masks zero, at the price of no cross-attention.
          performance: from `performance_rows`; with `config.performances` only.
          deterministic: False turns dropout on (needs the "dropout" rng).
        """
        self._check_performance(performance)
        return self.decoder(z, time, encoded, performance, deterministic=deterministic)

    def __call__(
        self,
        z: Float[Array, "B T F"],
        time: Float[Array, " B"],
        tokens: Int[Array, "B N"],
        context: Float[Array, "B T F"] | None = None,
        context_mask: Float[Array, "B T"] | None = None,
        *,
        performance: Float[Array, "B R"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T F"]:
        """`performance_rows` of the performances' weights, `encode`, then `decode`."""
        rows = None if performance is None else self.performance_rows(performance)
        encoded = self.encode(
            tokens, context, context_mask, performance=rows, deterministic=deterministic
        )
        return self.decode(z, time, encoded, performance=rows, deterministic=deterministic)
