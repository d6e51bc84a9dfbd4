"""Members of a data set → shards of messages and a manifest: resumable, parallel, checked.

A member's shard is a hash of its name, or its own choice, and a shard is written again
only if its members have changed: an interrupted run goes on where it was. The manifest
says that the folder is unfinished until all is written.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from music_diffusion import __version__
from music_diffusion.audio.codec import RETIRED
from music_diffusion.data import records
from music_diffusion.data.items import SPLITS
from music_diffusion.data.parallel import Runner, run_tasks
from music_diffusion.data.splits import share
from music_diffusion.errors import UserError
from music_diffusion.files import PART, replacing
from music_diffusion.paths import check_utf8
from music_diffusion.types import StepProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardMember:
    """Member of a shard: content that messages are made of, such as a file. Picklable."""

    name: str  # unique
    split: str  # of SPLITS
    state: tuple  # what its messages depend on, for JSON: sizes and times of files
    content: Any = None  # for the maker
    shard: int | None = None  # its shard's number; None: by a hash of the name

    def identity(self) -> list:
        """Returns name and state as JSON gives them back."""
        return json.loads(json.dumps([self.name, *self.state]))


class Account:
    """Counts that the maker of messages keeps of a shard."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = collections.defaultdict(float)  # such as seconds
        self.lengths: list[int] = []  # of every record, in frames, if it has a length
        self.styles: list[str | None] = []  # of every record, if it has a style
        self.labels: dict[str, set[str]] = collections.defaultdict(set)


