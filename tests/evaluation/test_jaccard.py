"""The pitch Jaccard distance against Python's sets."""

import math

import numpy as np
import pytest

from music_diffusion.evaluation.jaccard import note_jaccard_distance, pitch_jaccard_distance
from music_diffusion.notes.notes import Notes


def make(rows):
    """Notes from (start, end, pitch[, drum])."""
    start, end, pitch, drum = np.array([(*row, 0)[:4] for row in rows], float).reshape(-1, 4).T
    return Notes(start, end, pitch, np.full(len(rows), 80), np.zeros(len(rows)), drum.astype(bool))


def frame_sets(roll):
    return [set(np.flatnonzero(row).tolist()) for row in roll]


def mean_distance(reference, estimate):
    """Of two lists of sets; the second is cut, or continued by empty sets."""
    estimate = (estimate + [set()] * len(reference))[:len(reference)]
    return np.mean([1 - len(a & b) / len(a | b) if a | b else 0
                    for a, b in zip(reference, estimate, strict=True)])


@pytest.mark.parametrize("lengths", [(20, 20), (20, 13), (13, 20), (5, 0), (1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.2, 1.0])
def test_the_distance_is_that_of_sets(lengths, density):
    rng = np.random.default_rng(0)
    a, b = (rng.random((n, 88)) < density for n in lengths)
    assert pitch_jaccard_distance(a, b) == pytest.approx(
        mean_distance(frame_sets(a), frame_sets(b)), abs=1e-12)


def test_by_hand():
    """Equal; one of three in common; nothing in common; both silent."""
    a, b = np.zeros((4, 88), bool), np.zeros((4, 88), bool)
    a[0, 3] = b[0, 3] = True
    a[1, [3, 4]] = b[1, [4, 5]] = True
    a[2, 7] = True
    assert pitch_jaccard_distance(a, b) == pytest.approx((0 + 2 / 3 + 1 + 0) / 4)


def test_it_is_a_distance():
    rng = np.random.default_rng(1)
    a, b, c = (rng.random((50, 88)) < 0.1 for _ in range(3))
    ab, bc, ac = (pitch_jaccard_distance(*pair) for pair in ((a, b), (b, c), (a, c)))
    assert pitch_jaccard_distance(a, a) == 0 and pitch_jaccard_distance(a, ~a) == 1
    assert ab == pitch_jaccard_distance(b, a) and 0 < ac < ab + bc


def test_no_frames_is_not_a_number():
    assert math.isnan(pitch_jaccard_distance(np.zeros((0, 88), bool), np.ones((3, 88), bool)))
    assert math.isnan(note_jaccard_distance(Notes.empty(), make([(0, 1, 60)])))


@pytest.mark.parametrize("a, b", [
    (np.zeros((3, 88)), np.zeros((3, 88), bool)), (np.zeros((3, 88), bool), np.zeros((3, 88))),
    (np.zeros((3, 88), bool), np.zeros((3, 87), bool)), (np.zeros(88, bool), np.zeros(88, bool))])
def test_decisions_of_one_width_are_wanted(a, b):
    with pytest.raises(ValueError, match="bool"):
        pitch_jaccard_distance(a, b)


def test_notes_by_hand():
    """One second of a pitch of two, one second of the wrong pitch, one of both silent."""
    reference = make([(0, 2, 60), (0, 1, 64), (0, 9, 40, True)])
    estimate = make([(0, 1, 60), (1, 2, 61), (2.5, 3, 62)])
    assert note_jaccard_distance(reference, estimate) == pytest.approx((0.5 + 1) / 2)
    assert note_jaccard_distance(reference, estimate, seconds=3.0) == pytest.approx(
        (0.5 + 1 + 0.5) / 3)
    assert note_jaccard_distance(reference, estimate, seconds=1.0, frame_seconds=0.02) == 0.5


def test_notes_are_the_sets_that_sound():
    """Against time that is cut at every onset and end: what frames of 1 ms come near to."""
    rng = np.random.default_rng(2)
    pieces = []
    for _ in range(2):
        start = rng.uniform(0, 4, 30)
        end = start + rng.uniform(0.1, 0.5, 30)
        pieces.append(make(list(zip(start, end, rng.integers(60, 64, 30), strict=True))))
    cuts = np.unique(np.concatenate([[0, 4.5], *[t for n in pieces for t in (n.start, n.end)]]))
    cuts = cuts[cuts <= 4.5]
    total = 0.0
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        a, b = ({int(p) for s, e, p in zip(n.start, n.end, n.pitch, strict=True)
                 if s <= begin and e >= end} for n in pieces)
        total += (end - begin) * (1 - len(a & b) / len(a | b) if a | b else 0)
    got = note_jaccard_distance(*pieces, seconds=4.5, frame_seconds=0.001)
    # 120 edges, each misplaced by half a millisecond at most, in 4.5 s.
    assert got == pytest.approx(total / 4.5, abs=120 * 0.0005 / 4.5)
    assert 0.2 < got < 0.9
