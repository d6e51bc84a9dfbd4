"""Ears of models that hear what they change: notes, and what a reference is like."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import AudioReader
from music_diffusion.conditions.base import SOURCE
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.models.base import Tagging
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.notes.casting import InstrumentCasting, parse_casting
from music_diffusion.notes.decoding import HeardNotes, NoteDecoder
from music_diffusion.notes.heard import HeardFrames, level, listening, only_classes
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES, program_range
from music_diffusion.paths import shown
from music_diffusion.synthesis.hub import (
    DEFAULT_TAGGER,
    load,
    load_performances,
    load_trained,
    load_transcriber,
)
from music_diffusion.synthesis.performance import parse_performance
from music_diffusion.synthesis.reconstruct import resampled
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Mel, Params

LEAST_SECONDS, REFERENCE_SECONDS = 1.0, 60.0  # of a reference
PERFORMANCES = "performances"  # the package's model that plays as references do that are named
PHRASE_SECONDS, PHRASE_NOTES = 8.0, 16  # that it plays


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Hearing:
    """Ears for a model that hears its recordings, and what is to become of them."""

    transcriber: Transcriber
    casting: InstrumentCasting = InstrumentCasting()
    reference: Float[np.ndarray, " D"] | None = None  # embedding of what it should sound like
    style: Mel | None = None  # of a model that restyles: log-mel in nat of what it should sound like

    def __call__(self, blocks: Iterator[Float[np.ndarray, " n"]], codec: MelCodec, frames: int, path: str
                 ) -> tuple[Notes, np.ndarray]:
        """Hears a recording.

        Args:
          blocks: mono samples at the transcriber's rate.
          codec: of its spectrogram.
          frames: of it.
          path: of a file that is written, so that memory does not grow.

        Returns the notes as they are to be played, and [frames, 2 P] uint8 (`notes.heard.HeardFrames`).
        """
        config = listening(self.transcriber.model.decode)
        decoder = NoteDecoder(config, self.transcriber.model.spectrum.frame_seconds)
        stream, notes, left = HeardFrames(codec.hop / codec.sample_rate), [], frames
        with open(path, "wb") as file:
            for part in self.transcriber.activations(blocks):
                notes.append(decoder.hear(only_classes(part, self.casting.heard)))
                heard = stream.push(part)[:left]
                left -= len(heard)
                file.write(heard.tobytes())
            file.write(stream.finish(frames)[:left].tobytes())
        heard = np.memmap(path, np.uint8, "r").reshape(frames, -1)
        return self.casting.of_heard(HeardNotes.concatenate([*notes, decoder.hear_rest()]), config), heard


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """Likeness of a recording: an embedding, and an instrument."""

    embedding: Float[np.ndarray, " D"]  # mean of the tagger's
    program: int  # of who plays most surely


def hear_likeness(path: str) -> Likeness:
    """Hears what a recording is like, of its first REFERENCE_SECONDS.

    Raises UserError for a file that cannot be read, is silent, or shorter than LEAST_SECONDS.
    """
    tagger, params = _tagger()
    return _likeness(_beginning(path, tagger.presence(params).model.front.sample_rate))


def _beginning(path: str, rate: int) -> Float[np.ndarray, " S"]:
    """Returns the samples of a recording's first REFERENCE_SECONDS, at a rate in Hz; see `style_of`."""
    with AudioReader(path) as reader:
        blocks = resampled((block[:, None] for block in reader.mono_blocks()), reader.sample_rate, rate)
        parts, count = [np.zeros(0, np.float32)], 0
        for block in blocks:
            parts.append(block[:, 0])
            count += len(block)
            if count >= REFERENCE_SECONDS * rate:
                break
    samples = np.concatenate(parts)[:round(REFERENCE_SECONDS * rate)]
    if len(samples) < LEAST_SECONDS * rate:
        raise UserError(f"{shown(path)}: lasts {len(samples) / rate:.2f} s; give a reference of "
                        f"{LEAST_SECONDS:g} s or more")
    if not np.abs(samples).max() > 1e-4:
        raise UserError(f"{shown(path)}: is silent; give a reference with sound")
    return samples


@functools.lru_cache(maxsize=1)
def _tagger() -> tuple[Tagging, Params]:
    _, model, params = load_trained(DEFAULT_TAGGER, Tagging, "tagger")
    return model, params


def _likeness(samples: Float[np.ndarray, " S"]) -> Likeness:
    """Returns the likeness of samples at the tagger's rate, at whatever level."""
    tagger, params = _tagger()
    rate = tagger.presence(params).model.front.sample_rate
    mel = MelCodec().encode(samples) if rate == MelCodec().sample_rate else None
    gain = 1.0 if mel is None else np.exp(LEVEL - level(mel))
    samples = (samples * gain).astype(np.float32)
    playing = tagger.presence(params)(samples)[:, :len(SLAKH_CLASSES)].mean(axis=0)
    embedding = np.asarray(tagger.embed(params, jnp.asarray(samples)[None])[0]).mean(axis=0)
    return Likeness(embedding=embedding, program=SLAKH_CLASSES[int(playing.argmax())].programs[0])


