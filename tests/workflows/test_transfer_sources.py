"""What has to be beaten, and the mixing of parts: each does what it says, file by file."""

import csv
import types

import numpy as np
import pytest
import soundfile

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.notes.conversions import Conversion
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM
from music_diffusion.synthesis.hearing import Hearing
from music_diffusion.workflows import transfer_sources as module
from music_diffusion.workflows.transfer_sources import casting_of, transfer_sources

RATE = 16000


def noise(seed, seconds=1.0, gain=0.1):
    return (gain * np.random.default_rng(seed).normal(size=round(seconds * RATE))).astype(np.float32)


@pytest.fixture
def pairs(tmp_path):
    """Three recordings of one conversion, each with two parts; their targets are a quarter as loud."""
    rows = [("file", "source", "target")]
    for i, name in enumerate("abc"):
        parts = [noise(10 * i + k) for k in (1, 2)]
        for folder, file, samples in (("source", name, sum(parts)), ("target", name, 0.25 * sum(parts)),
                                      ("parts", f"{name}.1", parts[0]), ("parts", f"{name}.2", parts[1])):
            (tmp_path / folder).mkdir(exist_ok=True)
            soundfile.write(tmp_path / folder / f"{file}.wav", samples, RATE, subtype="FLOAT")
        rows.append((name, "piano+flute", "harp+violin"))
    with (tmp_path / "conversions.csv").open("w", newline="") as f:
        csv.writer(f).writerows(rows)
    return tmp_path


def plan(pairs, **more):
    return EvaluationPlan(**{
        "reference": str(pairs / "target"), "sources": str(pairs / "source"), "method": "nothing",
        "conversions": str(pairs / "conversions.csv"), "inverter": "griffin_lim"} | more)


def made(pairs, **more):
    speed, problems = transfer_sources(plan(pairs, **more), str(pairs / "out"), lambda share: None)
    assert speed is None or "model" in more
    files = sorted((pairs / "out").glob("*.flac"))
    return {path.stem: read_audio(path).samples for path in files}, problems


def test_nothing_is_the_recording_and_so_is_the_sum_of_its_parts(pairs):
    whole, problems = made(pairs)
    assert list(whole) == ["a", "b", "c"] and problems == []
    apart, _ = made(pairs, parts=str(pairs / "parts"))
    for name, samples in whole.items():
        given = read_audio(pairs / "source" / f"{name}.wav").samples
        np.testing.assert_allclose(samples, given, atol=2 ** -22)
        np.testing.assert_allclose(apart[name], given, atol=2 ** -22)


def test_recolouring_adds_what_the_other_recordings_gain(pairs):
    # The third one's own target would make it far louder; for the others that is a mean of two colours.
    soundfile.write(pairs / "target" / "c.wav", 4 * read_audio(pairs / "source" / "c.wav").samples, RATE,
                    subtype="FLOAT")
    coloured, _ = made(pairs, method="recoloured")
    codec = MelCodec()
    for name, gain in (("a", 1.0), ("b", 1.0), ("c", 0.25)):  # sqrt(0.25 * 4), 0.25
        given = read_audio(pairs / "source" / f"{name}.wav").samples
        difference = codec.encode(coloured[name]).mean() - codec.encode(given).mean()
        assert difference == pytest.approx(np.log(gain), abs=0.15), name
    whole, _ = made(pairs, method="recoloured", parts=str(pairs / "parts"))
    np.testing.assert_array_equal(whole["a"], coloured["a"])


def test_the_only_recording_of_its_kind_has_no_colour_to_learn(pairs):
    (pairs / "conversions.csv").write_text("file,source,target\na,piano,harp\nb,flute,harp\nc,flute,harp\n")
    coloured, problems = made(pairs, method="recoloured")
    assert list(coloured) == ["b", "c"] and "only recording" in problems[0].what


def test_what_is_there_already_is_kept_until_something_changes(pairs, monkeypatch):
    made(pairs)
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("made again"))
    made(pairs)
    monkeypatch.undo()
    soundfile.write(pairs / "source" / "b.wav", noise(99), RATE, subtype="FLOAT")
    again, _ = made(pairs)
    np.testing.assert_allclose(again["b"], noise(99), atol=2 ** -22)


