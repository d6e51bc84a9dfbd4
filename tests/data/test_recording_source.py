"""Crops of recordings of sines, so that the samples say which notes sound in them."""

import csv
import dataclasses

import numpy as np
import pytest
import soundfile
from reference.sharded import check_loads, check_shards

import gin
from music_diffusion import gin_setup
from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.audio_renders import COLUMNS
from music_diffusion.data.recording_source import (
    RecordingSource,
    TagTargets,
    TranscriptionTargets,
    Varied,
    _Crop,
)
from music_diffusion.errors import UserError
from music_diffusion.notes.activations import draw_activations
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES

RATE, SECONDS, CROP = 16000, 6, 16000
PITCHES = (69, 81, 93)  # 440, 880 and 1760 Hz: whole periods in a frame of 25 ms
LEVEL = 0.4
TRAIN, VALIDATION = 4, 3
AS_RECORDED = Varied(detune_cents=0.0, gain_db=(0.0, 0.0), noise=0.0)


def hertz(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


def notes_of(start, end, pitch, program=0, drum=False):
    n = len(np.atleast_1d(start))
    return Notes(np.atleast_1d(start), np.atleast_1d(end), np.full(n, pitch), np.full(n, 90),
                 np.full(n, program), np.full(n, drum))


def melody(number):
    """One note after another with silence between them, at times that differ from file to file."""
    rng = np.random.default_rng(number)
    start = 0.05 + 0.45 * np.arange(13) + rng.uniform(0, 0.1, 13)
    end = start + rng.uniform(0.15, 0.25, 13)
    return Notes(start, end, rng.choice(PITCHES, 13), np.full(13, 90), np.zeros(13),
                 np.zeros(13, bool))


def sound(notes, seconds=SECONDS):
    """Cosines that begin and end with their notes."""
    time = np.arange(round(seconds * RATE)) / RATE
    samples = np.zeros(len(time))
    for start, end, pitch in zip(notes.start, notes.end, notes.pitch, strict=True):
        t = time - start
        samples += LEVEL * np.cos(2 * np.pi * hertz(pitch) * t) * ((t >= 0) & (time < end))
    return samples.astype(np.float32)


def row_of(file, **changes):
    row = dict.fromkeys(COLUMNS, "") | {"file": file, "split": file.split("/")[0],
                                        "soundfont": "a.sf2", "peak_db": "-8.00", "solo": "0"}
    return row | changes


def write_table(folder, rows, columns=COLUMNS):
    with (folder / "renders.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_file(folder, file, notes, seconds=SECONDS, rate=RATE):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, Waveform(sound(notes, seconds), rate))
    write_midi(notes, path.with_suffix(".mid"))


def as_told(notes, start, seconds, row):
    """Features that hand on what they were given; at most 16 notes, in seconds of the crop."""
    times = np.full((16, 3), np.nan)
    times[:len(notes)] = np.stack([notes.start - start, notes.end - start, notes.pitch], 1)
    split, name = row["file"].removesuffix(".flac").split("/")
    return {"notes": times, "start": np.float64(start), "seconds": np.float64(seconds),
            "number": np.int64(name), "training": np.bool_(split == "train")}


def told(example):
    return example["notes"][~np.isnan(example["notes"][:, 0])]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renders")
    files = [f"train/{i:05d}.flac" for i in range(TRAIN)]
    files += [f"validation/{i:05d}.flac" for i in range(VALIDATION)]
    for number, file in enumerate(files):
        write_file(folder, file, melody(number))
    write_file(folder, "train/00100.flac", notes_of(0.0, SECONDS, 93))  # not in the table
    write_table(folder, [row_of(f) for f in files])
    return RecordingSource(folder=str(folder), features=as_told, samples=CROP, eval_batch_count=2,
                           varied=AS_RECORDED)


def crop(source, varied, seed, file="train/00001.flac"):
    return _Crop(source, varied).random_map(row_of(file), np.random.default_rng(seed))


def test_what_the_features_hear_of_is_what_the_crop_holds(source):
    firsts = []
    for seed in range(20):
        got = crop(source, Varied(noise=0.0, detune_cents=200.0), seed)
        assert got["audio"].shape == (CROP,) and got["audio"].dtype == np.float32
        assert got["seconds"] == CROP / RATE
        heard = np.flatnonzero(np.abs(got["audio"]) > 0.1 * np.abs(got["audio"]).max()) / RATE
        # MIDI rounds to 1 ms ticks; resampling rings for some samples around an edge.
        for start, end, _ in told(got):
            if 0.01 < start < 0.95:
                assert heard[heard > start - 0.05][0] == pytest.approx(start, abs=0.003)
            if 0.05 < end < 0.99:
                assert heard[heard < end + 0.05][-1] == pytest.approx(end, abs=0.003)
        firsts.append(got["start"])
    assert min(firsts) < 1 and max(firsts) > SECONDS - 2  # of 20 draws in 0..5 s


@pytest.mark.parametrize("varied", [None, Varied(noise=0.0, detune_cents=30.0)])
def test_a_pitch_sounds_where_its_target_says_so_and_nowhere_else(source, varied):
    source = dataclasses.replace(source, features=TranscriptionTargets(), samples=2 * CROP)
    on = off = 0
    for seed in range(6):
        got = crop(source, varied, seed)
        assert got["onset"].shape == got["frame"].shape == got["velocity"].shape == (80, 88)
        assert got["classes"].shape == (80, 88, 5) and got["drums"].shape == (80, 61)
        blocks = got["audio"].reshape(80, 400)
        # Neither on nor off: what is beyond the crop.
        frame = np.pad(got["frame"], ((1, 1), (0, 0)), constant_values=0.5)
        for pitch in PITCHES:
            wave = np.exp(-2j * np.pi * hertz(pitch) * np.arange(400) / RATE)
            level = 2 * np.abs(blocks @ wave) / 400 / np.abs(got["audio"]).max()
            around = sum(frame[i:80 + i, pitch - 21] for i in range(3))
            # 30 cents off, 31 Hz at 1760 Hz, the sum over 25 ms loses sinc(31 * 0.025) → 0.3.
            assert (level[around == 3] > (0.9 if varied is None else 0.2)).all()
            # Of other pitches a frame holds whole periods, unless they begin or end or are
            # detuned in it: then their leakage is at most half their level.
            assert (level[around == 0] < 0.5).all()
            assert np.mean(level[around == 0]) < 0.05
            on, off = on + (around == 3).sum(), off + (around == 0).sum()
        assert not np.delete(got["frame"], np.array(PITCHES) - 21, axis=1).any()
    assert on > 80 and off > 500


def test_frames_are_as_many_as_fit(source):
    for samples, frames in ((81920, 204), (CROP, 40), (CROP - 1, 39)):
        longer = dataclasses.replace(source, features=TranscriptionTargets(), samples=samples)
        got = crop(longer, None, 0)
        assert got["audio"].shape == (samples,) and got["frame"].shape == (frames, 88)


def test_a_faster_crop_has_shorter_notes_and_a_higher_pitch_by_one_factor(source):
    speeds = []
    for seed in range(12):
        got = crop(source, Varied(noise=0.0), seed, "train/00100.flac")
        (start, end, _), = told(got)
        speed = SECONDS / (end - start)
        spectrum = np.abs(np.fft.rfft(got["audio"] * np.hanning(CROP), 16 * CROP))
        # Bins of 1/16 Hz; one cent is 1 Hz.
        assert np.argmax(spectrum) / 16 == pytest.approx(1760 * speed, abs=0.2)
        # The note spans the file, so that the crop lies within it.
        assert start <= 0 and end >= 1
        assert got["start"] == pytest.approx(-start)
        speeds.append(speed)
    cents = 1200 * np.log2(speeds)
    assert np.abs(cents).max() < 40.1 and cents.min() < -15 and cents.max() > 15


def test_speeds_are_even_in_cents_and_can_be_left_alone():
    rng = np.random.default_rng(0)
    cents = 1200 * np.log2([Varied(detune_cents=50.0).speed(rng) for _ in range(400)])
    assert -50 <= cents.min() < -48 and 48 < cents.max() <= 50
    assert np.std(cents) == pytest.approx(50 / np.sqrt(3), rel=0.1)
    assert Varied(detune_cents=0.0).speed(rng) == 1.0


def test_a_file_shorter_than_a_crop_ends_in_silence(source):
    for varied in (None, Varied(noise=0.0, gain_db=(0.0, 0.0))):
        got = crop(dataclasses.replace(source, samples=8 * RATE), varied, 0)
        assert got["audio"].shape == (8 * RATE,) and got["start"] == 0 and len(told(got)) == 13
        assert not got["audio"][int(6.2 * RATE):].any()
        assert np.abs(got["audio"][:6 * RATE]).max() > 0.9 * LEVEL


def test_the_same_generator_gives_the_same_crop(source):
    a, b, c = (crop(source, Varied(noise=1.0), seed) for seed in (5, 5, 6))
    for name in ("audio", "notes", "start"):
        np.testing.assert_array_equal(a[name], b[name])
    assert a["start"] != c["start"]


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def places(batches):
    """(file, time) of every crop."""
    return [(int(n), float(s)) for b in batches
            for n, s in zip(b["number"], b["start"], strict=True)]


@pytest.mark.slow
def test_shards_are_parts_of_the_one_stream(source):
    varied = dataclasses.replace(source, varied=Varied(noise=1.0))
    check_shards(varied)
    check_loads(varied, _Crop, "random_map", lambda *args: str(args[-1].bit_generator.state))


def test_training_repeats_and_resumes(source):
    varied = dataclasses.replace(source, varied=Varied(noise=1.0))
    whole = varied.train_iterator(2, 3)
    first = take(whole, 2)
    assert first[0]["audio"].shape == (2, CROP)
    state = whole.get_state()
    rest = take(whole, 3)
    resumed = varied.train_iterator(2, 3)
    resumed.set_state(state)
    for a, b in zip(take(resumed, 3), rest, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    got = places(first + rest)
    assert all(b["training"].all() for b in first + rest)
    # An epoch has every file once; the next one cuts elsewhere.
    assert sorted(n for n, _ in got[:TRAIN]) == sorted(n for n, _ in got[TRAIN:2 * TRAIN]) \
        == list(range(TRAIN))
    assert len(set(got)) == len(got)
    assert [n for n, _ in got[:2 * TRAIN]] != 2 * list(range(TRAIN))  # in an order of its own
    assert places(take(varied.train_iterator(2, 4), 5)) != got


def test_validation_is_the_same_every_time_and_as_recorded(source):
    got = list(source.eval_batches(3))
    again = list(dataclasses.replace(source, varied=Varied(noise=1.0)).eval_batches(3))
    assert len(got) == source.eval_batch_count == 2
    for a, b in zip(got, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert sorted(n for n, _ in places(got[:1])) == list(range(VALIDATION))
    for batch in got:
        assert not batch["training"].any()
        for audio, number, start in zip(batch["audio"], batch["number"], batch["start"],
                                        strict=True):
            file = soundfile.read(f"{source.folder}/validation/{number:05d}.flac",
                                  dtype="float32")[0]
            at = round(start * RATE)
            np.testing.assert_array_equal(audio, file[at:at + CROP])


def test_stereo_files_are_mixed(tmp_path):
    write_file(tmp_path, "train/00000.flac", melody(0))
    both = np.stack([np.full(3 * CROP, 0.5), np.full(3 * CROP, 0.1)], axis=1)
    write_audio(tmp_path / "train/00000.flac", Waveform(both.astype(np.float32), RATE))
    write_table(tmp_path, [row_of("train/00000.flac")])
    source = RecordingSource(folder=str(tmp_path), features=as_told, samples=CROP, varied=AS_RECORDED)
    np.testing.assert_allclose(np.abs(next(source.train_iterator(1, 0))["audio"]), 0.3, atol=1e-4)


def test_targets_are_the_activations_of_the_crop():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 4, 40)
    notes = Notes(start, start + rng.uniform(0.02, 1.0, 40), rng.integers(21, 109, 40),
                  rng.integers(1, 128, 40), rng.integers(0, 96, 40), rng.random(40) < 0.2)
    for begin, seconds, frames in ((0.0, 0.5, 20), (1.23, 0.7, 28), (2.0, 5.1, 204)):
        got = TranscriptionTargets()(notes, begin, seconds, {})
        want = draw_activations(notes, begin, frames, 0.025)
        assert set(got) == {"onset", "frame", "velocity", "classes", "drums"}
        for name, value in got.items():
            np.testing.assert_array_equal(value, getattr(want, name))


@pytest.mark.parametrize("seed", range(3))
def test_a_crop_in_a_room_is_cut_from_the_whole_file_in_that_room(source, seed):
    """What sounded before the crop is still heard in it."""
    varied = dataclasses.replace(AS_RECORDED, room=1.0, rt60=(0.5, 1.0), wet_db=(0.0, 0.0))
    got = crop(source, varied, seed)
    rng = np.random.default_rng(seed)
    assert varied.speed(rng) == 1.0
    room = varied.draw_room(rng)
    file = soundfile.read(f"{source.folder}/train/00001.flac", dtype="float32")[0]
    first = round(got["start"] * RATE)
    assert first > RATE
    want, alone = room(file, RATE)[first:first + CROP], room(file[first:first + CROP], RATE)

    def off(expected):
        gain = got["audio"] @ expected / (expected @ expected)  # level and sign
        return np.mean(np.square(got["audio"] - gain * expected)) / np.mean(np.square(got["audio"]))

    assert off(want) < 1e-8  # measured 4e-11: the response's last milliseconds, 60 dB down
    assert off(alone) > 1e-4  # measured 1.5e-4 to 0.08


def test_a_crop_in_a_room_played_faster_keeps_its_onsets(source):
    for seed in range(8):
        got = crop(source, Varied(noise=0.0, room=1.0, rt60=(0.3, 0.3), wet_db=(-20.0, -20.0)), seed)
        wave = np.abs(got["audio"]) / np.abs(got["audio"]).max()
        for start, _, _ in told(got):
            if 0.1 < start < 0.95:  # the room lies 20 dB lower
                heard = np.flatnonzero(wave > 0.5) / RATE
                assert heard[heard > start - 0.05][0] == pytest.approx(start, abs=0.003)


def test_rooms_are_drawn_as_asked_for():
    rng = np.random.default_rng(0)
    varied = Varied(room=0.4, rt60=(0.4, 1.6), wet_db=(-6.0, 2.0))
    rooms = [varied.draw_room(rng) for _ in range(600)]
    assert np.mean([r is not None for r in rooms]) == pytest.approx(0.4, abs=0.08)  # ± 0.02
    rt60, wet = (np.array([getattr(r, k) for r in rooms if r]) for k in ("rt60", "wet_db"))
    assert 0.4 <= rt60.min() < 0.42 and 1.5 < rt60.max() <= 1.6
    assert np.median(rt60) == pytest.approx(0.8, rel=0.15)  # even in the logarithm
    assert -6 <= wet.min() < -5.8 and 1.8 < wet.max() <= 2
    assert all(Varied().draw_room(rng) is None for _ in range(50))


def tone(seconds=1.0, level=0.5):
    return (level * np.sin(np.arange(round(seconds * RATE)) / 7)).astype(np.float32)


def test_noise_has_the_power_that_was_asked_for():
    clean = tone()
    for ratio_db in (-40.0, -10.0, 0.0):
        varied = Varied(gain_db=(0.0, 0.0), noise=1.0, noise_db=(ratio_db, ratio_db))
        for seed in range(3):
            got = varied(clean, np.random.default_rng(seed))
            sign = np.sign(got @ clean)
            noise = got - sign * clean
            ratio = np.square(noise).mean() / np.square(clean).mean()
            assert 10 * np.log10(ratio) == pytest.approx(ratio_db, abs=0.01)
            assert abs(np.corrcoef(noise, clean)[0, 1]) < 0.2


def test_noise_falls_with_frequency_by_the_tilts_that_were_asked_for():
    def slope(tilt, seed):
        noise = Varied(noise=1.0, noise_db=(40.0, 40.0), tilt=tilt)(
            tone(), np.random.default_rng(seed))
        power = np.square(np.abs(np.fft.rfft(noise)))
        edges = 50 * 2 ** np.arange(8)  # Hz; bins of 1 Hz
        bands = [power[a:b].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)]
        return np.polyfit(np.log(edges[:-1]), np.log(bands), 1)[0]

    assert [slope(0.0, s) for s in range(3)] == pytest.approx([0, 0, 0], abs=0.15)
    slopes = [slope(2.0, s) for s in range(40)]
    assert -2.15 < min(slopes) < -1.6 and -0.4 < max(slopes) < 0.15


def test_a_share_of_the_crops_has_noise():
    rng = np.random.default_rng(0)
    varied = Varied(gain_db=(0.0, 0.0), noise=0.3)
    clean = tone(0.1)
    noisy = [min(np.abs(got - clean).max(), np.abs(got + clean).max()) > 0
             for got in (varied(clean, rng) for _ in range(400))]
    assert np.mean(noisy) == pytest.approx(0.3, abs=0.09)  # binomial: ± 0.023


def test_levels_stay_in_full_scale_and_signs_are_even():
    rng = np.random.default_rng(0)
    varied = Varied(gain_db=(-20.0, 20.0), noise=0.0)
    clean = tone(0.1)
    peak = np.abs(clean).max()
    got = np.stack([varied(clean, rng) for _ in range(400)])
    assert got.dtype == np.float32
    peaks = np.abs(got).max(axis=1)
    assert peaks.max() <= 1 + 1e-6
    assert 0.1 * peak <= peaks.min() < 0.12 * peak
    # Of gains in ± 20 dB those above 6 dB stop at full scale: 14 of 40.
    assert np.mean(peaks > 0.9999) == pytest.approx(0.35, abs=0.1)
    assert np.mean(got @ clean > 0) == pytest.approx(0.5, abs=0.1)


def test_silence_stays_silence():
    got = Varied(noise=1.0)(np.zeros(1000, np.float32), np.random.default_rng(0))
    np.testing.assert_array_equal(got, np.zeros(1000))


@pytest.mark.parametrize("bad", [
    {"detune_cents": -1.0}, {"noise": 1.5}, {"tilt": -0.1}, {"gain_db": (3.0, -3.0)},
    {"noise_db": (-10.0, -20.0)}, {"room": -0.1}, {"rt60": (0.0, 1.0)}, {"wet_db": (1.0, 0.0)}])
def test_impossible_variations_are_refused(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        Varied(**bad)


@pytest.mark.parametrize("field", ["samples", "eval_batch_count"])
def test_impossible_sizes_are_refused(source, field):
    with pytest.raises(UserError, match=field):
        dataclasses.replace(source, **{field: 0})


def tags(notes, start=2.0, seconds=1.0, **row):
    found = TagTargets(fonts=("a.sf2", "b.sf2"))(notes, start, seconds, row_of("train/0.flac", **row))
    assert found["instruments"].shape == (35,) and found["instruments"].dtype == np.float32
    assert found["font"].dtype == found["room"].dtype == np.int32
    assert found["font"].shape == found["room"].shape == ()
    return found


def players(*parts):
    return set(np.flatnonzero(tags(Notes.concatenate(parts))["instruments"]).tolist())


def class_of(program):
    kind, = (i for i, c in enumerate(SLAKH_CLASSES) if program in c.programs)
    return kind


@pytest.mark.parametrize("start, end, heard", [
    (2.2, 2.35, True), (2.2, 2.28, False),
    (1.0, 2.15, True), (1.0, 2.05, False), (1.0, 1.9, False),  # the crop is 2..3 s
    (2.85, 4.0, True), (2.95, 4.0, False), (3.1, 4.0, False),
    (1.0, 5.0, True), ([2.1, 2.5], [2.16, 2.56], True), ([2.1, 2.5], [2.13, 2.53], False)])
@pytest.mark.parametrize("program", [0, 40, 95])
def test_who_sounds_long_enough_within_the_crop_is_heard(start, end, heard, program):
    piano_all_along = notes_of(0.0, 9.0, 50, program=24)
    expected = {class_of(24)} | ({class_of(program)} if heard else set())
    assert players(piano_all_along, notes_of(start, end, 60, program)) == expected


@pytest.mark.parametrize("start, end, heard", [
    (2.5, 2.51, True), (2.02, 2.03, True), (2.0, 2.01, True), (2.95, 2.96, False), (1.98, 1.99, False),
    (3.02, 3.03, False), (1.98, 2.05, False)])
def test_drums_are_heard_by_their_onsets(start, end, heard):
    assert players(notes_of(start, end, 38, drum=True)) == ({34} if heard else set())


def test_fonts_and_rooms_are_told_by_the_row():
    silent = Notes.empty()
    assert not tags(silent)["instruments"].any()
    assert [int(tags(silent, soundfont=f)["font"]) for f in ("a.sf2", "b.sf2", "c.sf2")] == [0, 1, -1]
    lasting = ("", "0.200", "0.440", "0.460", "0.940", "0.960", "2.000")
    assert [int(tags(silent, rt60=t)["room"]) for t in lasting] == [0, 1, 1, 2, 2, 3, 3]


def make(folder, changes):
    """A folder of one file as it should be, less what the test takes away."""
    write_file(folder, "train/00000.flac", melody(0), rate=changes.get("rate", RATE))
    if not changes.get("mid", True):
        (folder / "train/00000.mid").unlink()
    if changes.get("table", True):
        write_table(folder, [row_of("train/00000.flac")], changes.get("columns", COLUMNS))
    return RecordingSource(folder=str(folder), features=as_told)


@pytest.mark.parametrize("changes, split, reason", [
    ({"table": False}, "train", "no renders.csv"), ({"mid": False}, "train", "no notes"),
    ({"rate": 8000}, "train", "8000 Hz, not 16000"), ({}, "validation", "no file of split validation"),
    ({"columns": COLUMNS[:-1]}, "train", f"has no column '{COLUMNS[-1]}'")])
def test_other_folders_are_refused_in_one_line(tmp_path, changes, split, reason):
    source = make(tmp_path, changes)
    with pytest.raises(UserError, match=reason) as error:
        source.rows(split)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match=reason):  # before any thread starts
        source.train_iterator(1, 0) if split == "train" else next(source.eval_batches(1))


def test_rows_are_those_of_the_split(tmp_path):
    source = make(tmp_path, {})
    write_file(tmp_path, "test/00000.flac", melody(1))
    write_table(tmp_path, [row_of("test/00000.flac"), row_of("train/00000.flac", solo="1")])
    assert [r["file"] for r in source.rows("test")] == ["test/00000.flac"]
    assert [r["solo"] for r in source.rows("train")] == ["1"]


def test_patches_of_a_crop_have_tags_of_their_own():
    notes = Notes.concatenate([notes_of(2.0, 2.9, 60, program=40), notes_of(4.5, 5.0, 60, program=24),
                               notes_of(6.2, 6.9, 40, drum=True)])
    targets = TagTargets(fonts=("a.sf2",), patches=3, patch_seconds=1.0)
    found = targets(notes, 2.0, 5.0, row_of("train/0.flac"))  # 2..3, 4..5 and 6..7 s
    assert [np.flatnonzero(row).tolist() for row in found["instruments"]] == [
        [class_of(40)], [class_of(24)], [34]]
    whole = TagTargets(fonts=("a.sf2",))(notes, 2.0, 5.0, row_of("train/0.flac"))
    assert np.array_equal(found["instruments"].max(axis=0), whole["instruments"])
    assert found["font"] == whole["font"] and found["room"] == whole["room"]


def test_gin_files_may_configure_it():
    gin_setup.parse([], ["RecordingSource.folder = 'x'", "RecordingSource.features = @TagTargets()",
                         "TagTargets.fonts = ('a.sf2',)", "RecordingSource.varied = @Varied()",
                         "Varied.noise = 0.25"])
    made = gin.get_configurable("RecordingSource")()
    gin.clear_config()
    assert made == RecordingSource(folder="x", features=TagTargets(fonts=("a.sf2",)),
                                   varied=Varied(noise=0.25))
