"""Dumped examples: pictures, sounds and notes of the very examples that training sees."""

import pathlib
import sys

import numpy as np
import pytest
from reference.tiny_records import CODEC, TinySet, made_notes, write_records

from music_diffusion.audio.io import read_audio
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.spectrograms import SourceSpectrogram
from music_diffusion.data.pipeline import RecordSource
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.synthesis import plot
from music_diffusion.synthesis.hub import load_inverter
from music_diffusion.workflows import dump
from music_diffusion.workflows.requests import DumpRequest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("records") / "data")


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Dumps examples; returns what was written. seqio and TensorFlow are not there."""
    for name in ("seqio", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)

    def run(task, **options):
        arguments = dict(folder=folder, output="out", count=2, split="train", inverter="griffin_lim_hop",
                         seed=3) | options
        return dump.dump_examples(DumpRequest(task=task, **arguments))

    return run


def files(folder="out"):
    return sorted(p.name for p in pathlib.Path(folder).iterdir())


@pytest.mark.slow
def test_sounds_are_the_examples_of_training(run, folder):
    facts = run("soundfont_timbre_transfer").facts
    assert files() == ["000.png", "000.wav", "000_source.wav", "001.png", "001.wav", "001_source.wav"]
    assert [f for e in facts["examples"] for f in e["files"]] == files()
    source = RecordSource(folder=folder, codec=CODEC, frames=128, conditions=SourceSpectrogram())
    inverter = load_inverter("griffin_lim_hop", CODEC)
    for i in range(2):
        example = source.dataset("train", 3)[i]
        for feature, name in (("targets", f"{i:03d}.wav"), ("source", f"{i:03d}_source.wav")):
            heard = read_audio(f"out/{name}")
            assert heard.sample_rate == CODEC.sample_rate and len(heard.samples) == 128 * CODEC.hop
            want = inverter.invert(CODEC.unscale(example[feature]))
            np.testing.assert_allclose(heard.samples, want, atol=1e-4)
    assert facts["features"].keys() == {"targets", "source"}
    its = facts["features"]["source"]
    assert (its["shape"], its["dtype"]) == ([128, CODEC.mels], "float32")
    both = [source.dataset("train", 3)[i]["source"] for i in range(2)]
    assert (its["min"], its["max"]) == (np.min(both), np.max(both))


@pytest.mark.parametrize("task, bins", [("paired_folder_frame_diffusion", 127), ("urmp_performance", 1)])
def test_notes_are_those_of_the_record(run, tmp_path, task, bins):
    # A record that is shorter than a segment is always shown from its start.
    short = write_records(tmp_path / "short", TinySet(seconds={"train": (2.0,), "validation": (3.0,)}))
    run(task, folder=short, count=1)
    assert files() == ["000.mid", "000.png", "000.wav"]
    got, want = read_midi("out/000.mid"), made_notes("train/0", 2.0)
    order = [np.lexsort((n.start.round(2), n.pitch, n.program, n.is_drum)) for n in (got, want)]
    got, want = got[order[0]], want[order[1]]
    for field in ("pitch", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(got, field), getattr(want, field))
    np.testing.assert_array_equal(got.velocity, want.velocity if bins == 127 else 127)
    np.testing.assert_allclose(got.start, want.start, atol=2e-3)
    assert len(read_audio("out/000.wav").samples) == 256 * CODEC.hop


def test_the_picture_has_a_panel_for_everything(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(dump, "draw_mel", lambda axes, mel, *rest: (
        drawn.append(mel), plot.draw_mel(axes, mel, *rest)))
    monkeypatch.setattr(dump, "draw_roll", lambda axes, notes: drawn.append(len(notes)))
    run("maestro_spectrogram_diffusion_context", count=1)
    assert len(drawn) == 3 and drawn[0] > 5
    assert all(mel.shape == (256, CODEC.mels) for mel in drawn[1:])
    drawn.clear()
    run("gtzan_style_transfer", count=1)
    assert [mel.shape for mel in drawn] == [(128, CODEC.mels)] * 2
    for mel in drawn:  # in nat
        assert mel.min() >= CODEC.log_min - 1e-3 and mel.max() > 0.5
    data = pathlib.Path("out/000.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"


@pytest.mark.slow
def test_people_get_remarks_with_labels_by_name(run, folder):
    done = run("musicnet_performance", count=3, seed=0)
    source = RecordSource(folder=folder, codec=CODEC,
                          conditions=NoteTokens(performance=PerformanceNumbers()))
    names = [("quartet", "trio")[int(source.dataset("train", 0)[i]["performance"])] for i in range(3)]
    for name in set(names):
        assert f"{name} ({names.count(name)})" in done.remarks["performance"]
    assert done.facts["features"]["targets"]["shape"] == [256, 16]
    assert done.facts["features"]["inputs"]["shape"] == [2048] and "tokens" in done.remarks["inputs"]
    remarks = run("maestro_spectrogram_diffusion_context", count=1).remarks
    assert "of 1 have a segment before" in remarks["targets_context_mask"] and remarks["targets"] == ""


def test_another_seed_shows_others(run):
    a, b, c = (run("saraga_unconditional", seed=seed, count=1).facts for seed in (0, 0, 1))
    assert a["features"] == b["features"] != c["features"]


@pytest.mark.parametrize("task, options, message", [
    ("maestro_frame_difusion", {}, "did you mean maestro_frame_diffusion"),
    ("mega_frame_diffusion", {}, "no such task"),
    ("maestro_unconditional", {"folder": "none"}, "none: no manifest.json"),
    ("maestro_unconditional", {"split": "test"}, "no split 'test', but train, validation"),
    ("maestro_unconditional", {"count": 0}, "--count 0"),
    ("maestro_unconditional", {"seed": -1}, "--seed -1"),
    ("maestro_unconditional", {"inverter": "grifin"}, "grifin: no such inverter"),
    ("maestro_unconditional", {"inverter": "inverter"}, "codecs differ"),
    ("maestro_unconditional", {"output": "file"}, "file: is a file"),
])
def test_bad_input_is_a_one_line_error(run, tmp_path, task, options, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message) as error:
        run(task, **options)
    assert "\n" not in str(error.value)
    assert files(".") == ["file"]


def test_tasks_that_the_records_cannot_serve_are_refused(run, tmp_path):
    plain = write_records(tmp_path / "plain", TinySet(labels=False, notes=False, second_timbre=False))
    for task, lack in (("urmp_performance", "notes"), ("gtzan_style_transfer", "style"),
                       ("starnet_timbre_transfer", "second timbre")):
        with pytest.raises(UserError, match=f"plain: its records have no {lack}, which {task} needs"):
            run(task, folder=plain)
    assert "notes" not in run("maestro_unconditional_long", folder=plain, count=1).facts["examples"][0]
