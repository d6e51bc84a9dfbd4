"""Excerpts of scores: what is played, on which instruments, and how it is recorded.

An excerpt is a function of its options, its split and its number. It reads its score
when it is asked for notes, and renders when it is asked for samples.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from music_diffusion.data.augment import (
    Augmentation,
    draw_program,
    fit_range,
    split_parts,
    with_program,
)
from music_diffusion.data.items import ADDED, DRUM_PROGRAM, SPLITS, SoundFacts
from music_diffusion.data.recorded_rooms import RecordedRoom
from music_diffusion.data.renderers import Renderer, is_sampler, open_renderer, renderer_files
from music_diffusion.data.rooms import Room, Shelf, convolve, in_turn
from music_diffusion.data.samples import Vibrato
from music_diffusion.data.sets.soundfont_scores import read_score
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import (
    DRUM_CLASS,
    SLAKH_CLASS_OF_PROGRAM,
    SLAKH_CLASSES,
    program_range,
)

FONT_RATE = 44100  # Hz, of the samples that fonts have, as a rule
ENOUGH_NOTES = 10  # an excerpt has more, and a solo so many, where a try finds them
TRIES = 20  # places of a score, of which the first with enough notes is taken, or else the best
STRETCH_ROOM = 1.3  # excerpts that are played faster must still be filled
FITTING = 0.9  # share of a part's notes that an instrument should have in its range
# What random numbers are for; those of conditions come from (seed, split, number) alone.
NOTES, PAIR, FIT, PLAYER, DEGRADED = 1, 2, 3, 4, 5


def added(default: Any = None) -> Any:
    """Returns a field that came later; see `data.items.ADDED`."""
    return dataclasses.field(default=default, metadata=ADDED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Playing:
    """Choices by which the notes of all excerpts are drawn."""

    seconds: float  # of an excerpt
    seed: int
    augmentation: Augmentation  # of training excerpts
    instruments: tuple[int, ...] = ()  # programs that melodic parts get; (): theirs
    pair: tuple[int, ...] | None = None  # programs of the other timbre; (): any; None: without


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """SoundFont or recorded notes, room, tone and level with which an excerpt is recorded."""

    soundfont: str  # path, as of `data.renderers.open_renderer`
    room: Room | RecordedRoom | None = None  # None: dry
    shelf: Shelf | None = None  # tone control
    peak_db: float | None = None  # dBFS; None: at the synthesizer's level
    fallback: str | None = added()  # SoundFont for what recorded notes lack; None: they play what they can
    tuning: float = added(0.0)  # cents, of everything but drums
    take: int = added(0)  # which of several recorded instruments of a program plays
    vibrato: Vibrato | None = added()  # of recorded instruments that sustain

    def renderer(self, sample_rate: int, soundfont: str | None = None) -> Renderer:
        """Opens what plays the notes, or another SoundFont in its place."""
        return open_renderer(soundfont or self.soundfont, sample_rate, fallback=self.fallback,
                             tuning=self.tuning, vibrato=self.vibrato, take=self.take)

    def limited(self, soundfont: str | None = None) -> bool:
        """Returns whether what plays has samples for some programs and keys alone."""
        return self.fallback is None and is_sampler(soundfont or self.soundfont)

    def response(self, sample_rate: int) -> Float[np.ndarray, "N"]:
        """Returns the impulse response of the room and then the tone control."""
        return _response(self.room, self.shelf, sample_rate)

    def gain(self, samples: Float[np.ndarray, "S"]) -> np.float32:
        """Returns the factor that brings the samples' peak to `peak_db`; 1 for silence."""
        peak = float(np.abs(samples).max(initial=0.0))
        if self.peak_db is None or peak <= 1e-6:
            return np.float32(1.0)
        return np.float32(10 ** (self.peak_db / 20) / peak)

    def __call__(self, samples: Float[np.ndarray, "S"], sample_rate: int) -> Float[np.ndarray, "S"]:
        """Records dry samples: room, tone, level."""
        heard = self.effects(samples, sample_rate)
        return heard * self.gain(heard)

    def effects(self, samples: Float[np.ndarray, "S"], sample_rate: int) -> Float[np.ndarray, "S"]:
        """Applies room and tone, which are linear, and leaves out the level, which is not."""
        response = self.response(sample_rate)
        return samples if len(response) == 1 else convolve(samples, response)


