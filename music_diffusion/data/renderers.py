"""Renderers of notes, by their path: a SoundFont, or recorded notes (`data.sampler`)."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Protocol

from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.instruments import sound_files, split_source, table_files
from music_diffusion.data.sampler import SamplerRenderer
from music_diffusion.data.samples import Vibrato
from music_diffusion.data.soundfont import SoundFontRenderer, check_library
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

FONTS = (".sf2", ".sf3")


class Renderer(Protocol):
    """Plays notes, dry and mono. Implementations are picklable."""

    @property
    def path(self) -> str:
        """Returns the file or folder that it plays from."""
        ...

    @property
    def sample_rate(self) -> int:
        """Returns the rate of the result in Hz."""
        ...

    @property
    def tail(self) -> float:
        """Returns the seconds that follow the end of the last note where no length is asked for."""
        ...

    def __call__(self, notes: Notes, seconds: float | None = None) -> Waveform:
        """Renders notes; sample 0 is time 0.

        Args:
          notes: what to play.
          seconds: length of the result; None takes all notes and the tail.

        Raises UserError: it has no instrument for a note, or a file cannot be read.
        """
        ...

    def keys(self, program: int) -> Sequence[int]:
        """Returns the MIDI pitches that it plays with a program (DRUM_PROGRAM: drum keys), in order."""
        ...


def is_sampler(path: str) -> bool:
    """Returns whether a path is one of recorded notes: a folder, a table or an .sfz file."""
    path, programs = split_source(path)
    return programs is not None or os.path.isdir(path) or path.lower().endswith((".sfz", ".csv"))


def open_renderer(path: str, sample_rate: int = 16000, *, fallback: str | None = None, tail: float = 2.0,
                  tuning: float = 0.0, vibrato: Vibrato | None = None, take: int = 0) -> Renderer:
    """Opens what plays notes.

    Args:
      path: a SoundFont (.sf2, .sf3), or recorded notes: see `data.instruments.read_instruments`.
      sample_rate: Hz.
      fallback: a SoundFont that plays what a sampler has no sample for; None: nothing does.
      tail: seconds after the last note.
      tuning: cents, of everything but drums.
      vibrato, take: of a sampler; see `SamplerRenderer`.

    Raises UserError: no such file or folder, or one that cannot be used.
    """
    if not is_sampler(path):
        _check_there(path)
        return SoundFontRenderer(path=path, sample_rate=sample_rate, tail=tail, tuning=tuning)
    other = None if fallback is None else SoundFontRenderer(
        path=fallback, sample_rate=sample_rate, tail=tail, tuning=tuning)
    return SamplerRenderer(path=path, sample_rate=sample_rate, tail=tail, tuning=tuning, vibrato=vibrato,
                           take=take, fallback=other)


def check_renderer(path: str, fallback: str | None = None) -> None:
    """Raises UserError where a renderer is not there, or FluidSynth is not and would be needed."""
    open_renderer(path, fallback=fallback)  # first: a wrong path is no reason to install something
    if fallback is not None or not is_sampler(path):
        check_library()


def _check_there(path: str) -> None:
    """Raises UserError where nothing is at a path that does not look like that of a SoundFont."""
    if not (os.path.exists(path) or path.lower().endswith(FONTS)):
        raise UserError(f"{path}: no such file or folder; give a SoundFont (.sf2, .sf3), or a folder of "
                        "recorded notes")


def renderer_name(path: str) -> str:
    """Returns the name by which tables know a renderer: of its file or folder."""
    return os.path.basename(os.path.normpath(split_source(path)[0]))


def renderer_files(path: str) -> tuple[str, ...]:
    """Returns the files by which a change of it is noticed: a SoundFont, or the tables of a sampler."""
    return table_files(path) if is_sampler(path) else (path,)


def renderer_state(path: str) -> int | str:
    """Returns what renders depend on: a SoundFont's size, or a hash of a sampler's tables and samples.

    Of samples it takes names, sizes and times of change, because to read them all would take long.

    Raises UserError: see `open_renderer`.
    """
    if not is_sampler(path):
        _check_there(path)
        return os.path.getsize(path)
    digest = hashlib.sha256()
    for file in table_files(path):
        digest.update(pathlib.Path(file).read_bytes())
    folder, _ = split_source(path)
    for file in sound_files(path):
        facts = os.stat(file)
        # Relative names, so that a folder may be moved.
        entry = [os.path.relpath(file, folder), facts.st_size, facts.st_mtime_ns]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:16]
