"""A few recordings with their MIDI files, named one by one, from which a performance is learned."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib

from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import located

LONGER = 1.0  # seconds by which notes may outlast their audio
SILENT_END = 15.0  # seconds by which audio may outlast its notes: applause, silence, a last chord
HELD_OUT = 0.1  # share of every recording, at its end, for validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedPairs:
    """Pairs of audio and MIDI files of one performance; the end of each is for validation."""

    audio: tuple[str, ...]
    midi: tuple[str, ...]  # of equal number and order
    performance: str

    def __post_init__(self):
        if not self.audio or len(self.audio) != len(self.midi):
            raise UserError(f"{len(self.audio)} audio files and {len(self.midi)} MIDI files: give --audio "
                            "and --midi equally often, in the same order")
        for name in ("audio", "midi"):  # é.wav may lie there in the other spelling
            object.__setattr__(self, name, tuple(located(path) for path in getattr(self, name)))

    def seconds(self) -> float:
        """Returns the length of all audio. Raises UserError: unreadable, or MIDI of another length."""
        return sum(_checked(*pair)[1] for pair in zip(self.audio, self.midi, strict=True))

    def list(self) -> Listing:
        """See `data.items.DataSet`. Raises UserError as `seconds` does."""
        items = []
        for number, (audio, midi) in enumerate(zip(self.audio, self.midi, strict=True)):
            seconds = _checked(audio, midi)[1]
            cut = (1 - HELD_OUT) * seconds
            for split, start, end in (("train", 0.0, cut), ("validation", cut, seconds)):
                name = f"{number:02d}-{pathlib.Path(audio).stem}-{split}"
                items.append(Item(
                    name=name, split=split, audio=AudioFile(path=audio, start=start, end=end),
                    notes=functools.partial(_notes_from, midi, start, end), note_files=(midi,),
                    performance=self.performance, piece=name))
        return Listing(items=tuple(items))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"files": [[os.path.basename(a), os.path.basename(m)] for a, m in
                          zip(self.audio, self.midi, strict=True)], "performance": self.performance}


def check_lengths(audio: str, seconds: float, midi: str, notes: Notes) -> None:
    """Raises UserError unless the notes end where the audio does, within LONGER and SILENT_END."""
    last = notes.duration
    if not last - LONGER <= seconds <= last + SILENT_END:
        raise UserError(f"{audio} lasts {seconds:.1f} s and the notes of {midi} {last:.1f} s: give a MIDI "
                        "file of the same recording, at its tempo, and cut both to the same length")


@functools.lru_cache(maxsize=64)
def _checked(audio: str, midi: str) -> tuple[Notes, float]:
    seconds = AudioFile(path=audio).facts().seconds
    notes = read_midi(midi)
    if not len(notes):
        raise UserError(f"{midi}: has no notes")
    check_lengths(audio, seconds, midi, notes)
    return notes, seconds


def _notes_from(midi: str, start: float, end: float) -> Notes:
    """Returns the notes of a stretch, in seconds from its start; one that sounds already begins there."""
    return read_midi(midi).between(start, end).shift(-start)
