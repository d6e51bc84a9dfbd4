"""Phases in one pass: every sinusoid goes on where it was.

After Beauregard, Harish, Wyse 2015, "Single pass spectrogram inversion" (DSP
2015): a spectral peak is a sinusoid, its phase advances from frame to frame by
its frequency times the hop, and the bins around a peak have the peak's phase.
On magnitudes that are estimates this keeps partials steady over whole notes,
where iterations for consistency (Griffin and Lim 1984) make them flutter. Here
the frequencies are given, not read off the peaks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

NEVER = -1e9  # log-magnitude of what is no peak
FLAT = 1e-9  # curvature, nat, below which three bins have no peak between them
TURN = 2 * np.pi


def nearest_peaks(log_magnitude: Float[Array, "*B T K"], *, slope: float) -> Int[Array, "*B T K"]:
    """The local maximum over bins that each bin belongs to.

    It is the one whose cone, falling by `slope` nat a bin, is highest there.
    """
    lead = [(0, 0)] * (log_magnitude.ndim - 1)
    below = jnp.pad(log_magnitude[..., :-1], [*lead, (1, 0)], constant_values=NEVER)
    above = jnp.pad(log_magnitude[..., 1:], [*lead, (0, 1)], constant_values=NEVER)
    is_peak = (log_magnitude >= below) & (log_magnitude > above)
    index = jnp.broadcast_to(jnp.arange(log_magnitude.shape[-1]), log_magnitude.shape)

    def higher(a, b):
        take = b[0] >= a[0]
        return jnp.where(take, b[0], a[0]), jnp.where(take, b[1], a[1])

    def best(sign: int, reverse: bool):
        height = jnp.where(is_peak, log_magnitude + sign * slope * index, NEVER)
        top, owner = jax.lax.associative_scan(
            higher, (height, index), axis=log_magnitude.ndim - 1, reverse=reverse)
        return top - sign * slope * index, owner

    left, left_owner = best(1, reverse=False)
    right, right_owner = best(-1, reverse=True)
    return jnp.where(left >= right, left_owner, right_owner)


def bin_advance(*, hop: int, fft: int) -> np.ndarray:
    """Returns the advance of the bins' own frequencies in a hop: [fft / 2 + 1] radians in 0..2 pi."""
    return np.mod(TURN * hop / fft * np.arange(fft // 2 + 1), TURN).astype(np.float32)


def wrapped(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """The same angle in -pi..pi."""
    return angle - TURN * jnp.round(angle / TURN)


def local_mean(
    log_magnitude: Float[Array, "B T K"], deviation: Float[Array, "B T K"], *, hop: int, fft: int,
    frames: int, bins: int,
) -> Float[Array, "B T K"]:
    """Deviations from the bins' own advance, averaged over what is near in time and frequency.

    All bins of a main lobe tell the frequency of one sinusoid, and it seldom
    changes within a few frames; errors do. The weight is the root of the
    magnitude: at an attack the sound counts and not the silence before it.

    Args:
      log_magnitude: nat.
      deviation: radians a hop.
      hop: samples.
      fft: FFT length.
      frames: reach in time, on each side.
      bins: reach in frequency, on each side.
    """
    count = log_magnitude.shape[-1]
    around = [(0, 0), (0, 0), (bins, bins)]
    weight = jnp.pad(jnp.exp(0.5 * log_magnitude), around)
    deviation = jnp.pad(deviation, around)
    total, norm = jnp.zeros_like(log_magnitude), jnp.zeros_like(log_magnitude)
    for i in range(2 * bins + 1):
        part = weight[..., i:i + count]
        total = total + part * (deviation[..., i:i + count] + (i - bins) * (TURN * hop / fft))
        norm = norm + part
    return mean_over_frames(total, frames) / mean_over_frames(norm, frames)


def mean_over_frames(x: Float[Array, "B T K"], reach: int) -> Float[Array, "B T K"]:
    """Averages each frame with those within `reach`; the first and last are repeated beyond the ends."""
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    return jnp.stack([padded[:, i:i + x.shape[1]] for i in range(2 * reach + 1)]).mean(axis=0)


def peak_offset(log_magnitude: Float[Array, "*B T K"]) -> Float[Array, "*B T K"]:
    """Returns where the top of the parabola through a bin and its neighbours lies, in bins from it.

    Within half a bin; it means something at local maxima (Smith and Serra 1987, "PARSHL").
    """
    lead = [(0, 0)] * (log_magnitude.ndim - 1)
    below = jnp.pad(log_magnitude[..., :-1], [*lead, (1, 0)], mode="edge")
    above = jnp.pad(log_magnitude[..., 1:], [*lead, (0, 1)], mode="edge")
    curvature = below - 2 * log_magnitude + above
    curved = jnp.abs(curvature) > FLAT
    offset = 0.5 * (below - above) / jnp.where(curved, curvature, 1)
    return jnp.where(curved, jnp.clip(offset, -0.5, 0.5), 0)


def continue_phases(
    owner: Int[Array, "B T K"], advance: Float[Array, "B T K"], before: Float[Array, "B K"],
) -> tuple[Float[Array, "B T K"], Float[Array, "B K"]]:
    """Phases at the centres of the windows, radians, and those of the last frame.

    Args:
      owner: the peak that each bin belongs to.
      advance: from the frame before to this one, radians; read at the owners.
      before: phases of the frame before the first; what the same call on the
        frames before returned, so that parts of a spectrogram give the phases
        of the whole.
    """
    def step(phase, frame):
        its_owner, its_advance = frame
        phase = jnp.mod(jnp.take_along_axis(phase + its_advance, its_owner, -1), TURN)
        return phase, phase

    last, phases = jax.lax.scan(step, before, (owner.swapaxes(0, 1), advance.swapaxes(0, 1)))
    return phases.swapaxes(0, 1), last


def centre_shift(*, window: int, fft: int) -> np.ndarray:
    """Returns what to add to a phase at a window's centre for its first sample: [fft / 2 + 1] radians."""
    return np.mod(-np.pi * np.arange(fft // 2 + 1) * (window / fft), TURN).astype(np.float32)
