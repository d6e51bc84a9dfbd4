"""Single files: what is computed, from what, and that nothing is computed twice."""

import dataclasses
import functools
import math
import pathlib

import numpy as np
import pytest
import soundfile
from reference import toy_listeners
from reference.toy_listeners import (
    CALLS,
    RATE,
    ToyEmbedder,
    ToyLoader,
    ToyTranscriber,
    play,
    sine_notes,
)

from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import Cache
from music_diffusion.evaluation.pairing import ItemFiles
from music_diffusion.evaluation.scoring import (
    Scorer,
    Work,
    cut_notes,
    score_item,
    spectral_scores,
    unrelated_notes,
)
from music_diffusion.evaluation.sounds import AudioFacts, LazySound, problems_of, read_start, usable
from music_diffusion.evaluation.tools import Tools, fingerprints, tools_of
from music_diffusion.notes.midi import read_midi, write_midi
from music_diffusion.notes.notes import Notes


@pytest.fixture
def work(tmp_path):
    """A function that makes a `Work`; calls are counted from then on."""
    def make(**tools):
        loader = ToyLoader(**tools)
        made = Work(cache=str(tmp_path / "cache"), loader=loader, max_seconds=60.0, min_seconds=0.5,
                    prints=tuple(fingerprints(tools_of(loader)).items()))
        CALLS.clear()
        return made

    return make


@pytest.fixture
def files(tmp_path):
    """A function that writes a pair with its notes; returns the item."""
    def make(generated, reference=None, notes=None, *, name="song", rate=RATE):
        paths = {"generated": tmp_path / f"{name}_gen.wav", "reference": tmp_path / f"{name}_ref.wav"}
        for path, samples in zip(paths.values(), (generated, reference), strict=True):
            if samples is not None:
                soundfile.write(path, samples, rate, subtype="FLOAT")
        if notes is not None:
            write_midi(notes, tmp_path / f"{name}.mid")
        return ItemFiles(name=name, generated=str(paths["generated"]) if generated is not None else None,
                    reference=str(paths["reference"]) if reference is not None else None,
                    notes=str(tmp_path / f"{name}.mid") if notes is not None else None)

    return make


def test_equal_recordings_have_no_distance_and_all_notes(work, files):
    notes = sine_notes(0)
    found = Scorer(work()).score(files(play(notes), play(notes), notes))
    for name in ("log_mel_distance", "fine_spectral_distance", "reconstruction_toy", "level_difference_db",
                 "pitch_jaccard_distance"):
        assert found.scores[name] == 0.0, name
    for name in ("onset_f1", "offset_f1", "chroma_f1", "reference:onset_f1"):
        assert found.scores[name] == 1.0, name
    assert math.isnan(found.scores["drum_onset_f1"]) and found.problems == []
    assert found.embeddings["toy"]["generated"].shape == (16, 8)  # four a second


def test_scores_are_those_of_the_parts(work, files):
    """Half of the notes, half as loud, against independent arithmetic."""
    notes = sine_notes(1)
    some = notes[np.arange(8) % 2 == 0]
    made, real = 0.8 * play(some), play(notes)
    found = Scorer(work()).score(files(made, real, notes))
    assert found.scores["onset_recall"] == 0.5 and found.scores["onset_precision"] == 1.0
    assert found.scores["onset_f1"] == pytest.approx(2 / 3)
    # Half of the energy, times 0.64.
    assert found.scores["level_difference_db"] == pytest.approx(10 * math.log10(0.5 * 0.64), abs=0.05)
    embed = ToyEmbedder()
    expected = np.linalg.norm(embed(made).astype(float) - embed(real), axis=1).mean()
    assert found.scores["reconstruction_toy"] == pytest.approx(expected, rel=1e-4)
    assert found.counts["generated"]["onset"].matched == 4 and len(found.heard["reference"]) == 8
    # Per note 0.4 s of 0.5 s sound; half of these frames are missed.
    assert found.scores["pitch_jaccard_distance"] == pytest.approx(0.4, abs=0.02)


