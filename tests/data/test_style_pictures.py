"""Pictures of spectrograms: trimming, cutting, drawing, reading, with sounds that say where they are."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from music_diffusion.data.style_pictures import (
    FRAMES,
    HELD_OUT,
    PICTURE_CODEC,
    PicturePairSource,
    PicturePlan,
    draw_pairs,
    pieces,
    read_picture,
    to_picture,
    trimmed,
    write_picture,
    write_pictures,
)
from music_diffusion.errors import UserError

RATE = PICTURE_CODEC.sample_rate


def tone(seconds, hertz=440.0, gain=0.5):
    return (gain * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_ends_20_db_below_are_trimmed():
    quiet, louder = tone(1.0, gain=0.02), tone(0.5, gain=0.1)  # -28 and -14 dB
    kept = trimmed(np.concatenate([quiet, louder, tone(1.0), quiet, louder, quiet]))
    assert len(kept) / RATE == pytest.approx(0.5 + 1.0 + 1.0 + 0.5, abs=0.1)  # the middle stays
    assert not len(trimmed(np.zeros(RATE, np.float32)))


def test_pieces_follow_each_other_and_the_last_is_filled():
    samples = np.concatenate([tone(3.0), tone(3.0, 880.0), tone(1.0, 1320.0)])
    made = list(pieces(samples, PicturePlan(source="")))
    assert [len(p) for p in made] == [3 * RATE] * 3
    # The trimmed end lies within a hop of the sound's.
    np.testing.assert_array_equal(np.concatenate(made)[:len(samples) - 1024], samples[:-1024])
    assert not made[2][round(1.1 * RATE):].any()
    assert len(list(pieces(samples, PicturePlan(source="", minutes=0.05)))) == 1


def test_a_picture_has_80_db_below_its_loudest_cell(tmp_path):
    rng = np.random.default_rng(0)
    mel = rng.uniform(-14, 2, (FRAMES, PICTURE_CODEC.mels)).astype(np.float32)
    picture = to_picture(mel)
    assert picture.dtype == np.uint8 and picture.max() == 255 and picture.min() == 0
    write_picture(tmp_path / "a.png", mel)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert pixels.shape == (128, 128)
    decibels = 20 / np.log(10) * (mel - mel.max())
    wanted = np.clip((decibels + 80) * 255 / 80, 0, 255)  # the paper's listing 6
    np.testing.assert_allclose(pixels, wanted.T, atol=0.51)
    again = PICTURE_CODEC.unscale(read_picture(tmp_path / "a.png"))
    np.testing.assert_allclose(again, np.maximum(mel - mel.max(), PICTURE_CODEC.log_min), atol=0.02)


def test_tones_are_where_they_should_be():
    frames = PICTURE_CODEC.encode(tone(3.0, 1000.0))[:FRAMES]
    assert len(PICTURE_CODEC.encode(tone(3.0))) == 130  # the paper's, of which 128 are shown
    bright = to_picture(frames).argmax(axis=0)
    centre = np.interp(1127 * np.log1p(1000 / 700), np.linspace(0, 1127 * np.log1p(11025 / 700), 130),
                       np.arange(-1, 129))
    assert np.abs(bright - centre).max() <= 1


def test_pairs_are_of_two_instruments_as_many_of_each():
    counts = {"harp": 5, "piano": 3, "violin": 4}
    rows = draw_pairs(counts, 600, seed=0)
    assert rows == draw_pairs(counts, 600, seed=0) != draw_pairs(counts, 600, seed=1)
    combinations = {}
    for content, i, style, j in rows:
        assert content != style and 0 <= i < counts[content] and 0 <= j < counts[style]
        combinations[content, style] = combinations.get((content, style), 0) + 1
    assert set(combinations.values()) == {100} and len(combinations) == 6
    assert len({row[:2] for row in rows}) == 12  # every picture
    assert rows[:6] != sorted(rows[:6])


@pytest.fixture
def folder(tmp_path):
    """Twelve pieces of each of two instruments, whose tones say which."""
    source = tmp_path / "recordings"
    for label, first in (("flute", 300), ("harp", 2000)):
        (source / label).mkdir(parents=True)
        sound = np.concatenate([tone(3.0, first + 60 * k) for k in range(12)])
        soundfile.write(source / label / "take.flac", sound, RATE)
    counts = write_pictures(PicturePlan(source=str(source), pairs=100, seed=3), str(tmp_path / "pictures"))
    assert counts == {"flute": 12, "harp": 12}
    return tmp_path / "pictures"


def pitch(picture):
    """Returns the place of the brightest bin, by which pieces can be told."""
    return int(np.median(picture.argmax(axis=1)))


def test_batches_are_the_pairs_of_the_table(folder):
    rows = [line.split(",") for line in (folder / "pairs.csv").read_text().splitlines()]
    places = {label: [pitch(read_picture(folder / label / f"take_chunk{k}.png")) for k in range(12)]
              for label in ("flute", "harp")}
    assert all(p == sorted(p) and len(set(p)) > 6 for p in places.values())
    source = PicturePairSource(folder=str(folder), shuffle=False)
    batch = next(source.train_iterator(8, seed=0))
    trained = [row for k, row in enumerate(rows) if k % HELD_OUT]
    for k, (content, i, style, j) in enumerate(trained[:8]):
        assert pitch(batch["targets"][k]) == places[content][int(i)]
        assert pitch(batch["style"][k]) == places[style][int(j)]
    assert batch["targets"].shape == (8, FRAMES, 128) and batch["targets"].dtype == np.float32
    held, = source.eval_batches(4)
    for k, (content, i, _, _) in enumerate(rows[::HELD_OUT][:4]):
        assert pitch(held["targets"][k]) == places[content][int(i)]


def test_epochs_have_an_order_of_their_own_and_all_pairs(folder):
    source = PicturePairSource(folder=str(folder))
    iterator, count = source.train_iterator(5, seed=0), 100 - 100 // HELD_OUT
    epochs = [[pitch(p) for _ in range(count // 5) for p in next(iterator)["targets"]] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]


def test_folders_that_cannot_be_used(tmp_path, folder):
    with pytest.raises(UserError, match="pairs.csv: cannot be read"):
        next(PicturePairSource(folder=str(tmp_path / "nowhere")).eval_batches(2))
    (folder / "flute" / "take_chunk11.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read_picture(folder / "flute" / "take_chunk11.png")
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(folder / "small.png")
    with pytest.raises(UserError, match="64 × 128 pixels"):
        read_picture(folder / "small.png")
    (folder / "pairs.csv").write_text("flute,1,harp,2\n")
    with pytest.raises(UserError, match="has 1 pairs"):
        next(PicturePairSource(folder=str(folder)).eval_batches(2))
    (folder / "pairs.csv").write_text("flute,1,viol,2\n" * 40)
    with pytest.raises(UserError, match="lacks a picture"):
        next(PicturePairSource(folder=str(folder)).eval_batches(2))
    with pytest.raises(UserError, match="is there already"):
        write_pictures(PicturePlan(source=str(tmp_path / "recordings")), str(folder))
    (tmp_path / "recordings" / "harp" / "take.flac").unlink()
    with pytest.raises(UserError, match="sound in 1 folders"):
        write_pictures(PicturePlan(source=str(tmp_path / "recordings")), str(tmp_path / "other"))


@pytest.mark.parametrize("options, message", [
    ({"seconds": 2.0}, "give 2.97 s or more"), ({"minutes": 0}, "self.minutes=0"),
    ({"pairs": 0}, "self.pairs=0")])
def test_plans_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        PicturePlan(source="", **options)
