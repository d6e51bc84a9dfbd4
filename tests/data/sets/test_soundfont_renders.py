"""Scores → items, with SoundFonts of sines: what a render must sound like is known beforehand."""

import collections
import dataclasses
import pickle
import struct

import numpy as np
import pytest
from layouts import scores
from layouts.scores import part
from reference import needs
from reference.soundfont_file import RATE as FONT_RATE
from reference.soundfont_file import expected_hertz, soundfont

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.data.augment import split_parts
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.data.sets import soundfont_excerpts
from music_diffusion.data.sets.catalogue import open_set
from music_diffusion.data.sets.soundfont_renders import SoundFontRenders, measure_rendering
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES, nearest_slakh_class, program_range

needs.module("fluidsynth")

RATE = 16000
STILL = dict(reorchestrate=0.0, subset=0.0, transpose=0, stretch=0.0, onset_jitter=0.0,
             velocity_jitter=0.0, part_level=0.0)


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fonts")
    low = soundfont()
    # The same font whose samples claim to be an octave deeper, and so are played an octave higher.
    high = low.replace(struct.pack("<IB", FONT_RATE, 69), struct.pack("<IB", FONT_RATE, 57))
    (folder / "low.sf2").write_bytes(low)
    (folder / "high.sf2").write_bytes(high)
    return str(folder / "low.sf2"), str(folder / "high.sf2")


@pytest.fixture
def of(tmp_path, fonts):
    """A data set of one piece, in training and validation, without variation unless it is asked for."""
    def make(notes, **options):
        folder = scores.build(tmp_path / "scores", [(f"{s}.mid", "a", s, notes)
                                                    for s in ("train", "validation")])
        hours = dict(train_hours=6 / 3600, validation_hours=2 / 3600)
        return SoundFontRenders(folder=folder, **(
            dict(soundfonts=fonts[:1], seconds=2.0) | hours | STILL | options))
    return make


def listed(data_set, split="train"):
    return [item for item in data_set.list().items if item.split == split]


def heard(sound, rate=RATE):
    return read_sound(sound, rate)


def hertz_of(samples, rate=RATE):
    """Of the loudest partial, to 0.25 Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 4 * rate))
    return np.argmax(spectrum) / 4


LONG = part(0, 64, count=10, gap=0.8)


def tone_of(samples, notes):
    """Frequency within the first note of LONG that is whole."""
    first = np.flatnonzero((notes.end < 2.0) & (notes.end - notes.start > 0.4))[0]
    return hertz_of(samples[round((notes.start[first] + 0.01) * RATE):round(notes.end[first] * RATE)])


def power_near(samples, hertz, rate=RATE):
    """Within 60 Hz: a tone that is struck again and again spreads so far."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return spectrum[np.abs(np.fft.rfftfreq(len(samples), 1 / rate) - hertz) < 60].sum()


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_items_sound_like_their_notes_at_any_rate(of, rate):
    for item in of(part(0, 64)).list().items:
        assert item.name == f"{item.split}/{int(item.name[-5:]):05d}"
        samples, notes = heard(item.audio, rate), item.notes()
        assert samples.shape == (2 * rate,) and item.audio.facts().seconds == 2.0
        whole = notes[(notes.end < 2.0) & (notes.end - notes.start > 0.08)]
        assert len(whole) > 5
        for start, end, pitch in zip(whole.start, whole.end, whole.pitch, strict=True):
            tone = samples[round((start + 0.005) * rate):round((end - 0.005) * rate)]
            assert hertz_of(tone, rate) == pytest.approx(expected_hertz(0, pitch, False), abs=2)
        # Nothing sounds in between.
        gap = samples[round((whole.end[0] + 0.03) * rate):round((whole.start[1] - 0.01) * rate)]
        assert np.abs(gap).max() < 1e-3 * np.abs(samples).max()


def test_every_item_may_be_pickled_and_reads_the_same(of):
    data_set = of(Notes.concatenate([part(0, 64), part(70, 60)]), stems=True, pair=("other",), solo=0.3)
    for item in data_set.list().items:
        again = pickle.loads(pickle.dumps(item))
        whole = heard(item.audio)
        soundfont_excerpts.forget()
        np.testing.assert_array_equal(heard(again.audio), whole)
        for a, b in [(item.audio, again.audio), (item.source, again.source),
                     *((x.audio, y.audio) for x, y in zip(item.stems, again.stems, strict=True))]:
            np.testing.assert_array_equal(heard(a), heard(b))
        np.testing.assert_array_equal(item.notes().start, again.notes().start)


