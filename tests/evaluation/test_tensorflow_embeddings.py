"""The TensorFlow embedders on SavedModels and checkpoints made here in the published signatures.

Their networks are linear, so that every embedding is known.
"""

import pathlib

import numpy as np
import pytest
from reference import needs

from music_diffusion.errors import UserError
from music_diffusion.evaluation import tensorflow_embeddings
from music_diffusion.evaluation.tensorflow_embeddings import (
    HubTRILL,
    HubVGGish,
    read_slim_checkpoint,
)

WINDOW = 15600  # samples that 96 frames of 10 ms see
VGGISH_HOP, TRILL_HOP = 15360, 2720


@pytest.fixture(scope="module")
def tensorflow():
    module = needs.module("tensorflow")
    needs.module("tensorflow_hub")
    return module


def weights(dim, seed=0):
    """Of a linear network on the squared samples of a window, [WINDOW, dim]."""
    return np.random.default_rng(seed).normal(size=(WINDOW, dim)).astype(np.float32)


def truth(audio, hop, dim):
    audio = np.pad(audio.astype(np.float64), (0, max(0, WINDOW - len(audio))))
    starts = range(0, len(audio) - WINDOW + 1, hop)
    return np.array([audio[s:s + WINDOW] ** 2 @ weights(dim) for s in starts])


def noise(samples):
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


def save_vggish(tensorflow, folder, dim=128, hop=VGGISH_HOP):
    """Called like the published one: waveform [S] float32 → [n, 128] of whole windows."""

    class Model(tensorflow.Module):
        def __init__(self):
            super().__init__()
            self.weights = tensorflow.Variable(weights(dim))

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None], tensorflow.float32)])
        def __call__(self, waveform):
            return tensorflow.signal.frame(waveform**2, WINDOW, hop) @ self.weights

    tensorflow.saved_model.save(Model(), str(folder))
    return folder


def save_trill(tensorflow, folder, batched=False):
    """Called like the published one: samples [S] and sample_rate=16000 → dict of layers."""
    spec = tensorflow.TensorSpec([None], tensorflow.float32)

    class Model(tensorflow.Module):
        def __init__(self):
            super().__init__()
            self.weights = tensorflow.Variable(weights(512))

        @tensorflow.function
        def __call__(self, samples, sample_rate):
            assert sample_rate == 16000
            y = tensorflow.signal.frame(samples**2, WINDOW, TRILL_HOP) @ self.weights
            wide = tensorflow.tile(y, [1, 24])
            return {"embedding": y[None] if batched else y, "layer19": wide}

    model = Model()
    model.__call__.get_concrete_function(samples=spec, sample_rate=16000)
    tensorflow.saved_model.save(model, str(folder))
    return folder


@pytest.fixture(scope="module")
def vggish(tensorflow, tmp_path_factory):
    return save_vggish(tensorflow, tmp_path_factory.mktemp("vggish") / "model")


@pytest.fixture(scope="module")
def trill(tensorflow, tmp_path_factory):
    return save_trill(tensorflow, tmp_path_factory.mktemp("trill") / "model")


