"""`music-diffusion transfer`: a model of one conversion through the command, its facts and its errors."""

import json

import numpy as np
import pytest
import soundfile
from reference import compiled, tiny_release

from music_diffusion.audio.io import read_audio
from music_diffusion.models.timbre_transfer import TimbreTransferModel
from music_diffusion.models.weights import CONFIG
from music_diffusion.networks.unet2d import UNet2DConfig
from music_diffusion.synthesis.release import released_model

GIN = """
released.model = @TimbreTransferModel()
TimbreTransferModel.config = @UNet2DConfig()
TimbreTransferModel.num_steps = 2
UNet2DConfig.widths = (4, 4)
UNet2DConfig.blocks = 1
UNet2DConfig.middle = 4
UNet2DConfig.heads = 1
UNet2DConfig.head_dim = 4
UNet2DConfig.attention_down = ()
UNet2DConfig.attention_up = ()
"""
MODEL = TimbreTransferModel(num_steps=2, config=UNet2DConfig(
    widths=(4, 4), blocks=1, middle=4, heads=1, head_dim=4, attention_down=(), attention_up=()))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_release.write_release(folder, compiled.init(MODEL)["params"], GIN))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    soundfile.write("in.wav", 0.1 * rng.normal(size=(16000, 2)), 16000)
    return tmp_path


def test_the_configuration_is_the_model(model):
    assert released_model(f"{model}/{CONFIG}") == MODEL


def test_json_is_one_object(program, model):
    code, out, err = program("transfer", "in.wav", "-o", "out.flac", "--model", model, "--inverter",
                             "griffin_lim_hop", "--steps", 1, "--strength", 0.5, "--plot", "out.png",
                             "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert set(facts) == {
        "output", "plot", "plot_error", "model", "steps", "solver", "strength", "seed", "joining",
        "sample_rate", "channels", "peak", "audio_seconds", "wall_seconds", "realtime_factor",
        "peak_memory_mb", "start_up_seconds", "devices"}
    assert (facts["steps"], facts["strength"], facts["joining"]) == (1, 0.5, "separate")
    made = read_audio("out.flac")
    assert made.samples.shape == (16000, 2)
    assert facts["peak"] == pytest.approx(np.abs(made.samples).max(), abs=1e-3)


@pytest.mark.slow
def test_people_get_one_line_and_folders_are_gone_through(program, model, here):
    code, out, err = program("transfer", "in.wav", "-o", "out.wav", "--model", model, "--mono",
                             "--inverter", "griffin_lim_hop")
    assert (code, err) == (0, "") and out.startswith("out.wav: 1.0 s of audio in ") and out.count("\n") == 1
    (here / "all").mkdir()
    (here / "in.wav").rename(here / "all" / "in.wav")
    (here / "all" / "bad.wav").write_text("no audio")
    arguments = ("transfer", "all", "--out-dir", "made", "--model", model, "--inverter", "griffin_lim_hop")
    code, out, err = program(*arguments)
    assert (code, out) == (0, "made: 1 files, 0 of them there before\n")
    assert err.startswith("skipped bad.wav: ") and err.count("\n") == 1
    assert json.loads(program(*arguments, "--json")[1])["kept"] == 1


@pytest.mark.parametrize("arguments, word", [
    (["in.wav", "-o", "out.wav", "--model", "none"], "no such model"),
    (["in.wav", "-o", "out.wav", "--model", "default"], "changes no recordings"),
    (["none.wav", "-o", "out.wav", "--model", "MODEL"], "no such file"),
    (["in.wav", "-o", "out.wav", "--model", "MODEL", "--strength", "0"], "--strength 0"),
    (["in.wav", "-o", "out.wav", "--model", "MODEL", "--strength", "1.5"], "--strength 1.5"),
    (["in.wav", "-o", "out.wav", "--model", "MODEL", "--joining", "context"], "--joining context"),
    (["in.wav", "--model", "MODEL"], "-o OUT.wav")])
def test_bad_input_is_one_line(program, model, arguments, word):
    code, out, err = program("transfer", *[model if a == "MODEL" else a for a in arguments])
    assert (code, out) == (2, "") and err.count("\n") == 1 and word in err