def performed_likeness(text: str, programs: Sequence[int]) -> Likeness:
    """Returns what a performance of the package's model `performances` is like on these instruments.

    Args:
      text: as of `--performance`.
      programs: of General MIDI, each of which plays a few notes of its range.

    Raises UserError: no such performance.
    """
    synthesizer = load(PERFORMANCES)
    if synthesizer.performances is None:
        raise ValueError(f"{PERFORMANCES} has no performances")
    parse_performance(text, synthesizer.performances)  # its errors, before the work
    parts = []
    for program in programs:
        low, high = program_range(program)
        middle, start = (low + high) // 2, np.arange(PHRASE_NOTES) * PHRASE_SECONDS / PHRASE_NOTES
        pitch = np.clip(middle + np.resize([0, 4, 7, 12, 7, 4, 0, -5], PHRASE_NOTES), low, high)
        parts.append(Notes(start, start + 0.9 * PHRASE_SECONDS / PHRASE_NOTES, pitch,
                           np.full(PHRASE_NOTES, 90), np.full(PHRASE_NOTES, program),
                           np.zeros(PHRASE_NOTES, bool)))
    wave = synthesizer.synthesize(Notes.concatenate(parts), performance=text)
    rate = _tagger()[0].presence(_tagger()[1]).model.front.sample_rate
    return _likeness(wave.mono().resample(rate).samples)


def open_hearing(synthesizer: Synthesizer, to: str | None = None, source: str | None = None,
                 like: str | None = None) -> Hearing | None:
    """Returns ears for a model that hears its recordings; None for one that does not.

    Args:
      synthesizer: of the model.
      to: who plays, see `notes.casting`; None: who is heard in `like`.
      source: who is heard; None: anyone.
      like: path of a recording that it should sound like, or, with `to`, a performance of the package's
        model `performances`.

    Raises UserError: an unknown instrument, a reference that is too short or silent, nothing that says what
    the recording should become, or any of it for a model that makes one timbre alone.
    """
    if synthesizer.model.restyles:
        raise UserError(f"{synthesizer.name}: takes a style's recording; use restyle")
    told = {"--to": to, "--from": source, "--like": like}
    asked = [flag for flag, value in told.items() if value is not None]
    if not synthesizer.model.hears:
        if SOURCE not in synthesizer.model.conditions.needs:
            raise UserError(f"{synthesizer.name}: changes no recordings; give a model that does, such as "
                            "transfer")
        if asked:
            raise UserError(f"{synthesizer.name}: makes one timbre alone; leave {' and '.join(asked)} out")
        return None
    casting = None if to is None else parse_casting(to, source)
    likeness = None
    if like is not None:
        if not synthesizer.model.likes:
            raise UserError(f"{synthesizer.name}: cannot be told a recording to sound like; leave --like "
                            "out")
        if not os.path.exists(like) and _is_performance(like):
            if casting is None:
                raise UserError(f"--like {like}: is a performance; say who plays, such as --to violin")
            likeness = performed_likeness(like, casting.programs)
        elif not os.path.exists(like):
            raise UserError(f"--like {like}: no such file, and no performance of `models show performances "
                            "--performances`")
        else:
            likeness = hear_likeness(like)
    return _told(synthesizer, likeness, casting, source)


def open_style(synthesizer: Synthesizer, style: str, source: str | None = None) -> Hearing:
    """Returns ears with the style of a recording, and who is heard in it.

    They are for a model that restyles, or one that takes a recording's embedding: of the style it has that.

    Args:
      synthesizer: of the model.
      style: path of a recording that it should sound like.
      source: who is heard in the content, see `notes.casting`; None: anyone.

    Raises UserError: a model of neither kind, or a bad recording; see `style_of`.
    """
    if not synthesizer.model.restyles:
        if not synthesizer.model.likes:
            raise UserError(f"{synthesizer.name}: takes no style's recording; give a model that does, such "
                            "as transfer")
        return _told(synthesizer, hear_likeness(style), None, source)
    likeness = hear_likeness(style)
    return Hearing(transcriber=load_transcriber(), style=style_of(style, synthesizer.codec),
                   reference=likeness.embedding, casting=parse_casting(str(likeness.program), source))


def style_settings(synthesizer: Synthesizer, settings: RenderSettings) -> RenderSettings:
    """Returns settings whose guidance is that of the style, whichever kind of model it is."""
    if synthesizer.model.restyles:
        return settings
    return settings.changed(guidance=None, performance_guidance=settings.guidance)


def _told(synthesizer: Synthesizer, likeness: Likeness | None, casting: InstrumentCasting | None,
          source: str | None) -> Hearing:
    """Returns ears with a casting, or a likeness whose instrument plays."""
    reference = None if likeness is None else likeness.embedding
    if likeness is not None and casting is None:
        casting = parse_casting(str(likeness.program), source)
    if casting is None:
        raise UserError(f"{synthesizer.name}: say what the recording should become: --to INSTRUMENT, or "
                        "--like RECORDING")
    return Hearing(transcriber=load_transcriber(), casting=casting, reference=reference)


def style_of(path: str, codec: MelCodec) -> Mel:
    """Returns log-mel in nat of a recording's first REFERENCE_SECONDS, at LEVEL.

    Raises UserError for a file that cannot be read, is silent, or shorter than LEAST_SECONDS.
    """
    mel = codec.encode(_beginning(path, codec.sample_rate))
    return np.maximum(mel + np.float32(LEVEL - level(mel)), codec.log_min)


def _is_performance(text: str) -> bool:
    """Returns whether a text begins with the name of a performance, as mixtures do, too."""
    known = load_performances(PERFORMANCES)
    return known is not None and text.split("+")[0].split(":")[0].strip() in known.names
