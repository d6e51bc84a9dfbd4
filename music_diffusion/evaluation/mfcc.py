"""Cepstral statistics as an embedding: they show what instruments, rooms and microphones do to a spectrum.

Means and deviations of mel-frequency cepstral coefficients over short windows are the classical
description of timbre, known to recognise productions better than pieces (the "album effect"; Mandel
and Ellis 2005, "Song-level features and support vector machines for music classification"; Kim,
Williamson and Pilli 2006, "Towards quantifying the album effect in artist identification"). No network
is behind it, so that a figure can be made again by anyone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec, check_mono

COEFFICIENTS = 20  # from the first on: the 0th, which is the level, is left out
WINDOW = 48  # frames, 0.96 s


class MFCCEmbedder:
    """Mono audio → [n, 2 COEFFICIENTS]: means, then deviations over windows that do not overlap."""

    name = "mfcc"
    stand_in = False

    def __init__(self) -> None:
        self._codec = MelCodec()

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate in Hz."""
        return self._codec.sample_rate

    @property
    def dim(self) -> int:
        """Returns D of its embeddings."""
        return 2 * COEFFICIENTS

    @property
    def settings(self) -> str:
        """Returns one line about coefficients and windows."""
        c = self._codec
        return (f"means and deviations of {COEFFICIENTS} MFCCs (from the first) over "
                f"{WINDOW * c.hop / c.sample_rate:.2f} s, of {c.mels} mel bins at {c.sample_rate} Hz")

    def __call__(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        """Returns embeddings; see `embeddings.Embedder`."""
        from scipy.fft import dct

        check_mono(samples)
        mel = np.asarray(self._codec.encode(samples))
        count = max(1, len(mel) // WINDOW)
        floor = np.log(self._codec.clip_min)
        mel = np.pad(mel, [(0, max(0, count * WINDOW - len(mel))), (0, 0)], constant_values=floor)
        cepstra = dct(mel, norm="ortho", axis=1)[:count * WINDOW, 1:COEFFICIENTS + 1]
        windows = cepstra.reshape(count, WINDOW, COEFFICIENTS)
        return np.concatenate([windows.mean(1), windows.std(1)], axis=1).astype(np.float32)
