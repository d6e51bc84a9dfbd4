import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.istft_head import ISTFTHead, ISTFTHeadConfig, inverse_stft

F = 3
TRUNK = ConvNeXtConfig(dim=6, hidden=8, blocks=1, kernel=3)
CONFIG = ISTFTHeadConfig(trunk=TRUNK, hop=32, mels=F, upsample=2, fft=64, codec_window=64)
# (hop, upsample, fft, codec_window): 16 kHz, finer, 44.1 kHz with odd sub-frames, 24 kHz; windows
# that do not hold a whole number of sub-frames; and one so short that it begins after time 0.
TIMINGS = [(320, 2, 640, 640), (320, 4, 512, 640), (882, 2, 2048, 2048), (480, 3, 1024, 960),
           (32, 1, 70, 64), (320, 4, 160, 640)]


def config_of(timing):
    hop, upsample, fft, window = timing
    return ISTFTHeadConfig(trunk=TRUNK, hop=hop, mels=F, upsample=upsample, fft=fft,
                           codec_window=window)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, mel):
    return ISTFTHead(config).apply({"params": params}, mel)

invert = functools.partial(jax.jit, static_argnames=("hop", "start", "samples"))(inverse_stft)


def shapes_of(config):
    mel = jax.ShapeDtypeStruct((1, 4, config.mels), jnp.float32)
    return jax.eval_shape(ISTFTHead(config).init, jax.random.key(0), mel)


def random_params(config):
    rng = np.random.default_rng(0)

    def draw(shape):
        return jnp.asarray(rng.normal(size=shape.shape) / math.sqrt(shape.shape[0]), jnp.float32)

    return jax.tree.map(draw, unfreeze(shapes_of(config)["params"]))


def random_mel(frames, batch=1):
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (batch, frames, F)), jnp.float32)


