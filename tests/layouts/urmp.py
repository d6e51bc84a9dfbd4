"""A URMP of three short pieces, laid out as the archive is."""

from __future__ import annotations

import pathlib

from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.notes import Notes

RATE, SECONDS = 4000, 1.5  # published: 48 kHz
PLAYERS = {"vn": 40, "vc": 42, "fl": 73, "cl": 71, "tpt": 56, "tbn": 57}  # → programs
# folder → MT3's split, the players as its files are named (the published folder 15 has two names
# for its third player)
PIECES = {
    "01_Jupiter_vn_vc": ("validation", ("vn", "vc")),
    "03_Dance_fl_cl": ("train", ("fl", "cl")),
    "15_Surprise_tpt_tpt_tbn": ("train", ("tpt", "tpt", "tpt")),
}


def build(folder: pathlib.Path) -> list[Truth]:
    """Stems are in the truth where the players differ, so that a program names one."""
    truths = []
    for name, (split, files) in PIECES.items():
        number, title, *players = name.split("_")
        parts, stems = [], []
        for k, (player, named) in enumerate(zip(players, files, strict=True)):
            notes = scale(start=0.1 + 0.1 * k, count=3, pitch=55 - 7 * k, program=PLAYERS[player],
                          velocity=100)
            samples = tones(notes, SECONDS, RATE)
            track = f"{k + 1}_{named}_{number}_{title}"
            write_wav(folder / name / f"AuSep_{track}.wav", samples, RATE, subtype="PCM_24")
            (folder / name / f"Notes_{track}.txt").write_text(_lines(notes))
            (folder / name / f"F0s_{track}.txt").write_text("0.000\t0\n0.010\t195.9\n")
            parts.append(notes)
            stems.append(samples)
        mix = sum(stems) / len(stems)
        write_wav(folder / name / f"AuMix_{name}.wav", mix, RATE, subtype="PCM_24")
        (folder / name / f"Sco_{name}.mid").write_bytes(b"")
        distinct = len(set(players)) == len(players)
        truths.append(Truth(
            name=name, split=split, samples=mix, sample_rate=RATE, notes=Notes.concatenate(parts),
            velocities=False, performance=f"URMP {' '.join(players)}", piece=f"URMP {title}",
            stems={PLAYERS[p]: s for p, s in zip(players, stems, strict=True)} if distinct else {}))
    (folder / "Supplementary_Files").mkdir()
    (folder / "README.pdf").write_bytes(b"")
    return truths


def _lines(notes: Notes) -> str:
    """Onset, pitch and duration, the pitch out of tune by less than half a semitone."""
    hertz = 440 * 2 ** ((notes.pitch + 0.3 - 69) / 12)
    return "".join(f"{start:.4f}\t{pitch:.3f}\t{end - start:.4f}\n"
                   for start, pitch, end in zip(notes.start, hertz, notes.end, strict=True))
