"""The published inverter: SoundStream's mel decoder, from TensorFlow Hub or as ONNX.

It is the one of Spectrogram Diffusion (Hawthorne et al. 2022, arXiv:2206.05408),
published as https://tfhub.dev/google/soundstream/mel/decoder/music/1 and with the
Hugging Face pipeline google/music-spectrogram-diffusion. Both take log-mel
[batch, frames, 128] in nat, as `MelCodec()` encodes, and give [batch, frames * 320]
samples at 16 kHz.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from music_diffusion.audio.chunked import ChunkedStream, ChunkGrid, Decode
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.inverter import invert_by_stream
from music_diffusion.audio.saved_model import load_saved_model, reason, tensorflow_modules
from music_diffusion.errors import UserError
from music_diffusion.types import Mel

HUB_URL = "https://tfhub.dev/google/soundstream/mel/decoder/music/1"
ONNX_FILE = "model.onnx"  # as diffusers names it
# 20 % of the work is context. Half a second of it is more than the published design should see.
GRID = ChunkGrid(step_frames=256, context_frames=28, fade_frames=8)


class SoundStream:
    """An `Inverter` around a decoder whose receptive field is not known.

    What it promises: the samples do not depend on how the spectrogram is cut into
    pushes, and there is no step where chunks join, because they lie on a fixed grid
    and are cross-faded. What it cannot: that the grid makes no difference. It makes
    none if the decoder looks no further than the grid's context.
    """

    def __init__(self, decode: Decode, grid: ChunkGrid = GRID):
        """decode: [n, 128] nat → [n * 320] samples."""
        self._decode, self._grid = decode, grid

    @property
    def codec(self) -> MelCodec:
        """The published one; spectrograms of any other are refused."""
        return MelCodec()

    def stream(self) -> ChunkedStream:
        return ChunkedStream(self.codec, self._decode, self._grid)

    def invert(self, mel: Mel) -> np.ndarray:
        """[T, 128] nat → [T * 320] float32. Raises UserError for NaN or another shape."""
        return invert_by_stream(self, mel)


class SoundStreamHub(SoundStream):
    """The decoder as a TensorFlow SavedModel; needs the extra `hub`.

    Args:
      handle: a URL that `tensorflow_hub.load` knows, or a local SavedModel folder.
      grid: see `SoundStream`.

    Raises UserError: no TensorFlow, no such model, or not a mel decoder.
    """

    def __init__(self, handle: str | os.PathLike = HUB_URL, grid: ChunkGrid = GRID):
        handle = os.fspath(handle)
        model = load_saved_model(handle, published=HUB_URL)
        tensorflow, _ = tensorflow_modules()

        def decode(mel: Mel) -> np.ndarray:
            try:
                batch = np.asarray(model(tensorflow.constant(mel[None], tensorflow.float32)))
            except (TypeError, ValueError, AttributeError, tensorflow.errors.OpError) as e:
                raise UserError(f"{handle}: does not take a spectrogram [1, {len(mel)}, 128] "
                                f"({reason(e)}); it is not SoundStream's mel decoder") from e
            return _samples(handle, batch, len(mel))

        super().__init__(decode, grid)


class SoundStreamONNX(SoundStream):
    """The decoder as an ONNX file; needs the extra `onnx`.

    Args:
      path: the file, or the folder that holds it as model.onnx.
      grid: see `SoundStream`.

    Raises UserError: no onnxruntime, no such file, or not a mel decoder.
    """

    def __init__(self, path: str | os.PathLike, grid: ChunkGrid = GRID):
        path = pathlib.Path(path)
        path = path / ONNX_FILE if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the mel decoder's {ONNX_FILE}")
        try:
            import onnxruntime
        except ImportError as e:
            raise UserError(f"ONNX models need onnxruntime ({reason(e)}): "
                            "pip install 'music-diffusion[onnx]'") from e
        try:
            session = onnxruntime.InferenceSession(os.fspath(path),
                                                   providers=["CPUExecutionProvider"])
        except Exception as e:  # its errors have no common base of their own
            raise UserError(f"{path}: not an ONNX model ({reason(e)})") from e
        name = _input_name(path, session)

        def decode(mel: Mel) -> np.ndarray:
            try:
                batch = session.run(None, {name: mel[None].astype(np.float32)})[0]
            except Exception as e:
                raise UserError(f"{path}: does not take a spectrogram [1, {len(mel)}, 128] "
                                f"({reason(e)}); it is not SoundStream's mel decoder") from e
            return _samples(path, batch, len(mel))

        super().__init__(decode, grid)


def _input_name(path: pathlib.Path, session: Any) -> str:
    """Name of the model's input, `input_features` in the published file.

    Raises UserError unless it is the only one and fits [1, any number of frames, 128].
    """
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    # A free axis is None or a string.
    batch, frames, mels = shape if len(shape) == 3 else (0, 0, 0)
    if isinstance(frames, int) or any(isinstance(axis, int) and axis != size
                                      for axis, size in ((batch, 1), (mels, 128))):
        found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise UserError(f"{path}: takes {found}, not one spectrogram [batch, frames, 128] of any "
                        "number of frames; it is not SoundStream's mel decoder")
    return inputs[0].name


def _samples(source: str | os.PathLike, batch: np.ndarray, frames: int) -> np.ndarray:
    """The samples [frames * 320] of a decoded batch of one."""
    size = frames * MelCodec().hop
    if batch.size != size:
        raise UserError(f"{source}: gives {batch.shape} for {frames} frames, not [1, {size}]; "
                        "it is not SoundStream's mel decoder")
    return batch.reshape(size)
