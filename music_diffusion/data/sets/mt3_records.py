"""MT3's data sets (Gardner et al., 2022) as it stores them: TFRecords of audio and NoteSequences.

The names of files and features are those of `mt3/datasets.py` of magenta/mt3,
what is done with them that of its `preprocessors.py`. Each record is a
tf.train.Example of one piece. Records are found by their headers and read when
they are needed; an item is named after its file and the record's number.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import re
from collections.abc import Iterator, Mapping

import numpy as np
import soundfile

from music_diffusion.data.items import DRUM_PROGRAM, SPLITS, Item, Listing
from music_diffusion.data.sets import urmp
from music_diffusion.data.sounds import EmbeddedAudio
from music_diffusion.data.tf_example import parse, parse_floats
from music_diffusion.data.tf_records import RecordError, read_record, record_offsets
from music_diffusion.errors import UserError
from music_diffusion.notes.note_sequence import from_note_sequence
from music_diffusion.notes.note_sequence_proto import parse_note_sequence
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordLayout:
    """Names of the files and features of one data set."""

    files: Mapping[str, str]  # split → file name up to .tfrecord
    audio: str = "audio"  # feature: a WAV file, or samples
    sample_rate: str | None = None  # feature: Hz of the samples; None: `audio` is a WAV file
    sequences: str = "sequence"  # feature: the NoteSequence, or one for each instrument
    programs: Mapping[str, int] | None = None  # of `inst_names`, one a sequence; None: as in the notes
    program: int | None = None  # of all notes; None: as in the notes
    velocities: bool = False  # whether notes say how hard they are struck


def _slakh(files: Mapping[str, str], programs: Mapping[str, int]) -> RecordLayout:
    return RecordLayout(files=files, audio="mix", sample_rate="audio_sample_rate",
                        sequences="note_sequences", programs=programs, velocities=True)


def _each(pattern: str, splits: tuple[str, ...] = SPLITS) -> dict[str, str]:
    return {split: pattern.format(split=split) for split in splits}


# By the names of MT3's configs.
LAYOUTS: Mapping[str, RecordLayout] = {
    "maestrov1": RecordLayout(files=_each("maestro-v1.0.0_ns_wav_{split}"), velocities=True),
    "maestrov3": RecordLayout(files=_each("maestro-v3.0.0_ns_wav_{split}"), velocities=True),
    "guitarset": RecordLayout(files=_each("{split}", SPLITS[:2]), program=24),
    "urmp": RecordLayout(files=_each("{split}", SPLITS[:2]), sequences="instrument_sequences",
                         programs=urmp.PROGRAMS),
    "musicnet": RecordLayout(files=_each("musicnet-{split}"), sample_rate="sample_rate"),
    "musicnet_em": RecordLayout(files=_each("{split}"), sample_rate="sample_rate"),
    "cerberus4": _slakh(_each("slakh_multi_cerberus_{split}_bass:drums:guitar:piano"),
                        {"bass": 32, "drums": DRUM_PROGRAM, "guitar": 24, "piano": 0}),
    "slakh": _slakh({"train": "slakh_multi_full_subsets_10_train_all_inst",
                     "validation": "slakh_multi_full_validation_all_inst",
                     "test": "slakh_multi_full_test_all_inst"},
                    {"Drums": DRUM_PROGRAM, **{c.name: c.programs[0] for c in SLAKH_CLASSES}}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mt3Records:
    """The records of one of MT3's data sets. They name no performances and no stems."""

    folder: str  # holds the .tfrecord files, and no other data set's
    config: str = "maestrov3"  # MT3's name of the data set, of LAYOUTS

    def __post_init__(self):
        if self.config not in LAYOUTS:
            raise UserError(f"config {self.config!r} is none of MT3's: {', '.join(LAYOUTS)}")

    def list(self) -> Listing:
        if not os.path.isdir(self.folder):
            raise UserError(f"{self.folder}: no such folder; give the one with MT3's .tfrecord files")
        items, skipped = _find(self.folder, self.config)
        if not items:
            reasons = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise UserError(f"{self.folder}: no records of {self.config} there{reasons}; give the folder "
                            "with its files, named as MT3 names them, or another config")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict:
        return {"config": self.config}


