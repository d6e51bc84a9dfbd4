"""Data set of scores played by SoundFonts or recorded notes, as many hours as asked for."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.augment import Augmentation
from music_diffusion.data.items import SPLITS, Item, Listing, Stem, unused
from music_diffusion.data.recorded_rooms import RecordedRoom, read_rooms
from music_diffusion.data.renderers import check_renderer, is_sampler, renderer_name
from music_diffusion.data.rooms import Room, draw_room, draw_shelf
from music_diffusion.data.samples import Vibrato
from music_diffusion.data.sets.soundfont_excerpts import (
    PLAYER,
    Playing,
    Recording,
    RenderedSound,
    ScoreExcerpt,
    added,
    forget,
)
from music_diffusion.data.sets.soundfont_performances import read_performances
from music_diffusion.data.sets.soundfont_scores import Sources, find_scores, of_split
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.programs import SLAKH_CLASSES
from music_diffusion.speed import Speed, measure

OTHER = "other"  # name of a timbre: any class but the part's own
PERFORMANCES = len(SPLITS)  # in the place of a split: random numbers of the list of recordings


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundFontRenders:
    """Excerpts of scores, rendered while they are read.

    An excerpt depends on the options (not on the hours), its split and its number.
    Source, then piece, then place are drawn evenly. What is played for training
    varies; for validation and test it is as written (solos aside).

    Without options: dry, at the synthesizer's level, on the instruments of the scores.
    """

    folder: str  # of MIDI files; with manifest.csv (columns path, source, split) or without
    soundfonts: tuple[str, ...] = ()  # .sf2 or .sf3; one is drawn for each excerpt, evenly
    train_hours: float = 10.0
    validation_hours: float = 0.5
    test_hours: float = 0.0
    seconds: float = 40.96  # of an excerpt; 2048 frames of the default codec
    seed: int = 0
    # How scores are varied for training, as of `data.augment.Augmentation`.
    reorchestrate: float = Augmentation.reorchestrate  # share with other programs, in their ranges
    subset: float = Augmentation.subset  # share with some of the parts
    transpose: int = Augmentation.transpose  # semitones up or down at most
    stretch: float = Augmentation.stretch  # tempo is drawn from 1 ± this
    onset_jitter: float = Augmentation.onset_jitter  # seconds, standard deviation
    velocity_jitter: float = Augmentation.velocity_jitter  # standard deviation
    part_level: float = Augmentation.part_level  # standard deviation of a part's velocities' offset
    # How excerpts are recorded.
    room: float = 0.0  # share in a room
    shelf: float = 0.0  # share with a tone setting
    peak_db: tuple[float, ...] = ()  # dBFS, range of the peaks; (): the synthesizer's level
    # So many fixed recordings (font, room, tone) rather than ever new ones, and their names as labels.
    performances: int = 0
    recordings_table: str = ""  # … these, with their names: a CSV table (`soundfont_performances`)
    # What is played. Timbres are programs (0..127), or Slakh classes, for each of which its first
    # program stands (`notes.programs`).
    solo: float = 0.0  # share of which one part plays alone, on an instrument of any class; style labels
    instruments: tuple[str, ...] = ()  # timbres that all melodic parts get; (): see `reorchestrate`
    pair: tuple[str, ...] = ()  # timbres of `source`, or OTHER; (): no source
    pair_font: bool = False  # `source` is played by another of the SoundFonts
    stems: bool = False  # each program by itself, too; listing reads the scores then
    per_shard: int = 64  # excerpts of one SoundFont that share a shard
    # Recorded notes, and real rooms.
    samplers: tuple[str, ...] = added(())  # folders, tables or .sfz files, drawn as SoundFonts are
    fallback: str = added("")  # SoundFont for what these lack; "": parts go to what they play
    room_responses: str = added("")  # folder of impulse responses (`data.recorded_rooms`)
    room_licences: tuple[str, ...] = added(())  # of theirs that may be used; (): all
    room_recorded: float = added(0.5)  # share of the rooms that are such ones, where there are any
    tuning: float = added(0.0)  # cents: each excerpt is tuned up to so much higher or lower
    vibrato: float = added(0.0)  # share of excerpts whose sustained recorded notes get vibrato

    def __post_init__(self):
        if not self.sources:
            raise UserError("rendering needs a SoundFont or recorded notes; give a .sf2 or .sf3 file "
                            "(soundfonts=FILE) or a folder (samplers=FOLDER)")
        if not self.seconds >= 1:
            raise UserError(f"excerpts of {self.seconds} s are too short; make them 1 s or longer")
        for name in ("room", "shelf", "solo", "room_recorded", "vibrato"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"a share of {getattr(self, name)} {name}: choose one in 0..1")
        if self.peak_db and not (len(self.peak_db) == 2 and self.peak_db[0] <= self.peak_db[1] <= 0):
            raise UserError(f"peaks of {self.peak_db} dBFS: give a range that ends at 0 or below")
        if not (self.train_hours >= 0 and self.validation_hours >= 0 and self.test_hours >= 0):
            raise UserError("hours of renders cannot be negative")
        if self.per_shard < 1:
            raise UserError(f"{self.per_shard} excerpts a shard: give 1 or more")
        if not 0 <= self.tuning <= 100:
            raise UserError(f"tuning of up to {self.tuning} cents: choose 0..100")
        if self.room_licences and not self.room_responses:
            raise UserError("room_licences choose among room_responses; give a folder of them")
        if self.pair_font and not (self.pair and len(self.sources) > 1):
            raise UserError("pair_font needs pair, and two SoundFonts or more")
        self._check_performances()
        _ = self.augmentation, self._playing  # their checks

    def _check_performances(self) -> None:
        if self.recordings_table:
            if self.performances or self.room or self.shelf:
                raise UserError("recordings_table names all: leave performances, room and shelf out")
            _ = self.recordings  # reads the table
        fonts, several = len(self.sources), self.room or self.shelf
        if self.performances and not (fonts <= self.performances and (
                several or self.performances == fonts)):
            raise UserError(f"{self.performances} performances of {fonts} SoundFonts: give at least one "
                            "for each, and a share of rooms (room=1) to have more")

    @property
    def sources(self) -> tuple[str, ...]:
        """Returns SoundFonts and recorded notes, of which one plays each excerpt."""
        return (*self.soundfonts, *self.samplers)

    @functools.cached_property
    def rooms(self) -> tuple[RecordedRoom, ...]:
        """Returns the recorded rooms. Raises UserError: see `read_rooms`."""
        return read_rooms(self.room_responses, self.room_licences) if self.room_responses else ()

    @property
    def augmentation(self) -> Augmentation:
        """Returns the variation of training excerpts."""
        return Augmentation(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Augmentation)})

    @functools.cached_property
    def _playing(self) -> Playing:
        pair = None if not self.pair else () if OTHER in self.pair else _programs(self.pair)
        return Playing(seconds=self.seconds, seed=self.seed, augmentation=self.augmentation,
                       instruments=_programs(self.instruments), pair=pair)

    @functools.cached_property
    def recordings(self) -> tuple[tuple[str, Recording], ...]:
        """Returns the fixed recordings with their names, without levels; () if every excerpt draws one."""
        if self.recordings_table:
            return read_performances(self.recordings_table, self.sources, self.rooms, self.fallback or None)
        result = []
        for i in range(self.performances):
            rng = np.random.default_rng([self.seed, PERFORMANCES, i])
            font = self.sources[i % len(self.sources)]
            name = os.path.splitext(renderer_name(font))[0]
            recording = self._draw_recording(font, rng)
            result.append((f"{name}-{i:02d}", self._with_player(recording, (PERFORMANCES, i))))
        return tuple(result)

    def _draw_recording(self, soundfont: str, rng: np.random.Generator) -> Recording:
        room: Room | RecordedRoom | None = draw_room(rng) if rng.random() < self.room else None
        shelf = draw_shelf(rng) if rng.random() < self.shelf else None
        if room is not None and self.rooms and rng.random() < self.room_recorded:
            room = self.rooms[rng.integers(len(self.rooms))]
        return Recording(soundfont=soundfont, room=room, shelf=shelf)

    def _with_player(self, recording: Recording, number: tuple[int, int]) -> Recording:
        """Draws tuning and, of recorded notes, instrument and vibrato; by random numbers of their own."""
        rng = np.random.default_rng([self.seed, *number, PLAYER])
        tuning = float(rng.uniform(-self.tuning, self.tuning))
        recording = dataclasses.replace(recording, tuning=tuning)
        if not is_sampler(recording.soundfont):
            return recording
        vibrato = None
        if rng.random() < self.vibrato:
            vibrato = Vibrato(cents=float(rng.uniform(8, 40)), hertz=float(rng.uniform(4.5, 6.5)),
                              delay=float(rng.uniform(0.1, 0.4)))
        return dataclasses.replace(recording, take=int(rng.integers(1 << 16)), vibrato=vibrato,
                                   fallback=self.fallback or None)

    def counts(self) -> dict[str, int]:
        """Returns the number of excerpts of each split that has any."""
        hours = zip(SPLITS, (self.train_hours, self.validation_hours, self.test_hours), strict=True)
        return {s: max(1, round(h * 3600 / self.seconds)) for s, h in hours if h > 0}

    def scores(self) -> dict[str, Sources]:
        """Finds the scores of each split with excerpts. Raises UserError: see `find_scores`, `of_split`."""
        scores = find_scores(self.folder)
        return {split: of_split(scores, split, self.folder) for split in self.counts()}

    def excerpt(self, split: str, number: int, sources: Sources) -> ScoreExcerpt:
        """Draws one excerpt.

        Args:
          split: of SPLITS.
          number: from 0.
          sources: of `scores()[split]`.
        """
        rng = np.random.default_rng([self.seed, SPLITS.index(split), number])
        origin = sorted(sources)[rng.integers(len(sources))]
        piece = sources[origin][rng.integers(len(sources[origin]))]
        performance = None
        if self.recordings:
            performance, recording = self.recordings[rng.integers(len(self.recordings))]
        else:
            recording = self._draw_recording(self.sources[rng.integers(len(self.sources))], rng)
            recording = self._with_player(recording, (SPLITS.index(split), number))
        if self.peak_db:
            low, high = self.peak_db
            recording = dataclasses.replace(recording, peak_db=float(rng.uniform(low, high)))
        pair_font = None
        if self.pair_font:
            others = [font for font in self.sources if font != recording.soundfont]
            pair_font = others[rng.integers(len(others))]
            recording = dataclasses.replace(recording, fallback=self.fallback or None)
        return ScoreExcerpt(
            split=split, number=number, folder=self.folder, piece=piece, origin=origin,
            solo=bool(rng.random() < self.solo), playing=self._playing, recording=recording,
            pair_font=pair_font, performance=performance, stems=self.stems)

    def excerpts(self) -> Iterator[ScoreExcerpt]:
        """Yields all excerpts. Raises UserError: see `scores`; a renderer is missing, or FluidSynth."""
        for path in self.sources:
            check_renderer(path, self.fallback or None)
        scores = self.scores()
        for split, count in self.counts().items():
            yield from (self.excerpt(split, number, scores[split]) for number in range(count))

    def list(self) -> Listing:
        """See `data.items.DataSet`. Scores of solos, and with stems all scores, are read for it."""
        items: list[Item] = []
        skipped: list[tuple[str, str]] = []
        shard = _Shards(self.sources, self.per_shard)
        for excerpt in self.excerpts():
            number = shard(excerpt)
            try:
                items.append(_item(excerpt, number))
            except UserError as e:
                skipped.append((excerpt.name, str(e)))
        if not items:
            raise UserError("{}: no excerpt can be made ({}: {})".format(
                self.folder, *(skipped or [("none", "0 hours were asked for")])[0]))
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`. Longer renders begin with the shorter ones: hours do not count."""
        options = dataclasses.asdict(self)
        for name in {"folder", "train_hours", "validation_hours", "test_hours", "recordings_table",
                     *unused(self)}:
            del options[name]
        if self.recordings_table:
            options["recordings"] = [[name, _portable(recording)] for name, recording in self.recordings]
        if self.room_responses:
            options["room_responses"] = [room.name for room in self.rooms]
        names = {"soundfonts": self.soundfonts, "samplers": self.samplers, "fallback": (self.fallback,)}
        return options | {key: [renderer_name(path) for path in paths] for key, paths in names.items()
                          if key in options}


