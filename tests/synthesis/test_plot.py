import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import plot
from music_diffusion.synthesis.plot import (
    SpectrogramSketch,
    attempt,
    draw_mel,
    draw_roll,
    plot_pair,
    plot_rendering,
)

CODEC = MelCodec()
NOTES = Notes([0.0, 0.5, 0.5], [0.5, 1.0, 1.5], [60, 64, 38], [100, 20, 127], [0, 40, 0],
              [False, False, True])


@given(frames=st.integers(1, 300), columns=st.integers(1, 20),
       cuts=st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=50)
def test_a_sketch_is_the_mean_of_its_frames_however_they_come(frames, columns, cuts):
    mel = np.random.default_rng(0).normal(size=(frames, 2))
    old, plot.COLUMNS = plot.COLUMNS, 2 * columns
    try:
        sketch = SpectrogramSketch(2)
    finally:
        plot.COLUMNS = old
    for part in np.split(mel, sorted(min(c, frames) for c in cuts)):
        sketch.push(part)
    width = sketch.frames_per_column
    assert frames <= 2 * columns * width and (width == 1 or frames > columns * width)
    np.testing.assert_allclose(
        sketch.mel, [mel[i:i + width].mean(0) for i in range(0, frames, width)], atol=1e-12)


def test_memory_of_a_sketch_does_not_grow_with_the_piece():
    sketch = SpectrogramSketch(4)
    for _ in range(100):
        sketch.push(np.zeros((5000, 4)))
    assert len(sketch.mel) <= 2048 and sketch.frames == 500_000


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_the_picture_is_a_whole_png(tmp_path):
    sketch = SpectrogramSketch(CODEC.mels)
    sketch.push(np.random.default_rng(0).uniform(-10, 3, (75, CODEC.mels)))
    plot_rendering(tmp_path / "out.png", NOTES, sketch, CODEC, "song.mid")
    width, height = png_size(tmp_path / "out.png")
    assert width > 1000 and height > 600
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_a_failing_picture_leaves_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, path, **_):
        with open(path, "wb") as f:
            f.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    sketch = SpectrogramSketch(CODEC.mels)
    sketch.push(np.zeros((1, CODEC.mels)))
    with pytest.raises(UserError, match="out.png: writing failed .disk full"):
        plot_rendering(tmp_path / "out.png", NOTES, sketch, CODEC, "song.mid")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def axes():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    yield axes
    pyplot.close(figure)


def test_the_roll_has_a_bar_per_note_named_by_instrument(axes):
    draw_roll(axes, NOTES)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "Acoustic Grand Piano", "Violin", "Drums"]
    bars = [s.tolist() for c in axes.collections for s in c.get_segments()]
    assert [[0.0, 60.0], [0.5, 60.0]] in bars and [[0.5, 64.0], [1.0, 64.0]] in bars
    drum = next(b for b in bars if b[0][1] == 38)
    assert drum[1][0] - drum[0][0] < 0.1  # a tick, however long the note
    low, high = axes.get_ylim()
    assert low < 38 and high > 64
    opacity = {c.get_segments()[0][0, 1]: c.get_colors()[0, 3] for c in axes.collections}
    assert opacity[38.0] > opacity[60.0] > opacity[64.0]  # by velocity


def test_frequencies_stand_where_the_codec_puts_them(axes):
    """A sine of 1 kHz lights the row at the tick of 1000 Hz."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    mel = CODEC.encode(sine)
    draw_mel(axes, mel, CODEC, 1.0)
    ticks = dict(zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    row = mel[10].argmax() + 0.5  # rows are drawn from i to i + 1
    assert abs(ticks["1000"] - row) < 0.75
    assert list(ticks) == ["125", "250", "500", "1000", "2000", "4000"]
    assert axes.images[0].get_extent() == [0, 1.0, 0, 128]


def filled(frames):
    sketch = SpectrogramSketch(CODEC.mels)
    sketch.push(np.random.default_rng(0).uniform(-10, 3, (frames, CODEC.mels)))
    return sketch


def test_the_picture_of_a_pair_is_a_whole_png(tmp_path):
    plot_pair(tmp_path / "out.png", [filled(75), filled(75)], CODEC, ["a", "b"])
    data = (tmp_path / "out.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    assert int.from_bytes(data[16:20], "big") > 1000 and int.from_bytes(data[20:24], "big") > 600
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("frames", [75, 5001])
def test_both_panels_share_the_time_axis_in_seconds(tmp_path, monkeypatch, frames):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (
        figures.append(self), open(path, "wb").close()))
    plot_pair(tmp_path / "out.png", [filled(frames), filled(frames)], CODEC, ["song.wav", "through x"])
    panels = figures[0].axes[:2]
    assert [p.get_title(loc="left") for p in panels] == ["song.wav", "through x"]
    for panel in panels:
        assert panel.get_xlim() == (0, pytest.approx(frames / 50))
        assert panel.images[0].get_extent()[1] == pytest.approx(frames / 50, rel=0.01)


def test_a_failing_picture_of_a_pair_leaves_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, path, **_):
        with open(path, "wb") as f:
            f.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(UserError, match="disk full"):
        plot_pair(tmp_path / "out.png", [filled(1), filled(1)], CODEC, ["a", "b"])
    assert not list(tmp_path.iterdir())


NAMES = ["$", "$x$ \\frac{", "$\\alpha$ and $", "a\nb", "日本語", "\u05e9\u05dc\u05d5\u05dd",
         os.fsdecode(b"caf\xe9"), "\x1b[31m", "", "x" * 250, "\U0001f600", "_^{}%&#"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_a_title(tmp_path, monkeypatch, name):
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (
        figures.append(self), save(self, *args, **more)))
    path = tmp_path / f"{name[:40].encode('utf-8', 'ignore').decode()}.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_rendering(path, NOTES, filled(10), CODEC, name)
        plot_pair(tmp_path / "b.png", [filled(10), filled(10)], CODEC, [name, name])
    assert png_size(path)[0] > 1000
    for figure in figures:
        text = figure.axes[0].get_title(loc="left")
        assert not figure.axes[0]._left_title.get_parse_math()
        assert len(text.encode().splitlines()) <= 1
    if name.isprintable():
        assert text == name


def test_an_attempt_reports_its_failure_in_one_line():
    def fail(path, word):
        raise ValueError(f"first {word}\nsecond")

    def draw(path, word):
        drawn.append((path, word))

    drawn = []
    assert attempt(draw, "a.png", "x") is None and drawn == [("a.png", "x")]
    reason = attempt(fail, "a\nb.png", "x")
    assert reason == r"a\nb.png: the picture could not be drawn (ValueError: first x second)"
