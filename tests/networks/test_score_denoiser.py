import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from reference.diffusion_oracle import alpha_sigma, gaussian_x0

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.pitch_colours import FAINT
from music_diffusion.networks.score_denoiser import (
    AGE,
    LOWEST_PITCH,
    ONSET_SECONDS,
    PITCHES,
    RELEASE,
    SLOT_FIELDS,
    VELOCITY,
    ScoreDenoiser,
    ScoreDenoiserConfig,
)
from music_diffusion.networks.unet1d import UNet1DConfig

B, T, P, F, C = 2, 4, 3, 8, 5
CONFIG = ScoreDenoiserConfig(
    timbre=NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F)),
    unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4, output=F),
    residual_std=0.2, data_mean=-0.3, data_std=0.5)
NETWORK = ScoreDenoiser(CONFIG)


@pytest.fixture(scope="module")
def slots():
    rng = np.random.default_rng(0)
    program = rng.integers(0, 129, (B, T, P))
    program[:, :, 1] = -1  # empty
    program[1, 2] = -1  # a frame without notes
    age = rng.uniform(-0.02, 0.2, (B, T, P))
    return {"program": jnp.asarray(program), "pitch": jnp.asarray(rng.integers(30, 90, (B, T, P))),
            "velocity": jnp.asarray(rng.integers(1, 128, (B, T, P))),
            "age": jnp.asarray(age, jnp.float32), "release": jnp.asarray(age - 0.1, jnp.float32)}


@pytest.fixture(scope="module")
def inputs(slots):
    rng = np.random.default_rng(1)
    return (jnp.asarray(rng.normal(size=(B, T, F)), jnp.float32), jnp.asarray([-3.0, 5.0]),
            jnp.asarray([0.7, 0.1]), slots, jnp.asarray(rng.uniform(size=(B, T, C)), jnp.float32),
            jnp.ones(B))


@pytest.fixture(scope="module")
def variables(inputs):
    return jax.jit(NETWORK.init)(jax.random.key(0), *inputs)


@pytest.fixture(scope="module")
def params(variables):
    """A U-Net that says something: random where a fresh one is zero."""
    rng = np.random.default_rng(2)
    flat = traverse_util.flatten_dict(unfreeze(variables["params"]))
    return traverse_util.unflatten_dict({
        k: v + jnp.asarray(0.2 * rng.normal(size=v.shape), jnp.float32) if k[0] == "unet" else v
        for k, v in flat.items()})


@functools.partial(jax.jit, static_argnums=0)
def apply(method, params, *args):
    return NETWORK.apply({"params": params}, *args, method=method)


@functools.partial(jax.jit, static_argnums=0)
def maps_of(one_hot, params, slots):
    return NETWORK.apply({"params": params}, slots, one_hot=one_hot, method="note_maps")


@pytest.mark.parametrize("keep", [1.0, 0.0])
@pytest.mark.parametrize("logsnr", [-12.0, -2.0, 3.0, 15.0])
def test_without_the_network_v_is_that_of_the_exact_posterior_mean(variables, inputs, logsnr, keep):
    """Equation 2 with F = 0 (a fresh U-Net), for a residual that is Gaussian."""
    z, _, time, _, roll, _ = inputs
    rng = np.random.default_rng(3)
    maps = rng.uniform(-1, 1, (B, T, 2, F))
    cond = apply("condition", variables["params"], jnp.asarray(maps, jnp.float32), roll,
                 jnp.full(B, keep))
    v = apply("denoise", variables["params"], z, jnp.full(B, logsnr), time, cond)
    mean, std = (maps[:, :, 0], 0.2) if keep else (-0.3, 0.5)
    alpha, sigma = alpha_sigma(logsnr)
    z = np.asarray(z, np.float64)
    want = (alpha * z - gaussian_x0(z, logsnr, mean, std)) / sigma
    np.testing.assert_allclose(v, want, atol=2e-5 * (1 + np.abs(want).max()))


