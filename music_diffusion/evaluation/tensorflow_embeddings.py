"""Published embeddings by TensorFlow itself: VGGish and TRILL from TensorFlow Hub, and VGGish's
checkpoint. They need the extra `hub`.

The settings are those of Hawthorne et al. 2022 (arXiv:2206.05408, section 5.1):
VGGish's output layer, and TRILL's layer "embedding", about 5.9 a second.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.saved_model import load_saved_model, reason, tensorflow_modules
from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import digest, file_digest
from music_diffusion.evaluation.embeddings import window_blocks

VGGISH_URL = "https://tfhub.dev/google/vggish/1"
TRILL_URL = "https://tfhub.dev/google/nonsemantic-speech-benchmark/trill/3"
VGGISH_DIM = 128
TRILL_DIMS = {"embedding": 512, "layer19": 12288}
# The windows of TRILL are not documented. The front end of its distilled versions has 96 frames
# of 10 ms, 17 apart, which fits the paper's 5.9 a second; only how blocks overlap rests on it.
TRILL_MEL = VGGishMel(patch_hop=17)
BLOCK_WINDOWS = 64  # windows embedded at once


class _HubEmbedder:
    """A SavedModel that maps samples [S] to embeddings [n, D].

    Args:
      handle: of the model.
      published: URL of the model that it should be.
      mel: a front end with the same windows: its patches.
      dim: D.
      call: of the model and a tensor of samples [S] → embeddings [n, D] or [1, n, D].
      layer: for `settings`.
      exact: whether another number of embeddings than there are windows is an error.
    """

    stand_in = False

    def __init__(self, handle: str | os.PathLike, *, published: str, mel: VGGishMel, dim: int,
                 call: Callable[[Any, Any], Any], layer: str, exact: bool):
        self._handle, self._published = os.fspath(handle), published
        self._model = load_saved_model(handle, published=published)
        self._tensorflow = tensorflow_modules()[0]
        self._mel, self._call, self._exact = mel, call, exact
        self.dim = dim
        self.sample_rate = mel.sample_rate
        rate = mel.sample_rate / mel.patch_hop_samples
        self.settings = (f"{layer} ({dim}), {'' if exact else 'about '}{rate:.2f} a second at "
                         f"{mel.sample_rate} Hz, no loudness normalisation, "
                         f"{_identity(self._handle)}")

    def __call__(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        blocks = window_blocks(samples, window=self._mel.patch_samples,
                               hop=self._mel.patch_hop_samples, most=BLOCK_WINDOWS)
        return np.concatenate([self._embed(block, n) for block, n in blocks])

    def _embed(self, block: Float[np.ndarray, " S"], n: int) -> Float[np.ndarray, "n D"]:
        tensorflow = self._tensorflow
        try:
            out = self._call(self._model, tensorflow.constant(block, tensorflow.float32))
            out = np.asarray(out, np.float32)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError,
                tensorflow.errors.OpError) as e:
            raise UserError(f"{self._handle}: does not embed {len(block)} samples ({reason(e)}); "
                            f"it is not {self._published}") from e
        out = out[0] if out.ndim == 3 and len(out) == 1 else np.atleast_1d(out)
        wrong_number = len(out) != n if self._exact else len(out) == 0
        if out.ndim != 2 or out.shape[1] != self.dim or wrong_number:
            raise UserError(f"{self._handle}: gives {out.shape} for {len(block)} samples, not "
                            f"{(n, self.dim)}; it is not {self._published}")
        return out


class HubVGGish(_HubEmbedder):
    """VGGish as published on TensorFlow Hub: samples [S] of 16 kHz → [n, 128], before ReLU.

    Args:
      handle: a URL that `tensorflow_hub.load` knows, or a local SavedModel folder.

    Raises UserError: no TensorFlow, no such model, or another one.
    """

    name = "vggish_hub"

    def __init__(self, handle: str | os.PathLike = VGGISH_URL):
        super().__init__(handle, published=VGGISH_URL, mel=VGGishMel(), dim=VGGISH_DIM,
                         call=lambda model, samples: model(samples),
                         layer="VGGish's output layer before ReLU", exact=True)


class HubTRILL(_HubEmbedder):
    """TRILL (Shor et al. 2020, arXiv:2002.12764) as published on TensorFlow Hub, of 16 kHz.

    Args:
      handle: a URL that `tensorflow_hub.load` knows, or a local SavedModel folder.
      layer: 'embedding' (512, the paper's choice) or 'layer19' (12288).

    Raises UserError: no TensorFlow, no such layer or model, or another model.
    """

    name = "trill"

    def __init__(self, handle: str | os.PathLike = TRILL_URL, layer: str = "embedding"):
        if layer not in TRILL_DIMS:
            raise UserError(f"TRILL has no layer {layer}; choose one of {', '.join(TRILL_DIMS)}")
        super().__init__(
            handle, published=TRILL_URL, mel=TRILL_MEL, dim=TRILL_DIMS[layer],
            call=lambda model, samples: model(samples=samples, sample_rate=16000)[layer],
            layer=f'TRILL\'s layer "{layer}"', exact=False)


def read_slim_checkpoint(prefix: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the variables of the scope `vggish` in a TensorFlow checkpoint, by name.

    Args:
      prefix: of its files (PREFIX.index, PREFIX.data-…), or the file of the old format, as
        the published vggish_model.ckpt is.

    Raises UserError: no TensorFlow, no such checkpoint, or none of VGGish.
    """
    path = pathlib.Path(prefix)
    if not path.is_file() and not pathlib.Path(f"{path}.index").is_file():
        raise UserError(f"{path}: no such checkpoint; give vggish_model.ckpt, or the name that its "
                        "files .index and .data-… have in common")
    tensorflow, _ = tensorflow_modules()
    try:
        reader = tensorflow.train.load_checkpoint(os.fspath(path))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith("vggish/")]
        variables = {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (ValueError, RuntimeError, OSError, tensorflow.errors.OpError) as e:
        raise UserError(f"{path}: not a TensorFlow checkpoint ({reason(e)})") from e
    if not variables:
        raise UserError(f"{path}: has no variables of the scope vggish; it is no VGGish checkpoint")
    return variables


def _identity(handle: str) -> str:
    """Names the weights: a URL as it is, a local folder with eight digits of its files."""
    if "://" in handle:
        return handle
    folder = pathlib.Path(handle)
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return f"{folder.name} {digest([[str(f.relative_to(folder)), file_digest(f)] for f in files])[:8]}"