def _find(folder: str, config: str) -> tuple[list[Item], list[tuple[str, str]]]:
    """Finds the items, and what cannot be used."""
    items: list[Item] = []
    skipped = []
    for split, stem in LAYOUTS[config].files.items():
        names, lack = _shards(folder, stem)
        if lack is not None:
            skipped.append((f"{stem}.tfrecord", lack))
        for name in names:
            try:
                items += _items(folder, name, split, config)
            except RecordError as e:
                skipped.append((name, str(e).removeprefix(f"{os.path.join(folder, name)}: ")))
    return items, skipped


def _items(folder: str, name: str, split: str, config: str) -> Iterator[Item]:
    path = os.path.join(folder, name)
    for number, offset in enumerate(record_offsets(path).tolist()):
        place = (path, number, offset, config)
        yield Item(
            name=f"{name}/{number:05d}", split=split,
            audio=EmbeddedAudio(path=path, name=f"record {number}",
                                load=functools.partial(read_audio, *place)),
            notes=functools.partial(read_notes, *place), note_files=(path,),
            velocities=LAYOUTS[config].velocities)


def read_audio(path: str, number: int, offset: int, config: str) -> bytes:
    """Reads the audio of one record as a WAV file.

    Args:
      path: the TFRecord file.
      number: of the record, counted from 0; for messages.
      offset: bytes of the file before the record.
      config: MT3's name of the data set.

    Raises:
      UserError: the file is damaged or holds something else.
    """
    layout, data = LAYOUTS[config], read_record(path, number, offset)
    try:
        if layout.sample_rate is None:
            return _feature(data, layout.audio, bytes)[0]
        rate = round(_feature(data, layout.sample_rate, (int, float))[0])
        return _wav(parse_floats(data, layout.audio), rate)
    except (UserError, ValueError) as e:
        raise _named(e, path, number, config) from e


def read_notes(path: str, number: int, offset: int, config: str) -> Notes:
    """Reads the notes of one record; arguments and errors as in `read_audio`."""
    layout, data = LAYOUTS[config], read_record(path, number, offset)
    try:
        parts = [from_note_sequence(parse_note_sequence(sequence))
                 for sequence in _feature(data, layout.sequences, bytes)]
        if layout.programs is not None:
            names = [name.decode() for name in _feature(data, "inst_names", bytes)]
            if len(names) != len(parts):
                raise UserError(f"{len(names)} instruments for {len(parts)} sequences")
            parts = [_with_program(notes, _program(layout.programs, name))
                     for notes, name in zip(parts, names, strict=True)]
        elif layout.program is not None:
            parts = [_with_program(notes, layout.program) for notes in parts]
        return Notes.concatenate(parts)
    except (UserError, ValueError) as e:
        raise _named(e, path, number, config) from e


def _shards(folder: str, stem: str) -> tuple[list[str], str | None]:
    """Finds the files of one split, and what is wrong with them."""
    pattern = re.compile(re.escape(stem) + r"\.tfrecord(?:-(\d{5})-of-(\d{5}))?")
    matches = [m for name in sorted(os.listdir(folder)) if (m := pattern.fullmatch(name))]
    if not matches:
        return [], "no such files; download them, if you need this split"
    counts = {int(m[2]) if m[2] else 1 for m in matches}
    if len(counts) > 1:
        raise UserError(f"{folder}: {matches[0][0]} and {matches[-1][0]} are of different data sets; "
                        "keep each in its own folder")
    count = counts.pop()
    lack = None if len(matches) == count else f"only {len(matches)} of {count} files; download the others"
    return [m[0] for m in matches], lack


def _feature(data: bytes, name: str, kind: type | tuple[type, ...]) -> list:
    values = parse(data, (name,)).get(name)
    if not values or not isinstance(values[0], kind):
        raise UserError(f"no feature {name!r} with values of its kind")
    return values


def _program(programs: Mapping[str, int], instrument: str) -> int:
    if instrument not in programs:
        raise UserError(f"instrument {instrument!r} is none of {', '.join(programs)}")
    return programs[instrument]


def _with_program(notes: Notes, program: int) -> Notes:
    drums = program == DRUM_PROGRAM
    return dataclasses.replace(notes, program=np.full(len(notes), 0 if drums else program),
                               is_drum=np.full(len(notes), drums))


def _wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """Returns a WAV file of float samples, which changes none of them."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _named(error: Exception, path: str, number: int, config: str) -> UserError:
    return UserError(f"{path}: record {number} (counted from 0): {error}; "
                     f"check that these are MT3's {config} records")