Maker = Callable[[ShardMember, Account], Iterator[bytes]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """Facts of one shard, kept beside it."""

    members: list[list]  # `ShardMember.identity` of each
    records: int
    totals: dict[str, float]
    lengths: list[int]
    labels: dict[str, list[str]]
    skipped: list[list[str]]  # member, reason
    checksum: str | None  # SHA-256 of the shard; None where it has no record and is not there
    styles: list[str | None] = dataclasses.field(default_factory=list)  # of every record, if known


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Plan by which members become shards."""

    kind: str  # of the records, so that a folder is not taken for one of another kind
    options: Mapping[str, Any]  # what the records depend on, for JSON
    maker: Maker  # picklable; messages of a member. A UserError of it puts the member among the skipped
    shards: int = 32  # of a split, at most, for members that do not choose
    seed: int = 0  # of the hash
    suffix: str = records.ARRAY_RECORD  # of the shards: the container
    refuse: bool = False  # end with the first member that cannot be used, rather than skip it
    workers: int = 2  # processes


def write_shards(plan: ShardPlan, members: Sequence[ShardMember], destination: str, *,
                 skipped: Sequence[Sequence[str]] = (), more: Mapping[str, Any] | None = None,
                 progress: StepProgress = lambda i, n: None,
                 run: Runner = run_tasks) -> dict:
    """Writes what is missing, and the manifest, which it returns.

    Args:
      plan, members: what to write.
      destination: folder.
      skipped: what was left out beforehand, with reasons, for the manifest.
      more: further facts for the manifest.
      progress: takes (finished shards, shards in all).
      run: runs tasks, here over processes or elsewhere (`data.beam`).

    Raises:
      UserError: the destination holds other data or records made with other
        options; training or validation gets nothing; the disk is full.
    """
    check_utf8(destination)
    out = pathlib.Path(destination)
    claim(out, plan)
    shards = _shards(plan, members)
    _remove_others(out, {_name(*key) for key in shards})
    tasks = [(_name(*key), of_shard) for key, of_shard in shards.items()]
    facts = run(WriteShard(plan=plan, destination=destination), tasks, plan.workers, progress)
    manifest = _manifest(plan, members, dict(zip(shards, facts, strict=True)), skipped)
    for split in ("train", "validation"):
        if not manifest["records"][split]:
            reasons = "; ".join(f"{name}: {why}" for name, why in manifest["skipped"][:3])
            raise UserError(f"{out}: nothing usable for {split} ({reasons or 'no item'})")
    manifest |= more or {}
    records.write_manifest(out, **manifest)
    return manifest


def claim(out: pathlib.Path, plan: ShardPlan) -> None:
    """Makes the folder, or sees that it is one of ours; its manifest is unfinished from here.

    Raises UserError where it holds other data, or records made with other options.
    """
    note = out / records.MANIFEST
    options = json.loads(json.dumps(dict(plan.options)))
    if note.is_file():
        try:
            its = json.loads(note.read_text())
            ours, its_options = its["kind"] == plan.kind, dict(its["options"])
            if isinstance(its_codec := its_options.get("codec"), dict):  # maybe of an earlier version
                its_options["codec"] = {k: v for k, v in its_codec.items() if k not in RETIRED}
        except (ValueError, TypeError, KeyError):
            ours, its_options = False, {}
        if not ours:
            raise UserError(f"{out}: holds other data; choose another folder")
        for name, value in options.items():
            if its_options.get(name) != value:
                raise UserError(f"{out}: was made with {name} {its_options.get(name)}, not {value}; "
                                "choose another folder, or delete this one")
    elif any(records.find_shards(out)):
        raise UserError(f"{out}: holds other data; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(note, {"kind": plan.kind, "complete": False, "options": options})


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriteShard:
    """Writes a shard, a task of name and members, and its facts. Picklable."""

    plan: ShardPlan
    destination: str  # folder

    def _path(self, task: tuple[str, Sequence[ShardMember]]) -> pathlib.Path:
        return pathlib.Path(self.destination, task[0] + self.plan.suffix)

    def finished(self, task: tuple[str, Sequence[ShardMember]]) -> ShardFacts | None:
        """Returns the facts, if the shard is there and of the same members."""
        path = self._path(task)
        facts = read_facts(path)
        same = facts is not None and facts.members == [m.identity() for m in task[1]]
        return facts if facts and same and (path.exists() or not facts.records) else None

    def __call__(self, task: tuple[str, Sequence[ShardMember]]) -> ShardFacts:
        """Writes the shard, unless it is finished. Raises UserError where it cannot be written."""
        facts = self.finished(task)
        if facts is not None:
            return facts
        path, members = self._path(task), task[1]
        account = Account()
        skipped: list[list[str]] = []
        try:
            facts_path(path).unlink(missing_ok=True)  # it must never lie beside other records
            count = records.write_shard(path, _messages(self.plan, members, account, skipped))
            if not count:
                path.unlink()
            facts = ShardFacts(members=[m.identity() for m in members], records=count, skipped=skipped,
                               totals=dict(account.totals), lengths=account.lengths,
                               styles=account.styles, checksum=checksum(path) if count else None,
                               labels={k: sorted(v) for k, v in account.labels.items()})
            write_facts(path, facts)
        except OSError as e:
            raise UserError(f"{path}: writing failed ({' '.join(str(e).split())}); is the disk full? "
                            "Run the command again: finished shards are kept") from e
        return facts


def _messages(plan: ShardPlan, members: Sequence[ShardMember], account: Account,
              skipped: list[list[str]]) -> Iterator[bytes]:
    for member in members:
        before = account.totals["seconds"]
        try:
            yield from plan.maker(member, account)
        except (UserError, OSError) as e:
            reason = str(e)
            if plan.refuse:
                raise UserError(f"{member.name}: {reason}") from e
            used = account.totals["seconds"] - before
            skipped.append([member.name, reason + (f"; its first {used:.0f} s are used" if used else "")])
        except Exception as e:
            e.add_note(f"while {member.name} was read")
            raise


def checksum(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(folder: str | os.PathLike) -> list[str]:
    """Returns the names of shards that are missing, changed since they were written, or not of the folder.

    Reads them all, at the speed of the disk. Raises UserError where the folder
    is not one of shards, or unfinished.
    """
    out = pathlib.Path(folder)
    try:
        manifest = json.loads((out / records.MANIFEST).read_text())
        whole, known = manifest.get("complete", True), dict(manifest.get("checksums", {}))
    except (OSError, ValueError, AttributeError) as e:
        raise UserError(f"{out}: no {records.MANIFEST} there, or a damaged one; make the folder with "
                        "`music-diffusion prepare`") from e
    if not whole:
        raise UserError(f"{out}: unfinished; run the same `music-diffusion prepare` again")
    there = {path.name: path for path in records.find_shards(out)}
    return sorted(name for name in there.keys() | known.keys()
                  if name not in there or checksum(there[name]) != known.get(name))


def facts_path(shard: pathlib.Path) -> pathlib.Path:
    """Returns the path of a shard's facts, beside it."""
    return shard.with_suffix(".json")


def read_facts(shard: str | os.PathLike) -> ShardFacts | None:
    """Reads the facts of a shard; None where there are none, or damaged ones."""
    try:
        return ShardFacts(**json.loads(facts_path(pathlib.Path(shard)).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_facts(shard: str | os.PathLike, facts: ShardFacts) -> None:
    """Writes the facts beside the shard."""
    _write_json(facts_path(pathlib.Path(shard)), dataclasses.asdict(facts))


def _shards(plan: ShardPlan, members: Sequence[ShardMember]) -> dict[tuple[str, int], list[ShardMember]]:
    result: dict[tuple[str, int], list[ShardMember]] = collections.defaultdict(list)
    for member in members:
        number = member.shard
        if number is None:
            number = int(share(plan.seed, "shard", member.name) * plan.shards)
        result[member.split, number].append(member)
    return dict(sorted(result.items(), key=lambda x: (SPLITS.index(x[0][0]), x[0][1])))


def _name(split: str, index: int) -> str:
    return f"{split}-{index:05d}"


def _remove_others(out: pathlib.Path, names: set[str]) -> None:
    """Shards of members that are no longer there, and what an interrupted run left."""
    for path in out.glob(f"*{PART}"):
        path.unlink()
    for path in records.find_shards(out):
        if path.name.partition(".")[0] not in names:
            path.unlink()
            facts_path(path).unlink(missing_ok=True)


def _write_json(path: pathlib.Path, content: dict) -> None:
    """Whole or not at all."""
    with replacing(path) as part:  # not `write_text`: `WriteShard` says more of a full disk
        part.write_text(json.dumps(content, indent=1) + "\n")


def _manifest(plan: ShardPlan, members: Sequence[ShardMember],
              facts: dict[tuple[str, int], ShardFacts], skipped: Sequence[Sequence[str]]) -> dict:
    def of(split: str) -> list[ShardFacts]:
        return [f for (s, _), f in facts.items() if s == split]

    def hours(name: str) -> dict[str, float]:
        return {s: round(sum(f.totals.get(name, 0.0) for f in of(s)) / 3600, 4) for s in SPLITS}

    kinds = {kind for f in facts.values() for kind in f.labels}
    found = [*map(list, skipped), *(s for f in facts.values() for s in f.skipped)]
    return {
        "kind": plan.kind, "complete": True, "options": json.loads(json.dumps(dict(plan.options))),
        "files": {s: sum(m.split == s for m in members) for s in SPLITS},
        "records": {s: sum(f.records for f in of(s)) for s in SPLITS},
        "hours": hours("seconds"), "silent_hours": hours("silent_seconds"),
        "notes": {s: int(sum(f.totals.get("notes", 0) for f in of(s))) for s in SPLITS},
        "classes": {kind: sorted(set().union(*(f.labels.get(kind, ()) for f in facts.values())))
                    for kind in sorted(kinds)},
        "skipped": sorted(found),
        "checksums": {_name(*key) + plan.suffix: f.checksum for key, f in facts.items() if f.records},
        "versions": {"music_diffusion": __version__} | _versions()}


def _versions() -> dict[str, str]:
    import soundfile
    import soxr

    return {"soundfile": soundfile.__version__, "libsndfile": soundfile.__libsndfile_version__,
            "soxr": soxr.__version__}
