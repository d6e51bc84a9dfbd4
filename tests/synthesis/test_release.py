import dataclasses
import re

import jax
import numpy as np
import pytest
from reference.tiny_release import GIN, MODEL

import gin
from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.solvers import DDPM
from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.synthesis.release import release, released_config, released_model

TRAINING = GIN.replace("released.model", "train.model") + """
train.data = @RecordSource()
train.optimizer = @adamw()
adamw.learning_rate = 1e-3
RecordSource.folder = 'data'
FrameDiffusionModel.timbre_weights = 'gone.safetensors'
FrameDiffusionModel.solver = @DDPM()
DDPM.log_variance = 0.25
NoteTimbreConfig.codec = @MelCodec()
"""


@pytest.fixture
def config(tmp_path):
    def write(text):
        (tmp_path / "config.gin").write_text(text)
        return tmp_path / "config.gin"

    return write


def test_a_configuration_builds_its_model(config):
    assert released_model(config(GIN)) == MODEL


@pytest.mark.parametrize("line", ["MelCodec.spare_frames = 16", "a/MelCodec.spare_frames=3"])
def test_a_parameter_that_earlier_versions_had_is_left_out(config, line):
    assert released_model(config(f"{GIN}\n{line}\n")) == MODEL
    assert "spare_frames" not in released_config(f"{TRAINING}\n{line}\n")
    with pytest.raises(UserError, match="spare_frame"):
        released_model(config(f"{GIN}\nMelCodec.spare_framez = 1\n"))


def test_a_training_run_becomes_its_models_configuration(config):
    text = released_config(TRAINING)
    assert released_model(config(text)) == dataclasses.replace(MODEL, solver=DDPM(log_variance=0.25))
    # Nothing of the training stays, nor where its files lay.
    assert not re.search(r"train\.|adamw|RecordSource|gone", text)


def test_every_parameter_of_the_configured_parts_is_written_down():
    """So that a later change of a default does not change a released model."""
    text = released_config(TRAINING)
    for kind in (type(MODEL), ScoreDenoiserConfig, UNet1DConfig, MelCodec):
        for field in dataclasses.fields(kind):
            # Objects that gin cannot write.
            if field.name in ("distance", "schedule", "times", "training_times"):
                continue
            assert re.search(rf"^{kind.__name__}\.{field.name} =", text, re.M), (kind, field.name)


def test_bindings_change_what_rendering_does(config):
    text = released_config(TRAINING, ["FrameDiffusionModel.num_steps = 8"])
    assert released_model(config(text)).num_steps == 8


def test_users_own_gin_configuration_is_untouched(config):
    @gin.configurable(module="users")
    def instrument(name="piano", level=1.0):
        return name, level

    gin.clear_config()
    gin.parse_config("users.instrument.name = 'organ'\nLEVEL = 0.5\ninstrument.level = %LEVEL")
    assert instrument() == ("organ", 0.5)
    before, operative = gin.config_str(), gin.operative_config_str()
    gin.config._set_config_is_locked(True)
    try:
        released_model(config(GIN))
        released_config(TRAINING)
        with pytest.raises(UserError):
            released_model(config("nonsense = @Nothing()"))
        assert gin.config_is_locked()
        assert gin.config_str() == before and gin.operative_config_str() == operative
        assert instrument() == ("organ", 0.5)
    finally:
        gin.config._set_config_is_locked(False)
        gin.clear_config()


def test_users_bindings_do_not_reach_the_model(config):
    released_model(config(GIN))  # the names are known from here on
    gin.clear_config()
    try:
        gin.parse_config("FrameDiffusionModel.condition_dropout = 0.7")
        assert released_model(config(GIN)) == MODEL
    finally:
        gin.clear_config()


