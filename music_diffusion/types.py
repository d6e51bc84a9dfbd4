"""The one glossary of axes and units.

Array names in this package carry their axes where that helps (``mel_BxTxF``).

==== ==============================================================
B    batch
T    spectrogram frames (one frame = ``MelCodec.hop`` samples)
F    mel bins
N    note events or note tokens
P    note slots of one frame (the notes that sound or ring in it)
C    channels of a frame-aligned condition
D    features of a network
S    audio samples
==== ==============================================================

Units: times in seconds, pitches in MIDI note numbers, velocities 1..127,
programs 0..127 (General MIDI, zero based), amplitudes in [-1, 1], mel values
as natural logarithms of magnitudes ("nat"), ``*_scaled`` mel values in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # it imports JAX, which readers of data do not need
    from jaxtyping import Array

Mel = Float[np.ndarray, "T F"]
Batch = Mapping[str, Any]
Params = Mapping[str, Any]
Progress = Callable[[float], None]  # takes the share of the work that is done, 0..1
StepProgress = Callable[[int, int], None]  # takes how many are done, and of how many


class Denoiser(Protocol):
    """A network as ``diffusion`` sees it: a function of noisy data and log-SNR."""

    def __call__(
        self, z: Float[Array, "B T F"], logsnr: Float[Array, " B"], cond: Any
    ) -> Float[Array, "B T F"]:
        """Returns the raw network output (ε, x0 or v, as the parameterization says)."""
        ...
