"""The network of pitches: harmonics, intervals and frames are where they should be."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.pitch_net import (
    INTERVALS,
    UNNAMED,
    PitchNet,
    PitchNetConfig,
    chosen_at,
    most,
    shifted,
    stack_harmonics,
)

PITCHES, BINS, W = 60, 66, 2  # one bin a semitone
CONFIG = PitchNetConfig(
    pitches=PITCHES, bins_per_semitone=1, harmonics=(0.5, 1.0, 2.0, 3.0), channels=6, shared=3, told=2,
    hidden=7, frames=3, trunk=ConvNeXtConfig(dim=8, hidden=9, blocks=1, kernel=3), classes=4, drums=5,
    cells=6, timbre=10, timbre_frames=(-3, 0, 2))
T = 2 * CONFIG.context_frames + 5


@jax.jit
def run(params, spectrum):
    return PitchNet(CONFIG).apply({"params": params}, spectrum)


@jax.jit
def evidence(params, spectrum):
    _, state = PitchNet(CONFIG).apply(
        {"params": params}, spectrum, mutable=["intermediates"],
        capture_intermediates=lambda _, name: name == "_evidence")
    return state["intermediates"]["_evidence"][0]


def shapes_of(config, bins):
    x = jax.ShapeDtypeStruct((1, 1, W, bins), jnp.float32)
    return jax.eval_shape(PitchNet(config).init, jax.random.key(0), x)


@pytest.fixture(scope="module")
def params():
    """Large enough that no ReLU is silent everywhere."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape) / math.sqrt(s.shape[0]), jnp.float32),
        unfreeze(shapes_of(CONFIG, BINS)["params"]))


def spectra(batch=1, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, T, W, BINS)), jnp.float32)


@pytest.mark.parametrize("bins_per_semitone, bins", [(1, 20), (3, 50), (3, 90)])
def test_harmonics_are_stacked_at_their_pitch(bins_per_semitone, bins):
    pitches, harmonics = 15, (1 / 3, 0.5, 1, 2, 2.5, 3)
    x = np.random.default_rng(0).normal(size=(2, 3, W, bins)).astype(np.float32)
    got = np.asarray(stack_harmonics(jnp.asarray(x), pitches=pitches, harmonics=harmonics,
                                     bins_per_semitone=bins_per_semitone))
    want = np.zeros((2, 3, pitches, W, len(harmonics), bins_per_semitone), np.float32)
    for p in range(pitches):
        for h, harmonic in enumerate(harmonics):
            # The bins of the semitone that lies nearest to so many times the frequency.
            first = round(bins_per_semitone * (p + 12 * math.log2(harmonic)))
            for b in range(bins_per_semitone):
                if 0 <= first + b < bins:
                    want[:, :, p, :, h, b] = x[..., first + b]
    np.testing.assert_array_equal(got, want.reshape(2, 3, pitches, -1))
    assert (want[:, :, 0] == 0).any() and want[:, :, 7].any()


@pytest.mark.parametrize("axis", [1, 2])
def test_neighbours_become_channels(axis):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    by = (-4, -1, 0, 2)
    got = np.asarray(shifted(jnp.asarray(x), axis, by))
    assert got.shape == (2, 5, 6, 12)
    size = x.shape[axis]
    for i, s in enumerate(by):
        for n in range(size):
            want = np.take(x, n + s, axis) if 0 <= n + s < size else 0
            np.testing.assert_array_equal(np.take(got[..., 3 * i:3 * i + 3], n, axis), want)


def test_shapes(params):
    said = run(params, spectra(2))
    assert {k: v.shape for k, v in said.items()} == {
        "onset": (2, T, PITCHES), "frame": (2, T, PITCHES), "velocity": (2, T, PITCHES),
        "classes": (2, T, PITCHES, 4), "named": (2, T, PITCHES), "drums": (2, T, 5)}
    assert all(v.dtype == jnp.float32 and np.isfinite(v).all() for v in said.values())


@pytest.mark.parametrize("semitones", [1, -3])
def test_evidence_moves_with_the_music(params, semitones):
    params = params | {"place": jnp.zeros_like(params["place"])}
    x = np.array(spectra())
    x[..., :20] = x[..., 50:] = 0  # so that nothing is lost at the edges
    moved = np.asarray(evidence(params, jnp.asarray(np.roll(x, semitones, axis=-1))))
    still = np.asarray(evidence(params, jnp.asarray(x)))
    edge = max(INTERVALS) + abs(semitones)  # pitches that see beyond the first or last one
    inner = np.arange(edge, PITCHES - edge)
    assert len(inner) > 5 and np.abs(np.diff(still[:, :, inner], axis=2)).max() > 0.1
    np.testing.assert_allclose(moved[:, :, inner], still[:, :, inner - semitones], atol=1e-5)