def _portable(recording: Recording) -> dict[str, object]:
    """Returns a recording as plain data, without folders, which may move."""
    options = {key: value for key, value in dataclasses.asdict(recording).items()
               if key not in unused(recording)}
    options["soundfont"] = renderer_name(recording.soundfont)
    if recording.fallback:
        options["fallback"] = os.path.basename(recording.fallback)
    if isinstance(recording.room, RecordedRoom):
        options["room"]["path"] = os.path.basename(recording.room.path)
    return options


def _item(excerpt: ScoreExcerpt, shard: int) -> Item:
    if not os.path.isfile(excerpt.score):
        raise UserError(f"{excerpt.piece}: no such file; correct the table of the scores")
    paired = excerpt.playing.pair is not None
    programs = excerpt.programs() if excerpt.stems else ()
    return Item(
        name=excerpt.name, split=excerpt.split, audio=RenderedSound(excerpt=excerpt),
        notes=excerpt.notes, note_files=(excerpt.score,),
        source=RenderedSound(excerpt=excerpt, paired=True) if paired else None,
        casting=excerpt.casting if paired else None,
        stems=tuple(Stem(program=p, audio=RenderedSound(excerpt=excerpt, program=p)) for p in programs),
        performance=excerpt.performance, style=excerpt.style() if excerpt.solo else None,
        piece=excerpt.piece, shard=shard)


