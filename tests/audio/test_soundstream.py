"""The adapters of the published decoder, on a SavedModel and an ONNX file made here in its signature.

Their decoder is one whose result is known: a linear synthesis of exp(mel), overlap-added.
"""

import pathlib

import numpy as np
import pytest
from reference import needs

from music_diffusion.audio import soundstream
from music_diffusion.audio.chunked import ChunkGrid
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.soundstream import SoundStream, SoundStreamHub, SoundStreamONNX
from music_diffusion.errors import UserError

CODEC = MelCodec()
HOP = CODEC.hop
WIDTH = 2 * HOP  # samples that a frame gives: its own and the next frame's
# Frequencies of the bins, in a window without steps; small, since music's exp(mel) reaches 50.
ATOMS = (1e-3 * np.hanning(WIDTH) * np.sin(np.arange(1, 129)[:, None] * np.arange(WIDTH) / 60)
         ).astype(np.float32)
SMALL = ChunkGrid(step_frames=12, context_frames=3, fade_frames=2)


def synthesis(mel):
    """The truth: [T, 128] nat → [T * 320]."""
    frames = np.exp(mel.astype(np.float64)) @ ATOMS
    out = np.zeros((len(mel) + 1, HOP))
    out[:-1] += frames[:, :HOP]
    out[1:] += frames[:, HOP:]
    return out[:-1].reshape(-1)


def sound(frames):
    return np.random.default_rng(frames).uniform(-6, 3, (frames, 128)).astype(np.float32)


def save_hub(folder: pathlib.Path, decode=None, spec=(None, None, 128)):
    """A TF2 SavedModel that is called like Magenta's: model(features [B, T, 128]) → [B, T * 320]."""
    tensorflow = needs.module("tensorflow")
    needs.module("tensorflow_hub")

    def overlap_add(features):
        frames = tensorflow.exp(features) @ ATOMS
        following = tensorflow.pad(frames[:, :-1, HOP:], ((0, 0), (1, 0), (0, 0)))
        samples = frames[:, :, :HOP] + following
        return tensorflow.reshape(samples, (tensorflow.shape(features)[0], -1))

    class Decoder(tensorflow.Module):
        @tensorflow.function(input_signature=[tensorflow.TensorSpec(spec, tensorflow.float32)])
        def __call__(self, features):
            return (decode or overlap_add)(features)

    tensorflow.saved_model.save(Decoder(), str(folder))
    return folder


def save_onnx(path: pathlib.Path, shape=("batch", "frames", 128), hop=HOP):
    """As the published file: `input_features` [batch, frames, 128] float32 → [batch, samples]."""
    onnx = needs.module("onnx")
    needs.module("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    def constant(name, value):
        return numpy_helper.from_array(np.asarray(value), name)

    constants = [constant("atoms", ATOMS), constant("minus_one", np.array([-1])),
                 constant("zero", np.array([0])), constant("hop", np.array([hop])),
                 constant("end", np.array([WIDTH])), constant("last", np.array([2])),
                 constant("time", np.array([1])), constant("shift", np.array([0, 1, 0, 0, 0, 0])),
                 constant("flat", np.array([0, -1]))]
    nodes = [
        helper.make_node("Exp", ["input_features"], ["magnitude"]),
        helper.make_node("MatMul", ["magnitude", "atoms"], ["parts"]),
        helper.make_node("Slice", ["parts", "zero", "hop", "last"], ["own"]),
        helper.make_node("Slice", ["parts", "hop", "end", "last"], ["rest"]),
        helper.make_node("Slice", ["rest", "zero", "minus_one", "time"], ["before"]),
        helper.make_node("Pad", ["before", "shift"], ["delayed"]),
        helper.make_node("Add", ["own", "delayed"], ["sum"]),
        helper.make_node("Reshape", ["sum", "flat"], ["output"])]
    graph = helper.make_graph(
        nodes if hop == HOP else [*nodes[:3], helper.make_node("Reshape", ["own", "flat"], ["output"])],
        "decoder", [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], "samples"])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module", params=["hub", "onnx"])
def adapter(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "hub":
        return SoundStreamHub(save_hub(folder / "decoder"), grid=SMALL)
    return SoundStreamONNX(save_onnx(folder / "model.onnx"), grid=SMALL)


@pytest.mark.parametrize("frames", [1, 11, 12, 40])
def test_samples_are_the_decoders_whatever_the_length(adapter, frames):
    mel = sound(frames)
    out = adapter.invert(mel)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, synthesis(mel), atol=1e-5)


