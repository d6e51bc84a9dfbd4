"""The names of embedders: what each opens, and what is refused."""

import jax
import numpy as np
import pytest
from reference import compiled
from reference.tiny_release import write_release
from safetensors.numpy import save_file

from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.evaluation import tensorflow_embeddings
from music_diffusion.evaluation.embeddings import TaggerEmbedder, VGGishEmbedder
from music_diffusion.models import vggish_import
from music_diffusion.models.tagger import TaggerModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.vggish import VGGishConfig
from music_diffusion.synthesis import hub
from music_diffusion.workflows.embedders import load_embedder

TAGGER = TaggerModel(
    fonts=("one", "two"),
    front=VGGishMel(sample_rate=4000, hop=40, window=100, fft=128, mels=8, fmin=100.0, fmax=1900.0,
                    patch_frames=8, patch_hop=8),
    network=VGGishConfig(frames=8, mels=8, channels=((4,), (5,)), hidden=(6,), embedding=3))
GIN = """
released.model = @TaggerModel()
TaggerModel.fonts = ("one", "two")
TaggerModel.front = @VGGishMel()
TaggerModel.network = @VGGishConfig()
VGGishMel.sample_rate = 4000
VGGishMel.hop = 40
VGGishMel.window = 100
VGGishMel.fft = 128
VGGishMel.mels = 8
VGGishMel.fmin = 100.0
VGGishMel.fmax = 1900.0
VGGishMel.patch_frames = 8
VGGishMel.patch_hop = 8
VGGishConfig.frames = 8
VGGishConfig.mels = 8
VGGishConfig.channels = ((4,), (5,))
VGGishConfig.hidden = (6,)
VGGishConfig.embedding = 3
"""


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "weights_root", lambda: tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def params():
    return compiled.init(TAGGER)["params"]


def write_tagger(folder, params):
    folder.mkdir(parents=True)
    save_safetensors(folder / WEIGHTS, params, dtype="float32")
    (folder / CONFIG).write_text(GIN)


def test_the_tagger_by_name_and_by_folder(root, tmp_path, params):
    write_tagger(root / "tagger", params)
    write_tagger(tmp_path / "elsewhere", params)
    audio = np.random.default_rng(0).normal(0, 0.1, 2000).astype(np.float32)
    want = np.asarray(jax.jit(TAGGER.embed)(params, audio[None]))[0]
    for spec in ("tagger", str(tmp_path / "elsewhere")):
        embedder = load_embedder(spec)
        assert isinstance(embedder, TaggerEmbedder) and embedder.stand_in
        assert (embedder.sample_rate, embedder.dim) == (4000, 3)
        np.testing.assert_allclose(embedder(audio), want, atol=1e-4)
    assert isinstance(load_embedder(), TaggerEmbedder)


def test_weights_that_do_not_fit_are_refused(root, params):
    write_tagger(root / "tagger", params)
    (root / "tagger" / CONFIG).write_text(GIN.replace("hidden = (6,)", "hidden = (7,)"))
    with pytest.raises(UserError, match="weights do not fit"):
        load_embedder("tagger")


def test_another_model_is_no_tagger(tmp_path):
    write_release(tmp_path / "denoiser", {"no": np.zeros(1)})
    with pytest.raises(UserError, match="FrameDiffusionModel is no tagger; give the folder of one"):
        load_embedder(str(tmp_path / "denoiser"))


def test_vggish_from_a_safetensors_file(tmp_path):
    path = tmp_path / "vggish.safetensors"
    save_file({"features.0.weight": np.zeros((4, 1, 3, 3), np.float32)}, path)
    with pytest.raises(UserError, match="features.0.weight has shape"):  # it was read, as torch's
        load_embedder(f"vggish:{path}")
    with pytest.raises(UserError, match="no such file"):
        load_embedder(f"vggish:{tmp_path}/nothing.safetensors")
    (tmp_path / "vggish.pth").touch()
    with pytest.raises(UserError, match="never loaded; convert it.*python -c"):
        load_embedder(f"vggish:{tmp_path}/vggish.pth")


def test_vggish_from_a_file_or_a_checkpoint_gets_what_is_in_it(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(vggish_import, "load_vggish", lambda path: seen.append(str(path)) or {})
    monkeypatch.setattr(vggish_import, "from_slim", lambda variables: seen.append(variables) or {})
    monkeypatch.setattr(tensorflow_embeddings, "read_slim_checkpoint", lambda path: f"of {path}")
    for spec in ("vggish:a.safetensors", "vggish:vggish_model.ckpt", "vggish:runs/model.ckpt-7"):
        embedder = load_embedder(spec)
        assert isinstance(embedder, VGGishEmbedder) and not embedder.stand_in
        assert (embedder.dim, embedder.sample_rate) == (128, 16000)
    assert seen == ["a.safetensors", "of vggish_model.ckpt", "of runs/model.ckpt-7"]


def test_weights_of_another_network_in_a_checkpoint_are_refused_with_its_name(monkeypatch):
    monkeypatch.setattr(tensorflow_embeddings, "read_slim_checkpoint",
                        lambda path: {"vggish/conv1/weights": np.zeros((3, 3, 1, 64))})
    with pytest.raises(UserError, match="model.ckpt: vggish/conv1/biases is missing"):
        load_embedder("vggish:model.ckpt")


def test_the_published_ones_get_their_handle(monkeypatch):
    seen = []
    monkeypatch.setattr(tensorflow_embeddings, "HubVGGish", lambda x: seen.append(("vggish", x)))
    monkeypatch.setattr(tensorflow_embeddings, "HubTRILL", lambda x: seen.append(("trill", x)))
    for spec in ("vggish_hub", "vggish_hub:folder", "trill", "trill:https://host/trill/3"):
        load_embedder(spec)
    assert seen == [
        ("vggish", "https://tfhub.dev/google/vggish/1"), ("vggish", "folder"),
        ("trill", "https://tfhub.dev/google/nonsemantic-speech-benchmark/trill/3"),
        ("trill", "https://host/trill/3")]


@pytest.mark.parametrize("spec, message", [
    ("vgish_hub", "did you mean vggish_hub"), ("trll:folder", "did you mean trill"),
    ("tager", "did you mean tagger"),
    ("openl3", "openl3: no such embedding; there are tagger, mfcc, vggish:"),
    ("vggish", "do not come with the package.*vggish:FILE"), ("vggish:", "vggish:FILE"),
    ("tagger", "tagger: no such embedding; there are")])
def test_unknown_names_are_refused_with_the_nearest(spec, message):
    with pytest.raises(UserError, match=message) as e:
        load_embedder(spec)
    assert "\n" not in str(e.value)