class _Shards:
    """Numbers excerpts' shards so that none needs more than one renderer (and one of the pair).

    An excerpt's shard does not depend on the excerpts after it.
    """

    def __init__(self, soundfonts: Sequence[str], size: int):
        self._soundfonts, self._size = soundfonts, size
        self._counts: collections.Counter[tuple[str, int]] = collections.Counter()

    def __call__(self, excerpt: ScoreExcerpt) -> int:
        fonts = len(self._soundfonts)
        group = self._soundfonts.index(excerpt.recording.soundfont)
        if excerpt.pair_font is not None:
            group, fonts = group * fonts + self._soundfonts.index(excerpt.pair_font), fonts * fonts
        before = self._counts[excerpt.split, group]
        self._counts[excerpt.split, group] += 1
        return group + fonts * (before // self._size)


def _programs(timbres: Sequence[str]) -> tuple[int, ...]:
    """Returns the programs of timbres. Raises UserError for an unknown one."""
    by_name = {kind.name.lower(): kind.programs[0] for kind in SLAKH_CLASSES}
    result = []
    for timbre in timbres:
        name = str(timbre).strip().lower()
        if name.isdecimal() and int(name) < 128:
            result.append(int(name))
        elif name in by_name:
            result.append(by_name[name])
        else:
            raise UserError(f"{timbre!r} is no timbre; choose a program 0..127 or one of "
                            f"{', '.join(kind.name for kind in SLAKH_CLASSES)}")
    return tuple(result)


def measure_rendering(renders: SoundFontRenders, codec: MelCodec, excerpts: int = 8) -> Speed:
    """Measures how fast one process renders and encodes; loading the SoundFont does not count.

    The first excerpts that share a shard are rendered, at most so many.
    """
    first, *others = renders.list().items
    alike = [item for item in others if (item.split, item.shard) == (first.split, first.shard)]
    items = [first, *alike][:excerpts]
    for _ in first.audio.blocks(codec.sample_rate):  # loads the font
        pass

    def work() -> None:
        forget()
        for item in items:
            codec.encode(read_sound(item.audio, codec.sample_rate))

    return measure(work, len(items) * renders.seconds)[1]
