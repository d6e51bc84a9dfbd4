"""File names of every kind through the commands: not UTF-8, formulas, markup, several lines."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from reference.tiny_inverter import write_inverter
from reference.tiny_release import tiny_params, write_release
from reference.tiny_transcriber import write_transcriber
from reference.toy_listeners import RATE, ToyEmbedder, ToyTranscriber, play, sine_notes

from music_diffusion.audio.io import native_path
from music_diffusion.cli import main as module
from music_diffusion.evaluation.tools import tools_of
from music_diffusion.models.weights import CONFIG
from music_diffusion.notes.midi import write_midi
from music_diffusion.synthesis import hub
from music_diffusion.workflows import evaluate as evaluating

LATIN = os.fsdecode(b"caf\xe9")
NAMES = [LATIN, "$\\frac{x$", "[.b] [red]", "a\nb", "日本"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_release(root / "tiny", tiny_params())
    write_inverter(root / "inverter")
    listener = write_transcriber(root / "transcriber")
    with open(listener / CONFIG, "a") as f:  # untrained, it would hear thousands of notes
        f.write("TranscriberModel.decode = @DecodeConfig()\n" + "".join(
            f"DecodeConfig.{name}_threshold = 0.999\n" for name in ("onset", "frame", "drum")))
    (root / "tiny" / "README.md").write_bytes(b"# A card of caf\xe9\n")
    return root


@pytest.fixture
def cli(tmp_path, weights, monkeypatch, capfdbinary):
    """Runs a command in a folder of its own; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(hub, "weights_root", lambda: weights)
    monkeypatch.setattr(evaluating, "load_embedder", lambda spec: ToyEmbedder())
    monkeypatch.setattr(evaluating, "load_transcriber", lambda name: ToyTranscriber())
    monkeypatch.chdir(tmp_path)
    tools_of.cache_clear()

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", *arguments])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = (x.decode("utf-8") for x in capfdbinary.readouterr())
        assert "Traceback" not in err
        return stop.value.code or 0, out, err

    return cli


def sound(path, notes=None):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    notes = sine_notes(0, 1.0) if notes is None else notes
    soundfile.write(native_path(path), play(notes, 1.0), RATE, format="WAV")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command, suffix", [("reconstruct", ".wav"), ("transcribe", ".mid")])
def test_sounds(cli, name, command, suffix):
    source, output, picture = sound(f"{name}.wav"), f"{name} 2{suffix}", f"{name} 3.png"
    code, out, _ = cli(command, source, "-o", output)
    assert code == 0 and out.count("\n") == 1
    code, out, _ = cli(command, source, "-o", output, "--plot", picture, "--json")
    facts = json.loads(out)
    assert code == 0 and (facts["output"], facts["plot"]) == (output, picture)
    assert os.path.getsize(facts["output"]) and os.path.getsize(facts["plot"])
    code, _, err = cli(command, f"{name}.nothing", "-o", output)
    assert code == 2 and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [LATIN, "a\nb"])
def test_scores(cli, name):
    write_midi(sine_notes(0, 0.5), f"{name}.mid")
    words = ["synthesize", f"{name}.mid", "-o", f"{name}.wav", "--model", "tiny", "--inverter",
             "griffin_lim"]
    code, out, _ = cli(*words)
    assert code == 0 and out.count("\n") == 1
    code, out, _ = cli(*words, "--plot", f"{name}.png", "--json")
    assert code == 0 and json.loads(out)["output"] == f"{name}.wav" and os.path.getsize(f"{name}.png")


def test_a_whole_evaluation(cli):
    for i, name in enumerate(NAMES):
        for folder in ("gen", "ref"):
            sound(os.path.join(folder, f"{name}.wav"), sine_notes(i, 1.0))
        os.makedirs("mid", exist_ok=True)
        write_midi(sine_notes(i, 1.0), os.path.join("mid", f"{name}.mid"))
    with open(native_path(os.path.join("gen", f"{LATIN} bad.wav")), "wb") as f:
        f.write(b"no audio")
    rows = "".join(f'"{name}.wav",{"AB"[i % 2]}\n' for i, name in enumerate(NAMES))
    with open("groups.csv", "wb") as f:
        f.write(os.fsencode("file,group\n" + rows))
    report = f"report {LATIN}"
    code, out, err = cli("evaluate", "--generated", "gen", "--reference", "ref", "--notes", "mid",
                         "--groups", "groups.csv", "--workers", "1", "-o", report)
    assert code == 0 and rf"report caf\xE9{os.sep}report.html: 6 files" in out, err
    with open(os.path.join(report, "report.json"), encoding="utf-8") as f:
        content = json.load(f)
    for row in content["files"]:
        assert row["generated"] is None or os.path.exists(row["generated"])
    assert any(os.path.exists(p["file"]) and p["kind"] == "unreadable" for p in content["problems"])
    with open(os.path.join(report, "report.html"), encoding="utf-8") as f:
        assert r"caf\xE9 bad.wav" in f.read()
    with open(os.path.join(report, "scores.csv"), encoding="utf-8") as f:
        assert r"caf\udce9" in f.read()


