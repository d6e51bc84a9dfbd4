"""A MAESTRO of three short recordings, laid out as the archives are."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib

import mido
import numpy as np
from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.notes import Notes

RATE, SECONDS = 8000, 2.0  # published: 44.1 and 48 kHz
PEDAL = (0.2, 0.9)  # seconds, down and up
TICK = 1 / 768  # seconds: 384 ticks a beat at 120 beats a minute, as published
# composer, title, split, year, file name without ending; composers have accents, titles commas.
ROWS = (
    ("Alban Berg", "Sonata Op. 1", "train", 2018,
     "MIDI-Unprocessed_Chamber3_MID--AUDIO_10_R3_2018_wav--1"),
    ("Frédéric Chopin", 'Étude Op. 10 No. 12 in C Minor, "Revolutionary"', "validation", 2004,
     "MIDI-Unprocessed_SMF_02_R1_2004_01-05_ORIG_MID--AUDIO_02_R1_2004_05_Track05_wav"),
    ("Isaac Albéniz / Leopold Godowsky", "Tango in D", "test", 2011,
     "MIDI-Unprocessed_03_R1_2011_MID--AUDIO_R1-D1_08_Track08_wav"),
)
COLUMNS = ("canonical_composer", "canonical_title", "split", "year", "midi_filename",
           "audio_filename", "duration")


def build(folder: pathlib.Path, version: str = "v3.0.0", tables: tuple[str, ...] = ("csv", "json")
          ) -> list[Truth]:
    """The recordings, with the notes as long as the pedal makes them."""
    rows, truths = [], []
    for number, (composer, title, split, year, name) in enumerate(ROWS):
        keys = scale(count=5, pitch=48 + 5 * number, velocity=60 + 10 * number)
        held = (keys.end >= PEDAL[0]) & (keys.end < PEDAL[1])
        notes = dataclasses.replace(keys, end=np.where(held, PEDAL[1], keys.end))
        samples = tones(notes, SECONDS, RATE)
        stem = folder / str(year) / name
        write_wav(stem.with_name(name + ".wav"), samples, RATE, channels=2)
        write_piano(stem.with_name(name + ".midi"), keys)
        rows.append(dict(zip(COLUMNS, (composer, title, split, year, f"{year}/{name}.midi",
                                       f"{year}/{name}.wav", SECONDS), strict=True)))
        truths.append(Truth(name=f"{year}/{name}", split=split, samples=samples, sample_rate=RATE,
                            notes=notes, piece=f"{composer}/{title}"))
    if "csv" in tables:
        with (folder / f"maestro-{version}.csv").open("w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if "json" in tables:
        by_column = {c: {str(i): row[c] for i, row in enumerate(rows)} for c in COLUMNS}
        content = by_column if version == "v3.0.0" else rows
        (folder / f"maestro-{version}.json").write_text(json.dumps(content), encoding="utf-8")
    for name in ("LICENSE", "README"):
        (folder / name).write_text("")
    return truths


def write_piano(path: pathlib.Path, keys: Notes) -> None:
    """As a Disklavier's file: a track of the tempo, a track of keys and pedal on channel 1."""
    down, up = PEDAL
    events = [(down, "control_change", dict(control=64, value=127)),
              (up, "control_change", dict(control=64, value=0))]
    for start, end, pitch, velocity in zip(keys.start, keys.end, keys.pitch, keys.velocity, strict=True):
        events.append((start, "note_on", dict(note=int(pitch), velocity=int(velocity))))
        events.append((end, "note_on", dict(note=int(pitch), velocity=0)))
    track, now = mido.MidiTrack([mido.Message("program_change", program=0)]), 0
    for time, kind, values in sorted(events, key=lambda e: e[0]):
        tick = round(time / TICK)
        track.append(mido.Message(kind, time=tick - now, **values))
        now = tick
    head = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000)])
    mido.MidiFile(type=1, ticks_per_beat=384, tracks=[head, track]).save(path)


def rows(notes: Notes) -> list[tuple]:
    """Notes in whole ticks, so that they can be compared for equality."""
    return sorted(zip(np.rint(notes.start / TICK).tolist(), np.rint(notes.end / TICK).tolist(),
                      notes.pitch.tolist(), notes.velocity.tolist(), notes.program.tolist(),
                      notes.is_drum.tolist(), strict=True))
