"""`music-diffusion synthesize` with a tiny untrained model; every kind of bad input."""

import dataclasses
import json
import os
import re
import struct
import sys
import threading
import warnings

import numpy as np
import pytest
import soundfile
from reference import tiny_performances
from reference.tiny_release import MODEL, tiny_params, write_release

from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.cli import main as module
from music_diffusion.diffusion.solvers import DPMSolverPP2M
from music_diffusion.errors import UserError
from music_diffusion.speed import peak_memory_mb, start_up_seconds
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.synthesizer import Synthesizer


def track(*events):
    """A track of (delta, bytes) events with an end."""
    body = b"".join(_number(delta) + bytes(data) for delta, data in events) + b"\0\xff\x2f\0"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def _number(value):
    """A variable-length quantity."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.insert(0, (value & 0x7F) | 0x80)
    return bytes(out)


def midi(*tracks, kind=1, division=480):
    return b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division) + b"".join(tracks)


def note(length, wait=0, pitch=60, channel=0):
    return (wait, [0x90 | channel, pitch, 90]), (length, [0x80 | channel, pitch, 0])


def tempo(microseconds):
    return (0, [0xFF, 0x51, 3, *struct.pack(">I", microseconds)[1:]])


GOOD = midi(track(*note(480), *note(240, pitch=64)))
LONG = 2**27  # ticks
BAD = {
    "empty": (b"", "empty"),
    "truncated": (midi(track(*note(480)))[:22], "truncated|no notes"),
    "header_only": (GOOD[:10], "truncated|damaged|not a MIDI"),
    "no_midi": (b"RIFF\x24\0\0\0WAVEfmt nothing of a song", "not a MIDI file"),
    "text": (b"X:1\nK:C\nCDEF\n", "not a MIDI file"),
    "no_notes": (midi(track((0, [0xC0, 5]))), "no notes"),
    "no_tracks": (midi(), "no notes|damaged"),
    "zero_division": (midi(track(*note(480)), division=0), "ticks|damaged"),
    "absurd_tempo": (midi(track(tempo(16_777_215), *note(LONG)), division=96), "tempo|hours"),
}
# Odd, but music: these reach the model.
ODD = {
    "zero_length": midi(track(*note(0), *note(0, wait=480))),
    "fine_ticks": midi(track(*note(32767)), division=32767),
    "fast_tempo": midi(track(tempo(1), *note(480))),
    "ten_hours": midi(track(*note(480), *note(480, wait=10 * 3600 * 960))),
    "all_programs": midi(track(*((0, [0xC0, p]) if i == 0 else n for p in range(120, 128)
                                 for i, n in enumerate((None, *note(48)))))),
    "drums": midi(track(*note(480, pitch=38, channel=9))),
    "cut_off": GOOD[:-9],
    "type_2": midi(track(*note(480)), kind=2),
    "smpte": midi(track(*note(480)), division=0xE728),
    "zero_tempo": midi(track(tempo(0), *note(480))),
    "unreleased": midi(track((0, [0x90, 60, 90]), (480, [0xB0, 7, 100]))),
}


@pytest.fixture
def cli(monkeypatch, capfd):
    """Runs the command in this process; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command replaces it

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", "synthesize", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return cli


@pytest.fixture
def no_model(monkeypatch):
    """Bad input is found before a model is loaded; what is good ends here."""
    def load(name, inverter=None):
        raise UserError("reached the model")

    monkeypatch.setattr("music_diffusion.synthesis.hub.load", load)


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture
def tiny(monkeypatch, params):
    """The tiny model in small windows, under any name."""
    names = []

    def load(name, inverter=None):
        names.append(name)
        return Synthesizer(name="tiny", model=MODEL, params=params, tail=0.5,
                           inverter=GriffinLim(iterations=1, chunk_frames=32),
                           joining=OverlapJoining(windows=Windows(frames=64, overlap=32, group=2)))

    monkeypatch.setattr("music_diffusion.synthesis.hub.load", load)
    return names


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line_that_names_file_and_reason(cli, no_model, tmp_path, name):
    content, reason = BAD[name]
    (tmp_path / f"{name}.mid").write_bytes(content)
    (tmp_path / "out").mkdir()
    code, out, err = cli(tmp_path / f"{name}.mid", "-o", tmp_path / "out" / "a.wav", "--plot",
                         tmp_path / "out" / "a.png", "--json")
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("error: ") and f"{name}.mid" in err
    assert re.search(reason, err), err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ODD)
