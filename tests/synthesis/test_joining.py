import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.diffusion_oracle import gaussian_x0
from reference.toy_generator import Dice, F, Gaussian, Numbered, Places

from music_diffusion.diffusion.solvers import DDIM, DDPM
from music_diffusion.errors import UserError
from music_diffusion.synthesis import overlap as module
from music_diffusion.synthesis.joining import (
    NOISE_BLOCK,
    Windows,
    conditions_of,
    noise,
    space_frames,
)
from music_diffusion.synthesis.overlap import OverlapJoining

WINDOWS = Windows(frames=96, overlap=32, group=3)


@st.composite
def windows(draw):
    overlap = draw(st.integers(1, 3))
    frames = draw(st.integers(2 * overlap, 8))
    return Windows(frames=32 * frames, overlap=32 * overlap, group=draw(st.integers(1, 4)))


def data(frames, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (frames, F)).astype(np.float32)


@pytest.mark.slow
@given(windows())
@settings(max_examples=20)
def test_windows_are_slices_and_join_to_what_was_cut(w):
    x = data(w.span)
    cut = w.cut(jnp.asarray(x))
    assert cut.shape == (w.group, w.frames, F)
    for k in range(w.group):
        np.testing.assert_array_equal(cut[k], x[k * w.stride:k * w.stride + w.frames])
    np.testing.assert_array_equal(w.join(cut), x)


