"""A table of recordings: local files with notes, performances and styles, and their addresses."""

from __future__ import annotations

import pathlib

from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.midi import write_midi

RATE = 8000  # Hz
# audio, notes, performance, style, split, piece, url
ROWS = (
    ("audio/trio 1.wav", "midi/trio 1.mid", "trio, Berlin", "chamber", "train", "K502", "https://a"),
    ("audio/trio 2.wav", "midi/trio 2.mid", "trio, Berlin", "chamber", "validation", "K542",
     "https://b"),
    ("audio/solo.flac", "", "", "harp", "test", "", ""),
    ("audio/free.wav", "", "", "", "", "", "https://c"),
)
MISSING = ("audio/absent.wav", "", "", "piano", "train", "", "https://d")


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it, with a last row whose file is not there."""
    truths = []
    lines = ["audio,notes,performance,style,split,piece,url"]
    for i, row in enumerate((*ROWS, MISSING)):
        lines.append(",".join(f'"{cell}"' if "," in cell else cell for cell in row))
        if row is MISSING:
            continue
        audio, midi, performance, style, split, piece, _ = row
        notes = scale(pitch=55 + i, program=40 * i)
        samples = tones(notes, 2.0, RATE)
        write_wav(folder / audio, samples, RATE)
        if midi:
            (folder / midi).parent.mkdir(exist_ok=True)
            write_midi(notes, folder / midi)
        truths.append(Truth(
            name=audio, split=split or None, samples=samples, sample_rate=RATE,
            notes=notes if midi else None, performance=performance or None, style=style or None,
            piece=piece or None))
    # As spreadsheets save it: with a byte order mark.
    (folder / "recordings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return truths