@pytest.mark.parametrize("b", [10, 40])
def test_evidence_is_gathered_at_harmonics_of_the_pitches_at_intervals(params, b):
    # With a bias that keeps all units awake.
    awake = params | {"intervals": {"kernel": params["intervals"]["kernel"], "bias": jnp.full(6, 9.0)}}
    x = spectra()
    moved = np.abs(evidence(awake, x.at[..., b].add(3.0)) - evidence(awake, x))
    reached = np.flatnonzero(moved.max(axis=(0, 1, 3)) > 0)
    harmonics = (-12, 0, 12, 19)  # semitones
    want = {b - h - i for h in harmonics for i in INTERVALS if 0 <= b - h < PITCHES}
    assert reached.tolist() == sorted(p for p in want if 0 <= p < PITCHES)


def test_place_tells_pitches_apart(params):
    x = jnp.ones_like(spectra())
    alike = np.asarray(evidence(params | {"place": jnp.zeros_like(params["place"])}, x))[0, 6]
    told = np.asarray(evidence(params, x))[0, 6]
    # Pitches whose harmonics, and those of the pitches at all intervals, lie within the spectrum.
    assert np.ptp(alike[36:38], axis=0).max() < 1e-5 < 0.01 < np.ptp(told[36:38], axis=0).max()


@jax.jit
def gradients(params, x, weights):
    """Of the outputs' weighted sum, by parameters and input."""
    return jax.grad(lambda params, x: sum(jnp.sum(v * weights[k]) for k, v in run(params, x).items()),
                    argnums=(0, 1))(params, x)


def draw_weights(params, seed=2):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=v.shape).astype(np.float32) * (k != "named")  # which has no gradient
            for k, v in jax.eval_shape(run, params, spectra()).items()}


@pytest.mark.parametrize("name, context", [
    ("classes", CONFIG.context_frames),
    ("frame", CONFIG.context_frames - 3),  # which sees of a pitch no further frames
    # Drums are read from the trunk, which sees what it is told of pitches.
    ("drums", CONFIG.frames // 2 + CONFIG.trunk.context_frames)])
def test_context_frames_are_the_receptive_field_exactly(params, name, context):
    assert CONFIG.context_frames == 2 * 1 + 2 * 1 + 3
    middle = T // 2
    weights = {k: np.zeros_like(w) for k, w in draw_weights(params).items()}
    weights[name][:, middle] = draw_weights(params)[name][:, middle]
    _, by_input = gradients(params, spectra(), weights)
    reached = np.flatnonzero(np.abs(by_input)[0].max(axis=(1, 2)) > 0).tolist()
    last = middle + context - (name == "classes")  # whose head sees 3 frames before and 2 behind
    assert reached == list(range(middle - context, last + 1))


def test_examples_of_a_batch_do_not_see_each_other(params):
    x = spectra(2)
    y, z = run(params, x), run(params, x.at[1].add(1.0))
    for name in y:
        np.testing.assert_array_equal(y[name][0], z[name][0])
        assert np.abs(y[name][1] - z[name][1]).max() > 0.01


def test_every_parameter_matters_and_has_logical_axes(params):
    gradient, _ = gradients(params, spectra(), draw_weights(params))
    for name, g in traverse_util.flatten_dict(gradient).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(
        shapes_of(CONFIG, BINS)["params_axes"])))
    flat = traverse_util.flatten_dict(params)
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in flat.items()}
    assert tuple(axes["place",]) == ("length", "embed")
    assert tuple(axes["heads", "kernel"]) == ("embed", "vocab")