@pytest.fixture(scope="module")
def patches(inputs):
    """A fresh network of patches of two frames, and parameters with statistics of correlated features."""
    rng = np.random.default_rng(6)
    network = ScoreDenoiser(dataclasses.replace(
        CONFIG, patch=2, frame_features=6, unet=dataclasses.replace(CONFIG.unet, output=2 * F)))
    fresh = unfreeze(jax.jit(network.init)(jax.random.key(0), *inputs)["params"])
    axes, _ = np.linalg.qr(rng.normal(size=(2 * F, 2 * F)))
    own = {"mean": rng.normal(0, 0.1, 2 * F), "axes": axes, "std": np.geomspace(0.5, 0.01, 2 * F)}
    return network, fresh | {"statistics": jax.tree.map(jnp.float32, own)}, own


@pytest.mark.parametrize("keep", [1.0, 0.0])
@pytest.mark.parametrize("logsnr", [-12.0, 3.0, 8.0])
def test_without_the_network_v_of_patches_is_that_of_the_exact_mean(patches, inputs, logsnr, keep):
    network, fresh, own = patches
    z, _, time, _, roll, _ = inputs
    maps = np.random.default_rng(3).uniform(-1, 1, (B, T, 2, F))
    cond = network.apply({"params": fresh}, jnp.asarray(maps, jnp.float32), roll, jnp.full(B, keep),
                         method="condition")
    v = network.apply({"params": fresh}, z, jnp.full(B, logsnr), time, cond, method="denoise")
    mean = maps[:, :, 0].reshape(B, -1, 2 * F) + own["mean"] if keep else np.full((B, T // 2, 2 * F), -0.3)
    covariance = own["axes"] * own["std"]**2 @ own["axes"].T if keep else 0.25 * np.eye(2 * F)
    alpha, sigma = alpha_sigma(logsnr)
    z = np.asarray(z, np.float64).reshape(mean.shape)
    gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(2 * F))
    want = (alpha * z - mean - (z - alpha * mean) @ gain.T) / sigma
    np.testing.assert_allclose(v, want.reshape(B, T, F), atol=5e-5 * (1 + np.abs(want).max()))
    s = network.apply({"params": fresh}, jnp.full(B, keep), method="deviation")
    np.testing.assert_allclose(np.broadcast_to(s, (B, 1, 2 * F)),
                               np.broadcast_to(own["std"] if keep else 0.5, (B, 1, 2 * F)), rtol=1e-6)


def test_the_conditions_of_a_patch_are_those_of_its_frames(patches, inputs):
    network, fresh, _ = patches
    *_, roll, keep = inputs
    maps = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (B, T, 2, F)), jnp.float32)

    def features(roll):
        cond = network.apply({"params": fresh}, maps, roll, keep, method="condition")
        return np.asarray(cond["features"])

    seen = features(roll)
    assert seen.shape == (B, T, 6)
    away = np.abs(features(roll.at[:, 3].add(1.0)) - seen).max((0, 2))
    assert away[3] > 1e-3 and not away[:3].any() and not away[4:].any()


@pytest.mark.parametrize("logsnr", [-8.0, 0.0, 3.5, 10.0])
def test_the_network_learns_unit_variance_and_nothing_linear_in_its_input(variables, logsnr):
    """What equation 2 leaves to F, by drawing residuals and noise."""
    rng = np.random.default_rng(4)
    n, s = 200, CONFIG.residual_std
    map_ = rng.uniform(-1, 1, (n, T, 2, F))
    x0 = map_[:, :, 0] + s * rng.normal(size=(n, T, F))
    eps = rng.normal(size=(n, T, F))
    alpha, sigma = alpha_sigma(logsnr)
    z, v = alpha * x0 + sigma * eps, alpha * eps - sigma * x0
    cond = {"map": jnp.asarray(map_[:, :, 0], jnp.float32), "keep": jnp.ones(n),
            "features": jnp.zeros((n, T, 2 * F + C + 1))}
    guess = apply("denoise", variables["params"], jnp.asarray(z, jnp.float32), jnp.full(n, logsnr),
                  jnp.full(n, 0.5), cond)
    scale = np.sqrt(alpha**2 * s**2 + sigma**2)
    target = -(v - np.asarray(guess, np.float64)) * scale / s
    u = (z - alpha * map_[:, :, 0]) / scale
    # 6400 draws: standard errors 0.009 and 0.0125.
    assert np.std(target) == pytest.approx(1, abs=0.04) and np.std(u) == pytest.approx(1, abs=0.04)
    assert np.mean(target * u) == pytest.approx(0, abs=0.05)


