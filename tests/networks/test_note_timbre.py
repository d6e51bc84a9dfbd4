import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from reference.mel_oracle import hertz_to_mel

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.networks.note_timbre import (
    COMB_FLOOR,
    KEYS,
    PROGRAMS,
    NoteTimbre,
    NoteTimbreConfig,
    harmonic_comb,
    power_sum,
    time_features,
)
from music_diffusion.networks.performance import PerformanceConfig

CODEC = MelCodec()
CONFIG = NoteTimbreConfig(width=8, layers=1)
NETWORK = NoteTimbre(CONFIG)
ROWS = dict(program=[0, 40, 128, 128, 127], pitch=[60, 60, 38, 60, 127],
            velocity=[100, 1, 127, 64, 90], age=[-0.01, 0.0, 0.5, 12.0, 60.0],
            release=[-3.0, -0.1, 0.02, 1.0, 1.9])


@pytest.fixture(scope="module")
def comb():
    return harmonic_comb(CODEC)


@pytest.fixture(scope="module")
def rows():
    return tuple(jnp.asarray(v) for v in ROWS.values())


@pytest.fixture(scope="module")
def variables(rows):
    return jax.jit(NETWORK.init)(jax.random.key(0), *rows)


@pytest.fixture(scope="module")
def performed():
    """A network with performances, and parameters without zeros."""
    network = NoteTimbre(dataclasses.replace(CONFIG, performances=PerformanceConfig(count=3, features=4)))
    ids = jnp.zeros((1, 1), jnp.int32)
    params = network.init(jax.random.key(0), ids, ids, ids, ids, ids, jnp.eye(3)[:1])["params"]
    rng = np.random.default_rng(1)
    return network, jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), params)


@pytest.mark.slow
@pytest.mark.parametrize("one_hot", [False, True])
def test_without_a_performance_it_is_the_network_without_performances(performed, rows, one_hot):
    network, params = performed
    grouped = [r[None] for r in rows]
    found = network.apply({"params": params}, *grouped, jnp.zeros((1, 3)), one_hot=one_hot)[0]
    base = {k: v for k, v in params.items() if not k.startswith(("film", "perform"))}
    np.testing.assert_allclose(found, NETWORK.apply({"params": base}, *rows), atol=1e-5)


@pytest.mark.slow
def test_performances_are_a_shift_of_programs_and_keys(performed, rows):
    """Against the network without performances whose tables have the shifts in them."""
    network, params = performed
    params = {k: jax.tree.map(jnp.zeros_like, v) if k.startswith("film") else v for k, v in params.items()}
    weights = jnp.asarray([[0.0, 1.0, 0.0], [0.3, 0.0, 0.7]])
    grouped = [jnp.stack([r, r[::-1]]) for r in rows]
    found = [network.apply({"params": params}, *grouped, weights, one_hot=one_hot)
             for one_hot in (False, True)]
    np.testing.assert_allclose(*found, atol=1e-4)
    kernel = params["performed"]["DenseGeneral_0"]["kernel"].reshape(4, PROGRAMS + KEYS, 8)
    for i, group in enumerate((rows, [r[::-1] for r in rows])):
        shift = jnp.einsum("d,diw->iw", weights[i] @ params["performances"]["embedding"], kernel)
        base = {k: v for k, v in params.items() if not k.startswith(("film", "perform"))}
        base["input_program"] = {"embedding": base["input_program"]["embedding"] + shift[:PROGRAMS]}
        base["input_key"] = {"embedding": base["input_key"]["embedding"] + shift[PROGRAMS:]}
        np.testing.assert_allclose(found[0][i], NETWORK.apply({"params": base}, *group), atol=1e-4)


