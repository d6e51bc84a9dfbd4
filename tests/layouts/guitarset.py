"""A GuitarSet of a few short excerpts, laid out as its archives are, each in a folder of its name."""

from __future__ import annotations

import json
import pathlib

import numpy as np
from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.notes import Notes

RATE, SECONDS = 8000, 1.7  # published: 44.1 kHz
STRINGS = 6
# excerpt, split, style
EXCERPTS = (
    ("00_BN1-129-Eb_comp", "train", "Bossa Nova"),
    ("03_SS2-107-Ab_solo", "train", "Singer-Songwriter"),
    ("05_Jazz3-150-C_solo", "validation", "Jazz"),
)
METADATA = {"curator": {"name": "", "email": ""}, "annotator": {}, "version": "", "corpus": "",
            "annotation_tools": "", "annotation_rules": "", "validation": ""}


def build(folder: pathlib.Path) -> list[Truth]:
    """The microphone's recordings."""
    return [build_excerpt(folder, *excerpt) for excerpt in EXCERPTS]


def build_excerpt(folder: pathlib.Path, name: str, split: str, style: str) -> Truth:
    player, sheet, _ = name.split("_")
    # The two highest strings are played, the others silent.
    strings = {4: scale(start=0.1, count=4, pitch=62, program=24, step=0.35, velocity=100),
               5: scale(start=0.3, count=4, pitch=71 + int(player), program=24, step=0.35, velocity=100)}
    notes = Notes.concatenate([*strings.values()])
    samples = tones(notes, SECONDS, RATE)
    write_wav(folder / "audio_mono-mic" / f"{name}_mic.wav", samples, RATE)
    # The pickups' sound differs.
    write_wav(folder / "audio_mono-pickup_mix" / f"{name}_mix.wav", -0.5 * samples, RATE)
    path = folder / "annotation" / f"{name}.jams"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_jams(name, strings)))
    return Truth(name=f"{name}_mic", split=split, samples=samples, sample_rate=RATE, notes=notes,
                 velocities=False, performance=player, style=style, piece=sheet)


def note_annotation(string: int, notes: Notes) -> dict:
    """Values up to 0.4 semitones beside the note, as the player bends it."""
    off = 0.4 * np.cos(np.arange(len(notes)))
    data = [{"time": t, "duration": e - t, "value": p, "confidence": None} for t, e, p in
            zip(notes.start.tolist(), notes.end.tolist(), (notes.pitch + off).tolist(), strict=True)]
    return _annotation("note_midi", data, str(string))


def _jams(name: str, strings: dict[int, Notes]) -> dict:
    annotations = []
    for string in range(STRINGS):
        notes = strings.get(string, Notes.empty())
        contour = {"time": notes.start.tolist(), "duration": [0.0] * len(notes),
                   "value": [{"voiced": True, "index": i, "frequency": 440 * 2 ** ((p - 69) / 12)}
                             for i, p in enumerate(notes.pitch.tolist())],
                   "confidence": [None] * len(notes)}
        annotations += [_annotation("pitch_contour", contour, str(string)), note_annotation(string, notes)]
    beat = {"position": 1, "measure": 1, "num_beats": 4, "beat_units": 4}
    for kind, value in (("beat_position", beat), ("tempo", 129.0), ("chord", "Eb:maj"),
                        ("chord", "Eb:maj7/1"), ("key_mode", "Eb:major")):
        data = [{"time": 0.0, "duration": SECONDS, "value": value, "confidence": 1.0}]
        annotations.append(_annotation(kind, data, ""))
    metadata = {"title": name, "artist": "", "release": "", "duration": SECONDS, "identifiers": {},
                "jams_version": "0.3.1"}
    return {"annotations": annotations, "file_metadata": metadata, "sandbox": {}}


def _annotation(namespace: str, data: list | dict, source: str) -> dict:
    return {"annotation_metadata": METADATA | {"data_source": source}, "namespace": namespace,
            "data": data, "sandbox": {}, "time": 0, "duration": SECONDS}
