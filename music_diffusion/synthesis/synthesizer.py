"""Notes → audio of any length, in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.loudness import normalize
from music_diffusion.audio.waveform import Waveform
from music_diffusion.diffusion.solvers import Solver
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.joining import Joining, Progress
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.types import Params

Model = FrameDiffusionModel | SpectrogramDiffusionModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may change of a rendering. None: as the model was released."""

    steps: int | None = None  # sampling steps, from 1
    guidance: float | None = None  # weight of classifier-free guidance; 1 is none
    solver: Solver | None = None
    seed: int = 0

    def apply(self, model: Model) -> Model:
        """The model with these settings."""
        changes = {"num_steps": self.steps, "guidance_weight": self.guidance, "solver": self.solver}
        return dataclasses.replace(model, **{k: v for k, v in changes.items() if v is not None})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesizer:
    """A model with its weights and an inverter.

    Deterministic: the same notes, settings and machine give the same samples.
    """

    name: str
    model: Model
    params: Params
    inverter: Inverter = GriffinLim()
    joining: Joining = OverlapJoining()
    tail: float = 2.0  # seconds rendered after the last note ends

    def __post_init__(self):
        self.model.codec.check_same(self.inverter.codec)

    @property
    def codec(self) -> MelCodec:
        """The codec of the model's spectrograms."""
        return self.model.codec

    def frames_of(self, notes: Notes) -> int:
        """Frames of a rendering: the notes and the tail."""
        return int(np.ceil((notes.duration + self.tail) * self.codec.frame_rate))

    def compile(self, notes: Notes, settings: Settings = Settings()) -> None:
        """Compiles what rendering `notes` needs, so that rendering starts at once."""
        next(self.stream_mel(notes, settings))
        silence = np.full((1, self.codec.mels), self.codec.log_min, np.float32)
        self.inverter.invert(silence)

    def stream_mel(self, notes: Notes, settings: Settings = Settings(),
                   progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields log-mel [t, F] in nat, in order."""
        if not len(notes):
            raise UserError("there are no notes to render")
        model = settings.apply(self.model)
        for x0 in self.joining.stream(model, self.params, notes, self.frames_of(notes), settings.seed,
                                      progress):
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
                   normalized: bool = True, progress: Progress | None = None) -> Waveform:
        """The whole piece in memory; `synthesis.render.render_file` writes one of any length.

        Args:
          notes: notes, or the path of a MIDI file.
          steps, guidance, solver, seed: see `Settings`.
          normalized: to -14 LUFS with a true peak of at most -1 dBTP; otherwise
            the model's own level, which may exceed full scale.
          progress: told the share that is done.

        Raises:
          UserError: a bad MIDI file, or a setting out of its range.
        """
        settings = Settings(steps=steps, guidance=guidance, solver=solver, seed=seed)
        samples = np.concatenate(list(self.stream(notes, settings, progress=progress)))
        wave = Waveform(samples, self.codec.sample_rate)
        return normalize(wave) if normalized else wave
