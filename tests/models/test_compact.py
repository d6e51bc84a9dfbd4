"""Eight bits with a scale per row: bounds of the error, and what is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from music_diffusion.errors import UserError
from music_diffusion.models import compact
from music_diffusion.networks.performance import PERFORMANCE_TABLE

# In float32 s q is rounded by 2^-24 of it, and q is at most 127.
ROUNDING = 127 * 2.0**-23
SHAPES = [(16, 17), (40, 20), (3, 16, 18), (20, 2), (1, 30), (2, 2, 2, 16)]


def restored(array):
    q, scale = compact.to_int8("w", array)
    compact.check_scale(q, scale)
    return compact.from_int8(q, scale), q, scale


@given(st.data(), st.sampled_from(SHAPES))
@settings(max_examples=60)
def test_no_element_is_off_by_more_than_half_its_scale(data, shape):
    sizes = st.floats(-2.0**100, 2.0**100, width=32, allow_subnormal=False)
    array = data.draw(arrays(np.float32, shape, elements=sizes))
    got, q, scale = restored(array)
    assert q.dtype == np.int8 and got.dtype == scale.dtype == np.float32 and got.shape == shape
    assert np.abs(q.astype(int)).max() <= 127
    bound = scale.astype(np.float64) * (0.5 + ROUNDING)
    # Below float32's normal numbers nothing is promised.
    assert (np.abs(got.astype(np.float64) - array) <= np.maximum(bound, 1e-36)).all()


@given(st.data(), st.sampled_from(SHAPES))
@settings(max_examples=30)
def test_stored_again_it_stays(data, shape):
    array = data.draw(arrays(np.float32, shape, elements=st.floats(-8, 8, width=16)))
    got, q, scale = restored(array)
    again, q_again, scale_again = restored(got)
    np.testing.assert_allclose(again, got, rtol=1e-6)
    if scale.shape == scale_again.shape:
        np.testing.assert_array_equal(q_again, q)


def test_rows_of_zeros_and_of_one_value_are_exact():
    array = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    array[3], array[5], array[6] = 0, 0.25, -0.25
    q, scale = compact.to_int8("w", array * np.linspace(1, 100, 32, dtype=np.float32)[:, None])
    got = compact.from_int8(q, scale)
    assert scale.shape == (32, 1) and (got[3] == 0).all()
    assert len(set(got[5])) == 1 and got[5, 0] == pytest.approx(0.25 * (1 + 5 * 99 / 31), rel=1e-6)
    assert len(set(got[6])) == 1 and got[6, 0] < 0
    assert (restored(np.zeros((64, 64), np.float32))[0] == 0).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_along_which_sizes_differ_gets_the_scales(axis):
    """Sizes over 60 decades: a scale for the other axis would lose all but the largest."""
    rng = np.random.default_rng(0)
    size = np.logspace(-30, 30, 64, dtype=np.float32)
    array = rng.normal(size=(64, 64)).astype(np.float32) * np.expand_dims(size, 1 - axis)
    got, _, scale = restored(array)
    assert scale.shape == ((64, 1), (1, 64))[axis]
    rows = np.moveaxis(np.abs(got - array), axis, 0).max(1) / np.moveaxis(np.abs(array), axis, 0).max(1)
    assert rows.max() <= 0.5 / 127 + 1e-6


def test_the_error_is_that_of_the_better_axis():
    rng = np.random.default_rng(1)
    array = (rng.normal(size=(64, 48)) * rng.lognormal(size=(64, 1))).astype(np.float32)
    errors = []
    for axis in (0, 1):
        scale = np.abs(array).max(axis=axis, keepdims=True) / 127
        errors.append(np.square(np.rint(array / scale) * scale - array).sum())
    assert errors[1] < 0.5 * errors[0]
    assert np.square(restored(array)[0] - array).sum() == pytest.approx(errors[1], rel=1e-3)


def test_a_scale_is_shared_by_sixteen_elements_at_least():
    """Otherwise scales would take more than what they save: [4096, 2] has rows of 2."""
    for shape, want in (((4096, 2), (1, 2)), ((2, 4096), (2, 1)), ((8, 1024), (8, 1))):
        array = np.ones(shape, np.float32)
        assert compact.to_int8("w", array)[1].shape == want


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_cannot_be_held_are_an_error_with_the_name(bad):
    array = np.ones((64, 64))
    array[3, 4] = bad
    with pytest.raises(UserError, match="^unet/input/kernel: .*int8 cannot hold") as error:
        compact.to_int8("unet/input/kernel", array)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "array", "fits"), [
    ("kernel", np.zeros((64, 64), np.float32), True), ("kernel", np.zeros((64, 63), np.float32), False),
    ("kernel", np.zeros((3, 3, 64, 64), np.float16), True), ("bias", np.zeros(10000, np.float32), False),
    ("ids", np.zeros((100, 100), np.int32), False), (PERFORMANCE_TABLE, np.zeros((300, 18)), False),
    ("timbre/" + PERFORMANCE_TABLE, np.zeros((300, 18)), False),
    ("statistics/axes", np.zeros((512, 512)), False)])
def test_large_matrices_alone_are_stored_so(name, array, fits):
    assert compact.fits(name, array) is fits


@pytest.mark.parametrize(("q", "scale"), [
    (np.zeros((4, 4), np.int16), np.zeros((4, 1), np.float32)),
    (np.zeros((4, 4), np.int8), np.zeros((4, 1), np.float16)),
    (np.zeros((4, 4), np.int8), np.zeros((4,), np.float32)),
    (np.zeros((4, 4), np.int8), np.zeros((2, 1), np.float32))])
def test_other_scales_are_refused(q, scale):
    with pytest.raises(ValueError, match="with a scale of"):
        compact.check_scale(q, scale)