def test_odd_files_reach_the_model(cli, no_model, tmp_path, name):
    (tmp_path / f"{name}.mid").write_bytes(ODD[name])
    code, _, err = cli(tmp_path / f"{name}.mid", "-o", tmp_path / "a.wav")
    assert code == 2 and err.endswith("error: reached the model\n")


@pytest.mark.parametrize("midi_name, reason", [
    ("nowhere.mid", "no such file"), (".", "folder"), ("x" * 300 + ".mid", "too long")])
def test_files_that_are_not_there(cli, no_model, tmp_path, midi_name, reason):
    code, _, err = cli(tmp_path / midi_name, "-o", tmp_path / "a.wav")
    assert code == 2 and err.count("\n") == 1 and reason in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output, plot", [
    ("no/folder/a.wav", None), ("a.ogg", None), (".", None), ("a.wav", "no/folder/a.png"),
    ("a.wav", "a.gif"), ("x" * 300 + ".wav", None)])
def test_outputs_are_checked_before_anything_else(cli, no_model, tmp_path, output, plot):
    # The input is bad too, but is not even looked at.
    more = [] if plot is None else ["--plot", tmp_path / plot]
    code, _, err = cli(tmp_path / "nowhere.mid", "-o", tmp_path / output, *more)
    assert code == 2 and err.count("\n") == 1 and "nowhere.mid" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option, reason", [
    (["--solver", "euler"], "euler.*ddim, ddpm, dpm"), (["--guidance", "nan"], "guidance"),
    (["--model", "/no/such/model"], "no such model"), (["--performance", "studio"], "no performances"),
    (["--performance-guidance", "2"], "no performances"), (["--joining", "context"], "reads no context"),
    (["--joining", "mix"], "choose overlap or context"), (["--overlap", "99"], "half of a segment")])
def test_bad_settings_are_one_line(cli, tmp_path, option, reason, monkeypatch, request):
    if "--model" not in option:
        request.getfixturevalue("tiny")
    (tmp_path / "song.mid").write_bytes(GOOD)
    code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / "a.wav", *option)
    assert code == 2 and out == "" and err.count("\n") == 1 and re.search(reason, err)
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]


@pytest.mark.slow
def test_a_rendering_with_all_its_reports(cli, tiny, tmp_path):
    (tmp_path / "song.mid").write_bytes(GOOD)
    code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / "a.wav", "--json", "--seed", "3",
                         "--plot", tmp_path / "a.png", "--solver", "dpm++2m", "--steps", "3",
                         "--guidance", "1.5", "--model", "mine")
    assert code == 0 and err == "" and tiny == ["mine"]
    report = json.loads(out)
    assert isinstance(report, dict) and out.count("\n") == 1
    want = {"output": str(tmp_path / "a.wav"), "plot": str(tmp_path / "a.png"),
            "plot_error": None, "model": "tiny",
            "steps": 3, "solver": repr(DPMSolverPP2M()), "guidance": 1.5, "seed": 3, "notes": 2,
            "performance": None, "joining": "overlap"}
    assert {k: report[k] for k in want} == want
    assert report["realtime_factor"] == pytest.approx(
        report["audio_seconds"] / report["wall_seconds"], rel=0.02)
    # Without the picture, which is drawn later.
    assert 0.7 * peak_memory_mb() < report["peak_memory_mb"] < peak_memory_mb() + 0.1
    assert report["start_up_seconds"] == pytest.approx(start_up_seconds(), abs=6e-4)
    assert report["devices"].startswith("cpu x 1 (jax ")
    info = soundfile.info(tmp_path / "a.wav")
    assert info.samplerate == 16000 and info.duration == pytest.approx(report["audio_seconds"])
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_for_people_there_is_a_line_and_the_seed_decides(cli, tiny, tmp_path):
    (tmp_path / "song.mid").write_bytes(GOOD)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / f"{name}.wav", "--seed", seed)
        assert code == 0 and out.startswith(f"{tmp_path / name}.wav: 1.3 s of audio")
        assert "realtime" in out and err == ""
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


def test_no_normalize_leaves_the_level(cli, tiny, tmp_path):
    (tmp_path / "song.mid").write_bytes(GOOD)
    code, out, _ = cli(tmp_path / "song.mid", "-o", tmp_path / "a.wav", "--no-normalize", "--json")
    assert code == 0 and json.loads(out)["lufs"] is None
    cli(tmp_path / "song.mid", "-o", tmp_path / "b.wav")
    a, b = (soundfile.read(tmp_path / f"{n}.wav")[0] for n in "ab")
    assert len(a) == len(b) and np.std(a) != pytest.approx(np.std(b), rel=0.01)


