"""Short copies of MT3's TFRecords, with the names of files and features that it reads."""

from __future__ import annotations

import dataclasses
import io
import pathlib

import numpy as np
import soundfile
from layouts.common import Truth, scale, tones
from layouts.wire import example, note_sequence, tf_record

from music_diffusion.notes.notes import Notes

RATE, SECONDS = 2000, 1.0  # published: 16 to 48 kHz
PEDAL = ((0.15, 127), (0.9, 0))  # second, value
# config → files of its splits, two of train where there are shards. As published, the number after
# "of" is larger: the pieces there are many.
FILES = {
    "maestrov3": {
        "train": ("maestro-v3.0.0_ns_wav_train.tfrecord-00000-of-00002",
                  "maestro-v3.0.0_ns_wav_train.tfrecord-00001-of-00002"),
        "validation": ("maestro-v3.0.0_ns_wav_validation.tfrecord-00000-of-00001",),
        "test": ("maestro-v3.0.0_ns_wav_test.tfrecord-00000-of-00001",)},
    "maestrov1": {"train": ("maestro-v1.0.0_ns_wav_train.tfrecord-00000-of-00001",),
                  "validation": ("maestro-v1.0.0_ns_wav_validation.tfrecord-00000-of-00001",),
                  "test": ("maestro-v1.0.0_ns_wav_test.tfrecord-00000-of-00001",)},
    "guitarset": {"train": ("train.tfrecord-00000-of-00001",),
                  "validation": ("validation.tfrecord-00000-of-00001",)},
    "urmp": {"train": ("train.tfrecord",), "validation": ("validation.tfrecord",)},
    "musicnet": {"train": ("musicnet-train.tfrecord-00000-of-00001",),
                 "validation": ("musicnet-validation.tfrecord-00000-of-00001",),
                 "test": ("musicnet-test.tfrecord-00000-of-00001",)},
    "musicnet_em": {"train": ("train.tfrecord-00000-of-00001",),
                    "validation": ("validation.tfrecord-00000-of-00001",),
                    "test": ("test.tfrecord-00000-of-00001",)},
    "cerberus4": {s: (f"slakh_multi_cerberus_{s}_bass:drums:guitar:piano.tfrecord-00000-of-00001",)
                  for s in ("train", "validation", "test")},
    "slakh": {"train": ("slakh_multi_full_subsets_10_train_all_inst.tfrecord-00000-of-00001",),
              "validation": ("slakh_multi_full_validation_all_inst.tfrecord-00000-of-00001",),
              "test": ("slakh_multi_full_test_all_inst.tfrecord-00000-of-00001",)},
}


def build(folder: pathlib.Path, config: str = "maestrov3") -> list[Truth]:
    """Two records in the first file, one in each other."""
    truths, pitch = [], 40
    for split, names in FILES[config].items():
        for name in names:
            records = []
            for number in range(1 if truths else 2):
                pitch += 1
                message, notes, samples = _MAKERS[config](pitch)
                records.append(tf_record(message))
                truths.append(Truth(
                    name=f"{name}/{number:05d}", split=split, samples=samples, sample_rate=RATE,
                    notes=notes, velocities=config in ("maestrov1", "maestrov3", "cerberus4", "slakh")))
            (folder / name).write_bytes(b"".join(records))
    return truths


def _wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _maestro(pitch: int) -> tuple[bytes, Notes, np.ndarray]:
    """A piano with a pedal, which holds the notes that end while it is down."""
    keys = scale(count=3, pitch=pitch, velocity=70)
    held = (keys.end >= PEDAL[0][0]) & (keys.end < PEDAL[1][0])
    notes = dataclasses.replace(keys, end=np.where(held, PEDAL[1][0], keys.end))
    samples = tones(notes, SECONDS, RATE)
    message = example({"audio": [_wav(samples)],
                       "sequence": [note_sequence(keys, PEDAL, id=f"/id/{pitch}", filename="a.midi")],
                       "id": [f"/id/{pitch}".encode()]})
    return message, notes, samples


def _guitarset(pitch: int) -> tuple[bytes, Notes, np.ndarray]:
    """The program is not in the sequence: all is guitar."""
    notes = scale(count=3, pitch=pitch, program=24)
    samples = tones(notes, SECONDS, RATE)
    sequence = note_sequence(dataclasses.replace(notes, program=0 * notes.program))
    return example({"sequence": [sequence], "audio": [_wav(samples)], "velocity_range": [b"\x08\x01"],
                    "id": [b"00_BN1-129-Eb_comp"]}), notes, samples


def _urmp(pitch: int) -> tuple[bytes, Notes, np.ndarray]:
    """Programs are those of the players' names; `sequence` is not what is read."""
    violin, horn = (scale(count=2, pitch=pitch + k, program=p) for k, p in ((0, 40), (7, 60)))
    notes = Notes.concatenate([violin, horn])
    samples = tones(notes, SECONDS, RATE)
    bare = [note_sequence(dataclasses.replace(n, program=0 * n.program)) for n in (violin, horn)]
    return example({"id": [b"1"], "tracks": [1, 2], "inst_names": [b"vn", b"hn"], "audio": [_wav(samples)],
                    "sequence": [note_sequence(Notes.empty())],
                    "instrument_sequences": bare}), notes, samples


def _musicnet(pitch: int) -> tuple[bytes, Notes, np.ndarray]:
    notes = Notes.concatenate([scale(count=2, pitch=pitch, program=42, velocity=100),
                               scale(count=2, pitch=pitch + 4, program=71, velocity=100)])
    samples = 1.2 * tones(notes, SECONDS, RATE)  # floats may go beyond ±1
    return example({"id": [b"2336"], "sample_rate": np.array([RATE]), "audio": samples,
                    "sequence": [note_sequence(notes)]}), notes, samples


def _slakh(pitch: int, names: tuple[str, ...] = ("Drums", "Electric Piano"),
           programs: tuple[int, ...] = (0, 4)) -> tuple[bytes, Notes, np.ndarray]:
    """One sequence an instrument, with programs that are finer than the instruments' names."""
    parts = [scale(start=0.1 + 0.05 * k, count=2, pitch=pitch, program=p, drum=name.lower() == "drums")
             for k, (name, p) in enumerate(zip(names, programs, strict=True))]
    notes = Notes.concatenate(parts)
    stems = np.stack([tones(part, SECONDS, RATE) for part in parts])
    mix = stems.sum(0)
    bare = [dataclasses.replace(part, program=np.where(part.is_drum, 0, 5), is_drum=part.is_drum & False)
            for part in parts]
    count = [0] * len(parts)
    return example({
        "audio_sample_rate": [RATE], "inst_names": [name.encode() for name in names],
        "midi_class": count, "mix": mix, "note_sequences": [note_sequence(part) for part in bare],
        "plugin_name": count, "program_num": count, "slakh_class": count,
        "src_ids": [b"S%02d" % k for k in range(len(parts))], "stems": stems.ravel(),
        "stems_shape": list(stems.shape), "target_type": [b"multi"], "track_id": [b"Track00001"],
    }), notes, mix


def _cerberus4(pitch: int) -> tuple[bytes, Notes, np.ndarray]:
    return _slakh(pitch, ("bass", "drums", "guitar", "piano"), (32, 0, 24, 0))


_MAKERS = {"maestrov1": _maestro, "maestrov3": _maestro, "guitarset": _guitarset, "urmp": _urmp,
           "musicnet": _musicnet, "musicnet_em": _musicnet, "cerberus4": _cerberus4, "slakh": _slakh}
