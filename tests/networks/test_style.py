"""Style encoders and the denoisers that attend to them: the paper's sizes, what is dropped and seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.networks.style import (
    FrameStyleConfig,
    FrameStyleEncoder,
    PictureStyleConfig,
    PictureStyleEncoder,
)
from music_diffusion.networks.style_denoiser import (
    PictureStyleDenoiserConfig,
    StyleDenoiserConfig,
    style_denoiser,
)
from music_diffusion.networks.unet1d import UNet1DConfig

F, S, B = 8, 16, 3
STYLE = FrameStyleConfig(patch=2, width=8, blocks=1, maps=2, vector=4)
FRAMES = StyleDenoiserConfig(
    unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=2, head_dim=4, output=6, memories=2),
    style=STYLE, step=2, content=5, codec=None, frame_features=4)
PICTURES = PictureStyleDenoiserConfig(
    latent=4, features=(4, 6, 8), style=PictureStyleConfig(features=(4, 6, 8), maps=2), heads=2,
    time_features=4, step=2)


def size_of(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def arguments(config, seed=0):
    rng = np.random.default_rng(seed)
    positions = config.multiple // config.step * 2
    features = config.unet.output if isinstance(config, StyleDenoiserConfig) else 8 * config.latent
    return [jnp.asarray(x, jnp.float32) for x in (
        rng.normal(size=(B, positions, features)), rng.uniform(size=B),
        rng.uniform(size=(B, config.step * positions, max(config.content, 1))),
        rng.normal(size=(B, S, F)), np.ones(B), np.ones(B))]


def awake(config, seed=1):
    """Parameters of a network in which nothing is zero."""
    shapes = jax.eval_shape(style_denoiser(config).init, jax.random.key(0), *arguments(config))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.asarray(0.3 * rng.normal(size=v.shape), jnp.float32), shapes)


@pytest.fixture(scope="module", params=[FRAMES, PICTURES], ids=["frames", "pictures"])
def network(request):
    config = request.param
    apply = jax.jit(style_denoiser(config).apply)
    params = awake(config)
    return config, lambda *given: np.asarray(apply({"params": params}, *given))


def test_the_paper_s_sizes():
    picture = jnp.zeros((1, 128, 128))
    shapes = jax.eval_shape(PictureStyleEncoder(PictureStyleConfig()).init, jax.random.key(0), picture)
    assert size_of(shapes["params"]) == 2_729_984  # table 2
    network = style_denoiser(PictureStyleDenoiserConfig())
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 512)), jnp.zeros(1),
                            None, picture, jnp.ones(1), jnp.ones(1))["params"]
    # Table 2 has 8,155,296; attention has biases there, those of keys, queries, values and outputs.
    biases = 2 * 4 * (512 + 256)
    assert size_of(shapes) - size_of(shapes["style"]) == 8_155_296 - biases


def test_maps_halve_and_the_vector_sees_all():
    rng = np.random.default_rng(3)
    style = jnp.asarray(rng.normal(size=(1, S, F)), jnp.float32)
    module = FrameStyleEncoder(STYLE)
    params = module.init(jax.random.key(0), style)
    seen = module.apply(params, style)
    assert [m.shape for m in seen.maps] == [(1, S // 2, 8), (1, S // 4, 8)]
    gradient = jax.grad(lambda x: module.apply(params, x).vector.sum())(style)
    assert np.all(np.abs(gradient).max(axis=-1) > 0)
    with pytest.raises(ValueError, match="15 frames of a style"):
        module.apply(params, style[:, :15])


def test_what_is_dropped_is_not_seen(network):
    config, apply = network
    u, time, content, style, on, _ = arguments(config)
    _, _, other_content, other_style, _, _ = arguments(config, seed=5)
    off = 0 * on
    np.testing.assert_array_equal(apply(u, time, content, style, on, off),
                                  apply(u, time, content, other_style, on, off))
    assert np.abs(apply(u, time, content, style, on, on)
                  - apply(u, time, content, other_style, on, on)).max() > 1e-3
    if config.content:
        np.testing.assert_array_equal(apply(u, time, content, style, off, on),
                                      apply(u, time, other_content, style, off, on))
        assert np.abs(apply(u, time, content, style, on, on)
                      - apply(u, time, other_content, style, on, on)).max() > 1e-3
    else:
        np.testing.assert_array_equal(apply(u, time, content, style, on, on),
                                      apply(u, time, other_content, style, off, on))


def test_examples_of_a_batch_are_apart(network):
    """Each with its own style, dropped or not."""
    config, apply = network
    u, time, content, style, on, _ = arguments(config)
    some = jnp.asarray([1.0, 0.0, 1.0])
    together = apply(u, time, content, style, on, some)
    for i in range(B):
        alone = apply(*(x[i:i + 1] for x in (u, time, content, style, on, some)))
        np.testing.assert_allclose(together[i:i + 1], alone, atol=2e-5)


def test_the_noise_level_is_seen(network):
    config, apply = network
    u, time, *rest = arguments(config)
    assert np.abs(apply(u, time, *rest) - apply(u, 1 - time, *rest)).max() > 1e-3


def test_every_parameter_of_the_style_matters(network):
    """Checks both maps, on the way down and up, and the vector."""
    config, _ = network
    given, params = arguments(config), awake(config)
    shares = jax.grad(lambda p: jnp.sum(jnp.square(style_denoiser(config).apply({"params": p}, *given))))(
        params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shares):
        name = jax.tree_util.keystr(path)
        if "statistics" not in name:
            assert np.abs(leaf).max() > 0, name


def test_the_authors_attention_replaces():
    added, replaced = (dataclasses.replace(PICTURES, adds=adds) for adds in (True, False))
    params, given = awake(PICTURES), arguments(PICTURES)
    one, two = (style_denoiser(c).apply({"params": params}, *given) for c in (added, replaced))
    assert np.abs(one - two).max() > 1e-3
    # Without a style nothing is left of the deepest levels: what lies above goes on alone.
    u, time, content, style, on, _ = given
    silent = style_denoiser(replaced).apply({"params": params}, u, time, content, style, on, 0 * on)
    zeroed = jax.tree_util.tree_map_with_path(
        lambda path, v: 0 * v if "middle" in jax.tree_util.keystr(path) else v, params)
    np.testing.assert_allclose(
        silent, style_denoiser(replaced).apply({"params": zeroed}, u, time, content, style, on, 0 * on),
        atol=1e-6)


@pytest.mark.parametrize("make, message", [
    (lambda: dataclasses.replace(FRAMES, style=dataclasses.replace(STYLE, maps=1)), "self.unet.memories=2"),
    (lambda: dataclasses.replace(FRAMES, step=0), "self.step=0"),
    (lambda: dataclasses.replace(STYLE, width=0), "self.width=0"),
    (lambda: PictureStyleConfig(features=(4,), maps=2), "self.maps=2"),
    (lambda: dataclasses.replace(PICTURES, time_features=5), "self.time_features=5"),
    (lambda: dataclasses.replace(PICTURES, features=(4, 6)), "should be more levels"),
    (lambda: dataclasses.replace(PICTURES, heads=3), "self.heads=3"),
])
def test_sizes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