@functools.lru_cache(maxsize=64)  # where recordings are drawn from a list
def _response(room: Room | RecordedRoom | None, shelf: Shelf | None, sample_rate: int) -> np.ndarray:
    return in_turn([effect for effect in (room, shelf) if effect is not None], sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreExcerpt:
    """An excerpt of a score. Picklable, and cheap until it is asked for notes or samples."""

    split: str
    number: int
    folder: str  # of the scores
    piece: str  # path of the score below it
    origin: str  # source of the score
    solo: bool  # one part alone, on an instrument of any class
    playing: Playing
    recording: Recording
    pair_font: str | None = None  # SoundFont of the other timbre; None: the same
    performance: str | None = None  # name of the recording, if it is one of a list
    stems: bool = False  # whether parts are rendered one by one

    @property
    def name(self) -> str:
        return f"{self.split}/{self.number:05d}"

    @property
    def score(self) -> str:
        return os.path.join(self.folder, self.piece)

    def rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng(
            [self.playing.seed, SPLITS.index(self.split), self.number, purpose])

    def notes(self) -> Notes:
        """Returns the notes that `audio` plays, at least one; onsets from 0.

        Raises UserError: the score cannot be read, or has no notes.
        """
        return _notes(self)

    def paired_notes(self) -> Notes:
        """Returns the same notes in the other timbre."""
        font = self.pair_font
        renderer = self.recording.renderer(FONT_RATE, font) if self.recording.limited(font) else None
        return _paired(self.notes(), self.playing.pair or (), self.rng(PAIR), renderer)

    def casting(self) -> dict[int, int]:
        """Returns which program plays here what each program of the other timbre plays."""
        here, there = self.notes(), self.paired_notes()
        melodic = ~here.is_drum
        return dict(zip(there.program[melodic].tolist(), here.program[melodic].tolist(), strict=True))

    def programs(self) -> tuple[int, ...]:
        """Returns the programs of the parts, DRUM_PROGRAM last."""
        return tuple(_part_number(part) for part in split_parts(self.notes()))

    def style(self) -> str:
        """Returns the Slakh class of the only part."""
        program = self.programs()[0]
        kind = DRUM_CLASS if program == DRUM_PROGRAM else int(SLAKH_CLASS_OF_PROGRAM[program])
        return "Drums" if kind == DRUM_CLASS else SLAKH_CLASSES[kind].name


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderedSound:
    """Sound of an excerpt: whole, one part of it, or in its other timbre."""

    excerpt: ScoreExcerpt
    program: int | None = None  # of one part, or DRUM_PROGRAM; None: all
    paired: bool = False  # the other timbre

    @property
    def soundfont(self) -> str:
        font = self.excerpt.pair_font if self.paired else None
        return font or self.excerpt.recording.soundfont

    @property
    def files(self) -> tuple[str, ...]:
        recording = self.excerpt.recording
        room = (recording.room.path,) if isinstance(recording.room, RecordedRoom) else ()
        other = (recording.fallback,) if recording.fallback else ()
        return (*renderer_files(self.soundfont), *other, *room, self.excerpt.score)

    def facts(self) -> SoundFacts:
        return SoundFacts(sample_rate=FONT_RATE, channels=1, seconds=self.excerpt.playing.seconds)

    def blocks(self, sample_rate: int) -> Iterator[Float[np.ndarray, " n"]]:
        """See `data.items.Sound`; raises UserError also where the font lacks a program."""
        yield _render(self.excerpt, self.paired, sample_rate)[self.program]


@functools.lru_cache(maxsize=4)
def _notes(excerpt: ScoreExcerpt) -> Notes:
    playing, vary = excerpt.playing, excerpt.split == "train"
    score, rng = read_score(excerpt.score), excerpt.rng(NOTES)
    best = Notes.empty()
    for attempt in range(TRIES):
        start = _place(score, playing.seconds, rng, anywhere=attempt < TRIES // 2)
        notes = score.between(start, start + STRETCH_ROOM * playing.seconds).shift(-start)
        if not len(notes):
            continue
        notes = _alone(notes, playing, rng, vary) if excerpt.solo else _together(notes, playing, rng, vary)
        notes = notes.between(0.0, playing.seconds)
        if len(notes) > len(best):
            best = notes
        if len(best) >= ENOUGH_NOTES + (not excerpt.solo):
            break
    if not len(best):
        raise UserError(f"{excerpt.score}: has no notes to play; take it out of the scores")
    if not excerpt.recording.limited():
        return best
    return fitted(best, excerpt.recording.renderer(FONT_RATE), excerpt.rng(FIT))


def fitted(notes: Notes, renderer: Renderer, rng: np.random.Generator) -> Notes:
    """Returns the notes on programs that recorded instruments play, moved by octaves into their ranges.

    A part stays on its program where that is played, and else goes to one that is drawn: of all classes
    with a program that is played, one evenly, and then a program of it. Drums stay as they are.
    """
    parts = []
    for part in split_parts(notes):
        if not part.is_drum.any():
            keys = renderer.keys(_part_number(part))
            if not keys:
                part = dataclasses.replace(part, program=np.full(len(part), _played_program(renderer, rng)))
                keys = renderer.keys(_part_number(part))
            part = dataclasses.replace(part, pitch=fit_range(part.pitch, (keys[0], keys[-1])))
        parts.append(part)
    return Notes.concatenate(parts)


def _played_program(renderer: Renderer, rng: np.random.Generator) -> int:
    """Draws a program that is played. Raises UserError where there is none."""
    played = [p for p in range(128) if renderer.keys(p)]
    if not played:
        raise UserError(f"{renderer.path}: plays drums alone; add instruments, or give a SoundFont for "
                        "the rest")
    classes = sorted({int(SLAKH_CLASS_OF_PROGRAM[p]) for p in played})
    kind = classes[rng.integers(len(classes))]
    return int(rng.choice([p for p in played if SLAKH_CLASS_OF_PROGRAM[p] == kind]))


def _place(score: Notes, seconds: float, rng: np.random.Generator, anywhere: bool) -> float:
    """Draws where an excerpt begins: anywhere, or so that a note begins in its first half."""
    latest = max(score.duration - 0.5 * seconds, 0.0)
    if anywhere or not len(score):
        return rng.uniform(0, latest)
    return float(np.clip(score.start[rng.integers(len(score))] - rng.uniform(0, 0.5 * seconds), 0, latest))


def _together(notes: Notes, playing: Playing, rng: np.random.Generator, vary: bool) -> Notes:
    augmentation = playing.augmentation
    if playing.instruments:
        parts = split_parts(notes)
        order = rng.permutation(np.resize(playing.instruments, max(len(parts), len(playing.instruments))))
        notes = Notes.concatenate([with_program(*x) for x in zip(parts, order.tolist(), strict=False)])
        augmentation = dataclasses.replace(augmentation, reorchestrate=0.0)
    return augmentation(notes, rng) if vary else notes


def _alone(notes: Notes, playing: Playing, rng: np.random.Generator, vary: bool) -> Notes:
    """Returns one part, with enough notes where there is such, on an instrument of any class."""
    parts = split_parts(notes)
    heard = np.array([len(part.between(0.0, playing.seconds)) for part in parts])
    enough = np.flatnonzero(heard >= min(ENOUGH_NOTES, heard.max()))
    part = parts[enough[rng.integers(len(enough))]]
    programs = playing.instruments
    program = programs[rng.integers(len(programs))] if programs else draw_program(rng)
    still = dataclasses.replace(playing.augmentation, reorchestrate=0.0, subset=0.0)
    part = with_program(part, program)
    return still(part, rng) if vary else part


def _part_number(part: Notes) -> int:
    return DRUM_PROGRAM if part.is_drum.any() else int(part.program[0])


def _paired(notes: Notes, choice: tuple[int, ...], rng: np.random.Generator, renderer: Renderer | None
            ) -> Notes:
    """Puts every melodic part on another program, no two on the same where the choice allows it.

    renderer: None where it plays everything; else programs that it does not play are the last choice.
    """
    program, taken = notes.program.copy(), set[int]()
    for part in split_parts(notes[~notes.is_drum]):
        own = _part_number(part)
        drawn = rng.permutation(choice).tolist() if choice else _other_classes(own, rng, renderer)
        # A new one that fits; then any new one; then one that is taken; its own if there is no other.
        rank = [(_unplayable(part, p, renderer), p == own, p in taken,
                 not choice and _fitting(part, p) < FITTING) for p in drawn]
        best = drawn[rank.index(min(rank))]
        program[~notes.is_drum & (notes.program == own)] = best
        taken.add(best)
    return dataclasses.replace(notes, program=program)


def _other_classes(program: int, rng: np.random.Generator, renderer: Renderer | None) -> list[int]:
    """Draws one program of each other class, in random order; all that are played where not all are."""
    own = SLAKH_CLASS_OF_PROGRAM[program]
    if renderer is not None:
        played = [p for p in range(128) if renderer.keys(p) and SLAKH_CLASS_OF_PROGRAM[p] != own]
        return rng.permutation(played or [program]).tolist()
    return [int(rng.choice(SLAKH_CLASSES[c].programs)) for c in rng.permutation(len(SLAKH_CLASSES))
            if c != own]


def _unplayable(part: Notes, program: int, renderer: Renderer | None) -> bool:
    return renderer is not None and not np.isin(part.pitch, renderer.keys(program)).all()


def _fitting(part: Notes, program: int) -> float:
    low, high = program_range(program)
    return float(np.mean((part.pitch >= low) & (part.pitch <= high)))


@functools.lru_cache(maxsize=2)  # sounds of one excerpt are read together, in both timbres
def _render(excerpt: ScoreExcerpt, paired: bool, sample_rate: int) -> Mapping[int | None, np.ndarray]:
    """Renders the whole (None) and, if stems are wanted, the parts; the parts sum to the whole."""
    recording, seconds = excerpt.recording, excerpt.playing.seconds
    sound = RenderedSound(excerpt=excerpt, paired=paired)
    renderer = recording.renderer(sample_rate, sound.soundfont)
    notes = excerpt.paired_notes() if paired else excerpt.notes()
    wanted = excerpt.stems and not paired
    parts = {_part_number(p): p for p in split_parts(notes)} if wanted else {}
    tracks: dict[int | None, np.ndarray] = {
        program: recording.effects(renderer(part, seconds).samples, sample_rate)
        for program, part in parts.items()}
    # Not rendered once more: FluidSynth's voices fade in over 2 ms depending on all before them.
    tracks[None] = np.sum([*tracks.values()], axis=0) if tracks else recording.effects(
        renderer(notes, seconds).samples, sample_rate)
    gain = recording.gain(tracks[None])
    tracks = {key: np.multiply(gain, track) for key, track in tracks.items()}
    for track in tracks.values():
        track.setflags(write=False)
    return types.MappingProxyType(tracks)


def forget() -> None:
    """Drops what this process keeps of excerpts; for measurements and tests."""
    for kept in (_notes, _render, _response, read_score):
        kept.cache_clear()
