"""Import of the public VGGish weights, against forward passes in the foreign layouts by SciPy."""

import pathlib
import shlex
import sys
import types

import jax
import numpy as np
import pytest
import scipy.signal
from safetensors.numpy import save_file

from music_diffusion.errors import UserError
from music_diffusion.models.vggish_import import (
    conversion,
    from_slim,
    from_torch,
    load_vggish,
    slim_names,
    torch_names,
)
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.vggish import VGGish, VGGishConfig

# Two groups, one of them of two layers, and 3 × 2 positions where the maps are flattened.
SMALL = VGGishConfig(frames=12, mels=8, channels=((3,), (4, 5)), hidden=(7, 6), embedding=9)
PATCHES = np.random.default_rng(1).normal(size=(2, 12, 8)).astype(np.float32)


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def slim_variables():
    """As `vggish_slim.define_vggish_slim` would name and shape them, with what a training adds."""
    shapes = {"vggish/conv1": (3, 3, 1, 3), "vggish/conv2/conv2_1": (3, 3, 3, 4),
              "vggish/conv2/conv2_2": (3, 3, 4, 5), "vggish/fc1/fc1_1": (30, 7),
              "vggish/fc1/fc1_2": (7, 6), "vggish/fc2": (6, 9)}
    made = {"global_step": np.array(3), "vggish/fc2/weights/Adam": normal(6, 9, seed=99)}
    for i, (scope, shape) in enumerate(shapes.items()):
        made[f"{scope}/weights"] = normal(*shape, seed=i)
        made[f"{scope}/biases"] = normal(shape[-1], seed=100 + i)
    return made


def slim_forward(variables, patches):
    """The graph of `define_vggish_slim` in float64: NHWC, SAME, no activation at the end."""
    x = patches.astype(np.float64)[..., None]

    def conv(x, scope):
        kernel, bias = variables[f"{scope}/weights"], variables[f"{scope}/biases"]
        y = [[scipy.signal.correlate(np.pad(one, ((1, 1), (1, 1), (0, 0))), kernel[..., d], "valid")
              [..., 0] + bias[d] for d in range(len(bias))] for one in x]
        return np.maximum(np.moveaxis(np.array(y), 1, -1), 0)

    def pool(x):
        b, h, w, c = x.shape
        return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    x = pool(conv(x, "vggish/conv1"))
    x = pool(conv(conv(x, "vggish/conv2/conv2_1"), "vggish/conv2/conv2_2"))
    x = x.reshape(len(x), -1)
    for scope in ("vggish/fc1/fc1_1", "vggish/fc1/fc1_2"):
        x = np.maximum(x @ variables[f"{scope}/weights"] + variables[f"{scope}/biases"], 0)
    return x @ variables["vggish/fc2/weights"] + variables["vggish/fc2/biases"]


def torch_state():
    """As torchvggish's modules would name and shape them, with what its postprocessor adds."""
    shapes = {"features.0": (3, 1, 3, 3), "features.3": (4, 3, 3, 3), "features.5": (5, 4, 3, 3),
              "embeddings.0": (7, 30), "embeddings.2": (6, 7), "embeddings.4": (9, 6)}
    made = {"pproc.pca_means": normal(9, 1, seed=99)}
    for i, (name, shape) in enumerate(shapes.items()):
        made[f"{name}.weight"] = normal(*shape, seed=i)
        made[f"{name}.bias"] = normal(shape[0], seed=100 + i)
    return made