BAND = Notes.concatenate([part(0, 64), part(70, 60, gap=0.2), part(0, 38, gap=0.3, drum=True)])


def test_stems_sum_to_the_audio_and_are_one_program_each(of):
    """With room, tone and level: all but the level are linear, and that is shared."""
    data_set = of(BAND, stems=True, room=1.0, shelf=1.0, peak_db=(-12.0, -3.0))
    partials = {0: expected_hertz(0, 64, False), 70: expected_hertz(70, 60, False),
                DRUM_PROGRAM: expected_hertz(0, 38, True)}
    for item in data_set.list().items:
        assert {stem.program for stem in item.stems} == {0, 70, DRUM_PROGRAM}
        audio = heard(item.audio)
        parts = {stem.program: heard(stem.audio) for stem in item.stems}
        np.testing.assert_allclose(sum(parts.values()), audio, atol=1e-6)
        assert -12 <= 20 * np.log10(np.abs(audio).max()) <= -3
        for program, samples in parts.items():
            powers = {p: power_near(samples, hertz) for p, hertz in partials.items()}
            assert powers.pop(program) > 100 * max(powers.values())


def test_with_and_without_stems_the_audio_is_the_same_but_for_the_first_ms_of_notes(of):
    """FluidSynth's voices fade in over 2 ms, from where they were left."""
    for a, b in zip(listed(of(BAND)), listed(of(BAND, stems=True)), strict=True):
        x, y = heard(a.audio), heard(b.audio)
        assert np.sqrt(np.mean((x - y) ** 2)) < 0.05 * np.sqrt(np.mean(x ** 2))


def sorted_rows(notes):
    """All but the program."""
    return sorted(zip(notes.start, notes.end, notes.pitch, notes.velocity, notes.is_drum, strict=True))


@pytest.mark.parametrize("variation", [{}, dict(
    reorchestrate=1.0, transpose=2, stretch=0.1, onset_jitter=0.01, velocity_jitter=5.0)])
def test_the_other_timbre_has_the_same_notes_on_other_programs(of, variation):
    band = Notes.concatenate([part(0, 64), part(41, 57), part(73, 79), part(0, 38, drum=True)])
    seen = set()
    for item in of(band, pair=("other",), train_hours=20 / 3600, **variation).list().items:
        notes, other = item.notes(), item.source.excerpt.paired_notes()
        assert sorted_rows(notes) == sorted_rows(other)
        np.testing.assert_array_equal(notes.is_drum, other.is_drum)
        programs = {}
        for program in np.unique(notes.program[~notes.is_drum]).tolist():
            at = [row for row in zip(notes.start, notes.pitch, notes.program, notes.is_drum,
                                     strict=True) if row[2] == program and not row[3]]
            new = {int(p) for s, h, p, d in zip(other.start, other.pitch, other.program, other.is_drum,
                                                strict=True)
                   if not d and any(s == a and h == b for a, b, *_ in at)}
            programs[program] = new
        for program, (new,) in ((k, v) for k, v in programs.items() if len(v) == 1):
            assert nearest_slakh_class(new) != nearest_slakh_class(program)
            low, high = program_range(new)
            pitch = notes.pitch[(notes.program == program) & ~notes.is_drum]
            assert low <= pitch.min() and pitch.max() <= high  # every one of these parts fits somewhere
        new = np.unique(other.program[~other.is_drum])
        assert len(new) == len(programs)  # none shares its new program with another
        seen |= set(new.tolist())
    assert len(seen) > 10


def test_the_other_timbre_sounds_at_the_same_times_as_asked_for(of):
    """Programs from 64 sound an octave higher in this font."""
    for item in of(LONG, instruments=("1",), pair=("64",)).list().items:
        a, b = heard(item.audio), heard(item.source)
        notes = item.notes()
        assert len(a) == len(b) and set(notes.program.tolist()) == {1}
        assert tone_of(a, notes) == pytest.approx(expected_hertz(1, 64, False), abs=1)
        assert tone_of(b, notes) == pytest.approx(expected_hertz(64, 64, False), abs=1)
        for start in notes.start[(notes.start > 0.03) & (notes.start < 1.9)]:
            for samples in (a, b):  # silence before, tone after
                before = samples[round((start - 0.02) * RATE):round((start - 0.003) * RATE)]
                after = samples[round((start + 0.003) * RATE):round((start + 0.03) * RATE)]
                assert np.abs(before).max() < 1e-2 * np.abs(after).max()


