"""Pictures: spectrograms, alone or under their notes or in pairs, with one time axis."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.files import atomic_write
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import shown
from music_diffusion.types import Mel

COLUMNS = 2048  # of a picture at most; even
# Fonts for names in scripts that matplotlib's own lacks, as systems have them.
FONTS = ("Noto Sans CJK JP", "Noto Sans", "Hiragino Sans", "Arial Unicode MS", "Yu Gothic",
         "Microsoft YaHei", "Malgun Gothic", "Segoe UI Emoji", "Noto Sans Arabic",
         "Noto Sans Devanagari", "FreeSans", "Unifont")


class SpectrogramSketch:
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

    def draw(self, axes, codec: MelCodec) -> None:
        """Draws it as wide as its frames last."""
        # The last column may hold fewer frames; it is drawn as wide as the others.
        draw_mel(axes, self.mel, codec, len(self.mel) * self.frames_per_column / codec.frame_rate)
        axes.set_xlim(0, self.frames / codec.frame_rate)


def attempt(draw: Callable[..., None], path: str, *arguments: Any) -> str | None:
    """Draws a picture that accompanies other work, which must not be lost with it.

    Args:
      draw: called with the path and the arguments.
      path: of the PNG.

    Returns:
      None, or in one line why there is no picture.
    """
    try:
        draw(path, *arguments)
    except Exception as e:  # of matplotlib's, any kind; the reason is reported
        reason = " ".join(f"{type(e).__name__}: {e}".split())
        return f"{shown(path)}: the picture could not be drawn ({shown(reason)})"
    return None


@contextlib.contextmanager
def new_figure(path: str | os.PathLike, *, dpi: int = 110, **settings) -> Iterator[tuple]:
    """Gives (figure, axes) of `pyplot.subplots`, and writes the PNG; it appears when it is complete.

    Args:
      path: of the PNG.
      dpi: dots an inch.
      settings: of `pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager
    from matplotlib import pyplot as plt

    there = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [*matplotlib.rcParams["font.sans-serif"], *(name for name in FONTS if name in there)]
    with matplotlib.rc_context({"font.sans-serif": fonts}), warnings.catch_warnings():
        # A script that no font has is drawn as boxes.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from|Matplotlib currently does not")
        figure, axes = plt.subplots(layout="constrained", **settings)
        try:
            yield figure, axes
            with atomic_write(path) as part:
                figure.savefig(part, dpi=dpi, format="png")
        finally:
            plt.close(figure)


def title(axes, text: str) -> None:
    """Writes a text over a panel as it is: $ begins no formula, and it stays one line."""
    axes.set_title(shown(text), loc="left", parse_math=False)


def plot_rendering(path: str | os.PathLike, notes: Notes, sketch: SpectrogramSketch,
                   codec: MelCodec, name: str) -> None:
    """Writes a PNG of a piano roll over a spectrogram, without notes of it alone.

    It appears only when it is complete.
    """
    if not len(notes):
        plot_spectrogram(path, sketch, codec, name)
        return
    with new_figure(path, nrows=2, figsize=(12, 7), sharex=True, height_ratios=(2, 3)) as (_, panels):
        roll, spectrum = panels
        draw_roll(roll, notes)
        title(roll, name)
        sketch.draw(spectrum, codec)
        spectrum.set_xlabel("time (s)")


def plot_spectrogram(path: str | os.PathLike, sketch: SpectrogramSketch, codec: MelCodec, name: str
                     ) -> None:
    """Writes a PNG of a spectrogram; it appears only when it is complete."""
    with new_figure(path, figsize=(12, 4)) as (_, axes):
        sketch.draw(axes, codec)
        title(axes, name)
        axes.set_xlabel("time (s)")


def plot_pair(path: str | os.PathLike, sketches: Sequence[SpectrogramSketch], codec: MelCodec,
              titles: Sequence[str]) -> None:
    """Writes a PNG of two spectrograms, one over the other; it appears only when it is complete."""
    with new_figure(path, nrows=2, figsize=(12, 7), sharex=True, sharey=True) as (_, panels):
        for panel, sketch, text in zip(panels, sketches, titles, strict=True):
            sketch.draw(panel, codec)
            title(panel, text)
        panels[-1].set_xlabel("time (s)")


def plot_points(path: str | os.PathLike, points: Mapping[str, tuple[float, float]], labels: tuple[str, str],
                name: str) -> None:
    """Writes a PNG of named points, joined in their order; `labels` are those of the axes."""
    with new_figure(path, figsize=(8, 6)) as (_, axes):
        x, y = ([place[i] for place in points.values()] for i in (0, 1))
        axes.plot(x, y, "o-", color="tab:blue")
        for text, place in points.items():
            axes.annotate(text, place, xytext=(6, 6), textcoords="offset points", fontsize=9)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.margins(0.15)
        axes.grid(alpha=0.3)
        title(axes, name)


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