def torch_forward(state, patches):
    """torchvggish in float64: NCHW, then (height, width, channel) flattened, ReLU at the end."""
    x = patches.astype(np.float64)[:, None]

    def conv(x, name):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        y = [[sum(scipy.signal.correlate2d(one[c], weight[d, c], "same") for c in range(len(one)))
              + bias[d] for d in range(len(bias))] for one in x]
        return np.maximum(np.array(y), 0)

    def pool(x):
        b, c, h, w = x.shape
        return x.reshape(b, c, h // 2, 2, w // 2, 2).max((3, 5))

    x = pool(conv(conv(pool(conv(x, "features.0")), "features.3"), "features.5"))
    x = x.transpose(0, 2, 3, 1).reshape(len(x), -1)
    for name in ("embeddings.0", "embeddings.2", "embeddings.4"):
        x = np.maximum(x @ state[f"{name}.weight"].T + state[f"{name}.bias"], 0)
    return x


def forward(params, config=SMALL):
    return np.asarray(jax.jit(VGGish(config).apply)({"params": params}, PATCHES))


def test_slim_weights_compute_what_the_slim_graph_does():
    want = slim_forward(slim_variables(), PATCHES)
    got = forward(from_slim(slim_variables(), SMALL))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert (want < 0).any()


def test_torch_weights_compute_what_the_torch_module_does():
    want = torch_forward(torch_state(), PATCHES)
    got = np.maximum(forward(from_torch(torch_state(), SMALL)), 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert (want > 0).any()


def test_the_published_names():
    config = VGGishConfig()
    assert list(slim_names(config).values()) == [
        "vggish/conv1", "vggish/conv2", "vggish/conv3/conv3_1", "vggish/conv3/conv3_2",
        "vggish/conv4/conv4_1", "vggish/conv4/conv4_2", "vggish/fc1/fc1_1", "vggish/fc1/fc1_2",
        "vggish/fc2"]
    assert list(torch_names(config).values()) == [
        "features.0", "features.3", "features.6", "features.8", "features.11", "features.13",
        "embeddings.0", "embeddings.2", "embeddings.4"]


def test_a_state_dict_in_a_file_and_our_own_layout(tmp_path):
    save_file(torch_state(), tmp_path / "torch.safetensors")
    params = from_torch(torch_state(), SMALL)
    save_safetensors(tmp_path / "own.safetensors", params, dtype="float32")
    for name in ("torch", "own"):
        loaded = load_vggish(tmp_path / f"{name}.safetensors", SMALL)
        jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize("make, change, message", [
    (from_slim, lambda d: d.pop("vggish/conv2/conv2_1/biases"), "conv2_1/biases is missing"),
    (from_slim, lambda d: d.update({"vggish/fc2/weights": np.zeros((6, 8))}), r"fc2/weights.*\(6, 8\)"),
    (from_torch, lambda d: d.pop("embeddings.4.weight"), "embeddings.4.weight is missing"),
    # One channel for three: as in ports that take pictures.
    (from_torch, lambda d: d.update({"features.0.weight": np.zeros((3, 3, 3, 3))}), "features.0.weight"),
    (from_torch, lambda d: d.update({"embeddings.0.bias": np.zeros(8)}), r"embeddings.0.bias.*\(7,\)"),
])
def test_other_weights_are_refused_by_name(make, change, message):
    arrays = slim_variables() if make is from_slim else torch_state()
    change(arrays)
    with pytest.raises(UserError, match=message):
        make(arrays, SMALL)


def test_files_of_other_weights_are_refused_with_their_name(tmp_path):
    save_file({"something": np.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="x.safetensors: features.0.weight is missing"):
        load_vggish(tmp_path / "x.safetensors")
    save_safetensors(tmp_path / "own.safetensors", from_torch(torch_state(), SMALL))
    with pytest.raises(UserError, match="own.safetensors: conv_0_0/kernel has shape"):
        load_vggish(tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="no such file"):
        load_vggish(tmp_path / "nothing.safetensors")


def test_a_pickle_is_not_opened_and_the_conversion_is_one_command(tmp_path):
    path = tmp_path / "vggish-10086976.pth"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # a pickle that would run a command
    with pytest.raises(UserError, match="never loaded") as e:
        load_vggish(path)
    assert "\n" not in str(e.value)
    calls = run_with_stand_ins(str(e.value)[str(e.value).index("python -c"):])
    assert calls == {"load": (str(path), True),
                     "save": ({"a": "contiguous"}, str(path.with_suffix(".safetensors")))}


def test_the_conversion_survives_spaces_and_quotes():
    calls = run_with_stand_ins(conversion(pathlib.Path("my models/it's.pth")))
    assert calls["load"][0] == "my models/it's.pth"
    assert calls["save"][1] == "my models/it's.safetensors"


def run_with_stand_ins(command: str) -> dict:
    """What the command's code asks of torch and safetensors.torch."""
    python, flag, code, *arguments = shlex.split(command)
    assert (python, flag) == ("python", "-c")
    calls = {}

    class Tensor:
        def contiguous(self):
            return "contiguous"

    def load(path, map_location, weights_only):
        assert map_location == "cpu"
        calls["load"] = (path, weights_only)
        return {"a": Tensor()}

    def save(arrays, path):
        calls["save"] = (arrays, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["-c", *arguments])
        patch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
        patch.setitem(sys.modules, "safetensors.torch", types.SimpleNamespace(save_file=save))
        exec(code, {})
    return calls
