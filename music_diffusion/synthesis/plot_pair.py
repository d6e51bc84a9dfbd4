"""A picture of two spectrograms, one over the other, with one time axis."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.files import atomic_write
from music_diffusion.synthesis.plot import draw_mel
from music_diffusion.types import Mel

COLUMNS = 2048  # of the picture at most; even


class FoldingSketch:
    """A spectrogram of unknown length in at most COLUMNS columns, in flat memory.

    When the columns are full, neighbours are put together.
    """

    def __init__(self, mels: int):
        self._sum, self._count = np.zeros((COLUMNS, mels)), np.zeros(COLUMNS)
        self.frames_per_column = 1
        self.frames = 0  # that were pushed

    def push(self, mel: Mel) -> None:
        """Takes the next frames [t, F] in nat."""
        while self.frames + len(mel) > len(self._count) * self.frames_per_column:
            self._fold()
        column = (self.frames + np.arange(len(mel))) // self.frames_per_column
        np.add.at(self._sum, column, mel)
        np.add.at(self._count, column, 1)
        self.frames += len(mel)

    def _fold(self) -> None:
        """Twice as many frames a column."""
        half = len(self._count) // 2
        for array in (self._sum, self._count):
            array[:half] = array[0::2] + array[1::2]
            array[half:] = 0
        self.frames_per_column *= 2

    @property
    def mel(self) -> Mel:
        """[columns, F] nat."""
        used = -(-self.frames // self.frames_per_column)
        return self._sum[:used] / self._count[:used, None]


def plot_pair(path: str | os.PathLike, sketches: Sequence[FoldingSketch], codec: MelCodec,
              titles: Sequence[str]) -> None:
    """Writes a PNG; it appears only when it is complete."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(12, 7), sharex=True, sharey=True, layout="constrained")
    for panel, sketch, title in zip(axes, sketches, titles, strict=True):
        # The last column may hold fewer frames; it is drawn as wide as the others.
        seconds = len(sketch.mel) * sketch.frames_per_column / codec.frame_rate
        draw_mel(panel, sketch.mel, codec, seconds)
        panel.set_title(title, loc="left")
        panel.set_xlim(0, sketch.frames / codec.frame_rate)
    axes[-1].set_xlabel("time (s)")
    try:
        with atomic_write(path) as part:
            figure.savefig(part, dpi=110, format="png")
    finally:
        plt.close(figure)
