import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.synthesis import plot_pair as module
from music_diffusion.synthesis.plot_pair import FoldingSketch, plot_pair

CODEC = MelCodec()


@given(frames=st.integers(1, 300), columns=st.integers(1, 20),
       cuts=st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=50)
def test_a_sketch_is_the_mean_of_its_frames_however_they_come(frames, columns, cuts):
    mel = np.random.default_rng(0).normal(size=(frames, 2))
    old, module.COLUMNS = module.COLUMNS, 2 * columns
    try:
        sketch = FoldingSketch(2)
    finally:
        module.COLUMNS = old
    for part in np.split(mel, sorted(min(c, frames) for c in cuts)):
        sketch.push(part)
    width = sketch.frames_per_column
    assert frames <= 2 * columns * width and (width == 1 or frames > columns * width)
    np.testing.assert_allclose(
        sketch.mel, [mel[i:i + width].mean(0) for i in range(0, frames, width)], atol=1e-12)


def test_memory_of_a_sketch_does_not_grow_with_the_piece():
    sketch = FoldingSketch(4)
    for _ in range(100):
        sketch.push(np.zeros((5000, 4)))
    assert len(sketch.mel) <= 2048 and sketch.frames == 500_000


def filled(frames):
    sketch = FoldingSketch(CODEC.mels)
    sketch.push(np.random.default_rng(0).uniform(-10, 3, (frames, CODEC.mels)))
    return sketch


def test_the_picture_is_a_whole_png(tmp_path):
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


def test_a_failing_picture_leaves_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, path, **_):
        with open(path, "wb") as f:
            f.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(UserError, match="out.png: writing failed .disk full"):
        plot_pair(tmp_path / "out.png", [filled(1), filled(1)], CODEC, ["a", "b"])
    assert not list(tmp_path.iterdir())
