"""`music-diffusion transcribe`: the MIDI file, one JSON object, the picture, every kind of bad input."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import soundfile
from reference.tiny_inverter import write_inverter
from reference.tiny_transcriber import MODEL, write_transcriber

from music_diffusion.cli import main as module
from music_diffusion.models import transcriber as listening
from music_diffusion.notes.activations import draw_activations
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import hub

NOTES = Notes([0.1, 0.2, 0.5, 0.6], [0.5, 0.55, 1.0, 0.65], [60, 64, 67, 38], [80, 90, 100, 100],
              [0, 40, 40, 0], [False, False, False, True])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_transcriber(root / "transcriber")
    write_inverter(root / "inverter")
    return root


@pytest.fixture
def cli(tmp_path, weights, monkeypatch, capfd):
    """Runs the command in a folder with in.wav (1.5 s); returns (exit code, stdout, stderr)."""
    soundfile.write(tmp_path / "in.wav", 0.1 * np.random.default_rng(0).normal(size=(24000, 2)), 16000)
    monkeypatch.setattr(hub, "weights_root", lambda: weights)
    monkeypatch.chdir(tmp_path)

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", "transcribe", *arguments])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return cli


@pytest.fixture
def hears_notes(monkeypatch):
    """The network says what a perfect one would say of NOTES."""
    drawn = draw_activations(NOTES, 0.0, 4000, MODEL.spectrum.frame_seconds)
    classes = np.unpackbits(drawn.classes, axis=-1, count=34).astype(np.float32)
    chunk = listening.Transcriber._chunk

    def heard(self, samples, first, frames):
        said = chunk(self, samples, first, frames)
        here = slice(first, first + frames)
        at, pitch = np.nonzero(drawn.frame[here])
        return said | {k: getattr(drawn, k)[here] for k in ("onset", "frame", "velocity", "drums")} | {
            "at": at + first, "pitch": pitch, "classes": classes[here][at, pitch]}

    monkeypatch.setattr(listening.Transcriber, "_chunk", heard)


def test_the_notes_that_are_heard_are_in_the_file(cli, hears_notes, tmp_path):
    code, out, err = cli("in.wav", "-o", "out.mid", "--plot", "out.png", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["output"], facts["plot"], facts["transcriber"]) == ("out.mid", "out.png", "transcriber")
    assert (facts["notes"], facts["drums"], facts["programs"]) == (4, 1, [0, 40])
    assert facts["audio_seconds"] == 1.5 and facts["realtime_factor"] > 0
    notes = read_midi("out.mid")
    for name in ("pitch", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(notes, name), getattr(NOTES, name))
    np.testing.assert_allclose(notes.start, NOTES.start, atol=0.003)
    melodic = ~NOTES.is_drum
    np.testing.assert_allclose(notes.end[melodic], NOTES.end[melodic], atol=0.026)  # a frame
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_people_get_one_line_and_nothing_else_is_written(cli, hears_notes, tmp_path):
    code, out, err = cli("in.wav", "-o", "out.mid", "--plot", "out.png")
    assert code == 0 and out.startswith("out.mid: ") and out.count("\n") == 1
    # The untrained network hears more instruments than a MIDI file has channels.
    assert all(line.startswith("warning: ") for line in err.splitlines())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav", "out.mid", "out.png"]


def test_thresholds_decide_how_many_notes_are_heard(cli):
    counts = []
    for onset in ("1.0", "0.01"):  # the untrained network says about a half to everything
        code, out, _ = cli("in.wav", "-o", "out.mid", "--onset", onset, "--json")
        assert code == 0
        counts.append(json.loads(out)["notes"])
    assert counts[0] < counts[1]


@pytest.mark.parametrize("arguments, word", [
    (["none.wav", "-o", "out.mid"], "none.wav: no such file"),
    (["text.wav", "-o", "out.mid"], "cannot be read as audio"),
    (["bare.wav", "-o", "out.mid"], "has no samples"),
    (["in.wav", "-o", "out.wav"], "unknown extension"),
    (["in.wav", "-o", "none/out.mid"], "folder"),
    (["in.wav", "-o", "out.mid", "--plot", "out.svg"], "unknown extension"),
    (["in.wav", "-o", "out.mid", "--transcriber", "nobody"], "no such model"),
    (["in.wav", "-o", "out.mid", "--transcriber", "inverter"], "is no transcriber"),
    (["in.wav", "-o", "out.mid", "--onset", "0"], "onset_threshold"),
], ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_bad_input_is_one_line_and_nothing_is_written(cli, tmp_path, arguments, word):
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "bare.wav", np.zeros(0), 16000)
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and word in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_released_transcriber_is_opened_as_it_was(weights):
    loaded = hub.load_transcriber(weights / "transcriber")
    assert loaded.model == MODEL and loaded.name == "transcriber"
    assert dataclasses.asdict(loaded.model.decode) == dataclasses.asdict(MODEL.decode)
