"""`music-diffusion reconstruct`: one JSON object, the picture, and every kind of bad input."""

import json
import sys

import numpy as np
import pytest
import soundfile
from reference.tiny_inverter import MODEL, write_inverter
from reference.tiny_release import write_release

from music_diffusion.audio.io import read_audio
from music_diffusion.cli import main as module
from music_diffusion.evaluation.spectral import fine_spectral_distance, log_mel_distance
from music_diffusion.synthesis import hub


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_inverter(root / "tiny")
    write_release(root / "denoiser", {"a": np.zeros(1)})
    return root


@pytest.fixture
def cli(tmp_path, weights, monkeypatch, capfd):
    """Runs the command in a folder with in.wav; returns (exit code, stdout, stderr)."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "in.wav", 0.1 * rng.normal(size=(6000, 2)), 16000)
    monkeypatch.setattr(hub, "weights_root", lambda: weights)
    monkeypatch.chdir(tmp_path)

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", "reconstruct", *arguments])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return cli


def test_json_is_one_object_with_the_distances_of_the_files(cli, tmp_path):
    code, out, err = cli("in.wav", "-o", "out.flac", "--inverter", "tiny", "--plot", "out.png", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert set(facts) == {"output", "plot", "plot_error", "inverter", "sample_rate", "channels",
                          "audio_seconds",
                          "wall_seconds", "realtime_factor", "peak_memory_mb", "start_up_seconds",
                          "devices", "peak", "log_mel_l1", "fine_spectral_distance"}
    wall, half = facts["wall_seconds"], 6e-4  # both are rounded to 1/1000
    assert 0.375 / (wall + half) - half <= facts["realtime_factor"] <= 0.375 / (wall - half) + half
    assert (facts["inverter"], facts["output"], facts["plot"]) == ("tiny", "out.flac", "out.png")
    assert (facts["sample_rate"], facts["channels"], facts["audio_seconds"]) == (8000, 2, 0.375)
    given = read_audio("in.wav").resample(8000).samples.T
    made = read_audio("out.flac").samples.T
    # The file has 16 bits, the figures are from before.
    assert facts["log_mel_l1"] == pytest.approx(
        np.mean([log_mel_distance(MODEL.codec, a, b) for a, b in zip(given, made, strict=True)]), abs=0.05)
    assert facts["fine_spectral_distance"] == pytest.approx(
        np.mean([fine_spectral_distance(a, b, 8000) for a, b in zip(given, made, strict=True)]), abs=0.05)
    assert facts["peak"] == pytest.approx(np.abs(made).max(), abs=1e-3)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_people_get_one_line(cli, tmp_path):
    code, out, err = cli("in.wav", "-o", "out.wav", "--inverter", "tiny", "--mono")
    assert (code, err) == (0, "") and out.startswith("out.wav: 0.4 s of audio in ") and out.count("\n") == 1
    assert read_audio("out.wav").channels == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav", "out.wav"]


@pytest.mark.parametrize("arguments, word", [
    (["none.wav", "-o", "out.wav"], "none.wav: no such file"),
    (["text.wav", "-o", "out.wav"], "cannot be read as audio"),
    (["empty.wav", "-o", "out.wav"], "the file is empty"),
    (["bare.wav", "-o", "out.wav"], "has no samples"),
    (["in.wav", "-o", "none/out.wav"], "folder"),
    (["in.wav", "-o", "out.doc"], "unknown extension"),
    (["in.wav", "-o", "out.wav", "--plot", "out.svg"], "unknown extension"),
    (["in.wav", "-o", "out.wav", "--inverter", "tinny"], "did you mean tiny?"),
    (["in.wav", "-o", "out.wav", "--inverter", "denoiser"], "is no inverter"),
    (["in.wav", "-o", "out.wav", "--inverter", "soundstream:nowhere"], "no SavedModel there"),
    (["in.wav", "-o", "out.wav", "--inverter", "soundstream_onnx:no.onnx"], "no such file"),
], ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_bad_input_is_one_line_and_nothing_is_written(cli, tmp_path, arguments, word):
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "bare.wav", np.zeros(0), 16000)
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and word in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_bad_source_is_found_before_the_inverter_is_loaded(cli, monkeypatch):
    monkeypatch.setattr("music_diffusion.workflows.listen.load_inverter", None)
    assert "none.wav: no such file" in cli("none.wav", "-o", "out.wav")[2]