def test_every_class_of_instruments_counts_its_own_notes(work, files):
    notes = sine_notes(2)
    programs = np.array([0, 40] * 4)
    notes = dataclasses.replace(notes, program=programs)
    audio = play(notes[(programs == 0) | (np.arange(8) < 4)])  # two of four violin notes are missing
    found = Scorer(work()).score(files(audio, play(notes), notes)).instruments
    assert set(found) == {"Acoustic Piano", "Violin"}
    assert (found["Acoustic Piano"]["found"].matched, found["Violin"]["found"].matched) == (4, 2)
    # The toy says piano whatever plays: four of its six notes are, and none is a violin.
    assert found["Acoustic Piano"]["named"].precision == pytest.approx(4 / 6)
    assert found["Violin"]["named"].f1 == 0.0


def test_another_pieces_notes_are_the_floor_and_the_reference_the_ceiling(work, files, tmp_path):
    notes, other = sine_notes(0), sine_notes(5)
    write_midi(other, tmp_path / "other.mid")
    some = notes[:4]
    found = Scorer(work(inverter=True)).score(files(play(some), play(notes), notes),
                                              str(tmp_path / "other.mid")).scores
    assert found["unrelated:onset_f1"] < 0.3 < found["onset_f1"] < 1
    assert found["reference:onset_f1"] == found["inverted:onset_f1"] == 1.0
    # The toy inverter turns down by 0.9.
    assert found["inverted:level_difference_db"] == pytest.approx(20 * math.log10(0.9), abs=1e-3)
    assert found["inverted:log_mel_distance"] < found["log_mel_distance"]


