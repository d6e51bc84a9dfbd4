"""Nearest groups among recordings of the same piece, against distances by hand."""

import numpy as np
import pytest

from music_diffusion.evaluation.group_figures import compare_groups, group_figures, matched_items
from music_diffusion.evaluation.pairing import ItemFiles
from music_diffusion.evaluation.scoring import GENERATED, REFERENCE, FileResult

GROUPS, PIECES = ("hall", "booth", "attic", "street"), ("one", "two", "three")
AMOUNTS = {side: {"files": 12, "minutes": 1.0} for side in (GENERATED, REFERENCE)}


def result(name, group, **embeddings):
    return FileResult(item=ItemFiles(name=name, group=group), problems=[], facts={}, scores={}, counts={},
                      embeddings={"e": embeddings}, instruments={}, notes=None, heard={})


def world(wrong=()):
    """Pieces are far apart, groups near each other: only with the piece known can a group be told."""
    rng = np.random.default_rng(0)
    place = {p: 100.0 * rng.normal(size=8) for p in PIECES}
    tone = {g: rng.normal(size=8) for g in GROUPS}

    def around(piece, group):
        return place[piece] + tone[group] + 0.01 * rng.normal(size=(6, 8))

    refs = [result(f"{g}/{p}", g, **{REFERENCE: around(p, g)}) for g in GROUPS for p in PIECES]
    made = [result(f"made/{g}/{p}", g, **{GENERATED: around(p, dict(wrong).get((g, p), g))})
            for g in GROUPS for p in PIECES]
    return refs, made


def test_each_is_nearest_to_its_own():
    refs, made = world()
    items = matched_items("e", [*refs, *made])
    assert len(items) == 12 and all(len(i.distances) == 4 for i in items)
    assert all(min(i.distances, key=i.distances.get) == i.group for i in items)
    by_name = {r.item.name: r for r in (*refs, *made)}
    mean = by_name["made/hall/two"].embeddings["e"][GENERATED].mean(0)
    other = by_name["booth/two"].embeddings["e"][REFERENCE].mean(0)
    item = next(i for i, r in zip(items, made, strict=True) if r.item.name == "made/hall/two")
    assert item.distances["booth"] == pytest.approx(((mean - other) ** 2).sum())


def test_shares():
    refs, made = world({("hall", "one"): "booth", ("street", "three"): "attic", ("attic", "two"): "hall"})
    groups, _ = compare_groups("e", "E", [*refs, *made])
    assert groups.matched_files == 12 and groups.matched_top1 == pytest.approx(9 / 12)
    keys = {f.key for f in group_figures(groups, "e", "E", AMOUNTS)}
    assert {"matched_top1:e", "matched_top3:e", "matched_distance:e"} <= keys


def test_without_the_same_piece_there_is_nothing():
    refs, made = world()
    others = [result(f"{r.item.name}-b", r.item.group, **r.embeddings["e"]) for r in refs]
    assert matched_items("e", [*others, *made]) == []
    groups, _ = compare_groups("e", "E", [*others, *made])
    assert groups.matched_files == 0 and np.isnan(groups.matched_top1)
    for figure in group_figures(groups, "e", "E", AMOUNTS):
        if figure.key.startswith("matched"):
            assert np.isnan(figure.value) and "no file of the same piece" in figure.note
