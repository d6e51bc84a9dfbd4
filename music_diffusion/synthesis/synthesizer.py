"""Notes → audio of any length, in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.waveform import Waveform
from music_diffusion.diffusion.solvers import Solver
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.note_map import draw_note_maps
from music_diffusion.notes.frames import FrameGrid, roll_features
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.joining import Windows, overlapped
from music_diffusion.types import Params

Progress = Callable[[float], None]  # share of the work that is done, 0..1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may change of a rendering. None: as the model was released."""

    steps: int | None = None  # sampling steps, from 1
    guidance: float | None = None  # weight of classifier-free guidance; 1 is none
    solver: Solver | None = None
    seed: int = 0

    def apply(self, model: FrameDiffusionModel) -> FrameDiffusionModel:
        """The model with these settings."""
        changes = {"num_steps": self.steps, "guidance_weight": self.guidance, "solver": self.solver}
        return dataclasses.replace(model, **{k: v for k, v in changes.items() if v is not None})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesizer:
    """A model with its weights and an inverter.

    Deterministic: the same notes, settings and machine give the same samples.
    """

    name: str
    model: FrameDiffusionModel
    params: Params
    inverter: Inverter = GriffinLim()
    grid: FrameGrid = FrameGrid()
    windows: Windows = Windows()
    tail: float = 2.0  # seconds rendered after the last note ends

    def __post_init__(self):
        self.model.codec.check_same(self.inverter.codec)
        if abs(self.grid.hop * self.codec.frame_rate - 1) > 1e-6:
            raise UserError(f"{self.grid.hop=} must be the codec's {1 / self.codec.frame_rate} s")

    @property
    def codec(self) -> MelCodec:
        """The codec of the model's spectrograms."""
        return self.model.codec

    def frames_of(self, notes: Notes) -> int:
        """Frames of a rendering: the notes and the tail."""
        return int(np.ceil((notes.duration + self.tail) * self.codec.frame_rate))

    def compile(self, notes: Notes, settings: Settings = Settings()) -> None:
        """Compiles what rendering `notes` needs, so that rendering starts at once."""
        windows = self.windows.for_length(self.frames_of(notes))
        draw = _GroupSampler(self, settings.apply(self.model), notes, windows)
        for _ in overlapped(draw, windows, windows.span, self.codec.mels, settings.seed):
            pass
        silence = np.full((1, self.codec.mels), self.codec.log_min, np.float32)
        self.inverter.invert(silence)

    def stream_mel(self, notes: Notes, settings: Settings = Settings(),
                   progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields log-mel [t, F] in nat, in order."""
        if not len(notes):
            raise UserError("there are no notes to render")
        frames = self.frames_of(notes)
        windows = self.windows.for_length(frames)
        draw = _GroupSampler(self, settings.apply(self.model), notes, windows)
        for x0 in overlapped(draw, windows, frames, self.codec.mels, settings.seed, progress):
            yield self.codec.unscale(x0)

    def stream(self, notes: Notes | str | os.PathLike, settings: Settings = Settings(), *,
               progress: Progress | None = None,
               on_mel: Callable[[np.ndarray], None] | None = None) -> Iterator[np.ndarray]:
        """Yields samples [n] at the codec's rate, in order, not normalised.

        Args:
          notes: notes, or the path of a MIDI file.
          settings: see `Settings`.
          progress: told the share that is done.
          on_mel: given every part of the spectrogram, [t, F] in nat.
        """
        notes = notes if isinstance(notes, Notes) else read_midi(notes)
        inversion = self.inverter.stream()
        for mel in self.stream_mel(notes, settings, progress):
            if on_mel is not None:
                on_mel(mel)
            yield inversion.push(mel)
        yield inversion.finish()

    def synthesize(self, notes: Notes | str | os.PathLike, *, steps: int | None = None,
                   guidance: float | None = None, solver: Solver | None = None, seed: int = 0,
                   progress: Progress | None = None) -> Waveform:
        """The whole piece in memory, peak-normalised to -1 dBFS.

        `synthesis.render.render_file` writes a file of any length in flat
        memory, normalised in loudness.

        Raises:
          UserError: a bad MIDI file, or a setting out of its range.
        """
        settings = Settings(steps=steps, guidance=guidance, solver=solver, seed=seed)
        samples = np.concatenate(list(self.stream(notes, settings, progress=progress)))
        peak = float(np.abs(samples).max(initial=0.0))
        return Waveform(samples * (0.891 / peak if peak > 0 else 1.0), self.codec.sample_rate)


class _GroupSampler:
    """`joining.GroupSampler` for a frame-wise model and the notes of one piece."""

    def __init__(self, synthesizer: Synthesizer, model: FrameDiffusionModel, notes: Notes,
                 windows: Windows):
        self._synthesizer, self._model = synthesizer, model
        self._notes, self._windows = notes, windows

    def __call__(self, first, z_T, key, known, has_known):
        windows, grid = self._windows, self._synthesizer.grid
        params = self._synthesizer.params
        hop = self._model.codec.hop / self._model.codec.sample_rate
        start = first * hop
        # Only a part of the piece is looked at, so a group costs the same in any piece.
        notes = self._notes.between(start - grid.tail - 1, start + windows.span * hop + 1)
        maps = draw_note_maps(self._model.config.timbre, params["timbre"], notes, start,
                              windows.span, grid)
        batch = {"maps": maps, "roll": roll_features(notes, start, windows.span, grid)}
        return _sample(self._model, windows, params, batch, z_T, key, known, has_known)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(model: FrameDiffusionModel, windows: Windows, params: Params, batch, z_T, key, known,
            has_known) -> jax.Array:
    """Scaled mel of one group's span."""
    x0 = model.sample(params, {k: windows.cut(jnp.asarray(v)) for k, v in batch.items()}, z_T, key,
                      x0_hook=lambda x0: windows.fade(x0, known, has_known))
    return windows.join(x0)
