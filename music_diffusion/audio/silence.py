"""Silence in gives silence out, whatever made the samples."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.types import Mel

# Of a frame's largest bin, in nat above the floor. Ten times clip_min is the spectrum of a sine
# at -124 dBFS (default codec), so nothing that can be heard is turned down.
SILENT, SOUNDING = 0.01, math.log(10)


def covering_frames(codec: MelCodec) -> int:
    """Number of frames whose windows hold a given sample: ceil(window / hop)."""
    return -(-codec.window // codec.hop)


def silence_gain(codec: MelCodec, mel: Mel) -> Float[np.ndarray, " S"]:
    """Gain 0..1 of every sample: exactly 0 in silence, exactly 1 in sound, without steps.

    A frame's gain rises with the logarithm of its largest magnitude, from 0 at
    the codec's floor to 1 where it is 20 dB above. A hop has the highest gain of
    the frames whose windows hold it, a boundary that of the two hops it parts,
    and within a hop the gain follows half a cosine from boundary to boundary. So
    only samples that no sounding frame has seen are turned down: it fades in the
    last silent hop before a sound and in the first one after.

    Args:
      mel: [T, F] nat.

    Returns:
      float32, of the samples of frames c ... T - 2 with c = `covering_frames`:
      a sample depends on that many frames before its own and on one after it.
    """
    floor = max(math.log(codec.clip_min), codec.log_min)
    frame = ((mel.max(axis=1) - floor - SILENT) / (SOUNDING - SILENT)).clip(0, 1)
    windows = np.lib.stride_tricks.sliding_window_view(frame, covering_frames(codec))
    hop = windows.max(axis=1)
    edge = np.maximum(hop[:-1], hop[1:])[:, None]
    share = (0.5 - 0.5 * np.cos(np.pi * np.arange(codec.hop) / codec.hop))[None]
    return (edge[:-1] + share * (edge[1:] - edge[:-1])).reshape(-1).astype(np.float32)