def test_the_other_timbre_may_be_of_another_font(of, fonts):
    data_set = of(LONG, soundfonts=fonts, instruments=("0",), pair=("1",), pair_font=True,
                  train_hours=20 / 3600)
    factors = set()
    for item in data_set.list().items:
        assert item.audio.files[0] != item.source.files[0]
        other, own = (tone_of(heard(s), item.notes()) for s in (item.source, item.audio))
        factors.add(round(other / own, 2))
    assert factors == {2.0, 0.5}


def test_named_timbres_and_numbers(of):
    data_set = of(Notes.concatenate([part(0, 64), part(40, 67)]), instruments=("viola", "60"),
                  pair=("Acoustic Piano",))
    for item in data_set.list().items:
        assert set(item.notes().program.tolist()) == {41, 60}
        assert set(item.source.excerpt.paired_notes().program.tolist()) == {0}


@pytest.mark.parametrize("pair, count", [(("60", "61", "62"), 3), (("60", "61"), 2), (("60",), 1)])
def test_parts_share_a_timbre_only_where_the_choice_is_too_small(of, pair, count):
    band = Notes.concatenate([part(0, 64), part(40, 67), part(73, 79)])
    for item in of(band, pair=pair, train_hours=10 / 3600).list().items:
        programs = set(item.source.excerpt.paired_notes().program.tolist())
        assert programs <= set(map(int, pair)) and len(programs) == count


def test_a_parts_own_program_is_no_other_timbre_unless_it_is_the_only_one(of):
    band = Notes.concatenate([part(0, 64), part(40, 67), part(73, 79)])
    for pair in (("0", "40", "73"), ("0", "40")):
        for item in of(band, pair=pair, train_hours=10 / 3600).list().items:
            notes, other = item.notes(), item.source.excerpt.paired_notes()
            for pitch in (64, 67, 79):
                own, new = (n.program[n.pitch == pitch] for n in (notes, other))
                assert set(own) != set(new) and len(set(new)) == 1
    for item in of(part(0, 64), pair=("0",)).list().items:
        assert set(item.source.excerpt.paired_notes().program) == {0}


def test_excerpts_depend_on_options_split_and_number_alone(of):
    def drawn(data_set, *, backwards=False):
        soundfont_excerpts.forget()
        items = data_set.list().items[::-1 if backwards else 1]
        return {item.name: heard(item.audio).tobytes() for item in items}

    options = dict(room=0.5, shelf=0.5, solo=0.3, reorchestrate=1.0, onset_jitter=0.01)
    first = drawn(of(BAND, **options))
    assert drawn(of(BAND, **options), backwards=True) == first
    longer = drawn(of(BAND, train_hours=10 / 3600, **options))
    assert {name: longer[name] for name in first} == first and len(longer) == len(first) + 2
    assert len(set(longer.values())) == len(longer)
    other = drawn(of(BAND, seed=1, **options))
    assert set(other) == set(first) and not set(other.values()) & set(first.values())


def test_training_excerpts_are_shifted_in_pitch_and_held_out_ones_are_not(of):
    base = expected_hertz(0, 64, False)
    steps = collections.defaultdict(set)
    for item in of(LONG, transpose=2, train_hours=60 / 3600).list().items:
        step = 12 * np.log2(tone_of(heard(item.audio), item.notes()) / base)
        assert step == pytest.approx(round(step), abs=0.05)
        assert {int(p) - 64 for p in item.notes().pitch} == {round(step)}
        steps[item.split].add(round(step))
    assert steps == {"train": {-2, -1, 0, 1, 2}, "validation": {0}}


