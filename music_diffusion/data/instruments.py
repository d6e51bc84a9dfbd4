"""Instruments of recorded notes: which file sounds for a key and a velocity.

    FOLDER/instruments.csv              programs, layers and kind of each instrument
    FOLDER/piano/notes.csv, *.opus      its files: file, midi, layer, onset_seconds, peak, cents_off
    FOLDER/guitar.sfz                   or what SFZ says of them

A row of instruments.csv is an instrument; a folder may have several (bowed and plucked). Its columns:

    instrument  folder with a notes.csv, or an .sfz file, below the table's folder
    programs    General MIDI programs 0..127 that it plays, such as `0-5 7`, or `drums`
    kind        decaying | sustained | drum; empty: as is usual for the first program
    layers      soft to loud, `pp|p|f`; NAME@80 ends a layer at velocity 80; empty: by peaks
    keys        lowest and highest key, `40-76`; of drums their keys with layers, `36=Kick 38,40=Snare+Rim`
    release     seconds in which a note loses 60 dB after its end; `ring`: it rings on
    cents       files whose pitch is measured further off are left out (60); `any`: none
    gain_db     level beside the other instruments

A layer is a name of the column `layer`, or a pattern of file names (`*_soft_*`); A+B joins two. Files
whose layer is empty belong to all layers where `layers` is empty. Of notes.csv only `file` and `midi` (not
for drums) are needed.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import os
from collections.abc import Iterable, Sequence

import numpy as np

from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.data.note_files import (
    NOTES,
    NoteFile,
    is_key,
    note_files,
    number_in,
    warn_of_misspelt,
)
from music_diffusion.data.samples import Sample, loop_of_wav, warn
from music_diffusion.data.sfz import files_of_sfz, read_sfz
from music_diffusion.data.zones import (
    CENTS,
    DECAYING,
    DRUM,
    KINDS,
    RELEASE,
    SUSTAINED,
    Instrument,
    Zone,
)
from music_diffusion.errors import UserError
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM, SLAKH_CLASSES
from music_diffusion.tables import Row, read_table

INSTRUMENTS, SFZ = "instruments.csv", ".sfz"
# What is read; other columns are for people.
INSTRUMENT_COLUMNS = ("instrument", "programs", "kind", "layers", "keys", "release", "cents", "gain_db",
                      "name")
RING = "ring"
MOST_GAIN = 60.0  # dB, up or down
HIT_LAYER = 10 ** (-3 / 20)  # hits of a drum whose peaks are within 3 dB stand for each other
# Programs of instruments that sound as long as they are played, in the order of General MIDI.
SUSTAINED_PROGRAMS = (*range(16, 24), *range(40, 45), *range(48, 55), *range(56, 104), 109, 110, 111)


def split_source(source: str) -> tuple[str, tuple[int, ...] | None]:
    """Parts `FOLDER@PROGRAMS` into path and programs, which are None where the path has none.

    Raises UserError where the programs are none.
    """
    path, at, text = source.rpartition("@")
    if not at or os.path.exists(source):
        return source, None
    return path, parse_programs(text, source)


def table_files(source: str) -> tuple[str, ...]:
    """Returns the files that say what a sampler plays: tables and .sfz files. Raises UserError."""
    path, _ = split_source(source)
    table = _table_of(path)
    if table is None:
        return (path,) if _is_sfz(path) else (os.path.join(path, NOTES),)
    of = [os.path.join(os.path.dirname(table), row["instrument"].strip()) for row in _rows(table)]
    return (table, *dict.fromkeys(p if _is_sfz(p) else os.path.join(p, NOTES) for p in of))


def sound_files(source: str) -> tuple[str, ...]:
    """Returns all files that the sound depends on but `table_files`: samples and includes of SFZ files.

    Raises UserError.
    """
    includes = [other for path in table_files(source) if _is_sfz(path) for other in files_of_sfz(path)[1:]]
    samples = [zone.sample.path for x in read_instruments(source) for zone in x.zones]
    return tuple(dict.fromkeys((*includes, *samples)))


def _is_sfz(path: str) -> bool:
    return path.lower().endswith(SFZ)


@functools.lru_cache(maxsize=16)
def read_instruments(source: str) -> tuple[Instrument, ...]:
    """Reads the instruments of a folder, of a table like instruments.csv, or of an .sfz file.

    Args:
      source: its path; with `@PROGRAMS` (such as `piano@0-7`) where a folder has only notes.csv, or for
        an .sfz file.

    Warns of files that are left out. Raises UserError: no such thing, or a table that cannot be used.
    """
    path, programs = split_source(source)
    table = _table_of(path)
    if table is None:
        if programs is None:
            raise UserError(f"{path}: which programs does it play? Write {path}@0-7, or an {INSTRUMENTS}")
        return (_instrument({"instrument": path}, path, programs, path),)
    if programs is not None:
        raise UserError(f"{source}: {table} says which programs it plays; leave @… out")
    result = []
    for where, row in zip(_places(table), _rows(table), strict=True):
        below = os.path.join(os.path.dirname(table), row["instrument"].strip())
        result.append(_instrument(row, below, parse_programs(row.get("programs") or "", where), where))
    return tuple(result)


def parse_programs(text: str, where: str) -> tuple[int, ...]:
    """Reads `0-5 7` or `drums`. Raises UserError."""
    result: list[int] = []
    for part in text.replace(",", " ").split():
        if part.lower() == "drums":
            result.append(DRUM_PROGRAM)
            continue
        low, _, high = part.partition("-")
        if not (is_key(low) and is_key(high or low) and int(low) <= int(high or low)):
            raise UserError(f"{where}: {part!r} are no programs; write such as 0-7, or drums")
        result.extend(range(int(low), int(high or low) + 1))
    if not result:
        raise UserError(f"{where}: no programs; say which it plays, such as 0-7, or drums")
    return tuple(dict.fromkeys(result))


def _table_of(path: str) -> str | None:
    """Returns the table of instruments at a path, None for a single instrument. Raises UserError."""
    if os.path.isfile(path) and path.lower().endswith((".csv", SFZ)):
        return None if _is_sfz(path) else path
    if os.path.isfile(os.path.join(path, INSTRUMENTS)):
        return os.path.join(path, INSTRUMENTS)
    if not os.path.exists(path):
        raise UserError(f"{path}: no such folder or file; give a folder with {INSTRUMENTS} or {NOTES}, or "
                        "an .sfz file")
    if not os.path.isfile(os.path.join(path, NOTES)):
        raise UserError(f"{path}: no samples; give a folder with {INSTRUMENTS} or {NOTES}, or an .sfz file")
    return None


@functools.lru_cache(maxsize=16)
def _read(table: str):
    found = read_table(table, ("instrument", "programs"), advice="see `data.instruments`")
    if not len(found):
        raise UserError(f"{table}: has no rows; give one for each instrument")
    warn_of_misspelt(found, INSTRUMENT_COLUMNS)
    return found


def _rows(table: str) -> Sequence[Row]:
    return _read(table).rows


def _places(table: str) -> list[str]:
    return [f"{table}, line {line}" for line in _read(table).lines]


def _instrument(row: Row, path: str, programs: tuple[int, ...], where: str) -> Instrument:
    """Makes an instrument of a row of instruments.csv."""
    kind = (row.get("kind") or "").strip() or usual_kind(programs[0])
    if kind not in KINDS:
        raise UserError(f"{where}: kind {kind!r}; choose {', '.join(KINDS)}")
    if (kind == DRUM) != (programs == (DRUM_PROGRAM,)):
        raise UserError(f"{where}: kind {kind} does not go with its programs; drums are `drums`, alone")
    gain = 10 ** (number_in(row, "gain_db", 0.0, where, (-MOST_GAIN, MOST_GAIN)) / 20)
    rings = (row.get("release") or "").strip() == RING
    release = math.inf if rings else number_in(row, "release", RELEASE[kind], where, (0, math.inf))
    name = (row.get("name") or "").strip() or os.path.basename(os.path.normpath(path))
    if kind != DRUM:
        _check_class(name, programs)
    if _is_sfz(path):
        zones, given = read_sfz(path, sustained=kind == SUSTAINED), (row.get("release") or "").strip()
        zones = tuple(dataclasses.replace(z, gain=z.gain * gain, release=None if given else z.release)
                      for z in zones)
        return Instrument(name=name, zones=zones, programs=programs, kind=kind, release=release,
                          keys=(0, 127) if kind == DRUM else _keys(row, where), layered=True)
    files = note_files(path)
    if kind == DRUM:
        zones, keys = _kit(files, row, where), (0, 127)
    else:
        zones, keys = _pitched(name, files, row, kind == SUSTAINED, where), _keys(row, where)
    zones = tuple(dataclasses.replace(z, gain=z.gain * gain) for z in zones)
    return Instrument(name=name, zones=zones, programs=programs, kind=kind, release=release, keys=keys)


def _check_class(name: str, programs: tuple[int, ...]) -> None:
    """Warns of an instrument that plays programs of several classes: as such its notes are labelled."""
    classes = sorted({int(SLAKH_CLASS_OF_PROGRAM[program]) for program in programs})
    if len(classes) > 1:
        names = " and ".join(SLAKH_CLASSES[kind].name for kind in classes)
        warn(f"{name}: plays programs of several instruments ({names}); what learns to name instruments "
             "learns this one's sound as each of them")


def usual_kind(program: int) -> str:
    """Returns the kind of instrument that a program is, as a rule."""
    if program == DRUM_PROGRAM:
        return DRUM
    return SUSTAINED if program in SUSTAINED_PROGRAMS else DECAYING


def _pitched(name: str, files: Sequence[NoteFile], row: Row, sustained: bool, where: str) -> list[Zone]:
    """Makes zones of files with pitches: a range of velocities for each layer."""
    text = (row.get("cents") or "").strip()
    most = math.inf if text == "any" else number_in(row, "cents", CENTS, where, (0, math.inf))
    pitched = [f for f in files if f.midi is not None]
    right = [f for f in pitched if abs(f.cents) <= most]
    if len(right) < len(pitched):
        wrong = max(pitched, key=lambda f: abs(f.cents))
        warn(f"{name}: {len(pitched) - len(right)} of {len(pitched)} samples are left out: their measured "
             f"pitch is off by more than {most:g} cents ({wrong.name})")
    zones = []
    for chosen, velocities in _layers(right, (row.get("layers") or "").strip(), where):
        usual = float(np.median([f.peak for f in chosen]))
        zones += [Zone(
            sample=Sample(path=f.path, onset=f.onset, loop=loop_of_wav(f.path), sustained=sustained),
            # What is off by more is measured wrongly, or `any` says so.
            pitch=f.midi + (0.01 * f.cents if abs(f.cents) <= CENTS else 0.0),
            velocities=velocities, gain=1 / usual) for f in chosen if f.midi is not None]
    return zones


def _layers(files: Sequence[NoteFile], text: str, where: str
            ) -> list[tuple[list[NoteFile], tuple[int, int]]]:
    """Returns the files of each layer, soft to loud, with lowest and highest velocity."""
    if not text:
        names = sorted({f.layer for f in files if f.layer}, key=lambda name: float(
            np.median([f.peak for f in files if f.layer == name]))) or [""]
        groups = [[f for f in files if f.layer in (name, "")] for name in names]
        ends: list[int | None] = [None] * len(groups)
    else:
        terms = [part.strip().partition("@") for part in text.split("|")]
        groups = [_selected(files, name, where) for name, _, _ in terms]
        for _, at, end in terms:
            if at and not is_key(end.strip()):
                raise UserError(f"{where}: layers {text!r}; after @ write a velocity of 1 to 127")
        ends = [int(end) if at else None for _, at, end in terms]
    if not any(groups):
        raise UserError(f"{where}: no sample with a pitch; fill the column midi of {NOTES}")
    even = np.round(np.linspace(0, 127, len(groups) + 1)).astype(int)[1:].tolist()
    highest = [given or usual for given, usual in zip(ends, even, strict=True)]
    highest[-1] = 127
    if sorted(set(highest)) != highest:
        raise UserError(f"{where}: layers end at velocities {highest}; let them rise")
    lowest = [1, *(h + 1 for h in highest[:-1])]
    return [(group, bounds) for group, bounds in zip(groups, zip(lowest, highest, strict=True), strict=True)
            if group]


def _selected(files: Iterable[NoteFile], names: str, where: str) -> list[NoteFile]:
    """Returns the files of layers and patterns, joined by +. Raises UserError where one has none."""
    result: list[NoteFile] = []
    files = list(files)
    for name in (part.strip() for part in names.split("+")):
        pattern = any(c in name for c in "*?[")
        found = [f for f in files if (fnmatch.fnmatchcase(f.name, name) if pattern else f.layer == name)]
        if not found:
            known = ", ".join(sorted({f.layer for f in files if f.layer})) or "none"
            raise UserError(f"{where}: no file of layer {name!r}; there are {known}, and patterns of files")
        result += [f for f in found if f not in result]
    return result


def _kit(files: Sequence[NoteFile], row: Row, where: str) -> list[Zone]:
    """Makes zones of drums: hits of about one strength take turns, stronger ones have higher velocities.

    A hit sounds by itself as strong as its velocity: files differ in colour, not in level.
    """
    keys: dict[int, list[NoteFile]] = {}
    for part in (row.get("keys") or "").split():
        numbers, equals, names = part.partition("=")
        if not equals or not all(is_key(n) for n in numbers.split(",")):
            raise UserError(f"{where}: {part!r} is no drum key; write such as 36=Kick 38,40=Snare")
        for key in map(int, numbers.split(",")):
            if key in keys:
                raise UserError(f"{where}: drum key {key} is given twice; join its layers with +")
            keys[key] = _selected(files, names, where)
    if not keys:
        raise UserError(f"{where}: drums need keys, such as 36=Kick 38,40=Snare")
    loudest = max(f.peak for hits in keys.values() for f in hits)
    return [zone for key, hits in sorted(keys.items()) for zone in _drum(key, hits, loudest)]


def _drum(key: int, hits: Sequence[NoteFile], loudest: float) -> list[Zone]:
    hits = sorted(hits, key=lambda f: -f.peak)
    strongest = hits[0].peak
    groups = [[hits[0]]]
    for hit in hits[1:]:
        if hit.peak >= HIT_LAYER * groups[-1][0].peak:
            groups[-1].append(hit)
        else:
            groups.append([hit])
    # Amplitude is the square of velocity.
    natural = [127 * math.sqrt(float(np.mean([f.peak for f in group])) / strongest) for group in groups]
    bounds = [127, *(round(math.sqrt(a * b)) for a, b in zip(natural, natural[1:], strict=False)), 0]
    return [Zone(sample=Sample(path=f.path, onset=f.onset), keys=(key, key),
                 velocities=(low + 1, high), gain=strongest / loudest / f.peak)
            for group, high, low in zip(groups, bounds, bounds[1:], strict=False) for f in group]


def _keys(row: Row, where: str) -> tuple[int, int]:
    text = (row.get("keys") or "").strip()
    if not text:
        return 0, 127
    low, dash, high = text.partition("-")
    if not (dash and is_key(low.strip()) and is_key(high.strip()) and int(low) <= int(high)):
        raise UserError(f"{where}: keys {text!r}; write the lowest and the highest of 0 to 127, such "
                        "as 40-76")
    return int(low), int(high)
