"""Crops of records whose samples say which record and which place they are."""

import dataclasses

import numpy as np
import pytest
from reference.sharded import check_loads, check_shards

import gin
from music_diffusion import gin_setup
from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import audio_source, records
from music_diffusion.data.audio_records import AudioRecord
from music_diffusion.data.audio_source import AudioSource
from music_diffusion.errors import UserError

LENGTH, CROP, TRAIN, VALIDATION = 900, 200, 10, 6
BASE = 1000  # sample t of record n is BASE * (n + 1) + t


def ramp(number, length=LENGTH):
    return (BASE * (number + 1) + np.arange(length))[:, None]


def write_folder(folder, train, validation, rate=16000):
    folder.mkdir()
    for split, pieces in (("train", train), ("validation", validation)):
        for shard in range(2):
            records.write_shard(
                folder / f"{split}-{shard:05d}.array_record",
                (AudioRecord(audio=p.astype(np.int16)).to_bytes() for p in pieces[shard::2]))
    records.write_manifest(folder, kind="audio", complete=True, options={"sample_rate": rate})
    return AudioSource(folder=str(folder), samples=CROP, gain_db=(0.0, 0.0))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "ramps",
                        [ramp(n) for n in range(TRAIN)],
                        [ramp(TRAIN + n) for n in range(VALIDATION)])


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def places(batches):
    """(record, first sample) of every crop."""
    found = []
    for crop in np.concatenate([b["audio"] for b in batches]):
        value = np.abs(crop.astype(np.float64)) * 32768
        np.testing.assert_allclose(np.diff(value), 1, atol=1e-6)  # contiguous
        found.append(divmod(round(value[0]) - BASE, BASE))
    return found


def test_batches_are_crops_in_float_of_the_size_asked_for(source):
    batch = next(source.train_iterator(4, 0))
    assert set(batch) == {"audio"}
    assert batch["audio"].shape == (4, CROP) and batch["audio"].dtype == np.float32
    got = places(take(source.train_iterator(4, 0), 40))
    firsts = [f for _, f in got]
    assert all(0 <= f <= LENGTH - CROP for f in firsts)
    assert min(firsts) < 40 and max(firsts) > LENGTH - CROP - 40  # both ends are reached


def test_an_epoch_has_every_record_once_and_crops_anew(source):
    got = places(take(source.train_iterator(5, 0), 4))
    first, second = dict(got[:TRAIN]), dict(got[TRAIN:])
    assert sorted(first) == sorted(second) == list(range(TRAIN))
    assert first != second and list(first) != list(second)


def test_the_same_seed_gives_the_same_batches_and_another_others(source):
    varied = dataclasses.replace(source, gain_db=(-6.0, 0.0))
    a, b, c = (np.stack([x["audio"] for x in take(varied.train_iterator(4, s), 4)])
               for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_iterators_resume_where_they_were(source):
    iterator = source.train_iterator(3, 5)
    take(iterator, 4)
    state = iterator.get_state()
    want = take(iterator, 5)
    other = source.train_iterator(3, 5)
    next(other)
    other.set_state(state)
    for a, b in zip(take(other, 5), want, strict=True):
        np.testing.assert_array_equal(a["audio"], b["audio"])


def test_shards_are_parts_of_the_one_stream(source):
    varied = dataclasses.replace(source, gain_db=(-6.0, 0.0))
    check_shards(varied)
    check_loads(varied, audio_source._Crop, "random_map", lambda *args: str(args[-1].bit_generator.state))


def test_evaluation_is_the_same_crops_of_held_out_records_unvaried(source):
    loud = dataclasses.replace(source, gain_db=(-40.0, -20.0), eval_batch_count=3)
    a, b = (list(loud.eval_batches(2)) for _ in range(2))
    assert len(a) == 3
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x["audio"], y["audio"])
        assert (x["audio"] > 0).all()  # neither gain nor sign
    assert sorted(n for n, _ in places(a)) == list(range(TRAIN, TRAIN + VALIDATION))
    # A small split still fills every batch, then with other crops of the same records.
    many = places(dataclasses.replace(source, eval_batch_count=4).eval_batches(4))
    assert len(many) == 16 and len(set(many)) > VALIDATION


