"""A picture of a rendering: piano roll over spectrogram, with one time axis."""

from __future__ import annotations

import os

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.notes.notes import Notes

COLUMNS = 2000  # of the picture; longer spectrograms are averaged into these


class SpectrogramSketch:
    """A spectrogram in at most COLUMNS columns, gathered from a stream in flat memory."""

    def __init__(self, frames: int, mels: int):
        self.frames_per_column = max(1, -(-frames // COLUMNS))
        columns = -(-frames // self.frames_per_column)
        self._sum = np.zeros((columns, mels))
        self._count = np.zeros(columns)
        self._at = 0

    def push(self, mel: np.ndarray) -> None:
        """Takes the next frames [t, F] in nat."""
        column = (self._at + np.arange(len(mel))) // self.frames_per_column
        np.add.at(self._sum, column, mel)
        np.add.at(self._count, column, 1)
        self._at += len(mel)

    @property
    def mel(self) -> np.ndarray:
        """Returns the sketch, [columns, F] nat."""
        return self._sum / np.maximum(self._count, 1)[:, None]


def plot_rendering(path: str | os.PathLike, notes: Notes, sketch: SpectrogramSketch,
                   codec: MelCodec, title: str) -> None:
    """Writes a picture as PNG; it appears only when it is complete."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    seconds = sketch._at / codec.frame_rate
    figure, (roll, spectrum) = plt.subplots(
        2, 1, figsize=(12, 7), sharex=True, height_ratios=(2, 3), layout="constrained")
    draw_roll(roll, notes)
    roll.set_title(title, loc="left")
    draw_mel(spectrum, sketch.mel, codec, seconds)
    spectrum.set_xlabel("time (s)")
    spectrum.set_xlim(0, seconds)
    part = f"{path}.part"
    try:
        figure.savefig(part, dpi=110, format="png")
        os.replace(part, path)
    finally:
        plt.close(figure)
        if os.path.exists(part):
            os.remove(part)


def draw_roll(axes, notes: Notes) -> None:
    """Draws notes as bars, a colour per program; drums as ticks below, opacity by velocity."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    from music_diffusion.notes.programs import PROGRAM_NAMES

    keys = np.where(notes.is_drum, 128, notes.program)
    colours = colormaps["tab10"].colors
    for i, key in enumerate(np.unique(keys)):
        part = notes[keys == key]
        length = np.where(part.is_drum, np.minimum(part.end - part.start, 0.08), part.end - part.start)
        lines = [((s, p), (s + d, p)) for s, d, p in zip(part.start, length, part.pitch, strict=True)]
        rgba = [(*colours[i % 10], 0.35 + 0.65 * v / 127) for v in part.velocity]
        label = "Drums" if key == 128 else PROGRAM_NAMES[key]
        axes.add_collection(LineCollection(lines, colors=rgba, linewidths=2.5))
        axes.plot([], [], color=colours[i % 10], linewidth=2.5, label=label)
    axes.set_ylabel("pitch (MIDI)")
    if len(notes):
        axes.set_ylim(notes.pitch.min() - 3, notes.pitch.max() + 3)
        axes.legend(loc="upper right", fontsize="small", ncols=3, framealpha=0.7)


def draw_mel(axes, mel: np.ndarray, codec: MelCodec, seconds: float) -> None:
    """Draws log-mel [T, F] with a frequency axis in hertz."""
    image = axes.imshow(mel.T, origin="lower", aspect="auto", cmap="magma", vmin=-8.5, vmax=3.0,
                        extent=(0, seconds, 0, codec.mels), interpolation="nearest")
    hertz = np.array([125, 250, 500, 1000, 2000, 4000])
    hertz = hertz[(hertz > codec.fmin) & (hertz < codec.fmax)]
    low, high = 1127 * np.log1p(np.array([codec.fmin, codec.fmax]) / 700)
    # The filter of row m, drawn from m to m + 1, peaks at (m + 1) / (F + 1) of the mel range.
    share = (1127 * np.log1p(hertz / 700) - low) / (high - low)
    axes.set_yticks(share * (codec.mels + 1) - 0.5, hertz)
    axes.set_ylabel("frequency (Hz)")
    axes.figure.colorbar(image, ax=axes, label="log magnitude (nat)", pad=0.01)