@pytest.mark.parametrize("frames, wanted", [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_windows_of_a_coarser_space_are_conditioned_on_all_mel_frames_that_they_stand_for(frames, wanted):
    piece = mock.Mock(frames=frames)
    space = mock.Mock(step=4)
    assert space_frames(piece, space) == wanted
    before = np.ones(3)
    assert conditions_of(piece, space, [0, 64, 128], 96, before) is piece.windows.return_value
    piece.windows.assert_called_once_with([0, 256, 512], 384, before)


def test_fade_is_linear_along_the_overlaps_and_nothing_else():
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=(3, 96, F)).astype(np.float32)
    known = rng.normal(size=(32, F)).astype(np.float32)
    want = x0.copy()
    for i in range(32):
        share = (i + 1) / 33
        want[0, i] = (1 - share) * known[i] + share * x0[0, i]
        for k in (1, 2):
            want[k, i] = want[k - 1, 64 + i] = (1 - share) * x0[k - 1, 64 + i] + share * x0[k, i]
    got = WINDOWS.fade(jnp.asarray(x0), jnp.asarray(known), jnp.asarray(True))
    np.testing.assert_allclose(got, want, atol=1e-6)
    begun = WINDOWS.fade(jnp.asarray(x0), jnp.asarray(known), jnp.asarray(False))
    np.testing.assert_allclose(begun[0, :32], x0[0, :32], atol=1e-6)
    np.testing.assert_array_equal(begun[1:], got[1:])


@pytest.mark.slow
@given(windows(), st.booleans())
@settings(max_examples=20)
def test_after_a_fade_neighbours_are_equal_where_they_overlap(w, has_known):
    x0 = jnp.asarray(np.random.default_rng(1).normal(size=(w.group, w.frames, F)), jnp.float32)
    faded = np.asarray(w.fade(x0, jnp.asarray(data(w.overlap)), jnp.asarray(has_known)))
    for a, b in zip(faded[:-1], faded[1:], strict=True):
        np.testing.assert_array_equal(a[-w.overlap:], b[:w.overlap])


def test_windows_that_agree_are_not_changed_by_a_fade():
    x = jnp.asarray(data(WINDOWS.span))
    cut = WINDOWS.cut(x)
    np.testing.assert_allclose(WINDOWS.fade(cut, x[:32], jnp.asarray(True)), cut, atol=1e-6)


@pytest.mark.slow
def test_noise_belongs_to_frames_not_to_windows():
    key = jax.random.key(3)
    whole = np.asarray(noise(key, 0, 320, F))
    for first, frames in [(0, 32), (32, 100), (64, 256), (7, 5), (31, 2), (300, 20)]:
        np.testing.assert_array_equal(noise(key, first, frames, F), whole[first:first + frames])
    assert np.abs(whole - np.asarray(noise(jax.random.key(4), 0, 320, F))).min() > 0


def test_noise_is_white_and_normal():
    x = np.asarray(noise(jax.random.key(0), 0, 32 * 200, 8))
    # 51200 draws: standard errors 0.0044 and 0.0031.
    assert abs(x.mean()) < 0.02 and x.std() == pytest.approx(1, abs=0.015)
    blocks = x.reshape(200, -1)
    assert abs(np.corrcoef(blocks[:-1].ravel(), blocks[1:].ravel())[0, 1]) < 0.02
    assert abs(np.mean(np.abs(x) < 1) - 0.6827) < 0.01


class Recorder:
    """A sampler of groups that knows the data; fades as the real one does."""

    def __init__(self, w, x):
        self.calls = []
        self.data = np.pad(x, ((0, w.span), (0, 0)))

    def __call__(self, model, windows, params, batch, z_T, key, known, has_known):
        first = int(batch["frame"][0, 0])
        np.testing.assert_array_equal(batch["frame"][:, 0], windows.firsts(first))
        self.calls.append((first, np.asarray(z_T), np.asarray(known), bool(has_known), key))
        x0 = windows.cut(jnp.asarray(self.data[first:first + windows.span]))
        return windows.join(windows.fade(x0, known, has_known))


def overlapped(sampler, w, frames, seed, progress=None):
    """The parts of a piece whose groups are drawn by `sampler`."""
    with mock.patch.object(module, "_SAMPLE", sampler):
        return list(OverlapJoining(windows=w).stream(Dice(), {}, Places(frames=frames), seed, progress))


@pytest.mark.slow
@given(windows(), st.integers(1, 1500))
@settings(max_examples=30)
def test_the_parts_are_the_piece_whatever_its_length(w, frames):
    x = data(frames)
    recorder, done = Recorder(w, x), []
    parts = overlapped(recorder, w, frames, 0, done.append)
    np.testing.assert_allclose(np.concatenate(parts), x, atol=1e-6)
    assert all(len(p) for p in parts)
    assert done == sorted(done) and done[0] > 0 and done[-1] == 1 and len(done) == len(parts)
    # Every group begins where the one before is no longer alone, and knows its end.
    stride = w.for_length(frames).group * w.stride
    assert [c[0] for c in recorder.calls] == [stride * g for g in range(len(parts))]
    assert [c[3] for c in recorder.calls] == [g > 0 for g in range(len(parts))]
    for first, _, known, has_known, _ in recorder.calls:
        if has_known:
            np.testing.assert_allclose(known, recorder.data[first:first + w.overlap], atol=1e-6)
    # No group is drawn for nothing.
    assert len(parts) == 1 or recorder.calls[-1][0] + w.overlap < frames
    assert max(map(len, parts)) <= w.span


def test_groups_get_the_noise_of_their_frames_and_keys_of_their_own():
    frames = 700
    noises = []
    for group in (1, 2, 5):
        w = dataclasses.replace(WINDOWS, group=group)
        recorder = Recorder(w, data(frames))
        overlapped(recorder, w, frames, seed=9)
        of_frame = np.full((frames + w.span, F), np.nan)
        for first, z_T, *_ in recorder.calls:
            for k, z in enumerate(z_T):
                at = slice(first + k * w.stride, first + k * w.stride + w.frames)
                known = ~np.isnan(of_frame[at])
                np.testing.assert_array_equal(of_frame[at][known], z[known])
                of_frame[at] = z
        noises.append(of_frame[:frames])
        keys = [tuple(jax.random.key_data(c[4]).tolist()) for c in recorder.calls]
        assert len(set(keys)) == len(keys)
    np.testing.assert_array_equal(noises[0], noises[1])
    np.testing.assert_array_equal(noises[0], noises[2])


def test_a_groups_first_window_is_faded_from_the_last_one_of_the_group_before():
    """Windows that are the numbers of their first frames, by hand."""
    want = np.zeros(300, np.float32)
    for first in range(0, 300, 64):  # the stride
        for i in range(min(96, 300 - first)):
            share = min(1, (i + 1) / 33) if first else 1
            want[first + i] += share * (first - want[first + i])
    for group in (1, 2, 8):  # 5, 3 and 1 groups
        joining = OverlapJoining(windows=dataclasses.replace(WINDOWS, group=group))
        got = np.concatenate(list(joining.stream(Numbered(), {}, Places(frames=300), 0)))
        np.testing.assert_allclose(got, np.broadcast_to(want[:, None], (300, F)), atol=1e-4)


def render(w, solver, frames, seed=0):
    """A piece of Gaussian data whose mean is known, with its exact denoiser."""
    mean = np.pad(data(frames, seed=5), ((0, 2000), (0, 0)))
    stream = OverlapJoining(windows=w).stream(Gaussian(solver=solver), {"mean": mean},
                                              Places(frames=frames), seed)
    return np.concatenate(list(stream))


def test_the_denoiser_of_these_tests_is_exact():
    z, logsnr = data(4)[None], 1.3
    alpha2 = 1 / (1 + np.exp(-logsnr))
    gain = np.sqrt(alpha2) * 0.25 / (alpha2 * 0.25 + 1 - alpha2)
    np.testing.assert_allclose(0.4 + gain * (z - np.sqrt(alpha2) * 0.4),
                               gaussian_x0(z, logsnr, 0.4, 0.5), rtol=1e-5)


def test_seams_vanish_where_the_denoiser_sees_single_frames():
    """Then windows cannot matter: all cuts into one group give the sample of one long window."""
    long = render(Windows(frames=640, overlap=32, group=1), DDIM(eta=0.0), 500)
    assert long.shape == (500, F) and np.std(long) > 0.3
    for w in (dataclasses.replace(WINDOWS, group=8), Windows(frames=128, overlap=64, group=7)):
        np.testing.assert_allclose(render(w, DDIM(eta=0.0), 500), long, atol=1e-5)


def test_groups_differ_from_one_long_window_in_their_overlaps_alone_and_little():
    """There the end of the group before is final from the first step on."""
    long = render(Windows(frames=640, overlap=32, group=1), DDIM(eta=0.0), 500)
    difference = np.abs(render(WINDOWS, DDIM(eta=0.0), 500) - long)
    overlap = np.zeros(500, bool)
    for first in (192, 384):
        overlap[first:first + 32] = True
    assert difference[~overlap].max() < 1e-5
    # Measured 0.08, for data of deviation 0.5.
    assert 0 < difference[overlap].max() < 0.15


@pytest.mark.parametrize("solver", [DDIM(eta=0.0), DDPM(log_variance=0.0)], ids=["ddim", "ddpm"])
def test_samples_depend_on_the_seed_alone(solver):
    a, b, c = (render(WINDOWS, solver, 300, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


@given(windows(), st.integers(1, 3000))
@settings(max_examples=100)
def test_short_pieces_take_smaller_groups_that_still_cover_them(w, frames):
    small = w.for_length(frames)
    assert dataclasses.replace(small, group=w.group) == w and 1 <= small.group <= w.group
    assert small.span >= frames or small.group == w.group
    if small.group > 1:  # no window too many
        assert dataclasses.replace(small, group=small.group - 1).span < frames


@pytest.mark.parametrize("fields", [
    {"overlap": 0}, {"overlap": 64}, {"group": 0}, {"frames": 100}, {"frames": 128, "overlap": 16}])
def test_cuts_that_cannot_be_are_refused(fields):
    assert NOISE_BLOCK == 32
    with pytest.raises(UserError, match=next(reversed(fields))):
        Windows(**{"frames": 96, "overlap": 32, "group": 1} | fields)