def test_unrelated_notes_are_the_next_with_another_content(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", 2)):
        write_midi(sine_notes(seed), tmp_path / f"{name}.mid")
    (tmp_path / "bad.mid").write_text("no notes")
    items = [ItemFiles(name=n, notes=n and str(tmp_path / f"{n}.mid"))
             for n in ("a", "b", "bad", "c", None, "d")]
    found = [p and pathlib.Path(p).stem for p in unrelated_notes(items)]
    assert found == ["c", "c", "c", "d", None, "a"]
    assert unrelated_notes(items[:2]) == [None, None]


def test_notes_count_as_far_as_the_reference_goes(work, files):
    """Two of eight notes begin after the end; one goes on beyond it."""
    notes = dataclasses.replace(sine_notes(0), end=sine_notes(0).start + 0.5)
    audio = play(notes)[:int(2.75 * RATE)]
    found = Scorer(work()).score(files(audio, audio, notes))
    assert len(found.notes) == 6 and found.notes.duration == pytest.approx(2.75)
    assert found.scores["onset_f1"] == 1.0
    assert [p.kind for p in found.problems] == []  # of half a second it is not worth speaking
    short = Scorer(work()).score(files(audio[:RATE], audio[:RATE], notes))
    assert [(p.kind, p.what) for p in short.problems] == [
        ("notes_length", "6 of 8 notes begin after the audio, which lasts 1.0 s")]
    longer = Scorer(work()).score(files(play(notes), audio, notes))  # what it plays more is no mistake
    assert len(longer.notes) == 6 and longer.scores["onset_precision"] == 1.0
    assert [p.kind for p in longer.problems] == ["length"]
    late = notes.shift(10)
    assert [p.kind for p in Scorer(work()).score(files(audio, audio, late)).problems] == ["notes_length"]


def test_only_the_first_minutes_count(work, files):
    notes = sine_notes(3, seconds=8.0)
    item = files(play(notes, 8.0), np.concatenate([play(notes[:6], 3.0), np.zeros(5 * RATE)]), notes)
    limited = dataclasses.replace(work(), max_seconds=3.0)
    found = Scorer(limited).score(item)
    assert found.scores["log_mel_distance"] == 0.0 and found.problems == []
    assert found.facts["generated"] == AudioFacts(seconds=3.0, sample_rate=RATE, channels=1, cut=True,
                                             peak=pytest.approx(0.3, abs=0.01))


def test_recordings_of_other_rates_and_channels_are_brought_together(work, files, tmp_path):
    notes = sine_notes(0)
    item = files(play(notes), play(notes), notes)
    stereo = np.stack([play(notes, rate=22050), 0.5 * play(notes, rate=22050)], axis=1)
    soundfile.write(item.generated, stereo, 22050)
    found = Scorer(work()).score(item)
    assert {p.kind for p in found.problems} == {"stereo", "sample_rate"}
    assert found.scores["onset_f1"] == 1.0
    assert found.scores["level_difference_db"] == pytest.approx(20 * math.log10(0.75), abs=0.05)


NOISE = 0.1 * np.random.default_rng(0).normal(size=2 * RATE)


@pytest.mark.parametrize("generated, reference, kinds, sides", [
    (np.zeros(16000), NOISE, {"silent"}, {"generated", "reference"}),  # a result, and a bad one
    (9e-5 * np.ones(16000), NOISE, {"silent"}, {"generated", "reference"}),
    (NOISE, np.zeros(16000), {"silent"}, {"generated"}),
    (NOISE[:3000], NOISE, {"too_short", "length"}, {"reference"}),
    (NOISE, NOISE[:3000], {"too_short", "length"}, {"generated"}),
    (NOISE[:14000], NOISE, {"length"}, {"generated", "reference"}),  # 12.5 %
    (NOISE[:15000], NOISE, set(), {"generated", "reference"}),
    (None, NOISE, set(), {"reference"}),
], ids=["zeros", "quiet", "silent reference", "short", "short reference", "lengths", "a tail", "single"])
def test_bad_recordings_are_named_and_the_rest_is_scored(work, files, generated, reference, kinds, sides):
    found = Scorer(work()).score(files(generated, reference))
    assert {p.kind for p in found.problems} == kinds and all(p.file and p.advice for p in found.problems)
    assert set(found.embeddings["toy"]) == sides
    assert ("log_mel_distance" in found.scores) == (len(sides) == 2)
    assert all(not math.isinf(v) for v in found.scores.values())


def test_a_second_of_difference_is_told_of_long_recordings_too(work):
    facts = {s: AudioFacts(seconds=t, sample_rate=RATE, channels=1, peak=0.5, cut=False)
             for s, t in (("generated", 101.1), ("reference", 100.0))}
    item = ItemFiles(name="a", generated="a.wav", reference="b.wav")
    assert [p.kind for p in problems_of(item, facts, 0.5)] == ["length"]
    facts["generated"] = dataclasses.replace(facts["generated"], seconds=100.9)
    assert problems_of(item, facts, 0.5) == []


@pytest.mark.parametrize("content", [b"", b"no audio", b"RIFF\x24\0\0\0WAVEfmt "], ids=len)
def test_what_cannot_be_read_is_a_problem_of_its_side(work, files, content):
    notes = sine_notes(0)
    item = files(play(notes), play(notes), notes)
    pathlib.Path(item.reference).write_bytes(content)
    found = Scorer(work()).score(item)
    assert [(p.kind, p.file) for p in found.problems] == [("unreadable", item.reference)]
    assert item.reference not in found.problems[0].what  # told once
    assert found.scores["onset_f1"] == 1.0 and "log_mel_distance" not in found.scores
    pathlib.Path(item.notes).write_bytes(content)
    found = Scorer(work()).score(item)
    assert {p.kind for p in found.problems} == {"unreadable", "notes_unreadable"} and found.notes is None


def test_without_a_transcriber_there_are_distances_alone(work, files):
    notes = sine_notes(0)
    found = Scorer(work(transcriber=False)).score(files(play(notes), play(notes), notes))
    assert set(found.scores) == {"log_mel_distance", "fine_spectral_distance", "level_difference_db",
                                 "reconstruction_toy"}


def test_more_noise_is_farther(work, files):
    """White noise at 40, 20, 10 and 0 dB below the music: every distance grows."""
    notes, rng = sine_notes(4), np.random.default_rng(1)
    real = play(notes)
    noise = rng.normal(size=len(real)) * math.sqrt(np.square(real).mean())
    made = [Scorer(work()).score(files(real + 10 ** (-db / 20) * noise, real, notes)).scores
            for db in (40, 20, 10, 0)]
    for name in ("log_mel_distance", "fine_spectral_distance", "reconstruction_toy"):
        values = [scores[name] for scores in made]
        assert values == sorted(values) and len(set(values)) == 4, name


def test_what_is_known_is_not_computed_again(work, files, tmp_path):
    notes = sine_notes(0)
    item = files(0.5 * play(notes), play(notes), notes)
    first = Scorer(work(inverter=True)).score(item)
    assert sorted(CALLS) == ["embed"] * 3 + ["invert"] + ["transcribe"] * 3
    again = work(inverter=True)
    second = Scorer(again).score(item)
    assert CALLS == [] and second.scores == pytest.approx(first.scores, nan_ok=True)
    assert second.instruments == first.instruments and second.counts == first.counts
    np.testing.assert_array_equal(second.heard["generated"].start, first.heard["generated"].start)
    # Content counts, and not the name: a copy is known, a changed file is not.
    copy = tmp_path / "copy.wav"
    copy.write_bytes(pathlib.Path(item.generated).read_bytes())
    Scorer(again).score(dataclasses.replace(item, generated=str(copy), name="copy"))
    assert CALLS == []
    soundfile.write(copy, 0.4 * play(notes), RATE, subtype="FLOAT")
    Scorer(again).score(dataclasses.replace(item, generated=str(copy), name="copy"))
    assert sorted(CALLS) == ["embed", "transcribe"]


def test_other_settings_and_other_tools_are_computed_anew(work, files, monkeypatch):
    item = files(NOISE, NOISE)
    Scorer(work()).score(item)
    Scorer(dataclasses.replace(work(), max_seconds=1.0)).score(item)
    assert sorted(set(CALLS)) == ["embed", "transcribe"]
    monkeypatch.setattr(ToyTranscriber, "HOP", 0.01)  # as other weights would
    tools_of.cache_clear()
    Scorer(work()).score(item)
    assert set(CALLS) == {"transcribe"}


@pytest.mark.parametrize("damage", [
    lambda b: b[:-5], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b"{}" + b,
    lambda b: b[:len(b) // 2] + bytes([b[len(b) // 2] ^ 4]) + b[len(b) // 2 + 1:]],
    ids=["cut", "empty", "last bit", "prefix", "middle bit"])
def test_damaged_results_are_computed_again(work, files, tmp_path, damage):
    notes = sine_notes(0)
    item = files(0.5 * play(notes), play(notes), notes)
    again = work()
    first = Scorer(again).score(item)
    for path in sorted((tmp_path / "cache").iterdir()):
        CALLS.clear()
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        found = Scorer(again).score(item)
        assert found.scores == pytest.approx(first.scores, nan_ok=True), path.name
        assert path.read_bytes() == whole  # mended
        kind = path.name.split("-")[0]
        assert CALLS == {"embedding": ["embed"], "transcript": ["transcribe"]}.get(kind, [])


def test_an_interrupted_run_goes_on_where_it_was(work, files, monkeypatch):
    items = [files(play(sine_notes(i)), play(sine_notes(i + 10)), name=f"song{i}") for i in range(3)]
    started = work()
    whole = ToyEmbedder.__call__

    def tired(self, samples):
        if CALLS.count("embed") == 3:
            raise KeyboardInterrupt
        return whole(self, samples)

    monkeypatch.setattr(ToyEmbedder, "__call__", tired)
    with pytest.raises(KeyboardInterrupt):
        for item in items:
            score_item(started, (item, None))
    assert CALLS.count("embed") == 3
    assert not list(pathlib.Path(started.cache).glob(".*"))  # no halves
    monkeypatch.setattr(ToyEmbedder, "__call__", whole)
    CALLS.clear()
    for item in items:
        score_item(started, (item, None))
    assert CALLS.count("embed") == 3 and CALLS.count("transcribe") == 4


def test_the_cache_keeps_types_shapes_and_nan(tmp_path):
    cache = Cache(tmp_path)
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::-1], "b": np.array([True, False]),
              "c": np.zeros((0, 4), np.float32)}
    cache.arrays("x", "1", lambda: arrays)
    found = cache.arrays("x", "1", lambda: pytest.fail("computed again"))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    cache.values("y", "1", lambda: {"n": math.nan, "v": 0.1, "d": {"k": [1, 2]}})
    found = cache.values("y", "1", lambda: pytest.fail("computed again"))
    assert math.isnan(found["n"]) and found["v"] == 0.1 and found["d"] == {"k": [1, 2]}


def test_failures_are_not_kept(tmp_path):
    def fail():
        raise UserError("no")

    cache = Cache(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError):
            cache.values("x", "1", fail)
    assert list(tmp_path.iterdir()) == []


def test_sounds_are_decoded_once_and_only_if_asked_for():
    decoded = []

    def load():
        decoded.append(1)
        return Waveform(NOISE.astype(np.float32), RATE)

    sound = LazySound("key", load)
    assert decoded == []
    assert len(sound.at(RATE)) == 16000 and len(sound.at(16000)) == 32000 and len(sound.at(RATE)) == 16000
    assert decoded == [1]


def test_the_peak_is_that_of_the_mix(tmp_path):
    """The mix is what is scored: of channels that are silent, silence."""
    soundfile.write(tmp_path / "a.wav", np.zeros((len(NOISE), 2)), RATE)
    wave, facts = read_start(str(tmp_path / "a.wav"), 60.0)
    assert facts.silent and facts.channels == 2 and wave.channels == 1
    assert usable("generated", facts, 0.5) and not usable("reference", facts, 0.5)


def test_inverted_stereo_is_scored_by_its_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([NOISE, -NOISE], axis=1), RATE)
    with pytest.warns(UserWarning, match="cancel each other"):
        wave, facts = read_start(str(tmp_path / "a.wav"), 60.0)
    assert not facts.silent and facts.peak == pytest.approx(np.abs(NOISE).max(), abs=1e-4)
    np.testing.assert_allclose(wave.samples, NOISE, atol=1e-4)