def parameters(c, windows, bins):
    """Count of kernels and biases from the sizes."""
    def dense(n, m):
        return n * m + m
    evidence = dense(len(c.harmonics) * windows * c.bins_per_semitone, c.channels) + 2 * c.channels
    evidence += c.pitches * c.channels + dense(c.frames * c.channels, c.channels)
    evidence += dense(c.channels, c.shared) + dense(len(INTERVALS) * c.shared, c.channels)
    t = c.trunk
    block = (t.kernel + 1) * t.dim + 2 * t.dim + dense(t.dim, t.hidden) + dense(t.hidden, t.dim) + t.dim
    trunk = dense(t.kernel * (bins + c.pitches * c.told), t.dim) + 4 * t.dim + t.blocks * block
    ends = dense(c.channels, c.told) + dense(t.dim, c.pitches * c.shared)
    ends += dense(c.channels + c.shared, c.hidden) + dense(c.hidden, c.shared)
    ends += dense(c.hidden + c.frames * c.shared, c.hidden)
    timbre = dense(len(c.timbre_frames) * c.hidden, c.timbre) + (t.dim + c.pitches + 2) * c.timbre
    timbre += dense(c.timbre, c.timbre) + dense(c.timbre, c.classes)
    return evidence + trunk + ends + timbre + dense(c.hidden, 3) + dense(t.dim, c.drums)


@pytest.mark.parametrize("config, windows, bins, count", [
    (CONFIG, W, BINS, None), (PitchNetConfig(), 3, 98 * 3, 7_457_608)])
def test_number_of_parameters(config, windows, bins, count):
    x = jax.ShapeDtypeStruct((1, 1, windows, bins), jnp.float32)
    shapes = jax.eval_shape(PitchNet(config).init, jax.random.key(0), x)["params"]
    total = sum(p.size for p in jax.tree.leaves(shapes))
    assert total == parameters(config, windows, bins) and count in (None, total)


def test_frames_are_an_odd_number():
    for frames in (4, 0, -1):
        with pytest.raises(ValueError, match="frames"):
            PitchNetConfig(frames=frames)


def test_most_are_the_greatest_values_greatest_first():
    x = np.random.default_rng(0).normal(size=(2, 3, 9)).astype(np.float32)
    got = np.asarray(most(jnp.asarray(x), 4))
    assert got.shape == (2, 3, 4, 9) and np.array_equal(got.sum(-1), np.ones((2, 3, 4)))
    np.testing.assert_array_equal(got.argmax(-1), np.argsort(-x, axis=-1)[..., :4])


def test_features_are_read_where_a_frame_chose_and_frames_further_along():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 9, 3)).astype(np.float32)
    places = rng.integers(0, 9, (2, 7, 4))
    by = (-3, 0, 1, 2)
    got = np.asarray(chosen_at(jnp.asarray(x), jax.nn.one_hot(places, 9), by))
    for b, t, k in np.ndindex(2, 7, 4):
        want = [x[b, t + s, places[b, t, k]] if 0 <= t + s < 7 else np.zeros(3) for s in by]
        np.testing.assert_allclose(got[b, t, k], np.concatenate(want), atol=1e-6)


def test_instruments_are_named_of_the_surest_pitches_or_of_those_that_are_said_to_sound(params):
    x = spectra(2)
    said = run(params, x)
    sure = np.maximum(said["onset"], said["frame"])
    for b, t in np.ndindex(2, T):
        told = np.flatnonzero(said["named"][b, t])
        assert set(told) == set(np.argsort(-sure[b, t])[:CONFIG.cells])
        others = np.setdiff1d(np.arange(PITCHES), told)
        assert (np.asarray(said["classes"])[b, t, others] == UNNAMED).all()
        assert np.abs(np.asarray(said["classes"])[b, t, told] - UNNAMED).min() > 1e-3
    sounding = np.zeros((2, T, PITCHES), np.float32)
    sounding[..., [3, 30, 59]] = 1
    asked = jax.jit(PitchNet(CONFIG).apply)({"params": params}, x, jnp.asarray(sounding))
    assert np.asarray(asked["named"])[..., [3, 30, 59]].all()
    assert (np.asarray(asked["named"]).sum(-1) == CONFIG.cells).all()
    # What is said of a pitch depends on the pitch, not on which others were chosen.
    both = np.asarray(said["named"] * asked["named"]) > 0
    assert both.sum() > 50
    np.testing.assert_allclose(asked["classes"][both], said["classes"][both], atol=1e-4)
    np.testing.assert_allclose(asked["frame"], said["frame"], atol=1e-5)


@pytest.mark.parametrize("more", [{"cells": 0}, {"cells": 61}, {"timbre_frames": ()}])
def test_cells_are_some_of_the_pitches(more):
    with pytest.raises(ValueError, match="cells"):
        dataclasses.replace(CONFIG, **more)
