"""Scores → a folder of audio files: many SoundFonts or recorded notes, rooms, tones and levels.

    DST/train/00000.flac ...    DST/validation/00000.flac ...    DST/renders.csv

With `midi`, the notes of every file lie beside it (00000.mid). A file is a function
of the plan (without its hours), its split and its number: an excerpt of
`data.sets.soundfont_renders`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.augment import Augmentation
from music_diffusion.data.degradations import Chain, draw_chain
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.recorded_rooms import RecordedRoom
from music_diffusion.data.renderers import renderer_name, renderer_state
from music_diffusion.data.sets.soundfont_excerpts import DEGRADED, RenderedSound, ScoreExcerpt
from music_diffusion.data.sets.soundfont_renders import SoundFontRenders
from music_diffusion.data.sets.soundfont_scores import find_scores
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.types import StepProgress

TABLE, OPTIONS = "renders.csv", "renders.json"
COLUMNS = ("file", "split", "source", "soundfont", "rt60", "wet_db", "shelf_hertz",
           "shelf_tilt_db", "peak_db", "solo", "response", "degraded")
DRAWING = 2  # of the way in which excerpts are drawn: folders of another one are not continued


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioRenderPlan:
    """Plan of the audio that is rendered from a folder of scores; see `SoundFontRenders`."""

    scores: str  # folder of MIDI files, with manifest.csv (columns path, source, split) or without
    soundfonts: tuple[str, ...] = ()  # .sf2 or .sf3; one is drawn for each excerpt, evenly
    samplers: tuple[str, ...] = ()  # folders of recorded notes (`data.instruments`), drawn with them
    fallback: str = ""  # SoundFont for what these lack; "": parts go to what they play
    train_hours: float = 10.0  # of varied excerpts; sources are drawn evenly
    validation_hours: float = 0.5  # excerpts as written
    test_hours: float = 0.0  # excerpts as written; 0: no test split
    seconds: float = 24.0  # length of a file
    sample_rate: int = 16000  # Hz
    room: float = 0.5  # share of excerpts in a room; the others are dry
    room_responses: str = ""  # folder of impulse responses, of which half of the rooms are then drawn
    room_licences: tuple[str, ...] = ()  # of theirs that may be used; (): all
    shelf: float = 0.5  # share of excerpts with a tone setting
    peak_db: tuple[float, float] = (-20.0, -1.0)  # dBFS, range of the excerpts' peaks
    tuning: float = 0.0  # cents: each excerpt is tuned up to so much higher or lower
    vibrato: float = 0.0  # share of excerpts whose sustained recorded notes get vibrato
    degraded: float = 0.0  # share of excerpts that are degraded (`data.degradations.draw_chain`)
    # Share of excerpts of which one part plays alone, in all splits on an instrument that is drawn
    # evenly over the classes.
    solo: float = 0.0
    midi: bool = False  # write the notes beside the audio
    seed: int = 0
    workers: int = 2  # processes
    augmentation: Augmentation = Augmentation()

    def __post_init__(self):
        if self.sample_rate < 8000:
            raise UserError(f"{self.sample_rate} Hz is too low for music; render at 8000 or more")
        if not self.peak_db:
            raise UserError("files need a range of peaks, such as (-20, -1) dBFS")
        if not 0 <= self.degraded <= 1:
            raise UserError(f"a share of {self.degraded} degraded: choose one in 0..1")
        _ = self.renders  # checks the rest

    @functools.cached_property
    def renders(self) -> SoundFontRenders:
        """Returns the reader that gives the excerpts."""
        return SoundFontRenders(
            folder=self.scores, soundfonts=self.soundfonts, samplers=self.samplers,
            fallback=self.fallback, train_hours=self.train_hours,
            validation_hours=self.validation_hours, test_hours=self.test_hours,
            seconds=self.seconds, room=self.room, room_responses=self.room_responses,
            room_licences=self.room_licences, shelf=self.shelf, peak_db=self.peak_db,
            solo=self.solo, tuning=self.tuning, vibrato=self.vibrato, seed=self.seed,
            **dataclasses.asdict(self.augmentation))

    def identity(self) -> dict:
        """Returns what files depend on: two folders with the same identity hold the same files."""
        listed = json.dumps(find_scores(self.scores))
        recorded: dict[str, object] = {}
        if self.samplers:
            recorded["samplers"] = [[renderer_name(p), renderer_state(p)] for p in self.samplers]
        if self.fallback:
            recorded["fallback"] = [renderer_name(self.fallback), renderer_state(self.fallback)]
        if self.room_responses:
            recorded["room_responses"] = [room.name for room in self.renders.rooms]
        for name in ("tuning", "vibrato", "degraded"):
            if value := getattr(self, name):
                recorded[name] = value
        return recorded | {
            "drawing": DRAWING, "scores": hashlib.sha256(listed.encode()).hexdigest()[:16],
            "soundfonts": [[renderer_name(p), renderer_state(p)] for p in self.soundfonts],
            "seconds": self.seconds, "sample_rate": self.sample_rate, "room": self.room,
            "shelf": self.shelf, "peak_db": list(self.peak_db), "solo": self.solo,
            "midi": self.midi, "seed": self.seed,
            "augmentation": dataclasses.asdict(self.augmentation)}


def render_audio(plan: AudioRenderPlan, folder: str,
                 progress: StepProgress = lambda i, n: None) -> list[tuple[str, str]]:
    """Writes what is missing in the folder, and its table.

    Returns the excerpts that could not be rendered, each with the reason.

    Raises:
      UserError: scores or SoundFonts cannot be used; the folder was made by another plan; no
        excerpt could be rendered.
    """
    excerpts = list(plan.renders.excerpts())
    out = pathlib.Path(folder)
    made = _claim(out, plan)
    missing = [e for e in excerpts if not (out / file_of(e)).exists()]
    # Together by font, because loading one takes longer than rendering an excerpt.
    missing.sort(key=lambda e: e.recording.soundfont)
    for split in plan.renders.counts():
        made = [*_make_folder(out / split), *made]
    reasons = run_tasks(functools.partial(_rendered, folder, plan), missing, plan.workers, progress)
    skipped = [(e.name, why) for e, why in zip(missing, reasons, strict=True) if why is not None]
    if missing and len(skipped) == len(missing):
        _unmake(made)
        raise UserError("no excerpt can be rendered ({}: {})".format(*skipped[0]))
    with (out / TABLE).open("w", newline="", encoding="utf-8", errors="backslashreplace") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(row_of(e, plan) for e in _present(out, plan))
    return skipped


def file_of(excerpt: ScoreExcerpt) -> str:
    """Returns the path of an excerpt's audio in the folder."""
    return f"{excerpt.name}.flac"


