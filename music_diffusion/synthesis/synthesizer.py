"""Notes, a recording or nothing → audio of any length, in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.loudness import normalize
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Given, Piece, Source, Span
from music_diffusion.conditions.performances import FILE, Performances
from music_diffusion.errors import UserError
from music_diffusion.models.base import Generator, Sampling
from music_diffusion.synthesis.choose_joining import choose_joining
from music_diffusion.synthesis.joining import Joining
from music_diffusion.synthesis.performance import parse_performance, summed
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.types import Params, Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesizer:
    """A generator with its weights and an inverter.

    Deterministic: the same source, settings and machine give the same samples.
    """

    name: str
    model: Generator
    params: Params
    inverter: Inverter = GriffinLim()
    joining: Joining | None = None  # where settings ask for no other; None: the model's usual one
    tail: float = 2.0  # seconds rendered after the last note ends
    performances: Performances | None = None  # names of the model's table, if it has one

    def __post_init__(self):
        self.codec.check_same(self.inverter.codec)
        rows = 0 if (table := self.model.performances) is None else table.count
        names = () if self.performances is None else self.performances.names
        if len(names) != rows:
            raise UserError(f"{self.name}: {len(names)} names of performances for a model that has {rows}; "
                            f"give those of its {FILE}")

    @property
    def codec(self) -> MelCodec:
        """The codec of the model's spectrograms."""
        return self.model.space.codec

    def source_of(self, given: Given) -> Source:
        """Returns what is given as the model takes it. Raises UserError: it cannot be read or used."""
        source = self.model.conditions.open(given, self.codec, self.tail)
        self.codec.check_same(source.codec)
        return source

    def frames_of(self, given: Given) -> int:
        """Returns the frames of a rendering."""
        return self.source_of(given).frames

    def sampled_by(self, settings: RenderSettings) -> Generator:
        """Returns the model with these settings. Raises UserError for one that it does not have."""
        if self.model.performances is None:
            for name in ("performance", "performance_guidance"):
                if name == "performance_guidance" and self.model.likes:
                    continue  # it is that of what it should sound like
                if getattr(settings, name) is not None:
                    raise UserError(f"--{name.replace('_', '-')} {getattr(settings, name)}: this model "
                                    "knows no performances; leave it out")
        return self.model.sampled_by(Sampling(
            steps=settings.steps, solver=settings.solver, grid=settings.grid, guidance=settings.guidance,
            performance_guidance=settings.performance_guidance,
            content_guidance=settings.content_guidance, temperature=settings.temperature,
            texture=settings.texture, strength=settings.strength, passes=settings.passes))

    def joining_of(self, settings: RenderSettings = RenderSettings()) -> Joining:
        """Returns how long pieces are made. Raises UserError where the model cannot do what is asked."""
        own = self.joining
        if own is None or (settings.overlap, settings.segment) != (None, None):
            return choose_joining(self.model, settings)
        return own if settings.joining in (None, own.name) else choose_joining(self.model, settings)

    def performance_of(self, settings: RenderSettings = RenderSettings()) -> str | None:
        """Returns who plays, in words; None for a model without performances."""
        if self.performances is None or settings.performance is not None:
            return settings.performance
        return self.performances.default

    def compile(self, given: Given, settings: RenderSettings = RenderSettings()) -> None:
        """Compiles what rendering needs, so that it starts at once; nothing is sampled."""
        model, joining = self.sampled_by(settings), self.joining_of(settings)
        part = self._parts(self.source_of(given), settings)[0]
        joining.compile(model, self.params, self._piece(model, part))
        silence = np.full((1, self.codec.mels), self.codec.log_min, np.float32)
        self.inverter.invert(silence)

    def stream_mel(self, given: Given, settings: RenderSettings = RenderSettings(),
                   progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields log-mel [t, F] in nat, in order."""
        model, joining = self.sampled_by(settings), self.joining_of(settings)
        parts = self._parts(self.source_of(given), settings)
        done = [0.0] * len(parts)

        def counted(part: int) -> Progress:
            def count(share: float) -> None:
                done[part] = share
                if progress is not None:
                    progress(sum(done) / len(done))
            return count

        def stream(number: int) -> Iterator[np.ndarray]:
            piece = self._piece(model, parts[number])
            left = piece.frames  # a space's last frame may reach beyond the piece
            for x0 in joining.stream(model, self.params, piece, settings.seed, counted(number)):
                mel = model.space.to_mel(self.params, x0)[:left]
                left -= len(mel)
                yield mel

        # Each part begins with the noise of the seed, so it sounds the same beside any other.
        yield from summed([stream(number) for number in range(len(parts))], self.codec)

    def _piece(self, model: Generator, source: Source) -> Piece:
        """Returns the conditions of a source, or of the span of it that is made."""
        piece = model.conditions.of_piece(source, self.params)
        if source.span is None:
            return piece
        first, last = source.span
        return Span(piece=piece, first=first, frames=last - first)

    def _parts(self, source: Source, settings: RenderSettings) -> list[Source]:
        """Returns sources that are rendered apart and heard together, each with its performance."""
        chosen = source.performance is not None and settings.performance is None
        if self.performances is None or source.notes is None or chosen:
            return [source]
        casting = parse_performance(settings.performance, self.performances)
        if source.region is not None and len(casting.weights) > 1:
            raise UserError(f"--performance {settings.performance}: where a part stays, one performance "
                            "plays all of it")
        return [dataclasses.replace(source, notes=part.notes, performance=part.weights)
                for part in casting.parts(source.notes)]

    def stream(self, given: Given, settings: RenderSettings = RenderSettings(), *,
               progress: Progress | None = None,
               on_mel: Callable[[np.ndarray], None] | None = None) -> Iterator[np.ndarray]:
        """Yields samples [n] at the codec's rate, in order, not normalised.

        Args:
          given: notes or the path of a MIDI file; for models that change recordings a waveform or
            the path of an audio file.
          settings: see `RenderSettings`.
          progress: takes the share that is done.
          on_mel: given every part of the spectrogram, [t, F] in nat.
        """
        inversion = self.inverter.stream()
        for mel in self.stream_mel(given, settings, progress):
            if on_mel is not None:
                on_mel(mel)
            yield inversion.push(mel)
        yield inversion.finish()

    def synthesize(self, given: Given, settings: RenderSettings = RenderSettings(), *,
                   normalized: bool = True, progress: Progress | None = None, **changes: Any) -> Waveform:
        """Renders the whole piece in memory; `synthesis.render.render_file` writes one of any length.

        Args:
          given: see `stream`.
          settings: see `RenderSettings`.
          normalized: to -14 LUFS with a true peak of at most -1 dBTP; otherwise
            the model's own level, which may exceed full scale.
          progress: takes the share that is done.
          changes: of the settings, by their names: `seed=1`, `performance="studio"`.

        Raises:
          UserError: a bad file, or a setting out of its range.
        """
        settings = settings.changed(**changes)
        samples = np.concatenate(list(self.stream(given, settings, progress=progress)))
        wave = Waveform(samples, self.codec.sample_rate)
        return normalize(wave) if normalized else wave

    def transfer(self, source: str | os.PathLike | Waveform, to: str | None = None, *,
                 heard: str | None = None, like: str | None = None,
                 settings: RenderSettings = RenderSettings(), mono: bool = False,
                 progress: Progress | None = None, **changes: Any) -> Waveform:
        """Returns a recording in another timbre, at its own level and length, by a model that changes such.

        In memory; `synthesis.transfer.transfer_file` writes a recording of any length.

        Args:
          source: path of an audio file, or samples.
          to: who plays, such as `piano` or `violin=flute,piano=vibraphone`; None: who is heard in `like`.
          heard: who is heard in the source, where that is known.
          like: path of a recording that it should sound like.
          settings: see `RenderSettings`.
          mono: mix the channels to one first; otherwise each is changed by itself.
          progress: takes the share that is done.
          changes: of the settings, by their names: `steps=10`, `strength=0.7`.

        Raises:
          UserError: a bad file, instrument, reference or setting, or a model that changes no recordings.
        """
        from music_diffusion.synthesis.hearing import open_hearing  # which need this module
        from music_diffusion.synthesis.transfer import transfer

        return transfer(self, source, open_hearing(self, to, heard, like),
                        settings=settings.changed(**changes), mono=mono, progress=progress)

    def restyle(self, content: str | os.PathLike | Waveform, style: str, *,
                settings: RenderSettings = RenderSettings(), mono: bool = False,
                progress: Progress | None = None, **changes: Any) -> Waveform:
        """Returns what is heard in a recording, in the sound of another; see `hearing.open_style`.

        Args:
          content: path of an audio file, or samples.
          style: path of a recording that it should sound like.
          settings, mono, progress, changes: as of `transfer`.

        Raises:
          UserError: a bad file or setting, or a model that takes no recording to sound like.
        """
        from music_diffusion.synthesis.hearing import (  # which need this module
            open_style,
            style_settings,
        )
        from music_diffusion.synthesis.transfer import transfer

        return transfer(self, content, open_style(self, style), mono=mono, progress=progress,
                        settings=style_settings(self, settings.changed(**changes)))