@pytest.mark.parametrize("kind", ["audio_folder", "paired_folder"])
def test_prepared_data(cli, kind):
    for i, name in enumerate([*NAMES, "x"]):
        sound(os.path.join("in", f"{name}.wav"), sine_notes(i, 1.0))
        write_midi(sine_notes(i, 1.0), os.path.join("in", f"{name}.mid"))
    with open(native_path(os.path.join("in", f"{LATIN} bad.wav")), "wb") as f:
        f.write(b"no audio")
    code, _, err = cli("prepare", kind, "in", f"out {LATIN}", "--workers", "1")
    assert code == 2 and r"out caf\xE9: the name is not UTF-8" in err and err.count("\n") == 1
    for more in ([], ["--json"]):
        code, out, err = cli("prepare", kind, "in", "out", "--workers", "1", *more)
        assert code == 0, err
    assert json.loads(out)
    if kind == "paired_folder":
        code, out, err = cli("prepare", kind, "in", "--doctor", "--workers", "1")
        assert code in (0, 1), err


def test_cards(cli, weights):
    code, out, _ = cli("models", "show", "tiny")
    assert code == 0 and "A card of caf" in out
    code, out, err = cli("models", "show", str(weights / LATIN))
    assert code == 2 and out == "" and err.count("\n") == 1


def test_a_terminal_in_another_encoding_gets_escapes():
    """In a process of its own: what streams can take is settled before Python starts."""
    code = ("import sys; from music_diffusion.cli.terminal import prepare_streams; prepare_streams(); "
            "print(sys.argv[1])")
    done = subprocess.run([sys.executable, "-c", code, os.fsdecode(b"caf\xe9 \xe6\x97\xa5")], check=True,
                          capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1:strict"})
    assert done.stdout.decode("ascii").strip() == r"caf\xE9 \u65e5"


@pytest.mark.slow
def test_a_failed_picture_costs_no_sound(cli, monkeypatch):
    from matplotlib.figure import Figure

    def fail(*_, **__):
        raise RuntimeError("no\nfonts")

    monkeypatch.setattr(Figure, "savefig", fail)
    write_midi(sine_notes(0, 0.5), "a.mid")
    sound("a.wav")
    for words in (["reconstruct", "a.wav", "-o", "b.wav"], ["transcribe", "a.wav", "-o", "b.mid"],
                  ["synthesize", "a.mid", "-o", "c.wav", "--model", "tiny", "--inverter", "griffin_lim"]):
        code, out, err = cli(*words, "--plot", "a.png", "--json")
        facts, output = json.loads(out), words[3]
        assert code == 3 and facts["plot"] is None and "no fonts" in facts["plot_error"]
        last = err.splitlines()[-1]
        assert last.startswith("error: a.png: the picture could not be drawn (RuntimeError: no fonts)")
        assert last.endswith(f"; {output} is complete") and os.path.getsize(output)
        assert not os.path.exists("a.png")


def test_pipes(cli, tmp_path):
    sound("a.wav")
    write_midi(sine_notes(0, 0.5), "a.mid")
    for words in (["transcribe", "pipe", "-o", "b.mid"], ["reconstruct", "pipe", "-o", "b.wav"],
                  ["synthesize", "pipe", "-o", "c.wav", "--model", "tiny", "--inverter", "griffin_lim"]):
        os.mkfifo("pipe")
        content = (tmp_path / ("a.mid" if words[0] == "synthesize" else "a.wav")).read_bytes()
        feeding = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,), daemon=True)
        feeding.start()
        code, _, err = cli(*words)
        feeding.join(10)
        assert code == 0 and os.path.getsize(words[3]), err
        os.remove("pipe")
    code, _, err = cli("transcribe", "a.wav", "-o", "/dev/stdout")
    assert code == 2 and err.startswith("error: /dev/stdout: ") and err.count("\n") == 1
    assert np.isfinite(soundfile.read("b.wav")[0]).all()