def row_of(excerpt: ScoreExcerpt, plan: AudioRenderPlan) -> dict[str, str]:
    """Returns an excerpt's row of the table; a cell is empty where it has no room, shelf or source."""
    recording = excerpt.recording
    room, shelf = recording.room, recording.shelf
    return dict(zip(COLUMNS, (
        file_of(excerpt), excerpt.split, "" if excerpt.solo else excerpt.origin,
        renderer_name(recording.soundfont),
        f"{room.rt60:.3f}" if room else "", f"{room.wet_db:.2f}" if room else "",
        f"{shelf.hertz:.0f}" if shelf else "",
        f"{shelf.high_db - shelf.low_db:.2f}" if shelf else "", f"{recording.peak_db:.2f}",
        str(int(excerpt.solo)), room.name if isinstance(room, RecordedRoom) else "",
        str(chain) if (chain := degradation_of(excerpt, plan)).steps else ""), strict=True))


def degradation_of(excerpt: ScoreExcerpt, plan: AudioRenderPlan) -> Chain:
    """Returns what happens to an excerpt after it was recorded; an empty chain where nothing does."""
    rng = excerpt.rng(DEGRADED)
    return draw_chain(rng) if rng.random() < plan.degraded else Chain(steps=())


def render_file(folder: str, plan: AudioRenderPlan, excerpt: ScoreExcerpt) -> None:
    """Writes one file, and its notes if they are wanted."""
    path = pathlib.Path(folder) / file_of(excerpt)
    samples = read_sound(RenderedSound(excerpt=excerpt), plan.sample_rate)
    samples = degradation_of(excerpt, plan)(samples, plan.sample_rate)
    if plan.midi:  # first: a file counts as finished when its audio is there
        write_midi(excerpt.notes(), path.with_suffix(".mid"))
    write_audio(path, Waveform(samples, plan.sample_rate))


def _rendered(folder: str, plan: AudioRenderPlan, excerpt: ScoreExcerpt) -> str | None:
    """Writes one file; returns why it cannot be made, if so."""
    try:
        render_file(folder, plan, excerpt)
    except UserError as e:
        return str(e)
    return None


def _claim(out: pathlib.Path, plan: AudioRenderPlan) -> list[pathlib.Path]:
    """Makes the folder, or sees that an earlier run of the same plan did. Returns what it made."""
    identity = plan.identity()
    note = out / OPTIONS
    if note.is_file():
        try:
            its = json.loads(note.read_text())
        except ValueError:
            its = {}
        for name in sorted({*identity, *its}):
            if its.get(name) != identity.get(name):
                raise UserError(f"{out}: its files were rendered with other {name}; "
                                "choose another folder, or delete this one")
        return []
    if any(out.glob("*/*.flac")):
        raise UserError(f"{out}: holds other audio; choose another folder")
    made = _make_folder(out)
    note.write_text(json.dumps(identity, indent=1) + "\n")
    return [note, *made]


def _make_folder(path: pathlib.Path) -> list[pathlib.Path]:
    """Makes a folder and those around it; returns the new ones, the innermost first."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return made


def _unmake(made: list[pathlib.Path]) -> None:
    """Removes files and folders, but not folders in which something else lies by now."""
    for path in made:
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def _present(out: pathlib.Path, plan: AudioRenderPlan) -> Iterator[ScoreExcerpt]:
    """Yields the excerpts of all files of the folder, those of longer runs too."""
    for split, sources in plan.renders.scores().items():
        for path in sorted((out / split).glob("*.flac")):
            if path.stem.isdecimal():
                yield plan.renders.excerpt(split, int(path.stem), sources)
