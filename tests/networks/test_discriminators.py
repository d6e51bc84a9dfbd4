import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.networks.discriminators import (
    Discriminators,
    DiscriminatorsConfig,
    STFTDiscriminator,
    STFTDiscriminatorConfig,
    WaveDiscriminator,
    WaveDiscriminatorConfig,
    WaveJudge,
    complex_spectra,
    halve_rate,
)

STFT = STFTDiscriminatorConfig(
    windows=(32, 64), hops=(8, 24), channels=(3, 4, 5), strides=((1, 2), (2, 2)),
    stem_kernel=(3, 4), stem_stride=(1, 2))
WAVE = WaveDiscriminatorConfig(scales=2, channels=(4, 6, 8), groups=(1, 2), kernel=9, stride=4)
BOTH = DiscriminatorsConfig(stft=STFT, wave=WAVE)
S = 200

spectra = functools.partial(
    jax.jit, static_argnames=("window", "hop", "compression"))(complex_spectra)


@functools.partial(jax.jit, static_argnums=0)
def run(module, params, samples):
    return module.apply({"params": params}, samples)


def shapes_of(module, samples=S):
    x = jax.ShapeDtypeStruct((2, samples), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x)


def random_params(module):
    rng = np.random.default_rng(0)

    def draw(shape):
        fan_in = math.prod(shape.shape[:-1]) or 1
        return jnp.asarray(rng.normal(size=shape.shape) / math.sqrt(fan_in), jnp.float32)

    return jax.tree.map(draw, unfreeze(shapes_of(module)["params"]))


def noise(samples=S, batch=2):
    return jnp.asarray(np.random.default_rng(1).normal(size=(batch, samples)), jnp.float32)


def count(params):
    return sum(p.size for p in jax.tree.leaves(params))


@pytest.mark.parametrize("window, hop, samples", [(32, 8, 200), (64, 24, 200), (64, 64, 128),
                                                  (30, 7, 30), (30, 7, 43)])
def test_spectra_are_those_of_the_whole_windows(window, hop, samples):
    x = noise(samples)
    got = spectra(x, window=window, hop=hop, compression=1.0)
    hann = np.hanning(window + 1)[:-1]
    starts = range(0, samples - window + 1, hop)
    want = np.stack([np.fft.rfft(np.asarray(x, np.float64)[:, s:s + window] * hann)[:, :-1]
                     for s in starts], axis=1) / np.sqrt((hann**2).sum())
    np.testing.assert_allclose(got[..., 0], want.real, atol=1e-5)
    np.testing.assert_allclose(got[..., 1], want.imag, atol=1e-5)


def test_white_noise_has_variance_one_in_every_bin():
    power = np.square(spectra(noise(40000), window=32, hop=16, compression=1.0)).sum(-1)
    np.testing.assert_allclose(power.mean(axis=(0, 1))[2:], 1, atol=0.1)


def test_compression_is_a_power_of_the_magnitude_and_keeps_the_phase():
    plain, compressed = (spectra(noise(), window=32, hop=8, compression=c) for c in (1, 0.3))
    before, after = (np.asarray(z[..., 0] + 1j * z[..., 1]) for z in (plain, compressed))
    np.testing.assert_allclose(np.abs(after), np.abs(before) ** 0.3, rtol=1e-3)
    np.testing.assert_allclose(after / np.abs(after), before / np.abs(before), atol=1e-3)


@pytest.mark.parametrize("compression", [1.0, 0.3])
def test_silence_has_no_spectrum_and_a_finite_gradient(compression):
    def total(x):
        return jnp.sum(complex_spectra(x, window=32, hop=8, compression=compression))

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros((1, 64)))
    assert value == 0 and np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_samples_shorter_than_a_window_are_an_error():
    with pytest.raises(ValueError, match="31 samples"):
        complex_spectra(jnp.zeros((1, 31)), window=32, hop=8, compression=1.0)


