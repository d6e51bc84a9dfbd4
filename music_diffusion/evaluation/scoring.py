"""Scores of one file: its embeddings, transcriptions, and scores as floats.

The tools (embedding networks, a transcriber, an inverter) are handed in. What they
compute is kept in a cache under the content of the files, the settings and what the
tools do, so that nothing is computed twice.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import music_diffusion
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import Arrays, Cache, digest, file_digest
from music_diffusion.evaluation.conversions import (
    envelope_correlation,
    loud_patches,
    named_share,
)
from music_diffusion.evaluation.embeddings import Embedder
from music_diffusion.evaluation.jaccard import pitch_jaccard_distance
from music_diffusion.evaluation.pairing import ItemFiles, Problem
from music_diffusion.evaluation.reconstruction import reconstruction_distance
from music_diffusion.evaluation.sounds import AudioFacts, LazySound, problems_of, read_start, usable
from music_diffusion.evaluation.spectral import fine_spectral_distance, log_mel_distance
from music_diffusion.evaluation.tools import (
    INVERTER,
    NAMING,
    TRANSCRIBER,
    Naming,
    ToolLoader,
    Tools,
    tools_of,
)
from music_diffusion.evaluation.transcription import NoteCounts, NoteScores, note_scores
from music_diffusion.notes.conversions import Conversion
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM, SLAKH_CLASSES

GENERATED, REFERENCE, INVERTED = "generated", "reference", "inverted"  # sides of an item
UNRELATED = "unrelated"  # the generated audio against another file's notes
NOTE_FIELDS = tuple(f.name for f in dataclasses.fields(Notes))
FRAME_THRESHOLD = 0.5  # of a transcriber's frame activations: from here on a pitch sounds
DRUMS = "Drums"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """All that a process needs to score an item; it travels between processes."""

    cache: str  # folder
    loader: ToolLoader
    prints: tuple[tuple[str, str], ...]  # of `fingerprints`
    max_seconds: float
    min_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileResult:
    """All that is known of an item. A side is missing where it cannot be used."""

    item: ItemFiles
    problems: list[Problem]
    facts: dict[str, AudioFacts]  # by side
    embeddings: dict[str, dict[str, np.ndarray]]  # by embedder and side, [n, D] float32
    scores: dict[str, float]  # e.g. onset_f1, inverted:onset_f1; NaN where there is none
    counts: dict[str, dict[str, NoteCounts]]  # by side or UNRELATED, and kind of match
    instruments: dict[str, dict[str, NoteCounts]]  # by class name: `found`, `named`
    notes: Notes | None  # that should be heard, as far as the audio goes
    heard: dict[str, Notes]  # by side


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Transcript:
    """A transcription in the cache."""

    key: str
    notes: Notes
    active: np.ndarray  # [T, 88] bool


class Scorer:
    """Scores one item after the other."""

    def __init__(self, work: Work):
        self._work, self._cache = work, Cache(work.cache)
        self._prints = dict(work.prints)
        self._version = music_diffusion.__version__

    @property
    def _tools(self) -> Tools:
        return tools_of(self._work.loader)

    def score(self, item: ItemFiles, unrelated: str | None = None) -> FileResult:
        """Finds everything about an item; what cannot be read becomes a problem.

        Args:
          item: the files.
          unrelated: MIDI file of another piece, for the floor.
        """
        facts, sounds, problems = self._open(item)
        problems += problems_of(item, facts, self._work.min_seconds)
        sounds = {side: sound for side, sound in sounds.items()
                  if usable(side, facts[side], self._work.min_seconds)}
        if self._tools.resynthesis is not None and REFERENCE in sounds:
            sounds[INVERTED] = self._inverted(sounds[REFERENCE])
        embeddings: dict[str, dict[str, np.ndarray]] = {
            e.name: {side: self._embed(e, sound) for side, sound in sounds.items()}
            for e in self._tools.embedders}
        # References that nothing is compared with are many, and hearing them is slow.
        wanted = self._tools.transcriber is not None and (GENERATED in sounds or item.notes is not None)
        heard = {side: self._transcribe(sound) for side, sound in sounds.items()} if wanted else {}
        scores: dict[str, float] = {}
        for side in (GENERATED, INVERTED):
            if side in sounds and REFERENCE in sounds:
                found = self._distances(sounds[side], sounds[REFERENCE])
                found |= {f"reconstruction_{name}": _reconstruction(by[side], by[REFERENCE])
                          for name, by in embeddings.items()}
                if heard:
                    found["pitch_jaccard_distance"] = self._jaccard(heard[REFERENCE], heard[side])
                scores |= _named(side, found)
        scores |= self._conversion(item, sounds)
        seconds = max((facts[s].seconds for s in sounds if s in facts), default=0.0)
        if REFERENCE in sounds:
            seconds = facts[REFERENCE].seconds
        notes, more = self._notes(item, seconds)
        problems += more
        counts, instruments = self._note_counts(item, unrelated, notes, heard, seconds, scores)
        return FileResult(
            item=item, problems=problems, facts=facts, embeddings=embeddings, scores=scores,
            counts=counts, instruments=instruments, notes=notes,
            heard={side: transcript.notes for side, transcript in heard.items()})

    def _conversion(self, item: ItemFiles, sounds: dict[str, LazySound]) -> dict[str, float]:
        """Returns who is heard on each side, and how the generated one's level follows the source's."""
        row, tool = item.conversion, self._tools.naming
        if row is None or tool is None:
            return {}
        scores: dict[str, float] = {}
        for side, sound in sounds.items():
            key = digest(self._version, self._prints[NAMING], sound.key, [*map(sorted, row.classes)])
            found = self._cache.values("named", key, functools.partial(_named_shares, tool, sound, row))
            scores |= _named(side, found)
        if item.source is not None and GENERATED in sounds:
            source = read_start(item.source, self._work.max_seconds)[0]
            rate = source.sample_rate
            scores["envelope_correlation"] = envelope_correlation(
                sounds[GENERATED].at(rate), source.samples, rate)
        if item.style is not None:
            style = self._embed(embedder := self._tools.embedders[0], self._sound(item.style))
            for side, sound in sounds.items():
                apart = self._embed(embedder, sound).mean(axis=0) - style.mean(axis=0)
                scores |= _named(side, {"style_distance": float(np.linalg.norm(apart))})
        return scores

    def _sound(self, path: str) -> LazySound:
        key = digest(file_digest(path), self._work.max_seconds)
        return LazySound(key, functools.partial(_load, path, self._work.max_seconds))

    def _open(self, item: ItemFiles) -> tuple[dict[str, AudioFacts], dict[str, LazySound], list[Problem]]:
        facts, sounds, problems = {}, {}, []
        for side in (GENERATED, REFERENCE):
            path = getattr(item, side)
            if path is None:
                continue
            try:
                sound = self._sound(path)
                known = self._cache.values("facts", digest(self._version, sound.key), functools.partial(
                    _facts, path, self._work.max_seconds))
                facts[side], sounds[side] = AudioFacts(**known), sound
            except (UserError, OSError) as e:
                reason = str(e).removeprefix(f"{path}: ")
                problems.append(Problem(kind="unreadable", file=path, what=reason,
                                        advice="it is left out"))
        return facts, sounds, problems

    def _inverted(self, reference: LazySound) -> LazySound:
        tool = self._tools.resynthesis
        assert tool is not None
        return LazySound(digest(reference.key, self._prints[INVERTER]), lambda: Waveform(
            np.asarray(tool.run(reference.at(tool.sample_rate)), np.float32), tool.sample_rate))

    def _embed(self, embedder: Embedder, sound: LazySound) -> np.ndarray:
        key = digest(self._version, self._prints[embedder.name], sound.key)
        return self._cache.arrays("embedding", key, lambda: {
            "embedding": np.asarray(embedder(sound.at(embedder.sample_rate)), np.float32)})["embedding"]

    def _transcribe(self, sound: LazySound) -> _Transcript:
        def make() -> Arrays:
            tool = self._tools.transcriber
            assert tool is not None
            heard = tool.transcribe(sound.at(tool.sample_rate))
            return {name: getattr(heard.notes, name) for name in NOTE_FIELDS} | {
                "active": np.packbits(heard.frames >= FRAME_THRESHOLD, axis=1),
                "pitches": np.array([heard.frames.shape[1]])}

        key = digest(self._version, self._prints[TRANSCRIBER], sound.key)
        found = self._cache.arrays("transcript", key, make)
        active = np.unpackbits(found["active"], axis=1, count=int(found["pitches"][0])).astype(bool)
        return _Transcript(key=key, active=active, notes=Notes(*(found[name] for name in NOTE_FIELDS)))

    def _distances(self, a: LazySound, b: LazySound) -> dict[str, float]:
        return self._cache.values("distances", digest(self._version, a.key, b.key),
                                  lambda: spectral_scores(a, b))

    def _jaccard(self, reference: _Transcript, estimate: _Transcript) -> float:
        return pitch_jaccard_distance(reference.active, estimate.active)

    def _notes(self, item: ItemFiles, seconds: float) -> tuple[Notes | None, list[Problem]]:
        """Returns the notes that begin in the audio; None where there are none to compare with."""
        if item.notes is None or not seconds:
            return None, []
        try:
            notes = read_midi(item.notes)
        except (UserError, OSError) as e:
            reason = str(e).removeprefix(f"{item.notes}: ")
            return None, [Problem(kind="notes_unreadable", file=item.notes, what=reason,
                                  advice="the notes of this file are not scored")]
        within = cut_notes(notes, seconds)
        if not len(within):
            return None, [Problem(kind="notes_length", file=item.notes,
                                  what=f"no note begins in the {seconds:.1f} s of audio",
                                  advice="the notes of this file are not scored")]
        if notes.start.max() > seconds + 1 and seconds < self._work.max_seconds:
            return within, [Problem(
                kind="notes_length", file=item.notes,
                what=f"{len(notes) - len(within)} of {len(notes)} notes begin after the audio, which "
                     f"lasts {seconds:.1f} s",
                advice="they do not count; check that audio and notes are the same excerpt")]
        return within, []

    def _note_counts(self, item: ItemFiles, unrelated: str | None, notes: Notes | None,
                     heard: dict[str, _Transcript], seconds: float, scores: dict[str, float]):
        """Returns counts by side and by instrument; adds their scores to `scores`."""
        counts: dict[str, dict[str, NoteCounts]] = {}
        instruments: dict[str, dict[str, NoteCounts]] = {}
        if notes is None or not heard:
            return counts, instruments
        wanted = {side: (transcript, item.notes, notes) for side, transcript in heard.items()}
        if unrelated is not None and GENERATED in heard:
            other = cut_notes(read_midi(unrelated), seconds)
            if len(other):
                wanted[UNRELATED] = heard[GENERATED], unrelated, other
        for side, (transcript, path, asked) in wanted.items():
            key = digest(self._version, transcript.key, file_digest(path or ""), seconds)
            flat = self._cache.values("notes", key, functools.partial(
                _flat_counts, asked, cut_notes(transcript.notes, seconds)))
            counts[side] = _counts_of(flat["all"])
            scores |= _named(side, _note_values(counts[side]))
            if side == GENERATED:
                instruments = {name: _counts_of(by) for name, by in flat["instruments"].items()}
        return counts, instruments


def score_item(work: Work, task: tuple[ItemFiles, str | None]) -> FileResult:
    """Runs `Scorer.score` as a task for another process."""
    return Scorer(work).score(*task)


def unrelated_notes(items: Sequence[ItemFiles]) -> list[str | None]:
    """Returns for each item the notes of the next item in the circle that has others; None if none has."""
    paths = [item.notes for item in items]
    content = {path: file_digest(path) for path in paths if path is not None}
    readable = functools.cache(_readable)
    found: list[str | None] = []
    for i, path in enumerate(paths):
        others = (p for p in paths[i + 1:] + paths[:i]
                  if path is not None and p is not None and content[p] != content[path])
        found.append(next((p for p in others if readable(p)), None))
    return found


def _readable(path: str) -> bool:
    try:
        read_midi(path)
    except (UserError, OSError):
        return False
    return True


def cut_notes(notes: Notes, seconds: float) -> Notes:
    """Returns the notes that begin before `seconds`; those that go on end there."""
    notes = notes[notes.start < seconds]
    return dataclasses.replace(notes, end=np.minimum(notes.end, seconds))


def spectral_scores(a: LazySound, b: LazySound) -> dict[str, float]:
    """Returns distances of spectra in nat as far as both recordings go, and of levels in dB."""
    codec = MelCodec()
    x, y = a.at(codec.sample_rate), b.at(codec.sample_rate)
    size = min(len(x), len(y))
    x, y = x[:size], y[:size]
    power = [float(np.square(v, dtype=np.float64).mean()) if size else 0.0 for v in (x, y)]
    return {"log_mel_distance": log_mel_distance(codec, x, y),
            "fine_spectral_distance": fine_spectral_distance(x, y, codec.sample_rate),
            "level_difference_db": 10 * math.log10(power[0] / power[1]) if min(power) > 0 else math.nan}


def _named_shares(tool: Naming, sound: LazySound, row: Conversion) -> dict[str, float]:
    samples = sound.at(tool.sample_rate)
    presence = tool.presence(samples)[:, :len(SLAKH_CLASSES)]
    loud = loud_patches(samples, len(presence))
    source, target = row.classes
    return {"target_named": named_share(presence, target, loud),
            "source_named": named_share(presence, source - target, loud)}


def _facts(path: str, seconds: float) -> dict[str, Any]:
    return dataclasses.asdict(read_start(path, seconds)[1])


def _load(path: str, seconds: float) -> Waveform:
    return read_start(path, seconds)[0]


def _reconstruction(generated: np.ndarray, reference: np.ndarray) -> float:
    frames = min(len(generated), len(reference))  # one length is the other's, or was complained of
    return reconstruction_distance(generated[:frames], reference[:frames])


def _named(side: str, values: dict[str, float]) -> dict[str, float]:
    """Names scores: those of the generated side have bare names, others begin with the side."""
    return values if side == GENERATED else {f"{side}:{name}": v for name, v in values.items()}


def _flat_counts(asked: Notes, heard: Notes) -> dict[str, Any]:
    """Returns counts over all notes and by instrument, as JSON holds them."""
    everything = note_scores(asked, heard)
    classes, heard_classes = _classes(asked), _classes(heard)
    instruments = {}
    for kind in np.unique(classes):
        mine, same = asked[classes == kind], heard[heard_classes == kind]
        match = "drum_onset" if kind == DRUM_CLASS else "onset"
        instruments[class_name(int(kind))] = {
            "found": getattr(note_scores(mine, heard), match),
            "named": getattr(note_scores(mine, same), match)}
    fields = {f.name: getattr(everything, f.name) for f in dataclasses.fields(everything)}
    return {"all": {name: dataclasses.astuple(count) for name, count in fields.items()},
            "instruments": {name: {k: dataclasses.astuple(c) for k, c in by.items()}
                            for name, by in instruments.items()}}


def _counts_of(flat: dict[str, Sequence[int]]) -> dict[str, NoteCounts]:
    names = [f.name for f in dataclasses.fields(NoteCounts)]
    return {kind: NoteCounts(**dict(zip(names, values, strict=True))) for kind, values in flat.items()}


def _note_values(counts: dict[str, NoteCounts]) -> dict[str, float]:
    return NoteScores(**counts).values()


def _classes(notes: Notes) -> np.ndarray:
    """Returns Slakh classes [N], DRUM_CLASS for drums."""
    return np.where(notes.is_drum, DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM[notes.program])


def class_name(kind: int) -> str:
    """Returns the name of a Slakh class or the drums."""
    return DRUMS if kind == DRUM_CLASS else SLAKH_CLASSES[kind].name
