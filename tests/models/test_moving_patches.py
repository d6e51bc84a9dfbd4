"""Patches that begin elsewhere at every step: what moves comes back, and the network sees whole patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.models.moving_patches import moved, moved_back, moving, patch_offset

B, T, F = 2, 12, 3
LOGSNRS = jnp.linspace(8.0, -4.0, 13)


@pytest.mark.parametrize("patch", [2, 3, 4, 8])
def test_steps_take_all_places_in_turn(patch):
    places = [int(patch_offset(LOGSNRS[i] + 0.2, LOGSNRS, patch)) for i in range(patch)]
    assert sorted(places) == list(range(patch)) and places[0] == 0
    apart = [abs(a - b) for a, b in zip(places, places[1:], strict=False)]
    assert min(min(d, patch - d) for d in apart) >= max(patch // 2 - 1, 1)


def test_what_moves_comes_back():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, F)), jnp.float32)
    for offset in range(5):
        there = moved(x, jnp.asarray(offset), 4)
        assert there.shape == (B, T + 4, F)
        np.testing.assert_array_equal(there[:, offset:offset + T], x)
        np.testing.assert_array_equal(there[:, :offset], x[:, :offset][:, ::-1])
        np.testing.assert_array_equal(there[:, offset + T:], x[:, T - (4 - offset):][:, ::-1])
        np.testing.assert_array_equal(moved_back(there, jnp.asarray(offset), 4), x)


def patch_means(z, logsnr, condition):
    """The mean of every patch of four frames, and what the condition has there."""
    means = z.reshape(len(z), -1, 4, F).mean(axis=2).repeat(4, axis=1)
    return means + condition["frames"] * condition["all"][:, None, None] + logsnr[:, None, None]


def test_each_step_sees_its_own_patches():
    rng = np.random.default_rng(1)
    z, frames = (jnp.asarray(rng.normal(size=(B, T, F)), jnp.float32) for _ in range(2))
    condition = {"frames": frames, "all": jnp.asarray([1.0, 10.0])}
    denoise = jax.jit(moving(patch_means, LOGSNRS, patch=4, room=8, framewise=("frames",)))
    for step in range(4):
        logsnr = jnp.full((B,), LOGSNRS[step])
        offset = int(patch_offset(LOGSNRS[step], LOGSNRS, 4))
        made = denoise(z, logsnr, condition) - frames * condition["all"][:, None, None] - logsnr[0]
        for first in range(4 - offset, T - 3, 4):  # whole patches inside
            want = np.broadcast_to(z[:, first:first + 4].mean(axis=1, keepdims=True), (B, 4, F))
            np.testing.assert_allclose(made[:, first:first + 4], want, atol=1e-5)


def test_without_patches_nothing_moves():
    assert moving(patch_means, LOGSNRS, patch=0, room=8, framewise=()) is patch_means
