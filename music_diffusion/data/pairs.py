"""Items as pairs of plain files, for what reads folders: the evaluation."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from music_diffusion.audio.io import AudioWriter
from music_diffusion.data.items import Item
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.types import StepProgress


def write_pairs(items: Sequence[Item], audio_folder: str, notes_folder: str, sample_rate: int,
                max_seconds: float, progress: StepProgress = lambda i, n: None) -> list[str]:
    """Writes every item as NAME.flac and NAME.mid; returns the names.

    Args:
      items: with notes.
      audio_folder, notes_folder: made if missing; files that are there are kept.
      sample_rate: Hz, of the audio, one channel.
      max_seconds: of an item's start that is written.

    Raises UserError where an item cannot be read.
    """
    names = []
    for i, item in enumerate(items):
        name = item.name.replace("/", "_")
        audio, midi = pathlib.Path(audio_folder, f"{name}.flac"), pathlib.Path(notes_folder, f"{name}.mid")
        for path in (audio, midi):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not audio.exists():
            left = round(max_seconds * sample_rate)
            # 16 bits would lay a floor of noise under what is quiet, and spectra are compared.
            with AudioWriter(audio, sample_rate, subtype="PCM_24") as writer:
                for block in item.audio.blocks(sample_rate):
                    writer.write(block[:left])
                    left -= len(block)
                    if left <= 0:
                        break
        notes = item.notes() if item.notes is not None else Notes.empty()
        write_midi(notes[notes.start < max_seconds], midi)
        names.append(name)
        progress(i + 1, len(items))
    return names
