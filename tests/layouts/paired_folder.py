"""A user's MIDI files and recordings, in the ways that people sort them."""

from __future__ import annotations

import pathlib

from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.midi import write_midi

RATE = 8000  # Hz
# MIDI file, audio file, name, split, performance
PAIRS = (
    ("quartet/song.mid", "quartet/song.wav", "quartet/song", None, "quartet"),
    ("quartet/valid/MIDI/a.midi", "quartet/valid/Audio/a.FLAC", "quartet/valid/a", "validation",
     "quartet"),
    ("midi/test/solo/a.kar", "audio/test/solo/a.wav", "test/solo/a", "test", "solo"),
    ("train/solo/deep/er/b.MID", "train/solo/deep/er/b.ogg", "train/solo/deep/er/b", "train", "solo"),
    ("rest.mid", "rest.wav", "rest", None, None),
)


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it, with files between that make no pair."""
    truths = []
    for i, (midi, audio, name, split, performance) in enumerate(PAIRS):
        notes = scale(pitch=50 + 4 * i, program=8 * i)
        samples = tones(notes, 2.0, RATE)
        for path in (midi, audio):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_midi(notes, folder / midi)
        write_wav(folder / audio, samples, RATE)
        truths.append(Truth(name=name, split=split, samples=samples, sample_rate=RATE, notes=notes,
                            performance=performance))
    write_midi(scale(), folder / "quartet" / "unplayed.mid")
    write_wav(folder / "quartet" / "unwritten.wav", truths[0].samples, RATE)
    write_midi(scale(), folder / "twice.mid")
    write_wav(folder / "twice.wav", truths[0].samples, RATE)
    write_wav(folder / "audio" / "twice.flac", truths[0].samples, RATE)
    (folder / "quartet" / "phone.m4a").write_bytes(b"ftyp")
    return truths
