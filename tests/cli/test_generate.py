"""`music-diffusion generate`, and `synthesize --keep`: facts, files and errors."""

import json
import pathlib

import numpy as np
import pytest
import soundfile
from reference import compiled, tiny_release
from reference.midi_bytes import BEAT, midi, off, on, track

from music_diffusion.audio.io import read_audio
from music_diffusion.models.unconditional import UnconditionalModel
from music_diffusion.models.weights import CONFIG
from music_diffusion.networks.unconditional import UnconditionalConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.synthesis.release import released_model

GIN = """
released.model = @UnconditionalModel()
UnconditionalModel.config = @UnconditionalConfig()
UnconditionalModel.frames = 64
UnconditionalModel.context = 32
UnconditionalModel.classes = ('calm', 'loud')
UnconditionalModel.num_steps = 2
UnconditionalConfig.unet = @UNet1DConfig()
UnconditionalConfig.classes = 2
UnconditionalConfig.class_features = 4
UnconditionalConfig.regions = True
UNet1DConfig.widths = (8, 8)
UNet1DConfig.blocks = 1
UNet1DConfig.time_features = 4
UNet1DConfig.heads = 1
UNet1DConfig.head_dim = 4
"""
MODEL = UnconditionalModel(
    config=UnconditionalConfig(
        unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4), classes=2,
        class_features=4, regions=True),
    frames=64, context=32, classes=("calm", "loud"), num_steps=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_release.write_release(folder, compiled.init(MODEL)["params"], GIN))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    soundfile.write("in.wav", 0.1 * rng.normal(size=(3 * 16000, 2)), 16000)
    soundfile.write("silent.wav", np.zeros(32000), 16000)
    soundfile.write("short.wav", 0.1 * rng.normal(size=4000), 16000)
    return tmp_path


@pytest.fixture
def generate(program, model):
    def run(*arguments):
        return program("generate", "--model", model, "--inverter", "griffin_lim_hop", *arguments)
    return run


def test_the_configuration_is_the_model(model):
    assert released_model(f"{model}/{CONFIG}") == MODEL


