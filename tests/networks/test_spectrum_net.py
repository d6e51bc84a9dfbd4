import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.spectrum_net import SpectrumNet, SpectrumNetConfig, contrast

CONFIG = SpectrumNetConfig(trunk=ConvNeXtConfig(dim=12, hidden=20, blocks=2, kernel=3), upsample=2,
                           bins=17, features=5)
T, F, K = 20, 8, 9


@pytest.fixture(scope="module")
def params():
    zeros = jnp.zeros((1, 1, F))
    params = SpectrumNet(CONFIG).init(jax.random.key(0), zeros, zeros, jnp.zeros((1, 1, K)))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), jnp.float32), params)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    mel = jnp.asarray(rng.normal(size=(2, T, F)), jnp.float32)
    return 0.2 * mel, mel, jnp.asarray(rng.normal(size=(2, T, K)), jnp.float32)


@pytest.mark.slow
def test_two_outputs_at_the_finer_rate(params):
    correction, advance = SpectrumNet(CONFIG).apply({"params": params}, *inputs())
    assert correction.shape == advance.shape == (2, 2 * T, 17)


@pytest.mark.slow
def test_at_first_nothing_is_corrected():
    network = SpectrumNet(CONFIG)
    fresh = network.init(jax.random.key(0), *(x[:, :1] for x in inputs()))["params"]
    for output in network.apply({"params": fresh}, *inputs()):
        assert np.abs(output).max() < 0.2


def test_parameters_are_those_of_the_parts(params):
    d, h, k = 12, 20, 3
    trunk = (k * (F + 5 + F) * d + d) + 4 * d  # input convolution and the outer norms
    trunk += 2 * ((k * d + d) + 2 * d + (d * h + h) + (h * d + d) + d)  # blocks
    count = trunk + (K * 5 + 5) + 2 * (d * 2 * 17 + 2 * 17)
    assert sum(p.size for p in jax.tree.leaves(params)) == count


@pytest.mark.slow
def test_a_frame_depends_on_the_frames_within_the_context(params):
    network, context = SpectrumNet(CONFIG), CONFIG.context_frames
    assert context == 3
    given = inputs()
    base = network.apply({"params": params}, *given)
    rng = np.random.default_rng(1)
    changed = [x.at[:, 9].add(jnp.asarray(9 * rng.normal(size=x[:, 9].shape), jnp.float32)) for x in given]
    for a, b in zip(base, network.apply({"params": params}, *changed), strict=True):
        moved = np.flatnonzero(np.abs(np.asarray(a - b)).max(axis=(0, 2)) > 0)
        assert moved.min() == 2 * (9 - context) and moved.max() == 2 * (9 + context) + 1


def test_contrast_is_the_excess_over_the_surroundings():
    mel = np.zeros((1, 1, 31), np.float32)
    mel[0, 0, 15] = 2.0
    got = np.asarray(contrast(jnp.asarray(mel)))[0, 0]
    assert got[15] == pytest.approx(2 - 2 / 13) and got[16] == pytest.approx(-2 / 13)
    assert got[15 + 7] == 0
    np.testing.assert_allclose(contrast(jnp.asarray(mel + 5)), contrast(jnp.asarray(mel)), atol=1e-5)
