"""The reconstruction embedding distance, by hand."""

import math

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.reconstruction import reconstruction_distance


def test_mean_of_the_norms_of_frames():
    """5 and 13; the norm of the whole matrix over 2 would be 6.96."""
    generated = np.array([[3.0, 4.0, 0.0], [1.0, 5.0, 12.0]])
    reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert reconstruction_distance(generated, reference) == 9
    assert reconstruction_distance(reference, generated) == 9
    assert reconstruction_distance(generated, generated) == 0


def test_definition_in_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 11, 6))
    expected = sum(math.dist(u, v) for u, v in zip(a, b, strict=True)) / 11
    assert reconstruction_distance(a, b) == pytest.approx(expected, rel=1e-14)
    single = reconstruction_distance(a.astype(np.float32), b.astype(np.float32))
    assert single == pytest.approx(expected, rel=1e-6)


def test_length_does_not_matter():
    a, b = np.random.default_rng(0).normal(size=(2, 7, 4))
    assert reconstruction_distance(np.tile(a, (9, 1)), np.tile(b, (9, 1))) == pytest.approx(
        reconstruction_distance(a, b), rel=1e-14)


def test_float64_inside():
    """Large equal parts, whose differences float32 holds exactly."""
    a = np.full((2, 2), 2.0**24, np.float32)
    assert reconstruction_distance(a, a - 1) == pytest.approx(math.sqrt(2), rel=1e-15)
    huge = np.full((1, 1), 3e38, np.float32)
    assert reconstruction_distance(huge, -huge) == pytest.approx(2 * float(huge[0, 0]))


@pytest.mark.parametrize("generated, reference, message", [
    (np.zeros((3, 2)), np.zeros((4, 2)), "3 generated and 4 reference embeddings"),
    (np.zeros((3, 2)), np.zeros((3, 5)), "2 and of 5 dimensions"),
    (np.zeros((0, 2)), np.zeros((0, 2)), "the generated embeddings are 0"),
    (np.zeros(3), np.zeros(3), "shape"),
    (np.zeros((3, 2)), np.full((3, 2), np.inf), "the reference embeddings contain NaN or infinity"),
])
def test_bad_embeddings(generated, reference, message):
    with pytest.raises(UserError, match=message):
        reconstruction_distance(generated, reference)
