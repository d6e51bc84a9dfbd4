"""Group-FAD and nearest groups over the files of an evaluation."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from music_diffusion.evaluation.figures import Amounts, Figure, amount_fields, bounds
from music_diffusion.evaluation.groups import group_scores, item_scores, mean_accuracy
from music_diffusion.evaluation.pairing import Problem
from music_diffusion.evaluation.scoring import GENERATED, REFERENCE, FileResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """Distances between groups in one embedding."""

    embedding: str
    mean_group_fad: float
    group_fad: dict[str, float]
    top1: float  # of groups
    top3: float
    file_top1: float  # of single files
    file_top3: float
    file_fad: float  # mean over files of the FAD to the reference of their group
    mean_top1: float  # of single files, by their mean embeddings
    mean_top3: float
    # Of single files, among the references of all groups that play the same piece (`matched_items`).
    matched_files: int
    matched_top1: float
    matched_top3: float
    matched_distance: float  # mean over them of the squared distance of means to their own group's
    files: int  # that have two embeddings, as FAD needs at least
    short_files: int  # those of `files` that have fewer embeddings than dimensions
    dimensions: int
    reference_groups: int
    nearest: dict[str, str]  # generated group → the reference group nearest to it


def compare_groups(name: str, label: str, results: Sequence[FileResult]
                   ) -> tuple[Groups | None, list[Problem]]:
    """Compares groups of generated files with those of the reference, in one embedding.

    Args:
      name, label: of the embedding.
      results: files; those without a group count nowhere.

    Returns:
      None if no group can be compared, and the groups that were left out.
    """
    made, real = (_grouped(results, name, side) for side in (GENERATED, REFERENCE))
    problems, kept = [], {}
    for group, clips in made.items():
        few = [side for side, all_ in (("generated", made), ("reference", real))
               if sum(map(len, all_.get(group, []))) < 2]
        if few:
            problems.append(Problem(
                kind="no_group", file=f"group {group}",
                what=f"has fewer than two {' and '.join(few)} embeddings ({label})",
                advice="it is left out of Group-FAD"))
        else:
            kept[group] = np.concatenate(clips)
    targets = {group: np.concatenate(clips) for group, clips in real.items() if sum(map(len, clips)) >= 2}
    if not kept:
        return None, problems
    scores = group_scores(kept, targets)
    single = [(group, clip) for group in kept for clip in made[group] if len(clip) >= 2]
    files = item_scores(single, targets) if single else None
    every = [(group, clip) for group in kept for clip in made[group] if len(clip)]
    mean_top1, mean_top3 = mean_accuracy(every, targets)
    matched = matched_items(name, results)
    nearest = [scores.reference_names[i] for i in scores.distances.argmin(axis=1)]
    return Groups(
        embedding=label, mean_group_fad=scores.mean_group_fad, group_fad=scores.group_fad,
        top1=scores.top1, top3=scores.top3, mean_top1=mean_top1, mean_top3=mean_top3,
        matched_files=len(matched), **_matched_figures(matched),
        file_top1=math.nan if files is None else files.top1,
        file_top3=math.nan if files is None else files.top3,
        file_fad=math.nan if files is None else files.mean_fad, files=len(single),
        dimensions=every[0][1].shape[1], short_files=sum(len(x) < x.shape[1] for _, x in single),
        reference_groups=len(targets),
        nearest=dict(zip(scores.generated_names, nearest, strict=True))), problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchedItem:
    """A generated file against recordings of the same piece."""

    group: str
    distances: dict[str, float]  # by group, squared, of mean embeddings


def matched_items(name: str, results: Sequence[FileResult]) -> list[MatchedItem]:
    """Finds generated files whose piece is among the reference files of their own group and of others.

    Files are of one piece if they have one name, whatever their folders. What a file plays has far
    more to do with its embedding than who plays it; here all play the same.

    Args:
      name: of the embedding.
      results: all files.
    """
    pieces: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
    for r in results:
        if r.item.group is not None and REFERENCE in r.embeddings[name]:
            pieces[_piece(r)][r.item.group] = r.embeddings[name][REFERENCE].mean(0, dtype=np.float64)
    found = []
    for r in results:
        others = pieces.get(_piece(r), {})
        if GENERATED in r.embeddings[name] and r.item.group in others and len(others) > 1:
            mean = r.embeddings[name][GENERATED].mean(0, dtype=np.float64)
            found.append(MatchedItem(group=r.item.group, distances={
                group: float(np.square(mean - other).sum()) for group, other in sorted(others.items())}))
    return found


def _piece(result: FileResult) -> str:
    return result.item.name.rpartition("/")[2]


def _matched_figures(items: Sequence[MatchedItem]) -> dict[str, float]:
    def accuracy(top: int) -> float:
        if not items or min(len(i.distances) for i in items) <= top:
            return math.nan
        return float(np.mean([i.group in sorted(i.distances, key=i.distances.__getitem__)[:top]
                              for i in items]))

    own = [item.distances[item.group] for item in items]
    return {"matched_top1": accuracy(1), "matched_top3": accuracy(3),
            "matched_distance": float(np.mean(own)) if own else math.nan}


def _grouped(results: Sequence[FileResult], name: str, side: str) -> dict[str, list[np.ndarray]]:
    found = collections.defaultdict(list)
    for r in results:
        if r.item.group is not None and side in r.embeddings[name]:
            found[r.item.group].append(r.embeddings[name][side])
    return dict(sorted(found.items()))


def group_figures(groups: Groups, name: str, label: str, amounts: Amounts
                   ) -> list[Figure]:
    """Returns distances, then nearest groups: of a group's files together, of single files by FAD, and of
    single files by their mean embeddings."""
    amount = amount_fields(amounts)
    short = "" if not groups.short_files else (
        f"{groups.short_files} of {groups.files} files have fewer than {groups.dimensions} embeddings: "
        "their FAD is mostly bias; rather read the nearest group by mean")
    rows = [Figure(key=f"group_fad:{name}", label=f"Group-FAD, {label}", better="lower", section="Groups",
                   what="mean FAD of each generated group against the reference group of its name",
                   value=groups.mean_group_fad, **amount),
            Figure(key=f"file_fad:{name}", label=f"Group-FAD of files, {label}", better="lower",
                   section="Groups", value=groups.file_fad, note=short, **amount,
                   what="mean FAD of each generated file against the reference group of its own")]
    alone = "" if groups.matched_files else "the reference has no file of the same piece by several groups"
    rows.append(Figure(
        key=f"matched_distance:{name}", label=f"Distance to the same piece, {label}", better="lower",
        section="Groups", value=groups.matched_distance, note=alone, **amount,
        what="mean squared distance of mean embeddings between a generated file and the reference "
             "of its group that plays the same piece"))
    chance = 1 / groups.reference_groups
    for key, value, top, of in (("group_top1", groups.top1, 1, "groups"),
                                ("group_top3", groups.top3, 3, "groups"),
                                ("file_top1", groups.file_top1, 1, "files"),
                                ("file_top3", groups.file_top3, 3, "files"),
                                ("mean_top1", groups.mean_top1, 1, "files by mean"),
                                ("mean_top3", groups.mean_top3, 3, "files by mean"),
                                ("matched_top1", groups.matched_top1, 1, "files, same piece"),
                                ("matched_top3", groups.matched_top3, 3, "files, same piece")):
        note = short if key.startswith("file") else alone if key.startswith("matched") else ""
        few = f"{groups.reference_groups} reference groups are too few"
        rows.append(Figure(
            key=f"{key}:{name}", label=f"Nearest group, top-{top} of {of}, {label}", better="higher",
            section="Groups", value=value, **amount,
            what=f"share of {of.partition(' ')[0]} whose own reference group is "
                 + ("the nearest" if top == 1 else "among the three nearest")
                 + (" by the distance of mean embeddings" if key.startswith(("mean", "matched")) else "")
                 + (", among recordings of the same piece" if key.startswith("matched") else ""),
            note=few if math.isnan(value) and not note else note,
            floors=() if math.isnan(value) else bounds((min(1.0, top * chance), "chance"))))
    return rows
