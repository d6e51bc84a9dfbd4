"""`music-diffusion restyle` and `generate --style`: a tiny model through the commands, and their errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from reference import compiled, tiny_release

from music_diffusion.audio.io import read_audio
from music_diffusion.models.style_transfer import StyleTransferModel
from music_diffusion.models.weights import CONFIG
from music_diffusion.networks.style import FrameStyleConfig
from music_diffusion.networks.style_denoiser import StyleDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.synthesis.release import released_model

GIN = """
released.model = @StyleTransferModel()
StyleTransferModel.config = @StyleDenoiserConfig()
StyleTransferModel.num_steps = 2
StyleDenoiserConfig.unet = @UNet1DConfig()
StyleDenoiserConfig.style = @FrameStyleConfig()
UNet1DConfig.widths = (8, 8)
UNet1DConfig.blocks = 1
UNet1DConfig.time_features = 4
UNet1DConfig.heads = 1
UNet1DConfig.head_dim = 4
UNet1DConfig.output = 512
UNet1DConfig.memories = 2
FrameStyleConfig.width = 8
FrameStyleConfig.blocks = 1
FrameStyleConfig.vector = 4
"""
MODEL = StyleTransferModel(num_steps=2, config=StyleDenoiserConfig(
    unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4, output=512,
                      memories=2),
    style=FrameStyleConfig(width=8, blocks=1, vector=4)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    params = compiled.init(MODEL)["params"]
    rng = np.random.default_rng(0)  # so that the style shows
    params = params | {name: jax.tree.map(
        lambda v: v + jnp.asarray(0.2 * rng.normal(size=v.shape), jnp.float32), params[name])
        for name in ("unet", "style")}
    params = params | {"statistics": params["statistics"] | {"std": jnp.full(512, 0.1)}}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_release.write_release(folder, params, GIN))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, time = np.random.default_rng(0), np.arange(24000) / 16000
    soundfile.write("in.wav", 0.1 * rng.normal(size=(24000, 2)), 16000)
    soundfile.write("style.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 16000)
    soundfile.write("other.wav", 0.3 * rng.normal(size=24000), 16000)
    soundfile.write("short.wav", 0.3 * np.ones(800), 16000)
    return tmp_path


def test_the_configuration_is_the_model(model):
    assert released_model(f"{model}/{CONFIG}") == MODEL


def test_restyling(program, model):
    common = ("--model", model, "--inverter", "griffin_lim_hop", "--mono")
    code, out, err = program("restyle", "in.wav", "--style", "style.wav", "-o", "out.flac", *common,
                             "--steps", 3, "--guidance", 2, "--content-guidance", 1.5, "--strength", 0.9,
                             "--plot", "out.png", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["steps"], facts["strength"], facts["channels"]) == (3, 0.9, 1)
    made = read_audio("out.flac").samples
    assert made.shape[0] == 24000 and np.abs(made).max() > 1e-3
    assert program("restyle", "in.wav", "--style", "other.wav", "-o", "two.flac", *common,
                   "--steps", 3)[0] == 0
    assert program("restyle", "in.wav", "--style", "style.wav", "-o", "three.flac", *common,
                   "--steps", 3)[0] == 0
    two, three = (read_audio(name).samples for name in ("two.flac", "three.flac"))
    assert np.abs(two - three).max() > 1e-3


def test_sound_from_noise_in_a_style(program, model):
    code, out, err = program("generate", "--style", "style.wav", "-o", "out.wav", "--seconds", 1.5,
                             "--model", model, "--inverter", "griffin_lim_hop", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "free" and len(read_audio("out.wav").samples) >= 24000


@pytest.mark.parametrize("words, message", [
    (("restyle", "in.wav", "--style", "nowhere.wav", "-o", "out.wav"), "nowhere.wav"),
    (("restyle", "in.wav", "--style", "short.wav", "-o", "out.wav"), "lasts 0.05 s"),
    (("restyle", "in.wav", "--style", "style.wav", "-o", "style.wav"), "style.wav"),
    (("restyle", "short.wav", "--style", "style.wav", "-o", "out.wav"), "short.wav"),
    (("restyle", "in.wav", "--style", "style.wav"), "give the file to write"),
    (("transfer", "in.wav", "--to", "piano", "-o", "out.wav"), "use restyle"),
    (("generate", "-o", "out.wav"), "--style RECORDING"),
    (("generate", "-o", "out.wav", "--style", "style.wav", "--loop"), "leave --loop out"),
])
def test_errors_are_one_line_and_write_nothing(program, model, here, words, message):
    before = (here / "style.wav").read_bytes()
    code, out, err = program(*words, "--model", model, "--inverter", "griffin_lim_hop")
    assert code == 2 and message in err and err.count("\n") == 1 and not out
    assert not (here / "out.wav").exists() and (here / "style.wav").read_bytes() == before


HEARING_GIN = """
released.model = @FrameDiffusionModel()
FrameDiffusionModel.config = @ScoreDenoiserConfig()
FrameDiffusionModel.num_steps = 2
ScoreDenoiserConfig.timbre = @NoteTimbreConfig()
ScoreDenoiserConfig.unet = @UNet1DConfig()
ScoreDenoiserConfig.style = @FrameStyleConfig()
ScoreDenoiserConfig.evidence = 304
ScoreDenoiserConfig.reference = 128
ScoreDenoiserConfig.wanted = 8
NoteTimbreConfig.width = 8
NoteTimbreConfig.layers = 1
UNet1DConfig.widths = (8, 8)
UNet1DConfig.blocks = 1
UNet1DConfig.time_features = 4
UNet1DConfig.heads = 1
UNet1DConfig.head_dim = 4
UNet1DConfig.memories = 2
FrameStyleConfig.width = 8
FrameStyleConfig.blocks = 1
FrameStyleConfig.vector = 4
"""


@pytest.fixture(scope="module")
def hearing_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "hearing"
    folder.mkdir()
    (folder / CONFIG).write_text(HEARING_GIN)
    params = compiled.init(released_model(folder / CONFIG))["params"]
    rng = np.random.default_rng(0)  # so that the style shows
    params = params | {name: jax.tree.map(
        lambda v: v + jnp.asarray(0.2 * rng.normal(size=v.shape), jnp.float32), params[name])
        for name in ("unet", "style")}
    return str(tiny_release.write_release(folder.parent / "released", params, HEARING_GIN))


@pytest.mark.slow
def test_music_of_its_own_in_a_style_by_a_model_that_hears_its_content(program, hearing_model):
    """The package's generator makes the content, and seeds are of both."""
    common = ("generate", "--seconds", 1.5, "--model", hearing_model, "--inverter", "griffin_lim_hop")
    code, out, err = program(*common, "--style", "style.wav", "-o", "out.wav", "--class", "orchestral",
                             "--steps", 2, "--plot", "out.png", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["kind"], facts["class_name"], facts["steps"]) == ("free", "orchestral", 2)
    assert facts["audio_seconds"] == pytest.approx(1.5, abs=0.05)
    code, _, err = program(*common, "--style", "style.wav", "--count", 2, "--out-dir", "takes", "--seed", 0)
    assert code == 0, err
    one, two = (read_audio(f"takes/{k}.wav").samples for k in (1, 2))
    assert np.abs(one - two).max() > 1e-3
    code, out, err = program(*common, "--style", "style.wav", "-o", "no.wav", "--class", "orchestrel")
    assert code == 2 and "choose orchestral" in err and err.count("\n") == 1


@pytest.mark.slow
def test_restyling_by_a_model_that_hears(program, hearing_model):
    common = ("restyle", "in.wav", "--model", hearing_model, "--inverter", "griffin_lim_hop", "--mono")
    for name in ("style", "other"):
        code, _, err = program(*common, "--style", f"{name}.wav", "-o", f"{name}_out.flac", "--guidance", 2,
                               "--content-guidance", 1.5)
        assert code == 0, err
    one, two = (read_audio(f"{name}_out.flac").samples for name in ("style", "other"))
    assert one.shape[0] == 24000 and not np.array_equal(one, two)  # without notes it is faint
    code, _, err = program("transfer", "in.wav", "-o", "no.wav", "--to", "piano", "--model", hearing_model)
    assert code == 2 and "use restyle" in err and err.count("\n") == 1
