"""Neural phase vocoder: a network sharpens the magnitudes, sinusoids carry the phases.

The codec's window of 40 ms and hop of 20 ms are too coarse to find phases by
consistency alone. The network estimates the log-magnitudes of a longer window
on a finer grid and how the phase advances from frame to frame, both trained by
regression: unlike the phase itself they are functions of what is heard. Each
spectral peak then continues its phase (`audio.phase`), at the mean of the
frequency that the network estimates and the one that its magnitudes show, whose
errors differ. The result is corrected towards the spectrogram that it came from
(`audio.mel_consistency`).

Features of a batch (see types.py for axes):

===== ====== ==================================================
audio B S    samples; the spectrogram is made of them
mel   B T F  nat, instead of audio to predict
===== ====== ==================================================
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from music_diffusion.audio.chunked import ChunkedStream, ChunkGrid
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.codec_jax import encode_jax, frame, overlap_add
from music_diffusion.audio.griffin_lim import interpolate_log, mel_to_linear
from music_diffusion.audio.inverter import invert_by_stream
from music_diffusion.audio.mel_consistency import match_mel, reach_frames
from music_diffusion.audio.phase import (
    TURN,
    bin_advance,
    centre_shift,
    continue_phases,
    local_mean,
    mean_over_frames,
    nearest_peaks,
    peak_offset,
    wrapped,
)
from music_diffusion.errors import UserError
from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.models.neural_inverter import generator_input
from music_diffusion.networks.layers import match_rank
from music_diffusion.networks.spectrum_net import SpectrumNet, SpectrumNetConfig
from music_diffusion.types import Batch, Mel, Params, StepProgress

POWER = 0.3  # of the compressed magnitudes in the loss: loudness, roughly
STEADY = 4  # frames on each side over which log-magnitudes are averaged to find peaks
TRACK = 3  # frames on each side over which advances are averaged
AROUND = 8  # bins on each side that a peak must exceed to count in full: two main lobes' halves
LOBE = 2  # bins on each side over which advances are averaged


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseVocoderModel(ModelBase):
    """The zoo member; implements `models.base.Model`."""

    codec: MelCodec = MelCodec()
    network: SpectrumNetConfig = SpectrumNetConfig()
    window: int = 1024  # samples, of the estimated spectra; even, >= the codec's window
    fft: int = 2048  # a multiple of the codec's fft; peaks are found on this grid
    # Passes of `audio.mel_consistency`. More come closer to the spectrogram as a whole, fewer keep
    # partials steadier and so notes clearer.
    corrections: int = 8
    floor: float = 8e-5  # amplitude (1 is full scale) below which differences do not count
    power_weight: float = 4.0  # of the difference of compressed magnitudes in the loss
    advance_weight: float = 1.5  # of the phases' advance in the loss

    def __post_init__(self) -> None:
        if self.network.bins != self.fft // 2 + 1:
            raise UserError(f"SpectrumNetConfig.bins={self.network.bins} must be {self.fft // 2 + 1}, "
                            f"for PhaseVocoderModel.fft={self.fft}")
        if self.fft % self.codec.fft or self.codec.hop % self.network.upsample:
            raise UserError(f"PhaseVocoderModel.fft={self.fft} must be a multiple of the codec's "
                            f"{self.codec.fft}, and its hop={self.codec.hop} one of "
                            f"SpectrumNetConfig.upsample={self.network.upsample}")
        if not self.codec.window <= self.window <= self.fft or self.window % 2:
            raise UserError(f"PhaseVocoderModel.window={self.window} must be even and in "
                            f"{self.codec.window}..{self.fft}")

    @property
    def hop(self) -> int:
        """Returns the samples between the frames of the estimated spectra."""
        return self.codec.hop // self.network.upsample

    @property
    def lead(self) -> int:
        """Returns the samples by which a window begins before the codec's window with the same centre."""
        return (self.window - self.codec.window) // 2

    @property
    def slope(self) -> float:
        """Returns the nat a bin by which a sinusoid's influence falls; within a main lobe it prevails."""
        return 0.7 * self.window / self.fft

    @property
    def spectrum_frames(self) -> int:
        """Returns the codec frames on each side that a spectrum depends on, phases apart."""
        return self.network.context_frames + 1 + -(-STEADY // self.network.upsample)

    @property
    def sample_frames(self) -> int:
        """Returns the codec frames of spectra on each side that a sample depends on."""
        return 1 - (-self.window // self.codec.hop) + self.corrections * reach_frames(self.codec)

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes
        mel = jnp.zeros((1, 1, self.codec.mels))
        estimate = jnp.zeros((1, 1, self.codec.fft // 2 + 1))
        return dict(jax.jit(SpectrumNet(self.network).init)(rng, mel, mel, estimate))

    def estimates(self, params: Params, mel: Float[Array, "B T F"]
                  ) -> tuple[Float[Array, "B upsample*T K"], Float[Array, "B upsample*T K"]]:
        """Returns (log-magnitudes, nat; deviations of the advance from the bins' own, radians).

        They are of windows whose centres are those of the codec's frames, and between them.
        """
        linear = jax.lax.stop_gradient(jax.vmap(lambda m: mel_to_linear(self.codec, m))(mel))
        correction, deviation = SpectrumNet(self.network).apply(
            {"params": params}, generator_input(self.codec, mel), mel, jnp.log(linear))
        fine = jax.vmap(lambda m: interpolate_log(m, self.network.upsample))(linear)
        log = self._finer_bins(jnp.log(fine) + np.log(self.window / self.codec.window)) + correction
        return log, deviation

    @staticmethod
    def _last_axis(values: np.ndarray) -> Float[Array, "1 1 K"]:
        return jnp.asarray(values)[None, None]

    def _finer_bins(self, log: Float[Array, "B T k"]) -> Float[Array, "B T K"]:
        """Interpolates linearly from the codec's FFT bins to those of `fft`."""
        factor = self.fft // self.codec.fft
        share = match_rank(jnp.arange(factor) / factor, log[..., None])
        between = log[..., :-1, None] * (1 - share) + log[..., 1:, None] * share
        return jnp.concatenate([between.reshape(*log.shape[:-1], -1), log[..., -1:]], -1)

    def spectra(self, log: Float[Array, "B n K"], deviation: Float[Array, "B n K"],
                before: Float[Array, "B K"], *, margin: int = 0
                ) -> tuple[Complex[Array, "B m K"], Float[Array, "B m K"]]:
        """Returns the spectra of m = n - 2 * margin windows, and the phases at their centres.

        Args:
          log: see `estimates`.
          deviation: see `estimates`.
          before: phases of the frame before, see `audio.phase.continue_phases`.
          margin: frames at each end that are only looked at; from `STEADY` on the
            others do not depend on how many.
        """
        steady = mean_over_frames(log, STEADY)
        owner = nearest_peaks(steady, slope=self.slope)
        seen = peak_offset(steady) * (TURN * self.hop / self.fft)
        estimated = local_mean(log, deviation, hop=self.hop, fft=self.fft, frames=TRACK, bins=LOBE)
        advance = 0.5 * (seen + estimated) + self._last_axis(bin_advance(hop=self.hop, fft=self.fft))
        inner = slice(margin, log.shape[1] - margin)
        log, owner, advance = log[:, inner], owner[:, inner], advance[:, inner]
        phases, _ = continue_phases(owner, advance, before)
        turned = phases + self._last_axis(centre_shift(window=self.window, fft=self.fft))
        return jnp.exp(jax.lax.complex(log, turned)), phases

    def samples(self, spectra: Complex[Array, "n K"], mel: Float[Array, "T F"]) -> Float[Array, " S"]:
        """Returns [T * hop] samples of n = upsample * T spectra; the edges lack their neighbours."""
        hann = jnp.broadcast_to(_hann(self.window), (len(spectra), self.window))
        parts = jnp.fft.irfft(spectra, self.fft)[:, :self.window] * hann
        weight = overlap_add(hann**2, hop=self.hop)
        samples = overlap_add(parts, hop=self.hop) / jnp.maximum(weight, 0.05 * weight.max())
        return match_mel(self.codec, samples[self.lead:], mel, passes=self.corrections,
                         upsample=self.network.upsample)

    def inverter(self, params: Params) -> PhaseVocoder:
        """Returns the inverter that these parameters make of it."""
        return PhaseVocoder(model=self, params=params)

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Sums L1 of log-magnitudes above the floor, relative L1 of compressed magnitudes, and L1 of the
        advance, at peaks above all: only there it is read."""
        del rng
        log, deviation, true, true_deviation = self._compared(params, batch)
        unit = self.window / 4  # magnitude of a sinusoid of amplitude 1 under a Hann window
        floor = self.floor * unit
        log_l1 = jnp.abs(jnp.log(jnp.exp(log) + floor) - jnp.log(true + floor)).mean()
        compressed = true**POWER
        power_l1 = jnp.abs(jnp.exp(POWER * log) - compressed).sum() / compressed.sum()
        weight = jnp.sqrt(true) * jnp.square(true / _highest_around(true))
        advance_l1 = (weight * jnp.abs(wrapped(deviation - true_deviation))).sum() / weight.sum()
        loss = log_l1 + self.power_weight * power_l1 + self.advance_weight * advance_l1
        return loss, {"log_l1": log_l1, "power_l1": power_l1, "advance_l1": advance_l1}

    eval_fn = loss_fn  # nothing in it is random

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B S"]:
        """Returns samples [B, T * hop] of the batch's `mel` (nat) or of its `audio`; `rng` draws phases."""
        del progress
        if "mel" in batch:
            mel = jnp.asarray(batch["mel"], jnp.float32)
        else:
            require_features(batch, ("audio",))
            mel = encode_jax(self.codec, jnp.asarray(batch["audio"]))
        before = jax.random.uniform(rng, (len(mel), self.network.bins), maxval=TURN)
        spectra, _ = self.spectra(*self.estimates(params, mel), before)
        return jax.vmap(self.samples)(spectra, mel)

    def _compared(self, params: Params, batch: Batch):
        """Returns estimated log-magnitudes and deviations, and true ones of both, where the network
        saw all that it can see."""
        require_features(batch, ("audio",))
        audio, codec, trim = jnp.asarray(batch["audio"]), self.codec, self.network.context_frames
        frames = (audio.shape[-1] - codec.window) // codec.hop + 1
        if frames <= 2 * trim or trim * codec.hop < self.window:
            raise UserError(f"segments of {audio.shape[-1]} samples have {max(frames, 0)} frames, of "
                            f"which {trim} are trimmed at each edge: use longer segments (SAMPLES)")
        mel = encode_jax(codec, audio)[:, :frames]
        inner = slice(trim * self.network.upsample, (frames - trim) * self.network.upsample)
        log, deviation = (x[:, inner] for x in self.estimates(params, mel))
        # One window more, before the first: the advance is from there.
        count = log.shape[1] + 1 - 1 + -(-self.window // self.hop)
        first = trim * codec.hop - self.lead - self.hop
        windows = frame(audio[:, first:first + count * self.hop], length=self.window, hop=self.hop)
        spectrum = jnp.fft.rfft(windows * self._last_axis(_hann(self.window)), self.fft)
        now, before = spectrum[:, 1:], spectrum[:, :-1]
        # |z| has no gradient at 0, and silence is exactly 0; 1e-6 is far below the floor.
        magnitude = jnp.sqrt(jnp.square(now.real) + jnp.square(now.imag) + 1e-12)
        turn = now * jnp.conj(before)
        own = self._last_axis(bin_advance(hop=self.hop, fft=self.fft))
        true_deviation = wrapped(jnp.arctan2(turn.imag, turn.real) - own)
        return log, deviation, magnitude, true_deviation


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PhaseVocoder:
    """An `Inverter` of a trained model.

    The result is that of the whole piece at once, to rounding: chunks see as many
    frames on each side as their magnitudes depend on, and the phases are handed
    from chunk to chunk. Samples are not limited; silent frames give exact
    silence (`audio.silence`).
    """

    model: PhaseVocoderModel
    params: Params
    chunk_frames: int = 256  # frames that a chunk adds; more are faster, less react sooner
    seed: int = 0  # of the phases before the first frame

    def __post_init__(self):
        if self.chunk_frames < 1:
            raise ValueError(f"{self.chunk_frames=} should be >= 1")

    @property
    def codec(self) -> MelCodec:
        return self.model.codec

    def stream(self) -> ChunkedStream:
        context = self.model.spectrum_frames + self.model.sample_frames
        grid = ChunkGrid(step_frames=self.chunk_frames, context_frames=context)
        return ChunkedStream(self.codec, _Decoder(self), grid)

    def invert(self, mel: Mel) -> np.ndarray:
        """Returns samples [T * hop] float32 of [T, F] nat. Raises UserError for NaN or another shape."""
        return invert_by_stream(self, mel)

    @functools.cached_property
    def weights(self) -> Params:
        """Returns the parameters on the device."""
        return jax.tree.map(jnp.asarray, self.params)


class _Decoder:
    """Mel of a chunk and its context → samples; remembers the phases where the next one begins."""

    def __init__(self, inverter: PhaseVocoder):
        self._inverter = inverter
        bins = inverter.model.network.bins
        self._before = jax.random.uniform(jax.random.key(inverter.seed), (bins,), maxval=TURN)

    def __call__(self, mel: Mel) -> np.ndarray:
        i = self._inverter
        samples, self._before = _decode(i.model, i.chunk_frames, i.weights, mel, self._before)
        return np.asarray(samples)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _decode(model: PhaseVocoderModel, step: int, params: Params, mel: Float[Array, "T F"],
            before: Float[Array, " K"]) -> tuple[Float[Array, " S"], Float[Array, " K"]]:
    """Returns samples [T * hop], 0 at the edges, and the phases of the frame before the next chunk's."""
    edge, upsample = model.spectrum_frames, model.network.upsample
    # Accelerators' shorter formats would round differently in chunks of different shapes.
    with jax.default_matmul_precision("float32"):
        log, deviation = model.estimates(params, mel[None])
        spectra, phases = model.spectra(log, deviation, before[None], margin=edge * upsample)
        samples = model.samples(spectra[0], mel[edge:len(mel) - edge])
    pad = edge * model.codec.hop
    return jnp.pad(samples, (pad, pad)), phases[0, step * upsample - 1]


def _highest_around(magnitude: Float[Array, "B n K"]) -> Float[Array, "B n K"]:
    """Returns the maximum over the bins within `AROUND`."""
    return jax.lax.reduce_window(magnitude, 0.0, jax.lax.max, (1, 1, 2 * AROUND + 1), (1, 1, 1),
                                 "SAME")


def _hann(window: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
