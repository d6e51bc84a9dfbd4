"""A MusicNet of four short recordings, laid out as the archive is."""

from __future__ import annotations

import csv
import pathlib

import numpy as np
from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.notes import Notes

RATE, SECONDS = 8000, 2.0  # published: 44.1 kHz
LABEL_RATE = 44100  # Hz, of the labels, whatever the file has
HEADER = "start_time,end_time,instrument,note,start_beat,end_beat,note_value"
COLUMNS = "id,composer,composition,movement,ensemble,source,transcriber,catalog_name,seconds".split(",")
# folder, MT3's split, instruments as MusicNet counts them (1 piano, 41 violin, 43 cello, 72 clarinet),
# row of musicnet_metadata.csv from the composer on.
RECORDINGS = {
    "1727": ("train", "train", (1, 41, 43),
             ("Schubert", "Piano Quintet in A major", "2. Andante", "Piano Quintet", "European Archive",
              "http://tirolmusic.blogspot.com/", "OP114", "447")),
    "2336": ("train", "validation", (41, 1),
             ("Beethoven", "Violin Sonata No 8 in G major", "3. Allegro vivace", "Accompanied Violin",
              "Edward Auer", "suzumedia", "OP30NO3", "197")),
    "2118": ("train", "test", (72, 1),
             ("Brahms", "Clarinet Sonata No 1 in F minor", "3. Allegretto grazioso",
              "Accompanied Clarinet", "Ben Redwine", "clarinetinstitute", "OP120NO1", "232")),
    "2303": ("test", "train", (1,),
             ("Bach", "WTK I, No 5: Prelude and Fugue in D major", "1. Prelude", "Solo Piano",
              "Kimiko Ishizaka", "www.bachcentral.com", "BWV850", "92")),
}


def build(folder: pathlib.Path) -> list[Truth]:
    """`folder` gets musicnet and musicnet_metadata.csv; splits are MT3's."""
    table, truths = [COLUMNS], []
    for name, (part, split, instruments, facts) in RECORDINGS.items():
        notes = Notes.concatenate([
            scale(start=0.1 + 0.05 * k, count=4, pitch=48 + 7 * k, program=instrument - 1, velocity=100)
            for k, instrument in enumerate(instruments)])
        start, end = (np.round(times * LABEL_RATE).astype(int) for times in (notes.start, notes.end))
        rows = [f"{s},{e},{p + 1},{n},{0.5 * k},0.5,Eighth" for k, (s, e, p, n) in enumerate(
            zip(start, end, notes.program, notes.pitch, strict=True))]
        labels = folder / "musicnet" / f"{part}_labels" / f"{name}.csv"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join([HEADER, *rows]) + "\n")
        samples = tones(notes, SECONDS, RATE)
        write_wav(folder / "musicnet" / f"{part}_data" / f"{name}.wav", samples, RATE)
        table.append([name, *facts])
        composer, composition, movement, ensemble, source, _, catalog, _ = facts
        truths.append(Truth(
            name=name, split=split, samples=samples, sample_rate=RATE, velocities=False,
            notes=Notes(start / LABEL_RATE, end / LABEL_RATE, notes.pitch, notes.velocity,
                        notes.program, notes.is_drum),
            performance=f"{ensemble}, {source}", style=ensemble,
            piece=f"{composer}/{composition} ({catalog})/{movement}"))
    with open(folder / "musicnet_metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    return truths
