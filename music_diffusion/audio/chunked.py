"""Inverting long spectrograms by a function that takes a fixed number of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.inverter import check_mel
from music_diffusion.audio.silence import covering_frames, silence_gain
from music_diffusion.errors import UserError
from music_diffusion.types import Mel

Decode = Callable[[Mel], np.ndarray]  # [n, F] nat → [n * hop], always with the same n


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkGrid:
    """Places of chunks: chunk k adds the samples of frames k * step ... (k + 1) * step - 1."""

    step_frames: int  # frames that a chunk adds
    context_frames: int  # frames on each side that are seen and whose samples are dropped
    fade_frames: int = 0  # frames over which a chunk's end is cross-faded into the next one

    def __post_init__(self):
        if self.step_frames < 1 or self.context_frames < 0:
            raise ValueError(f"need {self.step_frames=} >= 1 and {self.context_frames=} >= 0")
        if not 0 <= self.fade_frames <= self.step_frames:
            raise ValueError(f"need 0 <= {self.fade_frames=} <= {self.step_frames=}")


class ChunkedStream:
    """An `InverterStream` over a grid that is fixed from frame 0 on.

    So the samples do not depend on how the spectrogram is cut into pushes; and
    where a sample depends on no frames beyond the context, neither on the grid.
    Before the first frame and after the last there is silence. Silent frames
    give exact silence (`silence_gain`).
    """

    def __init__(self, codec: MelCodec, decode: Decode, grid: ChunkGrid):
        self._codec, self._decode, self._grid = codec, decode, grid
        self._context = max(grid.context_frames, covering_frames(codec))  # what the gain sees
        self._frames = 2 * self._context + grid.step_frames + grid.fade_frames
        self._mel = self._silence(self._context)  # frames from the chunk's first on
        self._tail: np.ndarray | None = None  # end of the chunk before, to be cross-faded
        self._pending = 0  # frames pushed whose samples are not out yet

    def push(self, mel: Mel) -> np.ndarray:
        mel = check_mel(self._codec, mel)
        self._pending += len(mel)
        out, at = [np.zeros(0, np.float32)], 0
        while True:
            take = self._frames - len(self._mel)
            self._mel = np.concatenate([self._mel, mel[at:at + take]])
            at += take
            if len(self._mel) < self._frames:
                return np.concatenate(out)
            out.append(self._next(self._grid.step_frames))

    def finish(self) -> np.ndarray:
        out = [np.zeros(0, np.float32)]
        while self._pending:
            missing = self._silence(self._frames - len(self._mel))
            self._mel = np.concatenate([self._mel, missing])
            out.append(self._next(min(self._pending, self._grid.step_frames)))
        return np.concatenate(out)

    def _silence(self, frames: int) -> np.ndarray:
        return np.full((frames, self._codec.mels), np.log(self._codec.clip_min), np.float32)

    def _next(self, frames: int) -> np.ndarray:
        """Makes one chunk and returns the samples of the first `frames` frames after the context."""
        hop, step, fade = self._codec.hop, self._grid.step_frames, self._grid.fade_frames
        samples = self._decode(self._mel)
        if samples.shape != (self._frames * hop,):
            raise ValueError(f"{samples.shape=} should be [{self._frames * hop}]")
        if not np.isfinite(samples).all():
            raise UserError("the inverter gave NaN or infinite samples; its weights are broken")
        samples = samples[self._context * hop:][:(step + fade) * hop].astype(np.float32)
        if self._tail is not None:
            share = np.arange(fade * hop, dtype=np.float32) / max(1, fade * hop)
            samples[:fade * hop] = share * samples[:fade * hop] + (1 - share) * self._tail
        self._tail = samples[step * hop:]
        seen = slice(self._context - covering_frames(self._codec), self._context + step + 1)
        gain = silence_gain(self._codec, self._mel[seen])
        self._mel = self._mel[step:]
        self._pending -= frames
        return (samples[:step * hop] * gain)[:frames * hop]