def spectra(signal, starts, fft):
    """float64: log-magnitude in units of a full-scale sine's peak, and angle at the centre."""
    window = np.hanning(fft + 1)[:-1]
    padded = np.pad(signal, (4 * fft, 4 * fft))
    frames = np.stack([padded[4 * fft + s:][:fft] for s in starts]) * window
    at_centre = np.fft.rfft(np.roll(frames, fft // 2, axis=1))
    return np.log(np.abs(at_centre) / (fft / 4) + 1e-12), np.angle(at_centre)


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
def test_true_spectra_at_the_configured_times_give_the_signal(timing):
    config, frames = config_of(timing), 12
    rng = np.random.default_rng(0)
    signal = rng.uniform(-1, 1, frames * config.hop)
    hop, upsample, fft, codec_window = timing
    # Evenly around the centre of every codec frame; half samples are rounded down.
    centres = [i * hop + codec_window / 2 + (u - (upsample - 1) / 2) * hop / upsample
               for i in range(frames) for u in range(upsample)]
    starts = [math.floor(c - fft / 2) for c in centres]
    log_magnitude, angle = spectra(signal, starts, fft)
    got = invert(np.float32(log_magnitude)[None], np.float32(angle)[None], hop=config.fine_hop,
                 start=config.start, samples=frames * hop)[0]
    assert got.shape == signal.shape
    # Where all windows that reach a sample are there.
    first, last = max(0, starts[0] + fft), min(len(signal), starts[-1])
    assert last - first > len(signal) / 2
    # 4e-6 measured
    np.testing.assert_allclose(got[first:last], signal[first:last], atol=3e-5)


def test_a_full_scale_sine_has_magnitude_one_and_comes_back():
    fft, hop = 64, 16
    signal = np.sin(2 * np.pi * 8 * np.arange(640) / fft)
    log_magnitude, angle = spectra(signal, range(0, 640 - fft + 1, hop), fft)
    np.testing.assert_allclose(log_magnitude[:, 8], 0, atol=1e-9)
    got = invert(np.float32(log_magnitude)[None], np.float32(angle)[None], hop=hop, start=0,
                 samples=640)[0]
    np.testing.assert_allclose(got[fft:-fft], signal[fft:-fft], atol=1e-5)


def test_angle_zero_is_an_impulse_at_the_centre_of_the_window():
    fft, hop, start = 64, 16, -8
    log_magnitude = np.full((1, 5, fft // 2 + 1), -np.inf, np.float32)
    log_magnitude[:, 3] = 0.0
    got = invert(log_magnitude, np.zeros_like(log_magnitude), hop=hop, start=start, samples=100)[0]
    want = np.zeros(100)
    # Magnitude 1 is fft / 4 in every bin; periodic Hann² sums to 1.5 at a quarter of overlap.
    want[3 * hop + start + fft // 2] = fft / 4 / 1.5
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_beyond_the_spectra_lies_silence():
    rng = np.random.default_rng(0)
    log_magnitude, angle = (rng.normal(size=(1, 6, 33)).astype(np.float32) for _ in range(2))
    quiet = np.pad(log_magnitude, ((0, 0), (7, 7), (0, 0)), constant_values=-np.inf)
    got = invert(log_magnitude, angle, hop=16, start=-20, samples=90)
    want = invert(quiet, np.pad(angle, ((0, 0), (7, 7), (0, 0))), hop=16, start=-20 - 7 * 16,
                  samples=90)
    np.testing.assert_allclose(got, want, atol=1e-5)
    late = invert(log_magnitude, angle, hop=16, start=25, samples=300)[0]
    late = np.asarray(late)
    assert not late[:26].any() and not late[25 + 5 * 16 + 64:].any() and late[26:40].any()


def test_no_magnitude_overflows():
    huge = jnp.full((1, 5, 33), 1e4)
    value, gradient = jax.value_and_grad(
        lambda m: invert(m, jnp.zeros_like(m), hop=16, start=0, samples=96).sum())(huge)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("timing", TIMINGS, ids=str)
def test_frames_become_hop_samples_each(timing):
    config = config_of(timing)
    params = shapes_of(config)
    for frames in (1, 7):
        mel = jax.ShapeDtypeStruct((2, frames, F), jnp.float32)
        shape = jax.eval_shape(ISTFTHead(config).apply, {"params": params["params"]}, mel).shape
        assert shape == (2, frames * config.hop)


@pytest.mark.slow
@pytest.mark.parametrize("timing", [TIMINGS[0], TIMINGS[2], TIMINGS[-1]], ids=str)
def test_context_frames_are_the_receptive_field_exactly(timing):
    config = config_of(timing)
    context, params = config.context_frames, random_params(config)
    frames = 2 * context + 5
    middle = frames // 2

    def of_the_middle(mel):
        return jnp.abs(run(config, params, mel).reshape(frames, config.hop)[middle]).sum()

    seen = np.abs(jax.grad(of_the_middle)(random_mel(frames)))[0].sum(axis=1) > 0
    reach = np.flatnonzero(seen) - middle
    assert max(-reach[0], reach[-1]) == context
    assert seen[reach[0] + middle:reach[-1] + middle + 1].all()


def test_a_piece_in_parts_with_context_is_the_piece():
    params, context, hop = random_params(CONFIG), CONFIG.context_frames, CONFIG.hop
    mel = random_mel(25)
    whole = np.asarray(run(CONFIG, params, mel))[0]
    part = np.asarray(run(CONFIG, params, mel[:, 10 - context:13 + context]))[0]
    np.testing.assert_allclose(part[context * hop:-context * hop], whole[10 * hop:13 * hop],
                               atol=1e-6)


def test_number_of_parameters():
    config = ISTFTHeadConfig(trunk=ConvNeXtConfig(dim=16, hidden=24, blocks=2, kernel=5), upsample=4,
                             fft=512)
    params = shapes_of(config)["params"]
    embed = 5 * 128 * 16 + 16 + 2 * 2 * 16
    block = 5 * 16 + 16 + 2 * 16 + 16 * 24 + 24 + 24 * 16 + 16 + 16
    head = (16 + 1) * 4 * 2 * 257
    assert sum(p.size for p in jax.tree.leaves(params)) == embed + 2 * block + head


def test_every_parameter_matters_and_has_logical_axes():
    mel, params = random_mel(6), random_params(CONFIG)
    gradient = jax.grad(lambda p: jnp.sum(run(CONFIG, p, mel) ** 2))(params)
    for name, g in traverse_util.flatten_dict(gradient).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    axes = unfreeze(get_axis_names(shapes_of(CONFIG)["params_axes"]))
    flat = traverse_util.flatten_dict(params)
    assert {k: len(v) for k, v in traverse_util.flatten_dict(axes).items()} == {
        k: v.ndim for k, v in flat.items()}


def test_a_fresh_generator_is_quiet_but_not_silent():
    config = ISTFTHeadConfig(trunk=ConvNeXtConfig(dim=32, hidden=32, blocks=1), mels=F)
    y, _ = jax.jit(ISTFTHead(config).init_with_output)(jax.random.key(0), random_mel(20))
    assert 1e-3 < float(jnp.std(y)) < 0.1 and np.abs(y).max() < 1


@pytest.mark.parametrize("fields, match", [
    ({"upsample": 3}, "upsample"), ({"upsample": 0}, "upsample"), ({"hop": 0}, "hop"),
    ({"fft": 641}, "fft"), ({"fft": 318}, "fft")])
def test_configurations_that_cannot_be_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        ISTFTHeadConfig(**fields)