def test_performances_are_a_list_of_fonts_and_rooms(of, fonts):
    data_set = of(part(0, 64), soundfonts=fonts, performances=5, room=1.0, shelf=0.5,
                  train_hours=80 / 3600)
    conditions = collections.defaultdict(set)
    for item in data_set.list().items:
        conditions[item.performance].add(item.audio.excerpt.recording)
    assert len(conditions) == 5 and all(len(c) == 1 for c in conditions.values())
    assert len(set.union(*conditions.values())) == 5
    assert collections.Counter(name.rpartition("-")[0] for name in conditions) == {"low": 3, "high": 2}
    for item in data_set.list().items[:4]:  # it is heard
        recording = item.audio.excerpt.recording
        assert item.performance.startswith(item.audio.files[0].rpartition("/")[2][:-4])
        dry = dataclasses.replace(recording, room=None, shelf=None)
        excerpt = dataclasses.replace(item.audio.excerpt, recording=dry)
        plain = heard(soundfont_excerpts.RenderedSound(excerpt=excerpt))
        want = np.convolve(plain, recording.room.impulse_response(RATE))[:len(plain)]
        if recording.shelf is not None:
            want = np.convolve(want, recording.shelf.impulse_response(RATE))[:len(plain)]
        np.testing.assert_allclose(heard(item.audio), want, atol=1e-5)
    assert {item.performance for item in of(part(0, 64)).list().items} == {None}


def test_solos_are_one_part_and_labelled_with_its_class(of):
    styles = collections.Counter()
    band = Notes.concatenate([part(0, 64), part(70, 60), part(0, 38, drum=True)])
    for item in of(band, solo=1.0, train_hours=160 / 3600).list().items:
        programs = item.audio.excerpt.programs()
        assert len(programs) == 1
        kind = "Drums" if programs[0] == DRUM_PROGRAM else SLAKH_CLASSES[nearest_slakh_class(
            programs[0])].name
        assert item.style == kind
        styles[kind] += 1
    # Of the piece's three parts one is drums: 27 ± 4 of 81; the others on instruments of all classes.
    assert 13 <= styles["Drums"] <= 42 and len(styles) > 20
    assert {item.style for item in of(BAND).list().items} == {None}


def test_solos_and_others_are_drawn_in_their_shares(of):
    data_set = of(BAND, solo=0.3, room=0.2, shelf=0.7)
    sources = data_set.scores()["train"]
    drawn = [data_set.excerpt("train", i, sources) for i in range(400)]
    for share, has in [(0.3, [e.solo for e in drawn]), (0.2, [bool(e.recording.room) for e in drawn]),
                       (0.7, [bool(e.recording.shelf) for e in drawn])]:
        assert np.mean(has) == pytest.approx(share, abs=0.1)  # binomial: ± 0.025


@pytest.mark.parametrize("options", [{}, dict(pair=("other",), pair_font=True),
                                     dict(performances=6, room=1.0)])
def test_a_shard_needs_one_font_and_does_not_depend_on_what_comes_after(of, fonts, options):
    def shards(train_hours):
        items = listed(of(part(0, 60), soundfonts=fonts, per_shard=5, train_hours=train_hours,
                          **options))
        return {item.name: (item.shard, item.audio.files[0], item.source and item.source.files[0])
                for item in items}

    few, many = shards(50 / 3600), shards(100 / 3600)
    assert {name: many[name] for name in few} == few
    fonts_of, size = collections.defaultdict(set), collections.Counter()
    for shard, *its in many.values():
        fonts_of[shard].add(tuple(its))
        size[shard] += 1
    assert all(len(f) == 1 for f in fonts_of.values()) and max(size.values()) == 5
    assert len(size) <= 50 / 5 + 2


def test_pieces_that_begin_late_or_are_short_have_notes(of):
    late = dataclasses.replace(part(0, 64), start=9 + 0.01 * np.arange(40),
                               end=9.005 + 0.01 * np.arange(40))
    for notes in (late, part(0, 64, count=1)):
        for item in of(notes, stretch=0.2, train_hours=20 / 3600).list().items:
            assert len(item.notes()) and item.notes().start.min() < 2.0
            assert np.abs(heard(item.audio)).max() > 1e-3


