"""Import of the public VGGish weights as parameters of the project's own VGGish.

Two layouts are known. That of TF-Slim, in the checkpoint that was published with
AudioSet (`vggish_model.ckpt`): kernels [3, 3, in, out] and [in, out], as here. And
that of the PyTorch port torchvggish (a state dict): kernels [out, in, 3, 3] and
[out, in]. torchvggish brings its maps into TensorFlow's order before it flattens
them, so that the first fully connected layer's inputs have the same order in both.
"""

from __future__ import annotations

import os
import pathlib
import shlex
from collections.abc import Callable, Mapping

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.vggish import VGGish, VGGishConfig
from music_diffusion.types import Params

PUBLISHED = VGGishConfig()
PICKLED = (".pth", ".pt", ".pkl", ".bin")
# Of the array kernels: foreign layout -> [3, 3, in, out] or [in, out].
Reorder = Callable[[np.ndarray], np.ndarray]


def slim_names(config: VGGishConfig) -> dict[str, str]:
    """Returns layer of `VGGish` -> TF-Slim's scope. Layers that slim.repeat made have a scope within."""
    names = {}
    for g, group in enumerate(config.channels):
        for i in range(len(group)):
            inner = f"/conv{g + 1}_{i + 1}" if len(group) > 1 else ""
            names[f"conv_{g}_{i}"] = f"vggish/conv{g + 1}{inner}"
    names |= {f"hidden_{i}": f"vggish/fc1/fc1_{i + 1}" for i in range(len(config.hidden))}
    return names | {"embedding": "vggish/fc2"}


def torch_names(config: VGGishConfig) -> dict[str, str]:
    """Returns layer of `VGGish` -> torchvggish's prefix: places in two nn.Sequential.

    Every convolution and fully connected layer is followed by a ReLU, and every
    group by a pooling; they take a place each.
    """
    names, place = {}, 0
    for g, group in enumerate(config.channels):
        for i in range(len(group)):
            names[f"conv_{g}_{i}"] = f"features.{place}"
            place += 2
        place += 1
    full = [*(f"hidden_{i}" for i in range(len(config.hidden))), "embedding"]
    return names | {layer: f"embeddings.{2 * i}" for i, layer in enumerate(full)}


def from_slim(variables: Mapping[str, np.ndarray], config: VGGishConfig = PUBLISHED) -> Params:
    """Turns variables of a TF-Slim checkpoint, by name, into parameters. What else is there is left out.

    Raises UserError: a variable is missing or has another shape.
    """
    names = {layer: (f"{scope}/weights", f"{scope}/biases")
             for layer, scope in slim_names(config).items()}
    return _collect(variables, names, config, lambda kernel: kernel)


def from_torch(state: Mapping[str, np.ndarray], config: VGGishConfig = PUBLISHED) -> Params:
    """Turns a state dict of torchvggish, as arrays, into parameters. What else is there is left out.

    Raises UserError: an entry is missing or has another shape.
    """
    names = {layer: (f"{prefix}.weight", f"{prefix}.bias")
             for layer, prefix in torch_names(config).items()}
    return _collect(state, names, config, _from_out_in)


def _from_out_in(kernel: np.ndarray) -> np.ndarray:
    """Moves axes: [out, in, …] -> […, in, out]."""
    return np.moveaxis(kernel, (0, 1), (-1, -2)) if kernel.ndim >= 2 else kernel


def _collect(arrays: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, str]],
             config: VGGishConfig, reorder: Reorder) -> Params:
    """Collects parameters from `arrays`; `names` gives kernel and bias of every layer."""
    params: dict[str, dict[str, np.ndarray]] = {}
    for layer, shapes in _shapes(config).items():
        params[layer] = {}
        for part, name in zip(("kernel", "bias"), names[layer], strict=True):
            if name not in arrays:
                raise UserError(f"{name} is missing; these are not VGGish's weights")
            array = np.asarray(arrays[name], np.float32)
            array = reorder(array) if part == "kernel" else array
            if array.shape != shapes[part]:
                raise UserError(f"{name} has shape {np.shape(arrays[name])}, which does not give "
                                f"{shapes[part]}; these are not the weights of a VGGish of this size")
            params[layer][part] = np.ascontiguousarray(array)
    return params


def _shapes(config: VGGishConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns layer -> shapes of its kernel and bias, in the order of the layers."""
    import jax

    patches = jax.ShapeDtypeStruct((1, config.frames, config.mels), np.float32)
    params = jax.eval_shape(VGGish(config).init, jax.random.key(0), patches)["params"]
    return {layer: {part: params[layer][part].shape for part in ("kernel", "bias")}
            for layer in slim_names(config)}


def load_vggish(path: str | os.PathLike, config: VGGishConfig = PUBLISHED) -> Params:
    """Reads parameters from a safetensors file: torchvggish's state dict, or `save_safetensors` of ours.

    Raises:
      UserError: no such file, other weights, or a pickle: those are never loaded, since
        opening one runs what is in it. The message says how to convert it.
    """
    path = pathlib.Path(path)
    if path.suffix in PICKLED:
        raise UserError(f"{path}: is a pickle, which is never loaded; convert it where torch is "
                        f"installed: {conversion(path)}")
    arrays = load_safetensors(path)
    try:
        if "embedding" in arrays:  # our own layout, nested
            flat = {f"{layer}/{part}": array for layer, parts in arrays.items()
                    if isinstance(parts, Mapping) for part, array in parts.items()}
            names = {layer: (f"{layer}/kernel", f"{layer}/bias") for layer in slim_names(config)}
            return _collect(flat, names, config, lambda kernel: kernel)
        return from_torch(arrays, config)
    except UserError as e:
        raise UserError(f"{path}: {e}") from e


def conversion(path: pathlib.Path) -> str:
    """Returns the command that makes a safetensors file of a pickled state dict, in one line."""
    made = path.with_suffix(".safetensors")
    return ('python -c "import sys, torch; from safetensors.torch import save_file; '
            "save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], map_location='cpu', "
            'weights_only=True).items()}, sys.argv[2])" '
            f"{shlex.quote(str(path))} {shlex.quote(str(made))}")