@pytest.mark.slow
def test_blocks_are_modulated_by_the_performance(performed, rows):
    network, params = performed
    grouped = [jnp.tile(r[None], (3, 1)) for r in rows]
    apply = functools.partial(network.apply, {"params": {**params, "performed": jax.tree.map(
        jnp.zeros_like, params["performed"])}}, *grouped)
    found = apply(jnp.eye(3))
    assert min(np.abs(found[i] - found[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-2
    # As many frames of notes [T, P] at once.
    slots = network.apply({"params": params}, *(jnp.stack([r, r], -1)[None] for r in rows), jnp.eye(3)[:1])
    flat = network.apply({"params": params}, *(r[None] for r in rows), jnp.eye(3)[:1])
    np.testing.assert_allclose(slots[0, :, 1], flat[0], atol=1e-5)


def test_performance_and_network_must_fit(performed, rows):
    network, params = performed
    with pytest.raises(UserError, match="needs a performance"):
        network.apply({"params": params}, *(r[None] for r in rows))
    with pytest.raises(UserError, match="takes no performance"):
        NETWORK.init(jax.random.key(0), *rows, jnp.eye(3)[:1])


@functools.partial(jax.jit, static_argnums=0)
def draw(one_hot, params, *rows):
    return NETWORK.apply({"params": params}, *rows, one_hot=one_hot)


def hertz(pitch):
    return 440.0 * 2 ** ((pitch - 69) / 12)


def band(frequency):
    """Where a frequency lies among the mel bins, as a fractional index (HTK mel)."""
    width = hertz_to_mel(8000.0) / (CODEC.mels + 1)
    return hertz_to_mel(frequency) / width - 1


@pytest.mark.parametrize("pitch", [69, 76, 81, 90, 100])
def test_comb_peaks_at_the_mel_bins_of_the_harmonics(comb, pitch):
    harmonics = [k * hertz(pitch) for k in range(1, 19) if k * hertz(pitch) < 7900]
    frame = comb[pitch]
    peaks = [m for m in range(1, 127) if frame[m] >= frame[m - 1] and frame[m] > frame[m + 1]]
    for frequency in harmonics:
        assert min(abs(m - band(frequency)) for m in peaks) <= 1.0
    # And nowhere else.
    for m in peaks:
        assert min(abs(m - band(frequency)) for frequency in harmonics) <= 1.0


@pytest.mark.parametrize("pitch", [45, 57, 69, 84, 107])
def test_comb_is_the_codecs_frame_of_equal_sinusoids(comb, pitch):
    time = np.arange(4 * CODEC.window) / CODEC.sample_rate
    rng = np.random.default_rng(pitch)
    tone = sum(np.sin(2 * np.pi * (k * hertz(pitch) * time + rng.uniform()))
               for k in range(1, int(8000 / hertz(pitch)) + 1))
    frame = CODEC.encode(tone)[2]
    frame = np.maximum(frame - frame.max(), COMB_FLOOR)
    loud = frame > -3  # side lobes interfere below
    assert loud.sum() >= 4
    # Measured: 0.09 nat at the lowest pitch, where lobes of neighbours touch and phases count.
    np.testing.assert_allclose(comb[pitch][loud], frame[loud], atol=0.12)


def test_combs_are_zero_at_their_peaks_and_flat_for_drums(comb):
    assert comb.shape == (KEYS, CODEC.mels) and comb.dtype == np.float32
    np.testing.assert_array_equal(comb.max(1), 0)
    assert comb.min() == COMB_FLOOR
    assert not comb[128:].any()


def test_every_parameter_has_logical_axes(variables):
    params = traverse_util.flatten_dict(unfreeze(variables["params"]))
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(variables["params_axes"])))
    assert {k: v.ndim for k, v in params.items()} == {k: len(v) for k, v in axes.items()}
    assert params["input_key", "embedding"].shape == (KEYS, 8)
    assert params["gate_program", "embedding"].shape == (PROGRAMS, 8)


def test_rows_by_products_are_rows_by_gathers(variables, rows):
    a, b = (draw(one_hot, variables["params"], *rows) for one_hot in (False, True))
    assert a.shape == (5, CODEC.mels) and np.isfinite(a).all()
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_any_leading_shape_is_a_list_of_notes(variables, rows):
    cube = [jnp.stack([r, r])[:, :, None] for r in rows]  # [2, 5, 1]
    got = draw(False, variables["params"], *cube)
    want = draw(False, variables["params"], *rows)
    assert got.shape == (2, 5, 1, CODEC.mels)
    np.testing.assert_allclose(got[1, :, 0], want, atol=1e-5)


def test_drums_have_keys_and_combs_of_their_own(variables, rows):
    gradient = jax.grad(lambda params: draw(True, params, *rows).sum())(variables["params"])
    used = np.flatnonzero(np.abs(gradient["input_key"]["embedding"]).sum(1))
    assert used.tolist() == [60, 127, 128 + 38, 128 + 60]
    used = np.flatnonzero(np.abs(gradient["gate_program"]["embedding"]).sum(1))
    assert used.tolist() == [0, 40, 127, 128]


def test_the_comb_shows_in_the_frame(variables, comb):
    """With equal envelopes for all bins and no noise part, the frame is the comb."""
    params = jax.tree.map(jnp.asarray, variables["params"])
    output = {"kernel": jnp.zeros_like(params["output"]["kernel"]),
              "bias": jnp.where(jnp.arange(256) < 128, 1.0, -10.0)}
    note = [jnp.asarray([v]) for v in (0, 69, 100, 0.1, -1.0)]
    frame = draw(False, {**params, "output": output}, *note)[0]
    np.testing.assert_allclose(frame, comb[69] + 4.0 * 1.0 - 6.0, atol=1e-4)


def test_time_is_seen_finest_around_onset_and_release():
    def change(age, release, step):
        x, y = (time_features(jnp.asarray([a]), jnp.asarray([r])) for a, r in (
            (age, release), (age + step, release + step)))
        return float(jnp.abs(x - y).max())

    assert change(0.0, -5.0, 0.005) > 3 * change(0.2, -5.0, 0.005) > 0
    assert change(9.0, 0.0, 0.005) > 3 * change(9.0, 0.2, 0.005) > 0
    # Held at the ends: an hour-long note sounds like a minute of it.
    np.testing.assert_array_equal(time_features(jnp.asarray([60.0]), jnp.asarray([-50.0])),
                                  time_features(jnp.asarray([3600.0]), jnp.asarray([-3000.0])))


def test_power_sum_in_float64():
    rng = np.random.default_rng(0)
    mel = rng.uniform(-11, 4, (2, 3, 5, 7)).astype(np.float32)
    weight = rng.integers(0, 2, (2, 3, 5)).astype(np.float32)
    got = power_sum(jnp.asarray(mel), jnp.asarray(weight))
    power = (np.exp(2 * mel.astype(np.float64)) * weight[..., None]).sum(2) + 1e-10
    np.testing.assert_allclose(got, 0.5 * np.log(power), atol=2e-5)


def test_power_sum_of_twins_is_three_decibels_up_and_of_nothing_the_floor():
    mel = jnp.full((2, 4), 1.0)
    np.testing.assert_allclose(power_sum(mel, jnp.ones(2)), 1 + 0.5 * np.log(2), atol=1e-6)
    np.testing.assert_allclose(power_sum(mel, jnp.asarray([1.0, 0.0])), 1, atol=1e-6)
    np.testing.assert_allclose(power_sum(mel, jnp.zeros(2)), CODEC.log_min, atol=1e-4)
    assert np.isfinite(jax.grad(lambda m: power_sum(m, jnp.zeros(2)).sum())(mel)).all()
    np.testing.assert_allclose(power_sum(mel, jnp.zeros(2), 1e-3), np.log(1e-3), atol=1e-4)