def test_the_networks_output_enters_with_factor_minus_s_over_n(params, variables, inputs):
    z, logsnr, time, slots, roll, keep = inputs
    constant = traverse_util.flatten_dict(unfreeze(variables["params"]))
    constant["unet", "output", "bias"] = jnp.ones(F)  # a fresh U-Net gives its output bias
    with_one = apply("__call__", traverse_util.unflatten_dict(constant), *inputs)
    without = apply("__call__", variables["params"], *inputs)
    alpha, sigma = alpha_sigma(np.asarray(logsnr))
    want = -0.2 / np.sqrt(alpha**2 * 0.2**2 + sigma**2)
    np.testing.assert_allclose(with_one - without,
                               np.broadcast_to(want[:, None, None], (B, T, F)), rtol=1e-4)


@pytest.mark.slow
def test_a_dropped_condition_ignores_the_notes_altogether(params, inputs):
    z, logsnr, time, slots, roll, _ = inputs
    maps = maps_of(False, params, slots)

    def total(maps, roll, keep):
        cond = apply("condition", params, maps, roll, keep)
        return jnp.sum(apply("denoise", params, z, logsnr, time, cond) ** 2)

    by_maps, by_roll = jax.grad(total, (0, 1))(maps, roll, jnp.asarray([0.0, 1.0]))
    assert not np.any(by_maps[0]) and not np.any(by_roll[0])
    assert (np.abs(by_maps[1]).max((0, 2)) > 0).all() and np.abs(by_roll[1]).max() > 0


def test_the_network_knows_whether_the_condition_was_dropped(params, inputs):
    """Notes that look like none (the mean map, empty rolls) are not a dropped condition."""
    roll = jnp.zeros((B, T, C))
    maps = jnp.stack([jnp.full((B, T, F), CONFIG.data_mean), jnp.zeros((B, T, F))], 2)
    kept, dropped = (apply("condition", params, maps, roll, jnp.full(B, k)) for k in (1.0, 0.0))
    np.testing.assert_array_equal(kept["map"], dropped["map"])
    assert np.abs(kept["features"] - dropped["features"]).max() > 0


def test_maps_are_the_power_sums_of_all_and_of_new_notes(params, slots):
    codec = CONFIG.codec
    got = maps_of(False, params, slots)
    assert got.shape == (B, T, 2, F)
    for b, t in np.ndindex(B, T):
        power = np.zeros((2, F))
        for p in range(P):
            if slots["program"][b, t, p] < 0:
                continue
            mel = NoteTimbre(CONFIG.timbre).apply(
                {"params": params["timbre"]}, *(slots[f][b, t, p][None] for f in SLOT_FIELDS))[0]
            power[0] += np.exp(2 * np.asarray(mel, np.float64))
            if slots["age"][b, t, p] < ONSET_SECONDS:
                power[1] += np.exp(2 * np.asarray(mel, np.float64))
        mel = 0.5 * np.log(power + codec.clip_min**2)
        want = 2 * (np.clip(mel, codec.log_min, 4.0) - codec.log_min) / (4.0 - codec.log_min) - 1
        np.testing.assert_allclose(got[b, t], want, atol=1e-5)
    np.testing.assert_allclose(got[1, 2], -1, atol=1e-5)  # no notes: the codec's floor


def test_maps_by_products_are_maps_by_gathers(params, slots):
    a, b = (maps_of(one_hot, params, slots) for one_hot in (False, True))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_empty_slots_have_no_gradient(params, slots):
    def total(age):
        return maps_of(False, params, {**slots, "age": age}).sum()

    gradient = jax.grad(total)(slots["age"])
    used = np.asarray(slots["program"]) >= 0
    assert np.isfinite(gradient).all() and not np.any(np.where(used, 0, gradient))


def test_call_is_note_maps_then_condition_then_denoise(params, inputs):
    z, logsnr, time, slots, roll, keep = inputs
    cond = apply("condition", params, maps_of(False, params, slots), roll, keep)
    np.testing.assert_allclose(apply("__call__", params, *inputs),
                               apply("denoise", params, z, logsnr, time, cond), atol=1e-5)


