"""Scores → a folder of audio files: many SoundFonts, rooms, tone settings and levels.

    DST/train/00000.flac ...    DST/validation/00000.flac ...    DST/renders.csv

With `midi`, the notes of every file lie beside it (00000.mid). A file is a function
of the plan (without its hours), its split and its number. It repeats to within
FluidSynth's own 2 ms at note starts (see `data.soundfont`).
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.augment import Augmentation, split_parts
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.render import RenderPlan, draw_excerpt, scores_by_source
from music_diffusion.data.rooms import Room, Shelf, draw_room, draw_shelf
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

TABLE, OPTIONS = "renders.csv", "renders.json"
SPLITS = ("train", "validation", "test")
COLUMNS = ("file", "split", "source", "soundfont", "rt60", "wet_db", "shelf_hertz",
           "shelf_tilt_db", "peak_db", "solo")
SOLO_NOTES = 10  # fewest notes of a part that plays alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioRenderPlan:
    """What is rendered from a folder of scores with a `manifest.csv`."""

    scores: str  # folder with manifest.csv (columns path, source, split)
    soundfonts: tuple[str, ...]  # .sf2 or .sf3; one is drawn for each excerpt, evenly
    train_hours: float = 10.0  # of varied excerpts; sources are drawn evenly
    validation_hours: float = 0.5  # excerpts as written
    test_hours: float = 0.0  # likewise; 0: no test split
    seconds: float = 24.0  # length of a file
    sample_rate: int = 16000  # Hz
    room: float = 0.5  # share of excerpts in a room; the others are dry
    shelf: float = 0.5  # share of excerpts with a tone setting
    peak_db: tuple[float, float] = (-20.0, -1.0)  # dBFS, range of the excerpts' peaks
    # Share of excerpts of which one part plays alone, in all splits on an instrument that is drawn
    # evenly over the classes.
    solo: float = 0.0
    midi: bool = False  # write the notes beside the audio
    seed: int = 0
    workers: int = 2  # processes
    augmentation: Augmentation = Augmentation()

    def __post_init__(self):
        if not self.soundfonts:
            raise UserError("rendering needs a SoundFont; give a .sf2 or .sf3 file")
        if self.sample_rate < 8000:
            raise UserError(f"{self.sample_rate} Hz is too low for music; render at 8000 or more")
        if not self.seconds >= 1:
            raise UserError(f"excerpts of {self.seconds} s are too short; make them 1 s or longer")
        if not 0 <= self.solo <= 1:
            raise UserError(f"a share of {self.solo} solo excerpts: choose one in 0..1")
        if not self.peak_db[0] <= self.peak_db[1] <= 0:
            raise UserError(f"peaks of {self.peak_db} dBFS: give a range that ends at 0 or below")

    def counts(self) -> dict[str, int]:
        """Files of each split."""
        hours = dict(zip(SPLITS, (self.train_hours, self.validation_hours, self.test_hours),
                         strict=True))
        return {s: max(1, round(h * 3600 / self.seconds)) for s, h in hours.items() if h > 0}

    @functools.cached_property
    def excerpts(self) -> RenderPlan:
        """How `draw_excerpt` sees this plan."""
        plan = RenderPlan(scores=self.scores, soundfont=self.soundfonts[0],
                          augmentation=self.augmentation)
        frames = -(-self.seconds * plan.codec.sample_rate // plan.codec.hop)
        return dataclasses.replace(plan, frames=int(frames))

    def identity(self) -> dict:
        """What files depend on: two folders with the same identity hold the same files."""
        table = pathlib.Path(self.scores) / "manifest.csv"
        return {
            "scores": hashlib.sha256(table.read_bytes()).hexdigest()[:16],
            "soundfonts": [[os.path.basename(p), os.path.getsize(p)] for p in self.soundfonts],
            "seconds": self.seconds, "sample_rate": self.sample_rate, "room": self.room,
            "shelf": self.shelf, "peak_db": list(self.peak_db), "solo": self.solo,
            "midi": self.midi, "seed": self.seed,
            "augmentation": dataclasses.asdict(self.augmentation)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """How one excerpt is recorded."""

    split: str
    index: int
    source: str  # of the scores
    soundfont: str  # path
    room: Room | None
    shelf: Shelf | None
    peak_db: float  # dBFS
    solo: bool = False  # one part alone

    @property
    def file(self) -> str:
        """Its path in the folder."""
        return f"{self.split}/{self.index:05d}.flac"

    def row(self) -> dict[str, str]:
        """Its line in the table; empty where it is dry, without a tone setting or of any source."""
        room, shelf = self.room, self.shelf
        return dict(zip(COLUMNS, (
            self.file, self.split, "" if self.solo else self.source, os.path.basename(self.soundfont),
            f"{room.rt60:.3f}" if room else "", f"{room.wet_db:.2f}" if room else "",
            f"{shelf.hertz:.0f}" if shelf else "",
            f"{shelf.high_db - shelf.low_db:.2f}" if shelf else "", f"{self.peak_db:.2f}",
            str(int(self.solo))), strict=True))

    def __call__(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """The dry samples [S] as recorded: room, tone, level."""
        for effect in (self.room, self.shelf):
            samples = samples if effect is None else effect(samples, sample_rate)
        peak = float(np.abs(samples).max(initial=0.0))
        return samples * np.float32(10 ** (self.peak_db / 20) / peak) if peak > 1e-6 else samples


def draw_recording(plan: AudioRenderPlan, scores: dict[str, list[str]], split: str, index: int
                   ) -> tuple[Recording, np.random.Generator]:
    """The conditions of one file, and the generator that goes on to draw its notes."""
    rng = np.random.default_rng([plan.seed, SPLITS.index(split), index])
    sources = sorted(scores)
    recording = Recording(
        split=split, index=index,
        source=sources[rng.integers(len(sources))],
        soundfont=plan.soundfonts[rng.integers(len(plan.soundfonts))],
        room=draw_room(rng) if rng.random() < plan.room else None,
        shelf=draw_shelf(rng) if rng.random() < plan.shelf else None,
        peak_db=float(rng.uniform(*plan.peak_db)), solo=bool(rng.random() < plan.solo))
    return recording, rng


def draw_notes(plan: AudioRenderPlan, scores: dict[str, list[str]], recording: Recording,
               rng: np.random.Generator) -> Notes:
    """Notes of one file, at least one; those for training are varied."""
    vary = recording.split == "train"
    of_source = {recording.source: scores[recording.source]}
    for _ in range(100):
        if recording.solo:
            # Of any source: most have parts that hardly play within an excerpt.
            drawn = _draw_solo(plan, scores, rng, vary)
        else:
            drawn = draw_excerpt(plan.excerpts, of_source, rng, vary=vary)
        # Excerpts are longer than files, and are stretched: all their notes may lie behind the end.
        notes = drawn.between(0.0, plan.seconds)
        if len(notes):
            return notes
    raise UserError(f"{plan.scores}: no excerpt with a note in its first {plan.seconds} s found")


def _draw_solo(plan: AudioRenderPlan, scores: dict[str, list[str]], rng: np.random.Generator,
               vary: bool) -> Notes:
    """One part of an excerpt, with another program."""
    still = dataclasses.replace(plan.augmentation, transpose=0, stretch=0.0, onset_jitter=0.0,
                                velocity_jitter=0.0, part_level=0.0)
    alone = dataclasses.replace(plan.augmentation if vary else still, reorchestrate=1.0, subset=0.0)
    for _ in range(100):
        excerpt = draw_excerpt(plan.excerpts, scores, rng, vary=False)
        parts = [p for p in split_parts(excerpt)
                 if len(p.between(0.0, plan.seconds)) >= SOLO_NOTES]
        if parts:
            return alone(parts[rng.integers(len(parts))], rng)
    raise UserError(f"{plan.scores}: no part with {SOLO_NOTES} notes in {plan.seconds} s found")


def render_audio(plan: AudioRenderPlan, folder: str,
                 progress: Callable[[int, int], None] = lambda i, n: None) -> None:
    """Writes what is missing in the folder, and its table.

    Raises:
      UserError: scores or SoundFonts cannot be used; the folder was made by another plan.
    """
    scores = {s: scores_by_source(plan.excerpts, s) for s in plan.counts()}
    for path in plan.soundfonts:
        SoundFontRenderer(path=path)  # checks that it is there
    out = pathlib.Path(folder)
    _claim(out, plan)
    recordings = [draw_recording(plan, scores[s], s, i)[0]
                  for s, count in plan.counts().items() for i in range(count)]
    missing = [r for r in recordings if not (out / r.file).exists()]
    # Together by font, because loading one takes longer than rendering an excerpt.
    missing.sort(key=lambda r: r.soundfont)
    for split in plan.counts():
        (out / split).mkdir(exist_ok=True)
    run_tasks(functools.partial(_render, plan, folder), [(r.split, r.index) for r in missing],
              plan.workers, progress)
    with (out / TABLE).open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(r.row() for r in _present(out, plan, scores))


@functools.lru_cache(maxsize=4)
def _scores(plan: AudioRenderPlan, split: str) -> dict[str, list[str]]:
    return scores_by_source(plan.excerpts, split)


def _render(plan: AudioRenderPlan, folder: str, split_and_index: tuple[str, int]) -> None:
    split, index = split_and_index
    scores = _scores(plan, split)
    recording, rng = draw_recording(plan, scores, split, index)
    notes = draw_notes(plan, scores, recording, rng)
    dry = SoundFontRenderer(path=recording.soundfont, sample_rate=plan.sample_rate)(notes).samples
    length = round(plan.seconds * plan.sample_rate)
    dry = np.pad(dry, (0, max(0, length - len(dry))))[:length]
    samples = recording(dry, plan.sample_rate)
    path = pathlib.Path(folder) / recording.file
    if plan.midi:  # first: the audio tells that a file is finished
        write_midi(notes, path.with_suffix(".mid"))
    write_audio(path, Waveform(samples, plan.sample_rate))


def _claim(out: pathlib.Path, plan: AudioRenderPlan) -> None:
    """Makes the folder, or sees that an earlier run of the same plan did."""
    identity = plan.identity()
    note = out / OPTIONS
    if note.is_file():
        try:
            its = json.loads(note.read_text())
        except ValueError:
            its = {}
        for name, value in identity.items():
            if its.get(name) != value:
                raise UserError(f"{out}: its files were rendered with other {name}; "
                                "choose another folder, or delete this one")
        return
    if any(out.glob("*/*.flac")):
        raise UserError(f"{out}: holds other audio; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(identity, indent=1) + "\n")


def _present(out: pathlib.Path, plan: AudioRenderPlan, scores: dict[str, dict[str, list[str]]]
             ) -> Iterator[Recording]:
    """All files of the folder, those of longer runs too."""
    for split in scores:
        for path in sorted((out / split).glob("*.flac")):
            if path.stem.isdecimal():
                yield draw_recording(plan, scores[split], split, int(path.stem))[0]