@pytest.mark.parametrize("name", ["zero_length", "fine_ticks", "drums"])
def test_odd_files_are_rendered(cli, tiny, tmp_path, name):
    (tmp_path / "odd.mid").write_bytes(ODD[name])
    code, out, err = cli(tmp_path / "odd.mid", "-o", tmp_path / "a.wav", "--json", "--steps", "1")
    assert code == 0 and json.loads(out)["notes"] > 0 and err == ""
    assert np.isfinite(soundfile.read(tmp_path / "a.wav")[0]).all()


def test_what_the_file_asks_for_and_its_faults_are_said_once(cli, tiny, tmp_path):
    volume, bend = (0, [0xB0, 7, 20]), (0, [0xE0, 0, 70])
    damaged = midi(track(volume, bend, *note(480), *note(240, pitch=64)))[:-2]
    (tmp_path / "song.mid").write_bytes(damaged)
    code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / "a.wav", "--json", "--steps", "1")
    report = json.loads(out)
    assert code == 0 and report["notes"] == 2
    assert report["ignored"] == {"volume": 1, "pitch bend": 1}
    assert len(report["warnings"]) == 1 and "truncated" in report["warnings"][0]
    lines = err.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"warning: {tmp_path}/song.mid: ") for line in lines)
    assert "truncated" in lines[0] and lines[1].endswith("not played: volume (1), pitch bend (1)")


def test_a_pipe_is_read_once(cli, tiny, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(GOOD,), daemon=True)
    writer.start()
    code, out, err = cli(tmp_path / "pipe", "-o", tmp_path / "a.wav", "--json", "--steps", "1")
    assert (code, err) == (0, "") and json.loads(out)["notes"] == 2
    writer.join(10)


@pytest.mark.slow
def test_a_released_folder_renders_through_the_real_hub(cli, params, tmp_path):
    write_release(tmp_path / "model", params)
    (tmp_path / "song.mid").write_bytes(GOOD)
    code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / "a.flac", "--json", "--steps", "1",
                         "--model", tmp_path / "model")
    assert (code, err) == (0, "") and json.loads(out)["model"] == "model"
    assert soundfile.info(tmp_path / "a.flac").duration == pytest.approx(0.75 + 2.0, abs=0.05)
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / "b.wav", "--model",
                         tmp_path / "model")
    assert code == 2 and out == "" and err.count("\n") == 1 and "weights.safetensors" in err
    assert not (tmp_path / "b.wav").exists()


def test_a_failure_midway_leaves_no_output(cli, tmp_path, monkeypatch, params):
    class Broken:
        codec = GriffinLim().codec

        def stream(self):
            raise UserError("the inverter broke")

        def invert(self, mel):
            return np.zeros(320, np.float32)

    synthesizer = dataclasses.replace(
        Synthesizer(name="tiny", model=MODEL, params=params, joining=OverlapJoining(windows=Windows(
            frames=64, overlap=32, group=1))), inverter=Broken())
    monkeypatch.setattr("music_diffusion.synthesis.hub.load", lambda name, inverter: synthesizer)
    (tmp_path / "song.mid").write_bytes(GOOD)
    code, out, err = cli(tmp_path / "song.mid", "-o", tmp_path / "a.wav", "--plot",
                         tmp_path / "a.png")
    assert (code, out, err) == (2, "", "error: the inverter broke\n")
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]


@pytest.mark.slow
def test_a_model_with_performances_plays_who_is_asked_for(cli, tmp_path):
    tiny_performances.write_release(tmp_path / "model", tiny_performances.tiny_params())
    (tmp_path / "song.mid").write_bytes(midi(track(*note(480), *note(240, pitch=38, channel=9))))

    def render(name, *options):
        code, out, err = cli(
            tmp_path / "song.mid", "-o", tmp_path / f"{name}.wav", "--json", "--steps", "1", "--inverter",
            "griffin_lim", "--model", tmp_path / "model", *options)
        return code, json.loads(out) if code == 0 else out, err

    code, report, err = render("a", "--performance", "drums=kim,rest=church:2+studio", "--overlap", "0.6",
                               "--segment", "1.3", "--plot", tmp_path / "a.png")
    assert (code, err) == (0, "") and (tmp_path / "a.png").exists()
    assert (report["performance"], report["joining"]) == ("drums=kim,rest=church:2+studio", "overlap")
    code, report, _ = render("b", "--performance-guidance", "1.5", "--segment", "1.3")
    assert code == 0 and report["performance"] == "studio"
    code, out, err = render("c", "--performance", "sutdio")
    assert (code, out) == (2, "") and err == "error: sutdio: no such performance; did you mean studio?\n"
    assert not (tmp_path / "c.wav").exists()
