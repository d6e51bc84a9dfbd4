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
from music_diffusion.models.performances import FILE, Performances
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.choose_joining import JoiningOptions
from music_diffusion.synthesis.joining import Joining, Progress
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.performance import parse_performance, summed, table_config
from music_diffusion.types import Params

Model = FrameDiffusionModel | SpectrogramDiffusionModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may change of a rendering. None: as the model was released."""

    steps: int | None = None  # sampling steps, from 1
    guidance: float | None = None  # weight of classifier-free guidance; 1 is none
    solver: Solver | None = None
    seed: int = 0
    performance: str | None = None  # who plays what: see `synthesis.performance`
    performance_guidance: float | None = None  # weight of the performance's guidance; 1 is none
    joining: str | None = None  # of segments: overlap or context
    overlap: float | None = None  # seconds that neighbouring segments share
    segment: float | None = None  # seconds of a segment, where the model leaves them open

    def __post_init__(self):
        JoiningOptions(joining=self.joining, overlap=self.overlap, segment=self.segment)  # checks them

    @property
    def joining_options(self) -> JoiningOptions:
        """What is asked of the joining."""
        return JoiningOptions(joining=self.joining, overlap=self.overlap, segment=self.segment)

    def apply(self, model: Model) -> Model:
        """The model with these settings. Raises UserError for one that it does not have."""
        if table_config(model) is None:
            for name in ("performance", "performance_guidance"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: this model knows "
                                    "no performances; leave it out")
        changes = {"num_steps": self.steps, "guidance_weight": self.guidance, "solver": self.solver,
                   "performance_guidance": self.performance_guidance}
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
    performances: Performances | None = None  # names of the model's table, if it has one

    def __post_init__(self):
        self.model.codec.check_same(self.inverter.codec)
        rows = 0 if (table := table_config(self.model)) is None else table.count
        names = () if self.performances is None else self.performances.names
        if len(names) != rows:
            raise UserError(f"{self.name}: {len(names)} names of performances for a model that has {rows}; "
                            f"give those of its {FILE}")

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
        model, joining = settings.apply(self.model), self.joining_of(settings)
        frames, parts = self.frames_of(notes), self._parts(notes, settings)
        done = [0.0] * len(parts)

        def told(part: int) -> Progress:
            def tell(share: float) -> None:
                done[part] = share
                if progress is not None:
                    progress(sum(done) / len(done))
            return tell

        def stream(number: int) -> Iterator[np.ndarray]:
            part_notes, weights = parts[number]
            for x0 in joining.stream(model, self.params, part_notes, frames, settings.seed, told(number),
                                     performance=weights):
                yield self.codec.unscale(x0)

        # Each part begins with the noise of the seed, so it sounds the same beside any other.
        yield from summed([stream(number) for number in range(len(parts))], self.codec)

    def joining_of(self, settings: Settings = Settings()) -> Joining:
        """How long pieces are made. Raises UserError where the model cannot do what is asked."""
        return settings.joining_options.apply(self.joining, self.model)

    def performance_of(self, settings: Settings = Settings()) -> str | None:
        """Who plays, in words; None for a model without performances."""
        if self.performances is None or settings.performance is not None:
            return settings.performance
        return self.performances.default

    def _parts(self, notes: Notes, settings: Settings) -> list[tuple[Notes, np.ndarray | None]]:
        """Notes that are rendered together, and the weights of their performances."""
        if self.performances is None:
            return [(notes, None)]
        casting = parse_performance(settings.performance, self.performances)
        return [(part.notes, part.weights) for part in casting.parts(notes)]

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
                   performance: str | None = None, performance_guidance: float | None = None,
                   joining: str | None = None, overlap: float | None = None,
                   segment: float | None = None, normalized: bool = True,
                   progress: Progress | None = None) -> Waveform:
        """The whole piece in memory; `synthesis.render.render_file` writes one of any length.

        Args:
          notes: notes, or the path of a MIDI file.
          steps, guidance, solver, seed: see `Settings`.
          performance: who plays what, such as 'studio' or 'violin=kim,rest=studio'; see
            `synthesis.performance`.
          performance_guidance, joining, overlap, segment: see `Settings`.
          normalized: to -14 LUFS with a true peak of at most -1 dBTP; otherwise
            the model's own level, which may exceed full scale.
          progress: told the share that is done.

        Raises:
          UserError: a bad MIDI file, or a setting out of its range.
        """
        settings = Settings(steps=steps, guidance=guidance, solver=solver, seed=seed,
                            performance=performance, performance_guidance=performance_guidance,
                            joining=joining, overlap=overlap, segment=segment)
        samples = np.concatenate(list(self.stream(notes, settings, progress=progress)))
        wave = Waveform(samples, self.codec.sample_rate)
        return normalize(wave) if normalized else wave