def test_half_rate_by_hand():
    got = halve_rate(jnp.asarray([[3.0, 6.0, 9.0, 30.0, 60.0, 90.0]]))
    assert got.tolist() == [[6.0, 105 / 4, 60.0]]
    assert halve_rate(jnp.zeros((1, 7))).shape == (1, 3)


def test_scales_of_the_waveform_are_one_network_at_lower_rates():
    module, x = WaveDiscriminator(WAVE), noise()
    params = random_params(module)
    logits, features = run(module, params, x)
    for i, samples in enumerate([x, halve_rate(x)]):
        judged, inner = run(WaveJudge(WAVE), params[f"scale_{2**i}"], samples)
        np.testing.assert_array_equal(logits[i], judged)
        assert all(np.array_equal(a, b) for a, b in zip(features[i], inner, strict=True))


@pytest.mark.parametrize("samples", [64, 200, 1001])
def test_lists_of_logits_and_features_have_the_documented_shapes(samples):
    params = shapes_of(Discriminators(BOTH), samples)
    logits, features = jax.eval_shape(
        Discriminators(BOTH).apply, {"params": params["params"]}, jnp.zeros((2, samples)))
    want_logits, want_features = [], []
    for window, hop in ((32, 8), (64, 24)):
        time, bins = 1 + (samples - window) // hop, window // 4
        half = -(-time // 2)
        # Features of the stem and of units with strides (1, 2) and (2, 2).
        want_features.append([(2, time, bins, 3), (2, time, bins // 2, 4), (2, half, bins // 4, 5)])
        want_logits.append((2, half))
    for size in (samples, samples // 2):
        fine, coarse = math.ceil(size / 4), math.ceil(size / 16)
        want_features.append([(2, size, 4), (2, fine, 6), (2, coarse, 8), (2, coarse, 8)])
        want_logits.append((2, coarse))
    assert [x.shape for x in logits] == want_logits
    assert [[x.shape for x in inner] for inner in features] == want_features


def test_together_they_are_the_single_ones_in_order():
    params, x = random_params(Discriminators(BOTH)), noise()
    logits, features = run(Discriminators(BOTH), params, x)
    alone = [run(STFTDiscriminator(STFT), params["stft"], x),
             run(WaveDiscriminator(WAVE), params["wave"], x)]
    for got, want in ((logits, alone[0][0] + alone[1][0]), (features, alone[0][1] + alone[1][1])):
        got, want = jax.tree.leaves(got), jax.tree.leaves(want)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("stft, wave, parts", [
    (STFT, None, {"stft"}), (None, WAVE, {"wave"}), (STFT, WAVE, {"stft", "wave"})])
def test_what_is_not_configured_is_not_there(stft, wave, parts):
    module = Discriminators(DiscriminatorsConfig(stft=stft, wave=wave))
    assert set(shapes_of(module)["params"]) == parts
    assert len(jax.eval_shape(module.init_with_output, jax.random.key(0), noise())[0][0]) == (
        2 * len(parts))


def stft_parameters(c):
    """Counted on paper; the bias of a unit's shortcut would double that of its convolution."""
    total = 0
    for window in c.windows:
        total += math.prod(c.stem_kernel) * 2 * c.channels[0] + c.channels[0]
        bins = -(-window // 2 // c.stem_stride[1])
        for before, after, (t, f) in zip(c.channels, c.channels[1:], c.strides, strict=False):
            total += 9 * before**2 + before
            total += (t + 2) * (f + 2) * before * after + after
            total += before * after
            bins = -(-bins // f)
        total += bins * c.channels[-1] + 1
    return total


def wave_parameters(c):
    total = 15 * c.channels[0] + c.channels[0]
    for before, after, groups in zip(c.channels, c.channels[1:], c.groups, strict=False):
        total += c.kernel * before // groups * after + after
    last = c.channels[-1]
    return c.scales * (total + 5 * last**2 + last + 3 * last + 1)


@pytest.mark.parametrize("config", [STFT, STFTDiscriminatorConfig()], ids=["small", "paper"])
def test_number_of_parameters_of_the_stft_discriminator(config):
    assert count(shapes_of(STFTDiscriminator(config), 4096)["params"]) == stft_parameters(config)


@pytest.mark.parametrize("config", [WAVE, WaveDiscriminatorConfig()], ids=["small", "paper"])
def test_number_of_parameters_of_the_wave_discriminator(config):
    assert count(shapes_of(WaveDiscriminator(config), 4096)["params"]) == wave_parameters(config)


@pytest.mark.slow
def test_every_parameter_and_sample_matters_and_parameters_have_logical_axes():
    module, x = Discriminators(BOTH), noise()
    params = random_params(module)

    def loss(params, x):
        logits, _ = run(module, params, x)
        return sum(jnp.sum(judged**2) for judged in logits)

    for name, g in traverse_util.flatten_dict(jax.grad(loss)(params, x)).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    by_sample = jax.grad(loss, 1)(params, x)
    assert np.isfinite(by_sample).all() and np.abs(by_sample).min() > 0
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(shapes_of(module)["params_axes"])))
    flat = traverse_util.flatten_dict(params)
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in flat.items()}


def test_feature_matching_reaches_the_generator_from_every_layer():
    module, x = Discriminators(BOTH), noise()
    params = random_params(module)
    entries = jax.eval_shape(lambda x: run(module, params, x)[1], x)

    def sums(x):
        return jnp.stack([jnp.sum(f**2) for inner in run(module, params, x)[1] for f in inner])

    by_layer = jax.jit(jax.jacrev(sums))(x)
    assert len(by_layer) == sum(len(inner) for inner in entries)
    assert (np.abs(by_layer).max(axis=(1, 2)) > 0).all() and np.isfinite(by_layer).all()


@pytest.mark.slow
def test_a_few_steps_tell_a_tone_from_noise():
    module = Discriminators(BOTH)
    real = jnp.stack([jnp.sin(0.3 * jnp.arange(S) + phase) for phase in range(4)])
    fake = 0.7 * noise(batch=4)
    params = random_params(module)

    def nothing_below(x):
        return jnp.mean(jnp.maximum(0.0, x))

    def loss(params):
        """Hinge loss, a mean over the resolutions; 2 for one that knows nothing."""
        pairs = zip(run(module, params, real)[0], run(module, params, fake)[0], strict=True)
        return sum(nothing_below(1 - r) + nothing_below(1 + f) for r, f in pairs) / 4

    @jax.jit
    def step(params):
        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.01 * jnp.sign(g), params, gradient)

    values = []
    for _ in range(60):
        value, params = step(params)
        values.append(float(value))
    assert values[0] > 1.5 and values[-1] < 0.5


@pytest.mark.parametrize("config, fields, match", [
    (STFTDiscriminatorConfig, {"windows": ()}, "windows"),
    (STFTDiscriminatorConfig, {"windows": (512, 1024)}, "hops"),
    (STFTDiscriminatorConfig, {"windows": (511,)}, "windows"),
    (STFTDiscriminatorConfig, {"hops": (1025,)}, "hops"),
    (STFTDiscriminatorConfig, {"channels": (32,)}, "channels"),
    (STFTDiscriminatorConfig, {"compression": 0.0}, "compression"),
    (WaveDiscriminatorConfig, {"scales": 0}, "scales"),
    (WaveDiscriminatorConfig, {"channels": (16, 64)}, "channels"),
    (WaveDiscriminatorConfig, {"groups": (3, 16, 64, 256)}, "groups"),
    (WaveDiscriminatorConfig, {"stride": 42}, "stride"),
    (DiscriminatorsConfig, {"stft": None, "wave": None}, "stft"),
])
def test_configurations_that_cannot_be_are_refused(config, fields, match):
    with pytest.raises(ValueError, match=match):
        config(**fields)