@pytest.mark.parametrize("samples, count", [(WINDOW, 1), (2000, 1), (WINDOW + 5 * VGGISH_HOP + 9, 6)])
def test_vggish_gives_an_embedding_of_every_window(vggish, samples, count, monkeypatch):
    monkeypatch.setattr(tensorflow_embeddings, "BLOCK_WINDOWS", 4)
    got = HubVGGish(vggish)(noise(samples))
    assert got.shape == (count, 128) and got.dtype == np.float32
    np.testing.assert_allclose(got, truth(noise(samples), VGGISH_HOP, 128), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("samples, count", [(WINDOW, 1), (16000 * 3, 12)])
def test_trill_gives_its_embedding_layer(trill, samples, count, monkeypatch):
    monkeypatch.setattr(tensorflow_embeddings, "BLOCK_WINDOWS", 5)
    got = HubTRILL(trill)(noise(samples))
    assert got.shape == (count, 512) and got.dtype == np.float32
    np.testing.assert_allclose(got, truth(noise(samples), TRILL_HOP, 512), atol=1e-4)


def test_trill_in_a_batch_of_one_and_its_other_layer(tensorflow, trill, tmp_path):
    audio = noise(20000)
    batched = HubTRILL(save_trill(tensorflow, tmp_path / "batched", batched=True))
    np.testing.assert_array_equal(batched(audio), HubTRILL(trill)(audio))
    wide = HubTRILL(trill, layer="layer19")
    assert wide.dim == 12288
    np.testing.assert_array_equal(wide(audio), np.tile(HubTRILL(trill)(audio), (1, 24)))


def test_what_they_say_of_themselves(tensorflow, vggish, trill, tmp_path):
    a, b = HubVGGish(vggish), HubTRILL(trill)
    assert (a.name, a.dim, a.sample_rate, a.stand_in) == ("vggish_hub", 128, 16000, False)
    assert (b.name, b.dim, b.sample_rate, b.stand_in) == ("trill", 512, 16000, False)
    assert "1.04 a second" in a.settings and "about 5.88 a second" in b.settings
    assert '"embedding"' in b.settings and "\n" not in a.settings + b.settings
    other = save_vggish(tensorflow, tmp_path / "model", hop=VGGISH_HOP)
    (other / "variables" / "more").write_text("x")
    assert a.settings == HubVGGish(vggish).settings != HubVGGish(other).settings


# What is refused.

def test_a_model_of_another_width_or_rate_is_refused(tensorflow, trill, tmp_path):
    narrow = save_vggish(tensorflow, tmp_path / "narrow", dim=64)
    with pytest.raises(UserError, match=r"narrow: gives \(1, 64\).*\(1, 128\).*vggish/1"):
        HubVGGish(narrow)(noise(WINDOW))
    dense = save_vggish(tensorflow, tmp_path / "dense", hop=VGGISH_HOP // 2)
    with pytest.raises(UserError, match=r"dense: gives \(3, 128\).*\(2, 128\)"):
        HubVGGish(dense)(noise(WINDOW + VGGISH_HOP))


def test_models_with_another_signature_are_refused(vggish, trill):
    with pytest.raises(UserError, match="does not embed 15600 samples.*trill/3") as e:
        HubTRILL(vggish)(noise(WINDOW))
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="does not embed 15600 samples.*vggish/1"):
        HubVGGish(trill)(noise(WINDOW))


def test_an_incomplete_model_is_refused(tensorflow, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no protobuf")
    with pytest.raises(UserError, match="cannot be loaded.*is it complete"):
        HubVGGish(tmp_path)


@pytest.mark.parametrize("embedder", [HubVGGish, HubTRILL])
def test_a_missing_model_is_found_without_tensorflow(embedder, tmp_path):
    with pytest.raises(UserError, match="no SavedModel there.*tfhub.dev"):
        embedder(tmp_path)


def test_an_unknown_layer_is_refused_without_tensorflow():
    with pytest.raises(UserError, match="no layer embeddings; choose one of embedding, layer19"):
        HubTRILL(layer="embeddings")


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    for missing in ("tensorflow", "tensorflow_hub"):
        monkeypatch.setitem(__import__("sys").modules, missing, None)
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "vggish_model.ckpt").touch()
    for make in (lambda: HubTRILL(tmp_path), lambda: HubVGGish(),
                 lambda: read_slim_checkpoint(tmp_path / "vggish_model.ckpt")):
        with pytest.raises(UserError, match=r"pip install 'music-diffusion\[hub\]'"):
            make()


# Checkpoints.

def write_checkpoint(tensorflow, prefix: pathlib.Path, variables, version) -> pathlib.Path:
    """As TensorFlow 1's Saver writes it; version 1 is the format of the published file."""
    v1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), v1.Session() as session:
        made = [v1.get_variable(name, initializer=value) for name, value in variables.items()]
        session.run(v1.global_variables_initializer())
        v1.train.Saver(made, write_version=version).save(
            session, str(prefix), write_meta_graph=False, write_state=False)
    return prefix


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_gives_its_vggish_variables(tensorflow, tmp_path, version):
    variables = {"vggish/conv1/weights": noise(9).reshape(3, 3, 1, 1),
                 "vggish/fc1/fc1_1/biases": noise(4), "mymodel/fc1/weights": noise(6).reshape(2, 3)}
    prefix = write_checkpoint(tensorflow, tmp_path / "vggish_model.ckpt", variables, version)
    got = read_slim_checkpoint(prefix)
    assert set(got) == {"vggish/conv1/weights", "vggish/fc1/fc1_1/biases"}
    for name, array in got.items():
        np.testing.assert_array_equal(array, variables[name])


def test_other_files_are_no_checkpoints(tensorflow, tmp_path):
    with pytest.raises(UserError, match="a.ckpt: no such checkpoint; give vggish_model.ckpt"):
        read_slim_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="b.ckpt: not a TensorFlow checkpoint"):
        read_slim_checkpoint(tmp_path / "b.ckpt")
    other = write_checkpoint(tensorflow, tmp_path / "c.ckpt", {"yamnet/w": noise(3)}, 2)
    with pytest.raises(UserError, match="c.ckpt: has no variables of the scope vggish"):
        read_slim_checkpoint(other)
