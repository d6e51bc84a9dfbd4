"""Adversarial losses by hand, and which player gets which gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.models.adversarial import (
    adversarial_losses,
    discriminator_hinge,
    feature_matching,
    generator_hinge,
)

REAL = [jnp.array([[2.0, 0.5]]), jnp.array([[-1.0, 0.0, 1.0, 3.0]])]
FAKE = [jnp.array([[-2.0, -0.5]]), jnp.array([[1.0, 0.0, -1.0, -3.0]])]


def test_hinge_by_hand():
    # 1 - real: 0, 0.5 | 2, 1, 0, 0;  1 + fake: 0, 0.5 | 2, 1, 0, 0;  1 - fake: 3, 1.5 | 0, 1, 2, 4
    assert discriminator_hinge(REAL, FAKE) == pytest.approx((0.5 + 1.5) / 2)
    assert generator_hinge(FAKE) == pytest.approx((2.25 + 1.75) / 2)


def test_every_sub_discriminator_counts_alike():
    # Twice as many logits of the same values change nothing.
    longer = [REAL[0], jnp.tile(REAL[1], (1, 5))], [FAKE[0], jnp.tile(FAKE[1], (1, 5))]
    assert discriminator_hinge(*longer) == pytest.approx(float(discriminator_hinge(REAL, FAKE)))
    assert generator_hinge(longer[1]) == pytest.approx(float(generator_hinge(FAKE)))


def test_feature_matching_by_hand_and_at_any_scale():
    real = [[jnp.array([1.0, -3.0]), jnp.array([[4.0]])], [jnp.array([2.0])]]
    fake = [[jnp.array([0.0, -1.0]), jnp.array([[5.0]])], [jnp.array([0.0])]]
    expected = (1.5 / 2 + 1 / 4 + 2 / 2) / 3
    assert feature_matching(real, fake) == pytest.approx(expected)
    scaled = [jax.tree.map(lambda x: 7 * x, [layers[0], *layers[1:]]) for layers in (real, fake)]
    assert feature_matching(*scaled) == pytest.approx(expected)
    assert feature_matching(real, real) == 0
    silent = jax.tree.map(jnp.zeros_like, real)
    assert np.isfinite(feature_matching(silent, fake))


def judge(params, samples):
    """Two sub-discriminators of a hidden layer each."""
    hidden = [jnp.tanh(samples @ w) for w in params["inner"]]
    return [h @ v for h, v in zip(hidden, params["outer"], strict=True)], [[h] for h in hidden]


@pytest.fixture
def players():
    rng = np.random.default_rng(0)
    d = {"inner": [jnp.asarray(rng.normal(size=(6, 5))) for _ in range(2)],
         "outer": [jnp.asarray(rng.normal(size=(5, 3))) for _ in range(2)]}
    return d, jnp.asarray(rng.normal(size=(4, 6))), jnp.asarray(rng.normal(size=(6,)))


def generate(g, size=4):
    return jnp.tanh(jnp.outer(jnp.linspace(-1, 1, size), g))


@pytest.mark.slow
def test_one_backward_pass_gives_each_player_its_own_gradient(players):
    d, real, g = players

    def total(g, d):
        terms = adversarial_losses(judge, d, real, generate(g))
        return 0.7 * terms.adversarial + 3.0 * terms.feature + terms.discriminator

    def generators(g):
        logits, features = judge(d, generate(g))
        return 0.7 * generator_hinge(logits) + 3.0 * feature_matching(judge(d, real)[1], features)

    def discriminators(d):
        return discriminator_hinge(judge(d, real)[0], judge(d, generate(g))[0])

    of_g, of_d = jax.grad(total, (0, 1))(g, d)
    np.testing.assert_allclose(of_g, jax.grad(generators)(g), rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), of_d,
                 jax.grad(discriminators)(d))
    assert np.abs(of_g).min() > 0 and all(np.abs(x).max() > 0 for x in jax.tree.leaves(of_d))
    assert float(total(g, d)) == pytest.approx(float(generators(g) + discriminators(d)))


def test_mean_logits_are_reported(players):
    d, real, g = players
    terms = adversarial_losses(judge, d, real, generate(g))
    assert terms.d_real == pytest.approx(np.mean([x.mean() for x in judge(d, real)[0]]))
    assert terms.d_fake == pytest.approx(np.mean([x.mean() for x in judge(d, generate(g))[0]]))


def test_a_toy_game_ends_where_fakes_are_real():
    """One number to learn: the mean of the data, which only the discriminator knows."""
    data = jnp.full((16, 1), 0.8)

    def critic(params, x):
        hidden = jnp.tanh((x - params["centre"]) * params["slope"])
        return [hidden * params["weight"]], [[hidden]]

    def total(params):
        fake = jnp.broadcast_to(params["g"], data.shape)
        terms = adversarial_losses(critic, params["d"], data, fake)
        return terms.adversarial + terms.feature + terms.discriminator

    params = {"g": jnp.array(-0.5), "d": {"centre": jnp.array(0.1), "slope": jnp.array(1.0),
                                          "weight": jnp.array(0.3)}}

    def step(params, _):
        grads = jax.grad(total)(params)
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, grads), params["g"]

    final, path = jax.lax.scan(step, params, length=600)
    assert abs(float(path[0]) - 0.8) == pytest.approx(1.3)
    assert np.abs(np.asarray(path[-100:]) - 0.8).max() < 0.1
