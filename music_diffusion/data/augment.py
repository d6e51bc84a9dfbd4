"""Variations of scores: other instruments, subsets of parts, human timing."""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES, program_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Variation of a score before it is rendered. Shares are probabilities."""

    reorchestrate: float = 0.6  # share of excerpts whose parts get other programs
    subset: float = 0.25  # share of excerpts that keep a random subset of the parts
    transpose: int = 2  # semitones up or down at most, melodic parts
    stretch: float = 0.15  # tempo factor is drawn from 1 ± this
    onset_jitter: float = 0.012  # seconds, standard deviation of onsets and ends
    velocity_jitter: float = 6.0  # standard deviation
    part_level: float = 14.0  # standard deviation of a part's velocity offset

    def __post_init__(self):
        if not (0 <= self.reorchestrate <= 1 and 0 <= self.subset <= 1):
            raise UserError(f"shares of {self.reorchestrate=} and {self.subset=}: choose 0..1")
        if not (self.transpose >= 0 and 0 <= self.stretch < 1):
            raise UserError(f"choose {self.transpose=} semitones from 0 and {self.stretch=} in 0..1")
        if not (self.onset_jitter >= 0 and self.velocity_jitter >= 0 and self.part_level >= 0):
            raise UserError(f"deviations of {self.onset_jitter=}, {self.velocity_jitter=} and "
                            f"{self.part_level=}: choose them from 0")

    def __call__(self, notes: Notes, rng: np.random.Generator) -> Notes:
        """Returns the varied notes; drums keep their keys."""
        parts = split_parts(notes)
        if len(parts) > 1 and rng.random() < self.subset:
            keep = rng.permutation(len(parts))[: rng.integers(1, len(parts))]
            parts = [parts[i] for i in keep]
        new_programs = rng.random() < self.reorchestrate
        semitones = int(rng.integers(-self.transpose, self.transpose + 1))
        varied = [self._part(p, rng, new_programs, semitones) for p in parts]
        result = Notes.concatenate(varied)
        return stretched(result, rng.uniform(1 - self.stretch, 1 + self.stretch))

    def _part(self, notes: Notes, rng, new_program: bool, semitones: int) -> Notes:
        n = len(notes)
        pitch, program = notes.pitch, notes.program
        if not notes.is_drum.any():
            if new_program:
                program = np.full(n, draw_program(rng))
            pitch = fit_range(pitch + semitones, program_range(int(program[0])))
        level = rng.normal(0, self.part_level) + rng.normal(0, self.velocity_jitter, n)
        velocity = np.clip(np.round(notes.velocity + level), 10, 127)
        start = np.maximum(notes.start + rng.normal(0, self.onset_jitter, n), 0)
        end = np.maximum(notes.end + rng.normal(0, self.onset_jitter, n), start + 0.03)
        return Notes(start, end, pitch, velocity, program, notes.is_drum)


def stretched(notes: Notes, factor: float) -> Notes:
    """Returns the notes at another tempo: all times longer by a factor > 0. Raises UserError."""
    if not factor > 0:
        raise UserError(f"a tempo cannot be stretched by {factor}; choose a factor above 0")
    return dataclasses.replace(notes, start=notes.start * factor, end=notes.end * factor)


def split_parts(notes: Notes) -> list[Notes]:
    """Splits notes into one part per program, and one for the drums."""
    key = np.where(notes.is_drum, 128, notes.program)
    return [notes[key == k] for k in np.unique(key)]


def with_program(part: Notes, program: int) -> Notes:
    """Returns a part on another instrument, in its range; drums stay as they are."""
    if part.is_drum.any():
        return part
    return dataclasses.replace(part, program=np.full(len(part), program),
                               pitch=fit_range(part.pitch, program_range(program)))


def draw_program(rng: np.random.Generator) -> int:
    """Draws a program: first a Slakh class evenly, then a program of it evenly."""
    programs = SLAKH_CLASSES[rng.integers(len(SLAKH_CLASSES))].programs
    return int(programs[rng.integers(len(programs))])


def fit_range(pitch: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Moves a part by octaves towards the range's middle, then folds stray notes in."""
    low, high = limits
    shift = 12 * np.round((0.5 * (low + high) - np.median(pitch)) / 12)
    inside = (pitch >= low) & (pitch <= high)
    pitch = pitch + (0 if inside.all() else int(shift))
    pitch = np.where(pitch < low, pitch + 12 * -(-(low - pitch) // 12), pitch)
    pitch = np.where(pitch > high, pitch - 12 * -(-(pitch - high) // 12), pitch)
    return np.clip(pitch, 0, 127)
