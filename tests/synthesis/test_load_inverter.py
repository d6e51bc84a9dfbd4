"""The names of inverters: what each opens, and what is refused."""

import numpy as np
import pytest
from reference.tiny_inverter import GIN, MODEL, tiny_inverter_params, write_inverter
from reference.tiny_release import MODEL as DENOISER
from reference.tiny_release import write_release

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.errors import UserError
from music_diffusion.models.neural_inverter import NeuralInverter
from music_diffusion.synthesis import hub

OTHER = MelCodec(sample_rate=44100, hop=882, window=1764, fft=2048, fmax=22050.0)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "weights_root", lambda: tmp_path / "weights")
    return tmp_path / "weights"


def test_the_two_griffin_lims():
    assert hub.load_inverter("griffin_lim") == GriffinLim()
    assert hub.load_inverter("griffin_lim_hop") == GriffinLim(upsample=1)
    assert hub.load_inverter("griffin_lim", OTHER) == GriffinLim(codec=OTHER)


@pytest.mark.slow
def test_a_released_inverter_by_name_and_by_folder(root, tmp_path):
    write_inverter(root / "mine")
    write_inverter(tmp_path / "elsewhere")
    mel = np.random.default_rng(0).uniform(-8, 0, (20, 32)).astype(np.float32)
    truth = MODEL.inverter(tiny_inverter_params()).invert(mel)
    for spec in ("mine", str(tmp_path / "elsewhere")):
        made = hub.load_inverter(spec)
        assert isinstance(made, NeuralInverter) and made.codec == MODEL.codec
        np.testing.assert_array_equal(made.invert(mel), truth)
    assert np.abs(truth).max() > 0
    hub.load_inverter("mine", MODEL.codec)
    with pytest.raises(UserError, match="codecs differ.*44100"):
        hub.load_inverter("mine", OTHER)


def test_the_discriminators_of_its_training_are_not_asked_for(root):
    write_inverter(root / "mine", gin=GIN + """
SpectrogramInverterModel.discriminators = @DiscriminatorsConfig()
DiscriminatorsConfig.wave = None
""")
    assert hub.load_inverter("mine").codec == MODEL.codec


def test_the_published_ones_get_their_handle(monkeypatch):
    seen = []
    monkeypatch.setattr(hub, "SoundStreamHub", lambda x: seen.append(("hub", x)) or GriffinLim())
    monkeypatch.setattr(hub, "SoundStreamONNX", lambda x: seen.append(("onnx", x)) or GriffinLim())
    hub.load_inverter("soundstream:http://host/decoder/1")
    hub.load_inverter("soundstream:folder")
    hub.load_inverter("soundstream")
    hub.load_inverter("soundstream_onnx:decoder.onnx")
    assert seen == [("hub", "http://host/decoder/1"), ("hub", "folder"), ("hub", hub.HUB_URL),
                    ("onnx", "decoder.onnx")]
    with pytest.raises(UserError, match="codecs differ"):
        hub.load_inverter("soundstream:folder", OTHER)


@pytest.mark.slow
@pytest.mark.parametrize("spec, word", [
    ("griffin-lim", "did you mean griffin_lim?"), ("grifin_lim_hop", "did you mean griffin_lim_hop?"),
    ("minne", "did you mean mine?"), ("xyz", "xyz: no such inverter; There are griffin_lim"),
    ("soundstream_onnx", "did you mean soundstream_onnx:FILE?"), ("nowhere/folder", "no such inverter"),
    ("", "no such inverter")])
def test_unknown_names_are_answered_with_the_nearest(root, spec, word):
    write_inverter(root / "mine")
    with pytest.raises(UserError) as error:
        hub.load_inverter(spec)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_inverter_is_refused(root, tmp_path):
    write_release(root / "denoiser", {"a": np.zeros(1)})
    with pytest.raises(UserError, match=f"{type(DENOISER).__name__} is no inverter"):
        hub.load_inverter("denoiser")
    folder = write_inverter(tmp_path / "broken", params={"generator": {"kernel": np.zeros(1)}})
    with pytest.raises(UserError, match="weights do not fit"):
        hub.load_inverter(str(folder))
    (folder / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="no such model"):
        hub.load_inverter(str(folder))