@pytest.mark.parametrize("text", [
    "", "released.model = 3 +", "released.model = @Nothing()", "released.model = @FrameDiffusionModel(",
    GIN + "FrameDiffusionModel.no_such_field = 1", GIN + "UNet1DConfig.widths = ()",
    GIN + "import no_such_module", GIN + "include 'no/such/file.gin'",
    GIN + "NoteTimbreConfig.codec = %NO_SUCH_MACRO"])
def test_other_files_are_one_line_errors_that_name_the_file(config, text):
    with pytest.raises(UserError, match="config.gin: not a released configuration") as error:
        released_model(config(text))
    assert "\n" not in str(error.value)


def test_settings_out_of_range_are_errors_too(config):
    with pytest.raises(UserError, match="num_steps"):
        released_model(config(GIN + "FrameDiffusionModel.num_steps = 0"))


def test_files_that_are_no_text_are_errors(tmp_path):
    (tmp_path / "config.gin").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "config.gin", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=path.name):
            released_model(path)


def test_a_run_without_a_model_is_an_error():
    with pytest.raises(UserError, match="train.model"):
        released_config("adamw.learning_rate = 1.0")


@pytest.mark.parametrize("binding", [
    "FrameDiffusionModel.no_such = 1", "3 +", "FrameDiffusionModel.num_steps = 'many'"])
def test_bad_bindings_are_one_line_errors_and_leave_nothing(tmp_path, monkeypatch, binding):
    monkeypatch.setattr("music_diffusion.training.checkpoints.read_params",
                        lambda model_dir, step: ({"a": np.ones(2)}, 7, TRAINING))
    with pytest.raises(UserError, match=re.escape(binding)) as error:
        release("run", str(tmp_path / "out"), bindings=[binding])
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_release_writes_half_precision_weights_and_the_models_configuration(tmp_path, monkeypatch):
    params = {"unet": {"kernel": np.array([1.0, 0.1], np.float32)}}
    monkeypatch.setattr("music_diffusion.training.checkpoints.read_params",
                        lambda model_dir, step: (params, 7, TRAINING))
    release("run", str(tmp_path / "out"), bindings=["FrameDiffusionModel.num_steps = 5"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"weights.safetensors", "config.gin"}
    assert released_model(tmp_path / "out" / "config.gin").num_steps == 5
    kept = load_safetensors(tmp_path / "out" / "weights.safetensors", dtype=None)
    assert kept["unet"]["kernel"].dtype == np.float16
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), kept, params)


INVERTER = """
train.model = @SpectrogramInverterModel()
train.optimizer = @by_part()
by_part.parts = {'generator': @generator/PartOptimizer(), 'discriminator': @PartOptimizer()}
generator/PartOptimizer.optimizer = @adamw()
PartOptimizer.optimizer = @adamw()
SpectrogramInverterModel.generator = @SEANetConfig()
SpectrogramInverterModel.discriminators = @DiscriminatorsConfig()
SpectrogramInverterModel.spectral = @MelSpectralLoss()
SEANetConfig.channels = 32
DiscriminatorsConfig.wave = None
"""


def test_an_inverter_is_released_without_its_discriminators(tmp_path, monkeypatch):
    from music_diffusion.models.spectrogram_inverter import SpectrogramInverterModel

    params = {"generator": {"a": np.ones(2, np.float32)}, "discriminator": {"b": np.ones(3, np.float32)}}
    monkeypatch.setattr("music_diffusion.training.checkpoints.read_params",
                        lambda model_dir, step: (params, 7, INVERTER))
    release("run", str(tmp_path / "out"))
    model = released_model(tmp_path / "out" / "config.gin")
    assert type(model) is SpectrogramInverterModel and model.generator.channels == 32
    assert model.discriminators is None
    assert "Discriminator" not in (tmp_path / "out" / "config.gin").read_text().replace(
        "SpectrogramInverterModel.discriminators = None", "")
    kept = load_safetensors(tmp_path / "out" / "weights.safetensors")
    assert set(kept) == {"generator"} and (kept["generator"]["a"] == 1).all()