def test_spectral_scores_stop_at_the_shorter_end():
    a, b = (LazySound(k, functools.partial(Waveform, x.astype(np.float32), RATE))
            for k, x in (("a", NOISE), ("b", NOISE[:9000])))
    assert spectral_scores(a, b)["log_mel_distance"] == pytest.approx(0.0, abs=0.05)  # of resampling


def test_notes_are_cut():
    notes = Notes([0.0, 1.0, 2.0], [1.5, 3.0, 3.0], [60, 61, 62], [80] * 3, [0] * 3, [False] * 3)
    found = cut_notes(notes, 2.0)
    assert found.start.tolist() == [0, 1] and found.end.tolist() == [1.5, 2.0]


def test_embeddings_need_names_of_their_own():
    with pytest.raises(UserError, match="called alike"):
        Tools(embedders=(ToyEmbedder(), ToyEmbedder()))


def test_the_toys_hear_what_is_played(tmp_path):
    """What the other tests stand on."""
    notes = sine_notes(7)
    heard = toy_listeners.ToyTranscriber().transcribe(play(notes)).notes
    assert heard.pitch.tolist() == notes.pitch.tolist()
    np.testing.assert_allclose(heard.start, notes.start, atol=0.03)
    write_midi(notes, tmp_path / "a.mid")
    assert len(read_midi(tmp_path / "a.mid")) == 8