def test_gain_and_sign_are_drawn_for_every_crop(source):
    varied = dataclasses.replace(source, gain_db=(-12.0, -6.0))
    crops = np.concatenate([b["audio"] for b in take(varied.train_iterator(10, 0), 40)])
    step = np.diff(crops.astype(np.float64), axis=1).mean(1) * 32768  # 1 before the gain
    decibel = 20 * np.log10(np.abs(step))
    assert decibel.min() > -12.01 and decibel.max() < -5.99
    assert decibel.min() < -11.5 and decibel.max() > -6.5
    assert np.mean(step > 0) == pytest.approx(0.5, abs=0.1)  # binomial of 400: ± 0.025


def test_gain_never_leaves_full_scale(tmp_path):
    rng = np.random.default_rng(0)
    source = write_folder(tmp_path / "loud", [rng.integers(-30000, 30000, (LENGTH, 1))], [ramp(0)])
    loud = dataclasses.replace(source, gain_db=(20.0, 20.0))
    peaks = np.abs(next(loud.train_iterator(8, 0))["audio"]).max(1)
    np.testing.assert_allclose(peaks, 1, atol=1e-6)


def test_pieces_shorter_than_a_crop_end_in_silence(tmp_path):
    source = write_folder(tmp_path / "short", [ramp(0, 150)], [ramp(1, CROP - 1)])
    for crop in next(source.train_iterator(4, 0))["audio"]:
        np.testing.assert_array_equal(np.abs(crop[:150]) * 32768, ramp(0, 150)[:, 0])
        assert not crop[150:].any()
    assert not next(source.eval_batches(1))["audio"][0, -1]


def test_silent_crops_are_mostly_drawn_again_but_silent_pieces_may_occur(tmp_path):
    quarter = np.zeros((8 * CROP, 1))
    quarter[-2 * CROP:] = 3000  # plain chance: 0.36 of the crops touch it
    source = write_folder(tmp_path / "gaps", [quarter], [np.zeros((3 * CROP, 1))])
    crops = np.concatenate([b["audio"] for b in take(source.train_iterator(8, 0), 40)])
    sounding = np.abs(crops).max(1) > 0
    assert 0.9 < sounding.mean()  # 8 tries: 0.97
    assert not np.stack([b["audio"] for b in source.eval_batches(2)]).any()


def test_stereo_pieces_give_left_right_mid_and_side(tmp_path):
    left, right = np.full(LENGTH, 8000), np.full(LENGTH, 2000)
    stereo = np.stack([left, right], axis=1)
    source = write_folder(tmp_path / "stereo", [stereo], [stereo])
    crops = np.concatenate([b["audio"] for b in take(source.train_iterator(8, 0), 25)])
    levels = np.abs(crops[:, 0]) * 32768
    np.testing.assert_array_equal(crops, np.broadcast_to(crops[:, :1], crops.shape))
    for level in (8000, 2000, 5000, 3000):
        assert np.mean(levels == level) == pytest.approx(0.25, abs=0.12)  # binomial: ± 0.03
    for batch in source.eval_batches(2):
        np.testing.assert_array_equal(batch["audio"] * 32768, 5000)


def test_folders_of_another_rate_or_without_records_are_one_line_errors(source, tmp_path):
    other = dataclasses.replace(source, codec=MelCodec(sample_rate=44100))
    for use in (lambda: other.train_iterator(2, 0), lambda: next(other.eval_batches(2))):
        with pytest.raises(UserError, match="--rate 44100"):
            use()
    with pytest.raises(UserError, match="prepare audio_folder"):
        AudioSource(folder=str(tmp_path)).train_iterator(2, 0)


@pytest.mark.parametrize("field, value", [
    ("samples", 0), ("eval_batch_count", 0), ("gain_db", (3.0, -3.0))])
def test_impossible_settings_are_named(field, value):
    with pytest.raises(UserError, match=field):
        AudioSource(folder="x", **{field: value})


def test_gin_files_may_configure_it():
    gin_setup.parse([], ["AudioSource.folder = 'x'", "AudioSource.codec = @MelCodec()",
                         "AudioSource.gain_db = (-3.0, 0.0)", "MelCodec.hop = 160"])
    made = gin.get_configurable("AudioSource")()
    assert made == AudioSource(folder="x", codec=MelCodec(hop=160), gain_db=(-3.0, 0.0))
    gin.clear_config()