def test_samples_do_not_depend_on_the_pushes(adapter):
    mel = sound(50)
    expected = adapter.invert(mel)
    for cuts in ([1, 2, 40], range(1, 50)):
        stream = adapter.stream()
        parts = [stream.push(part) for part in np.split(mel, cuts)]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.finish()]), expected)


def test_it_understands_the_default_codec_only(adapter):
    adapter.codec.check_same(MelCodec())
    with pytest.raises(UserError, match="codecs differ.*24000"):
        adapter.codec.check_same(MelCodec(sample_rate=24000))
    with pytest.raises(UserError, match=r"\[frames, 128\]"):
        adapter.invert(np.zeros((5, 80)))
    with pytest.raises(UserError, match="NaN"):
        adapter.invert(np.full((5, 128), np.nan))


def test_silence_is_silent(adapter):
    silence = np.full((30, 128), np.log(1e-5), np.float32)
    assert not adapter.invert(silence).any()


def test_the_default_grid_is_a_fifth_of_context():
    grid = soundstream.GRID
    size = grid.step_frames + grid.fade_frames + 2 * grid.context_frames
    assert 1 - grid.step_frames / size == pytest.approx(0.2, abs=0.01)


def test_any_decoder_may_stand_behind_it():
    out = SoundStream(lambda mel: synthesis(mel), SMALL).invert(sound(30))
    np.testing.assert_allclose(out, synthesis(sound(30)), atol=1e-5)


# What is refused before or while it is opened.

def test_a_missing_saved_model_is_found_without_tensorflow(tmp_path):
    for handle in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="no SavedModel there.*tfhub.dev"):
            SoundStreamHub(handle)


def test_a_missing_onnx_file_is_found_without_onnxruntime(tmp_path):
    with pytest.raises(UserError, match="decoder.onnx: no such file"):
        SoundStreamONNX(tmp_path / "decoder.onnx")
    with pytest.raises(UserError, match="model.onnx: no such file"):
        SoundStreamONNX(tmp_path)


@pytest.mark.parametrize("missing, extra", [("tensorflow_hub", "hub"), ("onnxruntime", "onnx")])
def test_without_the_extra_the_error_names_it(missing, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    if extra == "hub":
        monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
        (tmp_path / "saved_model.pb").touch()
    (tmp_path / "model.onnx").touch()
    with pytest.raises(UserError, match=rf"pip install 'music-diffusion\[{extra}\]'"):
        (SoundStreamHub if extra == "hub" else SoundStreamONNX)(tmp_path)


def test_other_files_are_no_models(tmp_path):
    needs.module("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(UserError, match="model.onnx: not an ONNX model") as error:
        SoundStreamONNX(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [("b", "t", 80), ("b", 256, 128), (4, "t", 128), ("t", 128)], ids=str)
def test_onnx_of_another_signature_is_refused(tmp_path, shape):
    needs.module("onnx")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    needs.module("onnxruntime")
    with pytest.raises(UserError, match="not SoundStream's mel decoder"):
        SoundStreamONNX(tmp_path)


def test_onnx_of_another_hop_is_refused(tmp_path):
    other = SoundStreamONNX(save_onnx(tmp_path / "model.onnx", hop=160), grid=SMALL)
    with pytest.raises(UserError, match=r"gives \(1, 3200\) for 20 frames, not \[1, 6400\]"):
        other.invert(sound(30))


@needs.installed("tensorflow_hub")
def test_saved_models_of_another_signature_or_hop_are_refused(tmp_path):
    save_hub(tmp_path / "eighty", lambda x: x[:, :, 0], spec=(None, None, 80))
    with pytest.raises(UserError, match=r"does not take a spectrogram \[1, 20, 128\]") as error:
        SoundStreamHub(tmp_path / "eighty", grid=SMALL).invert(sound(30))
    assert "\n" not in str(error.value)
    save_hub(tmp_path / "hopless", lambda x: x[:, :, 0])
    with pytest.raises(UserError, match=r"gives \(1, 20\) for 20 frames"):
        SoundStreamHub(tmp_path / "hopless", grid=SMALL).invert(sound(30))
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be loaded"):
        SoundStreamHub(tmp_path)


@needs.installed("tensorflow_hub")
def test_a_url_that_cannot_be_reached_is_a_user_error():
    with pytest.raises(UserError, match="cannot be loaded.*give its folder"):
        SoundStreamHub("http://127.0.0.1:9/soundstream/1")
