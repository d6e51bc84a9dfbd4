"""Finds which files belong together, and what is wrong with them.

A generated file, its reference and its notes share their path below the folder
without the suffix (`a/song.wav`, `a/song.flac`, `a/song.mid`), or else their bare
name, where that is unmistakable. Whatever cannot be used becomes a `Problem`;
the rest is scored.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Container

from music_diffusion.errors import UserError
from music_diffusion.evaluation.conversions import style_files
from music_diffusion.evaluation.plan import FOLDERS, EvaluationPlan
from music_diffusion.notes.conversions import Conversion, ConversionTable
from music_diffusion.paths import name_key, restored
from music_diffusion.tables import read_table

# libsndfile's formats by their usual suffixes.
AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc"})
NOTES = frozenset({".mid", ".midi"})

# Kinds of problems and how the report heads them, the gravest first.
KINDS = {
    "unreadable": "Cannot be read",
    "notes_unreadable": "Notes cannot be read",
    "silent": "Silent",
    "too_short": "Too short",
    "missing_pair": "Without a counterpart",
    "notes_missing": "Without notes",
    "ambiguous": "Same name twice",
    "no_group": "Without a group",
    "unpaired": "No pairs",
    "one_file": "Only one file",
    "length": "Different lengths",
    "notes_length": "Notes beyond the audio",
    "sample_rate": "Different sample rates",
    "stereo": "More than one channel",
    "notes_unused": "Notes without audio",
}


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """Something that a person should know about a file."""

    kind: str  # of KINDS
    file: str  # path, or a folder
    what: str  # is the case
    advice: str  # what it means for the scores, or what to do


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemFiles:
    """Files that belong together; at least one of the two recordings is there."""

    name: str  # `name_key` of the path below the folder, without suffix
    generated: str | None = None  # paths
    reference: str | None = None
    notes: str | None = None
    group: str | None = None
    source: str | None = None  # of a transfer
    conversion: Conversion | None = None  # who plays in it, and who should
    style: str | None = None  # what it should sound like

    @property
    def paired(self) -> bool:
        return self.generated is not None and self.reference is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairing:
    """All files, and what was found while looking for them."""

    items: list[ItemFiles]
    problems: list[Problem]


def find_files(root: str, suffixes: frozenset[str], what: str) -> tuple[dict[str, str], list[Problem]]:
    """Finds files below a folder by their path without suffix, in order; hidden ones are left out.

    Paths are compared by `name_key`, and the keys are such. A single file instead of a folder is
    found as itself.

    Raises:
      UserError: no such folder, or nothing of the kind in it.
    """
    path = pathlib.Path(root)
    if path.is_file():
        return {name_key(path.stem): str(path)}, []
    if not path.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of the {what} files")
    found: dict[str, str] = {}
    problems = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in suffixes:
                continue
            file = pathlib.Path(folder, name)
            key = name_key(file.relative_to(path).with_suffix("").as_posix())
            if key in found:
                problems.append(Problem(
                    kind="ambiguous", file=str(file), what=f"{found[key]} has the same name",
                    advice="this one is left out; rename one of them"))
            else:
                found[key] = str(file)
    if not found:
        raise UserError(f"{root}: has no {what} files ({', '.join(sorted(suffixes))})")
    return dict(sorted(found.items())), problems


def match_names(a: dict[str, str], b: dict[str, str]) -> dict[str, str]:
    """Matches keys of a with keys of b: equal ones, then bare names that are single on both sides.

    One file each side belong together whatever their names.
    """
    matches = {key: key for key in a if key in b}
    rest_a, rest_b = _by_stem(a.keys() - matches), _by_stem(b.keys() - matches)
    for stem, keys in rest_a.items():
        others = rest_b.get(stem, [])
        if len(keys) == len(others) == 1:
            matches[keys[0]] = others[0]
    if len(a) == len(b) == 1:
        matches = dict(zip(a, b, strict=True))
    return matches


def _by_stem(keys) -> dict[str, list[str]]:
    stems = collections.defaultdict(list)
    for key in sorted(keys):
        stems[key.rpartition("/")[2]].append(key)
    return stems


class GroupTable:
    """Groups from a CSV with a column `file` and one of groups.

    A row is about the files whose full path, without suffix, ends with the
    row's. So `test/00000.flac` in `renders.csv` is not `train/00000.flac`. For
    other files the bare name counts, where no other row has it.
    """

    def __init__(self, path: str, column: str):
        self._groups: dict[tuple[str, ...], str] = {}
        for row in read_table(path, ("file", column), advice="give a CSV file with it"):
            if row["file"] and row[column]:
                self._groups[_ending(restored(row["file"]))] = row[column]
        if not self._groups:
            raise UserError(f"{path}: no row names a file and a {column}")
        times = collections.Counter(parts[-1] for parts in self._groups)
        self._by_stem = {parts[-1]: group for parts, group in self._groups.items()
                         if times[parts[-1]] == 1}

    def of(self, path: str | None) -> str | None:
        """Returns the group of a file, by the most exact of the rows that fit."""
        if path is None:
            return None
        parts = _ending(os.path.abspath(path))
        for length in range(len(parts), 0, -1):
            if group := self._groups.get(parts[-length:]):
                return group
        return self._by_stem.get(parts[-1])


class FolderGroups:
    """Groups by folders: that of a file is the folder that it lies in."""

    def of(self, path: str | None) -> str | None:
        """Returns the name of the folder, in either spelling of an accent."""
        return None if path is None else name_key(os.path.basename(os.path.dirname(os.path.abspath(path))))


def open_groups(groups: str, column: str) -> GroupTable | FolderGroups:
    """Returns the groups of a table, or of FOLDERS. Raises UserError as `GroupTable` does."""
    return FolderGroups() if groups == FOLDERS else GroupTable(groups, column)


def _ending(path: str) -> tuple[str, ...]:
    """The parts of a path, without the suffix of audio or notes, as `name_key` compares them."""
    stem, suffix = os.path.splitext(name_key(path.strip()).replace("\\", "/"))
    kept = stem if suffix.lower() in AUDIO | NOTES else stem + suffix
    return tuple(part for part in kept.split("/") if part not in ("", "."))


def pair_files(plan: EvaluationPlan) -> Pairing:
    """Finds the files of a plan.

    Raises:
      UserError: a folder is missing or has no files of its kind, or the table of
        groups cannot be used.
    """
    if plan.generated is None:
        raise ValueError("plan.generated is None: render the notes first")
    generated, problems = find_files(plan.generated, AUDIO, "audio")
    reference, more = find_files(plan.reference, AUDIO, "audio")
    problems += more
    matches = match_names(generated, reference)
    items = [ItemFiles(name=key, generated=path, reference=reference.get(matches.get(key, "")))
             for key, path in generated.items()]
    used = set(matches.values())
    items += [ItemFiles(name=key, reference=path) for key, path in reference.items() if key not in used]
    if matches:
        problems += [_missing_pair(item) for item in items if not item.paired]
    else:
        problems.append(Problem(
            kind="unpaired", file=plan.generated,
            what=f"no name in common with {plan.reference}",
            advice="only the sets are compared (Fréchet and kernel distances, groups), not file by "
                   "file; give files that belong together the same names"))
    for count, root in ((len(generated), plan.generated), (len(reference), plan.reference)):
        if count == 1:
            problems.append(Problem(
                kind="one_file", file=root, what="is one file",
                advice="there is no spread over files: no intervals, and no floor or no unrelated "
                       "score to compare with; give more files"))
    if plan.notes is not None:
        items, more = _with_notes(items, plan.notes)
        problems += more
    if plan.groups is not None:
        items, more = _with_groups(items, open_groups(plan.groups, plan.group_column), plan)
        problems += more
    if plan.sources is not None:
        sources, more = find_files(plan.sources, AUDIO, "audio")
        problems += more
        items = [dataclasses.replace(item, source=sources.get(item.name)) for item in items]
    if plan.conversions is not None:
        table = ConversionTable(plan.conversions)
        items = [dataclasses.replace(item, conversion=table.of(item.name)) for item in items]
        if plan.styles is not None:
            recordings, more = find_files(plan.styles, AUDIO, "audio")
            problems += more
            styles = style_files({item.name: item.conversion for item in items
                                  if item.conversion is not None}, recordings)
            items = [dataclasses.replace(item, style=styles.get(item.name)) for item in items]
    return Pairing(items=sorted(items, key=lambda item: item.name), problems=problems)


def _missing_pair(item: ItemFiles) -> Problem:
    other = "reference" if item.generated else "generated file"
    return Problem(kind="missing_pair", file=item.generated or item.reference or "",
                   what=f"no {other} of this name",
                   advice="it counts in the set metrics (Fréchet and kernel distances) alone")


def _with_notes(items: list[ItemFiles], root: str) -> tuple[list[ItemFiles], list[Problem]]:
    """Gives items their notes; several may have the same: one score, played by many."""
    notes, problems = find_files(root, NOTES, "MIDI")
    stems = _by_stem(notes)
    used, result = set(), []
    for item in items:
        same = stems.get(item.name.rpartition("/")[2], [])
        key = _longest_ending(item.name, notes) or (same[0] if len(same) == 1 else None)
        if key is None and len(items) == len(notes) == 1:
            key = next(iter(notes))
        if key is None:
            several = f"{len(same)} MIDI files have its name" if same else "no MIDI file of this name"
            problems.append(Problem(
                kind="notes_missing", file=item.generated or item.reference or "", what=several,
                advice="its notes are not scored; name the MIDI file like the audio"))
        else:
            used.add(key)
        result.append(dataclasses.replace(item, notes=notes[key] if key is not None else None))
    if len(used) < len(notes):
        problems.append(Problem(kind="notes_unused", file=root,
                                what=f"{len(notes) - len(used)} of {len(notes)} MIDI files have no audio",
                                advice="they are left out"))
    return result, problems


def _longest_ending(name: str, known: Container[str]) -> str | None:
    """Returns a/b/c, else b/c, if it is known; a bare name is left to those who count its bearers."""
    while name not in known:
        name = name.partition("/")[2]
        if "/" not in name:
            return None
    return name


def _with_groups(items: list[ItemFiles], table: GroupTable | FolderGroups, plan: EvaluationPlan
                 ) -> tuple[list[ItemFiles], list[Problem]]:
    items = [dataclasses.replace(item, group=table.of(item.generated) or table.of(item.reference))
             for item in items]
    problems = [Problem(kind="no_group", file=item.generated or item.reference or "",
                        what=f"is in no row of {plan.groups}",
                        advice="it counts in no group; add a row with its path")
                for item in items if item.group is None]
    if len(problems) == len(items):
        raise UserError(f"{plan.groups}: no row is about a file of {plan.generated} or {plan.reference}; "
                        "its column file must hold their paths or the ends of them")
    return items, problems
