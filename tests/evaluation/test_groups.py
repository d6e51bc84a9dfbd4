"""Group-FAD of groups whose distances are known: equal covariances, means on a line."""

import math

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation import groups
from music_diffusion.evaluation.groups import group_scores, item_accuracy, item_scores

DIM = 3
SHAPE = np.concatenate([np.eye(DIM), -np.eye(DIM)])  # mean 0


def at(place):
    """Embeddings whose mean is `place` on the first axis: FADs are squares of differences."""
    return SHAPE + np.eye(DIM)[0] * place


REFERENCE = {"piano": at(0), "organ": at(10), "violin": at(13), "harp": at(30), "flute": at(31)}


def test_distances():
    scores = group_scores({"violin": at(12), "piano": at(-2)}, REFERENCE)
    assert scores.generated_names == ("piano", "violin")
    assert scores.reference_names == ("flute", "harp", "organ", "piano", "violin")
    np.testing.assert_allclose(scores.distances, np.square(
        [[33, 32, 12, 2, 15], [19, 18, 2, 12, 1]]), rtol=1e-12)
    assert scores.group_fad == pytest.approx({"piano": 4, "violin": 1})
    assert scores.mean_group_fad == pytest.approx(2.5)
    assert scores.top1 == scores.top3 == 1


def test_accuracies():
    """violin at 11 is nearest to the organ; harp at 5 has three others before it."""
    generated = {"violin": at(11), "harp": at(5), "piano": at(1), "flute": at(40)}
    scores = group_scores(generated, REFERENCE)
    assert (scores.top1, scores.top3) == (2 / 4, 3 / 4)
    assert scores.group_fad["harp"] == pytest.approx(25 ** 2)


def test_items_count_one_by_one():
    items = [("violin", at(11)), ("violin", at(14)), ("violin", at(20)), ("piano", at(29)),
             ("violin", at(-9))]
    scores = item_scores(items, REFERENCE)
    np.testing.assert_allclose(scores.fads, np.square([2, 1, 7, 29, 22]), rtol=1e-12)
    assert scores.mean_fad == pytest.approx((4 + 1 + 49 + 841 + 484) / 5)
    # The third item: violin (7), harp (10), organ (10), …
    assert (scores.top1, scores.top3) == (2 / 5, 4 / 5)
    assert item_accuracy(items, REFERENCE) == (2 / 5, 4 / 5)


def test_items_are_not_their_group():
    """Together the halves have the right mean; each alone is nearer to another group."""
    reference = {"a": at(0), "b": at(4), "c": at(-4), "d": at(50)}
    halves = [("a", at(3)), ("a", at(-3))]
    assert group_scores({"a": np.concatenate([x for _, x in halves])}, reference).top1 == 1
    assert item_accuracy(halves, reference) == (0, 1)


@pytest.mark.parametrize("order", [("a", "b", "c", "d"), ("d", "c", "b", "a")])
def test_of_equally_near_groups_the_first_name_wins(order):
    reference = {name: at({"d": 9}.get(name, 0)) for name in order}
    generated = {name: at(0) for name in order[:3] if name != "d"}
    scores = item_scores([(name, at(0)) for name in "abc"], reference)
    assert scores.top1 == 1 / 3
    assert scores.top3 == 1
    assert group_scores({"b": at(0)}, reference).top1 == 0
    assert group_scores(generated, reference).top3 == 1


def test_an_accuracy_that_cannot_be_missed_is_none():
    few = {name: REFERENCE[name] for name in ("piano", "organ", "harp")}
    scores = group_scores({"piano": at(9)}, few)
    assert scores.top1 == 0 and math.isnan(scores.top3)
    one = group_scores({"piano": at(9)}, {"piano": at(0)})
    assert math.isnan(one.top1) and math.isnan(one.top3)
    assert one.mean_group_fad == pytest.approx(81)


def test_every_group_is_fitted_once(monkeypatch):
    fitted = []

    def fit(x, name):
        fitted.append(name)
        return original(x, name)

    original = groups.fit_gaussian
    monkeypatch.setattr(groups, "fit_gaussian", fit)
    item_scores([("harp", at(1)), ("harp", at(2)), ("piano", at(3))], REFERENCE)
    assert len(fitted) == len(set(fitted)) == 3 + len(REFERENCE)


@pytest.mark.parametrize("generated, reference, message", [
    ({}, REFERENCE, "no generated groups"),
    ({"tuba": at(0)}, REFERENCE, "group 'tuba' has no reference audio"),
    ({"harp": at(0)[:1]}, REFERENCE, "generated embeddings of 'harp' are 1"),
    ({"harp": at(0)}, REFERENCE | {"bell": at(0)[:1]}, "reference embeddings of 'bell' are 1"),
    ({"harp": at(math.nan)}, REFERENCE, "generated embeddings of 'harp' contain NaN"),
])
def test_bad_groups(generated, reference, message):
    with pytest.raises(UserError, match=message):
        group_scores(generated, reference)


def test_a_bad_item_is_named():
    with pytest.raises(UserError, match=r"item 1 \(group 'harp'\) are 1"):
        item_scores([("harp", at(0)), ("harp", at(0)[:1])], REFERENCE)
    with pytest.raises(UserError, match="group 'tuba' has no reference"):
        item_accuracy([("harp", at(0)), ("tuba", at(0))], REFERENCE)
    with pytest.raises(UserError, match="no generated groups"):
        item_accuracy([], REFERENCE)


def test_means_alone_tell_files_too_short_for_a_covariance():
    """One embedding has a mean; spread moves FAD, but not the distance of means."""
    items = [("violin", at(12)[:1] * 0 + np.eye(DIM)[0] * 12.9), ("organ", 9 * SHAPE + np.eye(DIM)[0] * 10)]
    assert groups.mean_accuracy(items, REFERENCE) == (1, 1)
    assert groups.mean_accuracy([("violin", at(11)), ("piano", at(29))], REFERENCE) == (0, 1 / 2)
    with pytest.raises(UserError, match="item 0"):
        groups.mean_accuracy([("violin", np.zeros((0, DIM)))], REFERENCE)