def test_programs_that_a_font_lacks_are_one_line_errors(of, tmp_path):
    (tmp_path / "few.sf2").write_bytes(soundfont(programs=[0]))
    item = listed(of(part(5, 60), soundfonts=(str(tmp_path / "few.sf2"),)))[0]
    with pytest.raises(UserError, match="few.sf2: has no program 5") as error:
        heard(item.audio)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options, reason", [
    (dict(soundfonts=()), "needs a SoundFont"), (dict(soundfonts=("nowhere.sf2",)), "nowhere.sf2"),
    (dict(seconds=0.5), "0.5 s"), (dict(room=1.5), "1.5 room"), (dict(solo=float("nan")), "nan solo"),
    (dict(peak_db=(-3.0, 1.0)), "dBFS"), (dict(peak_db=(-3.0,)), "dBFS"), (dict(train_hours=-1), "hours"),
    (dict(performances=3), "3 performances of 1 SoundFonts"), (dict(instruments=("Kazoo",)), "Kazoo"),
    (dict(pair=("128",)), "128"), (dict(pair_font=True), "pair_font"), (dict(per_shard=0), "0 excerpts"),
    (dict(reorchestrate=2.0), "reorchestrate"), (dict(transpose=-1), "transpose"),
    (dict(test_hours=1.0), "no scores of split test"), (dict(folder="nowhere"), "nowhere: no such folder"),
    (dict(train_hours=0, validation_hours=0), "0 hours")])
def test_impossible_options_are_one_line_errors(of, options, reason):
    with pytest.raises(UserError, match=reason) as error:
        dataclasses.replace(of(BAND), **options).list()
    assert "\n" not in str(error.value)


def test_options_may_be_text_and_tell_data_sets_apart(of, fonts):
    text = open_set("soundfont", "scores", {
        "soundfonts": ",".join(fonts), "train_hours": "2", "room": "0.5", "peak_db": "-20,-1",
        "pair": "other", "instruments": "Violin, 3", "pair_font": "True", "transpose": "1"})
    same = SoundFontRenders(
        folder="scores", soundfonts=fonts, train_hours=2, room=0.5, peak_db=(-20, -1), pair=("other",),
        instruments=("Violin", "3"), pair_font=True, transpose=1)
    assert text == same
    assert same.identity() == dataclasses.replace(same, folder="elsewhere", train_hours=3).identity()
    assert same.identity() != dataclasses.replace(same, transpose=2).identity()
    assert "soundfonts" not in str(same.identity()).replace("'soundfonts': ['low.sf2', 'high.sf2']", "")


def test_items_become_records(of, tmp_path):
    data_set = of(BAND, stems=True, pair=("other",), performances=1, peak_db=(-9.0, -9.0))
    manifest = build(data_set, "soundfont", BuildPlan(frames=100, stems=True, workers=1),
                     str(tmp_path / "out"))
    assert manifest["records"] == {"train": 3, "validation": 1, "test": 0}
    assert manifest["classes"] == {"performance": ["low-00"]} and not manifest["skipped"]
    shard = records.shard_paths(tmp_path / "out", "train")[0]
    for message in records.read_shard(shard):
        record = records.Record.from_bytes(message)
        assert record.mel.shape == record.source.shape == (100, 128)
        assert len(record.stems) == len(split_parts(record.notes)) == 3


def test_rendering_is_measured_over_the_excerpts_of_a_shard(of, fonts):
    data_set = of(part(0, 64), soundfonts=fonts, per_shard=2, train_hours=20 / 3600)
    for excerpts, seconds in ((1, 2.0), (5, 4.0)):
        speed = measure_rendering(data_set, MelCodec(), excerpts)
        assert speed.audio_seconds == seconds and speed.wall_seconds > 0


def test_table_of_recordings(of, fonts, tmp_path):
    table = tmp_path / "recordings.csv"
    table.write_text("name,soundfont,rt60,wet_db\nnear,low.sf2,,\nfar,high.sf2,0.4,-3\n")
    renders = of(part(0, 60), soundfonts=fonts, recordings_table=str(table), train_hours=24 / 3600)
    items = renders.list().items
    assert {item.performance for item in items} == {"near", "far"}
    assert {name for name, _ in renders.identity()["recordings"]} == {"near", "far"}
    for item in items:
        recording = item.audio.excerpt.recording
        assert (item.performance == "far") == (recording.room is not None)
        assert recording.soundfont == fonts[item.performance == "far"]
    with pytest.raises(UserError, match="leave performances, room and shelf out"):
        of(part(0, 60), soundfonts=fonts, recordings_table=str(table), room=0.5)