def test_json_is_one_object(generate):
    code, out, err = generate("-o", "out.wav", "--seconds", 3, "--class", "calm", "--plot", "out.png",
                              "--steps", 1, "--seed", 4, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    expected = {"kind": "free", "class_name": "calm", "steps": 1, "seed": 4, "model": "tiny",
                "joining": "context", "sample_rate": 16000, "channels": 1, "audio_seconds": 3.0,
                "strength": None}
    assert {name: facts[name] for name in expected} == expected
    assert read_audio("out.wav").duration == 3.0
    assert pathlib.Path("out.png").stat().st_size > 1000


def test_json_of_several_takes_is_a_list(generate):
    code, out, err = generate("--out-dir", "takes", "--count", 2, "--seconds", 1, "--steps", 1, "--json")
    assert (code, err) == (0, "")
    takes = json.loads(out)
    assert [take["seed"] for take in takes] == [0, 1]
    assert [read_audio(take["output"]).duration for take in takes] == [1.0, 1.0]


@pytest.mark.parametrize("arguments, kind, seconds", [
    (["--continue", "in.wav", "--seconds", 2], "continued", 5.0),
    (["--continue", "in.wav", "--until", "in.wav", "--seconds", 1], "continued", 7.0),
    (["--edit", "in.wav", "--inpaint", "1.0:2.0"], "edited", 3.0),
    (["--edit", "in.wav", "--band", "0:2000"], "edited", 3.0),
    (["--vary", "in.wav"], "varied", 3.0), (["--loop", "--seconds", 4], "loop", 4.0)])
def test_every_kind(generate, arguments, kind, seconds):
    code, out, err = generate("-o", "out.wav", *arguments, "--plot", "out.png", "--json")
    assert (code, err) == (0, "")
    facts, wave = json.loads(out), read_audio("out.wav")
    assert facts["kind"] == kind and wave.duration == pytest.approx(seconds)
    assert facts["channels"] == wave.channels == (2 if kind in ("continued", "edited") else 1)
    assert facts["strength"] == (0.5 if kind == "varied" else None)
    assert pathlib.Path("out.png").is_file()


def test_takes_differ_and_the_first_is_the_one_alone(generate):
    code, out, _ = generate("--out-dir", "takes", "--count", 2, "--seconds", 1)
    assert code == 0 and "takes/1.wav: 1.0 s" in out
    assert generate("-o", "one.wav", "--seconds", 1)[0] == 0
    first, second, one = (read_audio(name).samples for name in ("takes/1.wav", "takes/2.wav", "one.wav"))
    np.testing.assert_array_equal(first, one)
    code, _, err = generate("--out-dir", "takes", "--count", 2, "--seconds", 1)
    assert code == 2 and "takes/1.wav: is there already; give another --out-dir" in err
    code, _, err = generate("--out-dir", "none", "--count", 2, "--class", "clam")
    assert code == 2 and not pathlib.Path("none").exists()
    assert (first != second).any()


@pytest.mark.parametrize("arguments, words", [
    (["--seconds", 2], "-o OUT.wav"), (["-o", "a.wav", "--count", 2], "--out-dir DIR"),
    (["-o", "a.wav", "--class", "clam"], "unknown; choose calm"),
    (["-o", "a.wav", "--seconds", 0.1], "--seconds 0.1"),
    (["-o", "a.wav", "--continue", "short.wav"], "lasts 0.25 s; this model goes on from 0.64 s"),
    (["-o", "a.wav", "--continue", "in.wav", "--vary", "in.wav"], "--continue and --vary: one at a time"),
    (["-o", "a.wav", "--edit", "in.wav"], "--edit: say what of it"),
    (["-o", "a.wav", "--edit", "in.wav", "--inpaint", "2:9"], "ends behind the recording, which "
     "has 3.00 s"),
    (["-o", "a.wav", "--edit", "in.wav", "--inpaint", "abc"], "--inpaint abc: write two numbers"),
    (["-o", "a.wav", "--edit", "silent.wav", "--inpaint", "0.5:1"], "silent"),
    (["-o", "a.wav", "--edit", "in.wav", "--band", "9000:9500"], "up to 8000 Hz"),
    (["-o", "a.wav", "--inpaint", "1:2"], "--inpaint: goes with --edit"),
    (["-o", "a.wav", "--strength", 0.3], "--strength: goes with --vary"),
    (["-o", "a.wav", "--vary", "in.wav", "--strength", 1.5], "above 0, and at most 1"),
    (["-o", "a.wav", "--vary", "in.wav", "--seconds", 3], "leave it out"),
    (["-o", "a.wav", "--loop", "--seconds", 1], "--loop --seconds 1"),
    (["-o", "a.wav", "--until", "in.wav"], "--until: goes with --continue"),
    (["-o", "a.wav", "--seed", 10**30], "--seed 1000"),
    (["-o", "a.wav", "--segment", 1e9], "--segment 1e+09"),
    (["-o", "a.wav", "--guidance", 1e308], "--guidance 1e+308"), (["-o", ""], "output is empty text"),
    (["-o", "a.wav", "--continue", "none.wav"], "none.wav"), (["-o", "a.txt"], "a.txt")])
def test_bad_input_is_one_line_and_makes_no_file(generate, arguments, words):
    code, out, err = generate(*arguments)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert not pathlib.Path("a.wav").exists()


def test_model_of_notes_generates_nothing(program, tmp_path):
    folder = tiny_release.write_release(tmp_path / "notes", tiny_release.tiny_params())
    code, _, err = program("generate", "--model", folder, "-o", "a.wav")
    assert code == 2 and "makes nothing from noise alone" in err


def test_synthesize_keeps_a_take_but_for_a_bar(program, tmp_path):
    folder = tiny_release.write_release(tmp_path / "notes", tiny_release.tiny_params())
    notes = [event for k in range(8) for event in ((0, *on(60 + k)), (BEAT, *off(60 + k)))]
    pathlib.Path("song.mid").write_bytes(midi(track(*notes)))
    own = ("synthesize", "song.mid", "--model", folder, "--inverter", "griffin_lim_hop")
    assert program(*own, "-o", "take.wav")[0] == 0
    code, out, _ = program(*own, "-o", "new.wav", "--keep", "take.wav", "--bars", "2", "--seed", 3,
                           "--json")
    assert code == 0 and json.loads(out)["audio_seconds"] == 2.0
    old, new = read_audio("take.wav").samples, read_audio("new.wav").samples
    assert len(old) == len(new) and (old != new).any()
    np.testing.assert_array_equal(old[:31800], new[:31800])
    np.testing.assert_array_equal(old[64200:], new[64200:])
    for arguments, words in ((["--bars", "2"], "go with --keep"),
                             (["--keep", "take.wav"], "--keep: say what"),
                             (["--keep", "take.wav", "--bars", "7"], "bars 1 to 2")):
        code, _, err = program(*own, "-o", "b.wav", *arguments)
        assert code == 2 and words in err