def test_files_without_a_row_or_a_part_are_named(pairs):
    (pairs / "conversions.csv").write_text(
        "file,source,target\na,piano+flute,harp+violin\nb,piano+flute,harp+violin\n")
    (pairs / "parts" / "b.2.wav").unlink()
    found, problems = made(pairs, parts=str(pairs / "parts"))
    assert list(found) == ["a"]
    assert {problem.file.rsplit("/", 1)[1]: problem.what for problem in problems} == {
        "c.wav": f"is in no row of {pairs / 'conversions.csv'}",
        "b.wav": "has no part b.2; write them with `prepare conversions`"}


def test_nothing_to_change_is_an_error(pairs):
    (pairs / "conversions.csv").write_text("file,source,target\nother,piano,harp\n")
    with pytest.raises(UserError, match="none of 3 files"):
        made(pairs)


def test_played_is_what_is_heard_on_the_wanted_instruments(pairs, monkeypatch):
    heard = Notes(*map(np.array, ([0.0, 0.5], [0.5, 1.0], [60, 69], [90, 90], [0, 73], [False, False])))
    asked = []

    class Player:
        def synthesize(self, notes, settings, *, normalized):
            assert not normalized and settings.seed == 5
            asked.append(notes)
            return Waveform(np.full(2 * RATE, 0.5, np.float32), RATE)

    monkeypatch.setattr(module, "load", lambda *_: Player())
    ear = types.SimpleNamespace(sample_rate=RATE, model=types.SimpleNamespace(decode=None),
                                transcribe=lambda samples: types.SimpleNamespace(activations=samples))
    monkeypatch.setattr(module, "load_transcriber", lambda: ear)
    monkeypatch.setattr(module, "only_classes", lambda activations, classes: (activations, classes))
    monkeypatch.setattr(module, "decode_notes", lambda given, decode: heard)
    monkeypatch.setattr(module, "model_digests", lambda name: [name])
    played, _ = made(pairs, method="played", model="player", seed=5)
    assert [notes.program.tolist() for notes in asked] == [[46, 40]] * 3
    assert all(len(samples) == RATE for samples in played.values())  # as long as the recording


def test_a_conversion_casts_each_instrument_and_one_alone_all_that_is_heard():
    both = casting_of(Conversion(source=("piano", "flute"), target=("harp", "violin")))
    assert dict(both.of_class)[int(SLAKH_CLASS_OF_PROGRAM[73])] == 40 and both.rest is None
    one = casting_of(Conversion(source=("flute",), target=("harp",)))
    assert one.rest == 46 and one.heard == (int(SLAKH_CLASS_OF_PROGRAM[73]),)


def test_a_model_that_restyles_gets_the_target_of_another_piece(pairs, monkeypatch):
    """The next one of the same instruments, by name; the last gets the first."""
    heard = []

    def transfer_file(synthesizer, path, output, *, hearing, **options):
        heard.append((path[-5], hearing.style))
        soundfile.write(output, noise(0), RATE, subtype="FLOAT")
        return types.SimpleNamespace(**dict.fromkeys(module.SPEED, 1.0) | {"devices": "1 toy"})

    model = types.SimpleNamespace(hears=True, restyles=True)
    for name, value in (("load", lambda *_: types.SimpleNamespace(model=model, codec=MelCodec())),
                        ("load_transcriber", object), ("model_digests", lambda name: [name]),
                        ("open_style", lambda synthesizer, path, source: Hearing(
                            transcriber=None, style=(path[-5], source))), ("transfer_file", transfer_file)):
        monkeypatch.setattr(module, name, value)
    made(pairs, model="toy", method="model")
    assert heard == [("a", ("b", "piano,flute")), ("b", ("c", "piano,flute")), ("c", ("a", "piano,flute"))]
    for name in "ab":
        (pairs / "source" / f"{name}.wav").unlink()
    with pytest.raises(UserError, match="no other to sound like"):
        made(pairs, model="toy", method="model", seed=1)
