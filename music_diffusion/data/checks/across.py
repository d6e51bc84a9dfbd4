"""Checks that compare items: duplicates, leaks between splits, sample rates that stand out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from music_diffusion.data.checks import fingerprints
from music_diffusion.data.checks.findings import DUPLICATED, LEAK, RATE, Finding, percent, seconds
from music_diffusion.data.checks.fingerprints import Sketch
from music_diffusion.data.items import SPLITS

# Shares of a fingerprint. The same audio as MP3, at another rate or cut: 0.2 to 1; notes rendered
# again with other timing or in a room: up to 0.16; other audio: below 0.03.
SAME_AUDIO = 0.2
SAME_NOTES = 0.3  # of 1010 scores all pairs above 0.12 were of one piece
ODD_SHARE, ODD_RATE, FEWEST_RATES = 0.2, 0.75, 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Portrait:
    """Summary of an item that is kept to compare it with the others."""

    name: str
    split: str | None
    piece: str | None
    sample_rate: int  # Hz
    audio: Sketch
    digest: str | None  # of its samples, None of silence
    notes: Sketch


@dataclasses.dataclass(frozen=True)
class _Pair:
    first: int
    second: int
    why: str


def check_across(portraits: Sequence[Portrait]) -> list[Finding]:
    """All findings about several items."""
    audio = _same_audio(portraits)
    inside = [p for p in audio if portraits[p.first].split == portraits[p.second].split]
    between = [p for p in (*audio, *_same_notes(portraits), *_same_piece(portraits))
               if portraits[p.first].split != portraits[p.second].split]
    return (_findings(portraits, inside, DUPLICATED) + _findings(portraits, between, LEAK)
            + _odd_rates(portraits))


def _same_audio(portraits: Sequence[Portrait]) -> list[_Pair]:
    by_digest: dict[str, list[int]] = collections.defaultdict(list)
    for i, portrait in enumerate(portraits):
        if portrait.digest is not None:
            by_digest[portrait.digest].append(i)
    found = {}
    for group in by_digest.values():
        for a, b in zip(group[:-1], group[1:], strict=True):
            found[a, b] = "the samples are equal"
    for match in fingerprints.matches([p.audio for p in portraits], shifted=True):
        if match.share >= SAME_AUDIO:
            found.setdefault((match.first, match.second),
                             f"they share {percent(match.share)} of their fingerprints"
                             + (f", {seconds(match.shift)} apart" if abs(match.shift) > 0.05 else ""))
    return [_Pair(a, b, f"the same audio: {why}") for (a, b), why in sorted(found.items())]


def _same_notes(portraits: Sequence[Portrait]) -> list[_Pair]:
    return [_Pair(m.first, m.second,
                  f"the same notes, perhaps transposed or at another tempo: they share "
                  f"{percent(m.share)} of their phrases")
            for m in fingerprints.matches([p.notes for p in portraits], shifted=False)
            if m.share >= SAME_NOTES]


def _same_piece(portraits: Sequence[Portrait]) -> list[_Pair]:
    """Returns, for each piece in several splits, pairs of its first item with its items in later splits."""
    by_piece: dict[str, list[int]] = collections.defaultdict(list)
    for i, portrait in enumerate(portraits):
        if portrait.piece is not None:
            by_piece[portrait.piece].append(i)
    found = []
    for piece, items in by_piece.items():
        first = min(items, key=lambda i: (_rank(portraits[i].split), i))
        found += [_Pair(min(first, i), max(first, i), f"the same piece, {piece}")
                  for i in items if portraits[i].split != portraits[first].split]
    return found


def _findings(portraits: Sequence[Portrait], pairs: Sequence[_Pair], kind: str) -> list[Finding]:
    """Returns a finding for each item to leave out, so that one (or one split) of each group is left."""
    group = _groups(pairs)
    members: dict[int, list[int]] = collections.defaultdict(list)
    for i in sorted(group, key=lambda i: (_rank(portraits[i].split), i)):
        members[group[i]].append(i)
    why: dict[int, str] = {}
    for pair in pairs:
        for i in (pair.first, pair.second):
            why.setdefault(i, pair.why)
    result = []
    for kept, *others in members.values():
        for i in others:
            of, by = portraits[i], portraits[kept]
            if kind == LEAK and of.split == by.split:
                continue  # both are on the same side
            result.append(Finding(
                item=of.name, kind=kind, others=(by.name,),
                measured=f"{_named(of, kind)} and {_named(by, kind)} have {why[i]}"))
    return result


def _named(portrait: Portrait, kind: str) -> str:
    return f"{portrait.name} ({portrait.split or 'no split'})" if kind == LEAK else portrait.name


def _rank(split: str | None) -> int:
    return len(SPLITS) if split is None else SPLITS.index(split)


def _groups(pairs: Sequence[_Pair]) -> dict[int, int]:
    """Returns for each item the first item of its group."""
    root: dict[int, int] = {}

    def find(i: int) -> int:
        while root.setdefault(i, i) != i:
            i = root[i]
        return i

    for pair in pairs:
        a, b = sorted((find(pair.first), find(pair.second)))
        root[b] = a
    return {i: find(i) for i in root}


def _odd_rates(portraits: Sequence[Portrait]) -> list[Finding]:
    """Finds items whose sample rate is far below that of nearly all others."""
    if len(portraits) < FEWEST_RATES:
        return []
    rates, counts = np.unique([p.sample_rate for p in portraits], return_counts=True)
    most = int(rates[counts.argmax()])
    if counts.max() < (1 - ODD_SHARE) * len(portraits):
        return []
    return [Finding(item=p.name, kind=RATE,
                    measured=f"its sample rate is {p.sample_rate} Hz; {int(counts.max())} of "
                             f"{len(portraits)} items have {most} Hz")
            for p in portraits if p.sample_rate < ODD_RATE * most]
