import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.networks.positions import (
    FixedPositions,
    decorrelated_sinusoids,
    trainable,
)

T, E = 64, 16


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def variables():
    return FixedPositions(T, E).init(jax.random.key(0), T)


def test_every_channel_is_a_sinusoid_of_one_of_the_timescales():
    table = np.float64(decorrelated_sinusoids(jax.random.key(3), (T, E)))
    rates = 10_000.0 ** (-np.arange(E // 2) / (E // 2 - 1))
    p = np.arange(T)
    found = []
    for channel in table.T:
        # Least squares with a free phase (a sine and a cosine) fits exactly for one rate only.
        fits = []
        for rate in rates:
            basis = np.stack([np.sin(rate * p), np.cos(rate * p)], 1)
            weights = np.linalg.lstsq(basis, channel, rcond=None)[0]
            fits.append((np.abs(basis @ weights - channel).max(), np.hypot(*weights)))
        best = int(np.argmin([error for error, _ in fits]))
        assert fits[best][0] < 1e-4
        if rates[best] > 0.01:  # slower ones are too straight over T to tell the amplitude
            assert abs(fits[best][1] - 1) < 1e-3
        found.append(best)
    fast = [i for i in found if rates[i] > 0.01]
    assert sorted(fast) == sorted(2 * [i for i in range(E // 2) if rates[i] > 0.01])
    assert found != sorted(found)  # the channels are permuted


def test_two_keys_give_decorrelated_tables_and_one_key_the_same():
    a, b, again = (decorrelated_sinusoids(jax.random.key(k), (256, 512)) for k in (0, 1, 0))
    np.testing.assert_array_equal(a, again)
    correlation = (a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean())
    assert abs(float(correlation)) < 0.1


def test_positions_are_told_apart():
    table = np.asarray(decorrelated_sinusoids(jax.random.key(0), (256, 64)))
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1) + 9 * np.eye(256)
    assert distance.min() > 0.5


def test_absolute_and_terminal_relative_positions(variables):
    module = FixedPositions(T, E)
    table = np.asarray(variables["params"]["embedding"])
    np.testing.assert_array_equal(module.apply(variables, T)[0], table)
    lengths = jnp.asarray([0, 5, T])
    rolled = module.apply(variables, T, lengths)
    for i, length in enumerate([0, 5, T]):
        np.testing.assert_array_equal(rolled[i], np.roll(table, length, axis=0))
    np.testing.assert_array_equal(rolled[1, 4], table[-1])  # the last valid frame


def test_a_shorter_sequence_takes_the_first_rows_and_a_longer_one_is_refused(variables):
    module = FixedPositions(T, E)
    np.testing.assert_array_equal(module.apply(variables, 7), module.apply(variables, T)[:, :7])
    with pytest.raises(UserError, match=r"65.*64"):
        module.apply(variables, T + 1)


def test_the_table_is_a_parameter_without_gradient(variables):
    def loss(params):
        return (FixedPositions(T, E).apply({"params": params}, T) ** 2).sum()

    assert (np.asarray(jax.grad(loss)(variables["params"])["embedding"]) == 0).all()


def test_trainable_marks_tables_only():
    params = {"a": {"Embed_0": {"embedding": 1}, "b": {"kernel": 2}}, "scale": 3}
    assert trainable(params) == {
        "a": {"Embed_0": {"embedding": False}, "b": {"kernel": True}}, "scale": True}