def test_every_parameter_has_logical_axes(variables):
    params = traverse_util.flatten_dict(unfreeze(variables["params"]))
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(variables["params_axes"])))
    assert {k: v.ndim for k, v in params.items()} == {k: len(v) for k, v in axes.items()}
    assert {k[0] for k in params} == {"timbre", "unet"}


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="mels"):
        dataclasses.replace(CONFIG, unet=dataclasses.replace(CONFIG.unet, output=F + 1))
    with pytest.raises(ValueError, match="residual_std"):
        dataclasses.replace(CONFIG, residual_std=0.0)


HEARING = ScoreDenoiser(dataclasses.replace(CONFIG, evidence=F + 2 * PITCHES, wanted=3))


LOUD = F * np.exp(2 * float(CONFIG.codec.unscale(0.2)))  # of a frame at 0.2


def heard(energy):
    """What the codec can hold of it."""
    return np.maximum(energy, CONFIG.codec.clip_min ** 2)


def evidence(level, **heard):
    """One frame of a recording: scaled mel of a level, and how surely pitches are heard: p60=0.5."""
    frame = np.zeros((1, 1, F + 2 * PITCHES), np.float32)
    frame[..., :F] = level
    for name, sure in heard.items():
        frame[0, 0, F + PITCHES + int(name[1:]) - LOWEST_PITCH] = sure
    return jnp.asarray(frame)


@pytest.fixture(scope="module")
def draw(variables):
    """Energies of a frame as drawn, [F], and of a note."""
    timbre = {"params": {"timbre": variables["params"]["timbre"]}}

    def draw(frame, *wanted):
        programs = jnp.asarray([[*wanted, *[-1] * (3 - len(wanted))]])
        scaled = HEARING.apply(timbre, frame, programs, method="heard_map")
        return np.exp(2 * np.asarray(CONFIG.codec.unscale(scaled), np.float64))[0, 0]

    def note(program, pitch):
        state = [jnp.asarray([float(x)]) for x in (VELOCITY, AGE, RELEASE)]
        ids = jnp.asarray([[program], [pitch]])
        mel = NoteTimbre(CONFIG.timbre).apply({"params": variables["params"]["timbre"]}, *ids, *state)
        return np.exp(2 * np.asarray(mel, np.float64))[0]
    return draw, note


def test_what_is_heard_is_drawn_on_the_wanted_instrument_as_loud_as_the_recording(draw):
    draw, note = draw
    got, want = draw(evidence(0.2, p60=1.0), 40), note(40, 60)
    np.testing.assert_allclose(got, heard(LOUD / (1 + FAINT) * want / want.sum()), rtol=1e-3)


def test_pitches_share_the_energy_by_how_surely_they_are_heard(draw):
    draw, note = draw
    got = draw(evidence(0.2, p60=0.8, p67=0.4), 40)
    one, other = (note(40, pitch) / note(40, pitch).sum() for pitch in (60, 67))
    np.testing.assert_allclose(got, heard(LOUD * (0.64 * one + 0.16 * other) / (0.8 + FAINT)), rtol=1e-3)


def test_instruments_that_are_wanted_together_are_drawn_together(draw):
    draw, note = draw
    got = draw(evidence(0.2, p60=1.0), 40, 73)
    want = note(40, 60) + note(73, 60)
    np.testing.assert_allclose(got, heard(LOUD / (1 + FAINT) * want / want.sum()), rtol=1e-3)
    np.testing.assert_allclose(draw(evidence(0.2, p60=1.0), 73, 40), got, rtol=1e-5)


@pytest.mark.parametrize("frame, wanted", [(evidence(0.3), (40,)), (evidence(0.3, p60=1.0), ())])
def test_where_nothing_is_heard_or_wanted_it_is_silent(draw, frame, wanted):
    np.testing.assert_allclose(draw[0](frame, *wanted), CONFIG.codec.clip_min ** 2, rtol=1e-3)


def test_a_faint_pitch_is_fainter_than_the_recording(draw):
    quiet, sure = (draw[0](evidence(0.2, p60=x), 40).sum() for x in (0.05, 1.0))
    assert quiet / sure == pytest.approx(0.0025 / (0.0025 + FAINT) * (1 + FAINT), rel=1e-3)


def test_programs_without_activations_are_refused():
    with pytest.raises(ValueError, match="no activations"):
        dataclasses.replace(CONFIG, evidence=F, wanted=3)
