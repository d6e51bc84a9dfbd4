"""The train step: gradients, clipping, averages, micro-batches, frozen parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference.toy_regression import IN, OUT, ToyModel, ToySource

from music_diffusion.training.optimizers import Optimizer, adafactor, adamw
from music_diffusion.training.state import ema_decay_at, init_state, make_train_step

SHAPES = {"x": (8, IN), "y": (8, OUT)}


def sgd(learning_rate=1.0):
    return Optimizer(transform=optax.sgd(learning_rate),
                     learning_rate=optax.constant_schedule(learning_rate))


def batches(count, size=8):
    iterator = ToySource().train_iterator(size, 0)
    return [next(iterator) for _ in range(count)]


def run(optimizer, data, model=None, ema_decay=0.0, **options):
    model = model or ToyModel()
    state, _ = init_state(model, optimizer, SHAPES, seed=0, ema=ema_decay > 0)
    step = jax.jit(make_train_step(model, optimizer, seed=0, ema_decay=ema_decay, **options))
    states, metrics = [state], []
    for batch in data:
        state, m = step(state, batch)
        states.append(state)
        metrics.append(jax.device_get(m))
    return states, metrics


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64)


def test_a_step_is_the_gradient_by_hand():
    (batch,) = batches(1)
    states, metrics = run(sgd(0.1), [batch])
    w, u, b = (np.asarray(states[0].params[k], np.float64) for k in ("w", "u", "bias"))
    error = batch["x"] @ w @ u + b - batch["y"]
    assert metrics[0]["loss"] == pytest.approx(np.mean(error**2), rel=1e-5)
    g = 2 * error / error.size
    by_hand = {"bias": g.sum(0), "u": (batch["x"] @ w).T @ g, "w": batch["x"].T @ g @ u.T}
    for name, grad in by_hand.items():
        moved = np.asarray(states[1].params[name], np.float64) - np.asarray(states[0].params[name])
        np.testing.assert_allclose(moved, -0.1 * grad, atol=2e-6)  # measured 3e-7
    norm = np.sqrt(sum(np.sum(v**2) for v in by_hand.values()))
    assert metrics[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [adamw(learning_rate=0.03), adafactor(learning_rate=0.05)])
def test_optimizers_solve_the_regression(optimizer):
    _, metrics = run(optimizer, batches(300))
    assert metrics[-1]["loss"] < 0.02 * metrics[0]["loss"]


def test_micro_batches_are_the_whole_batch():
    data = batches(3)
    whole, m_whole = run(sgd(0.1), data)
    parts, m_parts = run(sgd(0.1), data, microbatches=4)
    np.testing.assert_allclose(flat(whole[-1].params), flat(parts[-1].params), atol=2e-6)
    for a, b in zip(m_whole, m_parts, strict=True):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)


def test_micro_batches_draw_different_noise():
    (batch,) = batches(1)
    same = {k: np.repeat(v[:1], 2, 0) for k, v in batch.items()}
    model = ToyModel(noise=1.0)
    one, _ = run(sgd(), [{k: v[:1] for k, v in same.items()}], model)
    two, _ = run(sgd(), [same], model, microbatches=2)
    assert np.abs(flat(one[-1].params) - flat(two[-1].params)).max() > 1e-3


def test_clipping_keeps_the_direction_and_bounds_the_norm():
    data = batches(1)
    free, m_free = run(sgd(), data)
    clipped, m_clipped = run(sgd(), data, clip_norm=0.01)
    loose, _ = run(sgd(), data, clip_norm=2 * float(m_free[0]["grad_norm"]))
    assert m_clipped[0]["update_norm"] == pytest.approx(0.01, rel=1e-4)
    assert m_clipped[0]["grad_norm"] == m_free[0]["grad_norm"]  # reported as it was
    a, b = (flat(s[1].params) - flat(s[0].params) for s in (free, clipped))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(flat(loose[1].params), flat(free[1].params))


def test_average_is_its_closed_form():
    states, _ = run(sgd(0.1), batches(20), ema_decay=0.9, ema_warmup=False)
    p = [flat(s.params) for s in states]
    closed = 0.9**20 * p[0] + 0.1 * sum(0.9 ** (20 - k) * p[k] for k in range(1, 21))
    np.testing.assert_allclose(flat(states[-1].ema_params), closed, atol=1e-6)
    assert np.abs(closed - p[-1]).max() > 1e-3


def test_average_with_warmup_forgets_the_start():
    states, _ = run(sgd(0.1), batches(20), ema_decay=0.9999)
    average = flat(states[0].params)
    for t, state in enumerate(states[1:]):
        decay = min(0.9999, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * flat(state.params)
    np.testing.assert_allclose(flat(states[-1].ema_params), average, atol=1e-6)
    assert float(ema_decay_at(10**6, 0.9999, True)) == pytest.approx(0.9999)


def test_frozen_parameters_stay_to_the_bit():
    model = ToyModel(frozen=("^bias$",))
    optimizer = dataclasses.replace(adamw(learning_rate=0.1, weight_decay=1.0), frozen=("u",))
    states, metrics = run(optimizer, batches(5), model, ema_decay=0.9)
    for name in ("bias", "u"):
        first = states[0].params[name]
        np.testing.assert_array_equal(states[-1].params[name], first)
        np.testing.assert_array_equal(states[-1].ema_params[name], first)
    assert np.abs(states[-1].params["w"] - states[0].params["w"]).max() > 0.1
    # The norm that is clipped is of what is trained.
    free, m_free = run(adamw(learning_rate=0.1), batches(1))
    assert metrics[0]["grad_norm"] < m_free[0]["grad_norm"]


def test_noise_is_a_function_of_seed_and_step():
    (batch,) = batches(1)
    model = ToyModel(noise=1.0)
    still = Optimizer(transform=optax.set_to_zero(), learning_rate=optax.constant_schedule(0.0))
    _, a = run(still, [batch] * 3, model)
    _, b = run(still, [batch] * 3, model)
    assert [m["loss"] for m in a] == [m["loss"] for m in b]
    assert len({float(m["loss"]) for m in a}) == 3


def test_the_first_bad_step_is_kept():
    data = batches(4)
    data[1] = {**data[1], "y": np.full_like(data[1]["y"], np.nan)}
    states, _ = run(sgd(), data)
    assert [int(s.bad_step) for s in states] == [0, 0, 2, 2, 2]
    # An update that overflows is bad although loss and gradient are finite.
    states, _ = run(sgd(1e38), batches(1))
    assert int(states[-1].bad_step) == 1 and jnp.isfinite(states[0].params["w"]).all()
