"""Optimizers against NumPy by hand, and frozen parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from music_diffusion.errors import UserError
from music_diffusion.training.optimizers import (
    PartOptimizer,
    adafactor,
    adamw,
    by_part,
    frozen_mask,
    muon,
    plateau,
    skip_frozen,
    warmup_constant,
    warmup_cosine,
)

RNG = np.random.default_rng(0)
PARAMS = {"dense": {"kernel": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
                    "bias": jnp.asarray(RNG.normal(size=4), jnp.float32)}}
GRADS = {"dense": {"kernel": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
                   "bias": jnp.asarray(RNG.normal(size=4), jnp.float32)}}


def first_update(transform, params=PARAMS, grads=GRADS):
    updates, _ = transform.update(grads, transform.init(params), params)
    return {k: np.asarray(v, np.float64) for k, v in updates["dense"].items()}


def test_adamw_first_step_is_the_sign_and_only_matrices_decay():
    update = first_update(adamw(learning_rate=0.1, weight_decay=0.5).transform)
    # t = 1: m̂ = g and v̂ = g², so the step is g / (|g| + ε).
    kernel, bias = PARAMS["dense"]["kernel"], PARAMS["dense"]["bias"]
    expected = -0.1 * (np.sign(GRADS["dense"]["kernel"]) + 0.5 * np.asarray(kernel))
    np.testing.assert_allclose(update["kernel"], expected, atol=1e-6)
    np.testing.assert_allclose(update["bias"], -0.1 * np.sign(GRADS["dense"]["bias"]), atol=1e-6)
    assert np.abs(0.05 * np.asarray(bias)).max() > 1e-3  # a decayed bias would have failed


def test_muon_moves_matrices_along_their_singular_vectors_and_biases_by_adam():
    grads = {"dense": {"kernel": jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32),
                       "bias": GRADS["dense"]["bias"]}}
    params = jax.tree.map(jnp.zeros_like, grads)
    update = first_update(muon(learning_rate=0.1, iterations=5, others=0.5).transform, params, grads)
    u, _, v = np.linalg.svd(np.asarray(grads["dense"]["kernel"], np.float64), full_matrices=False)
    # An orthonormal matrix of 4 columns has 4 of 24 for its mean square; 0.2 is asked for.
    along = np.diag(u.T @ update["kernel"] @ v.T) / (-0.1 * 0.2 * np.sqrt(24 / 4))
    assert (along > 0.6).all() and (along < 1.3).all()  # Newton–Schulz ends near 1, by its design
    across = u.T @ update["kernel"] @ v.T
    np.testing.assert_allclose(across - np.diag(np.diag(across)), 0.0, atol=1e-5)
    # Nesterov: the momentum after one more such step, by 1 - b1², and the gradient itself.
    step = 0.9 * 0.1 / (1 - 0.9**2) + 1
    np.testing.assert_allclose(update["bias"], -0.05 * step * np.sign(grads["dense"]["bias"]), atol=1e-6)


def test_adafactor_first_step_is_relative_to_the_parameter():
    update = first_update(adafactor(learning_rate=1e-3).transform)
    # t = 1: the decay is 1 - 1^-0.8 = 0, so v = g² and the step is lr · RMS(p) · sign(g).
    for name, grad in GRADS["dense"].items():
        rms = np.sqrt(np.mean(np.square(np.asarray(PARAMS["dense"][name], np.float64))))
        np.testing.assert_allclose(update[name], -1e-3 * rms * np.sign(grad), rtol=1e-4)


def test_adafactor_second_moment_follows_its_power_decay():
    optimizer = adafactor(learning_rate=1.0, multiply_by_parameter_scale=False)
    grads = [np.array([1.0, 2.0]), np.array([3.0, -1.0]), np.array([-0.5, 0.25])]
    params = {"w": jnp.zeros(2)}
    state, v = optimizer.transform.init(params), np.zeros(2)
    for t, grad in enumerate(grads, 1):
        updates, state = optimizer.transform.update({"w": jnp.float32(grad)}, state, params)
        decay = 1 - t**-0.8
        v = decay * v + (1 - decay) * grad**2
        step = grad / np.sqrt(v)
        step /= max(1.0, np.sqrt(np.mean(step**2)))
        np.testing.assert_allclose(updates["w"], -step, rtol=1e-5)


def test_schedules_by_hand():
    cosine = warmup_cosine(peak=2.0, warmup_steps=10, total_steps=110, final=1.0)
    values = [float(cosine(s)) for s in (0, 5, 10, 60, 110, 500)]
    np.testing.assert_allclose(values, [0, 1, 2, 1.5, 1, 1], atol=1e-6)
    constant = warmup_constant(peak=2.0, warmup_steps=4)
    np.testing.assert_allclose([float(constant(s)) for s in (0, 2, 4, 99)], [0, 1, 2, 2])
    assert float(warmup_constant(peak=2.0, warmup_steps=0)(0)) == 2.0
    with pytest.raises(UserError, match="warmup_steps=5"):
        warmup_cosine(peak=1.0, warmup_steps=5, total_steps=5)


def test_optimizers_follow_a_schedule():
    schedule = warmup_constant(peak=0.1, warmup_steps=10)
    optimizer = adamw(learning_rate=schedule)
    assert np.all(first_update(optimizer.transform)["bias"] == 0)
    assert float(optimizer.learning_rate(5)) == pytest.approx(0.05)


def scales(losses, **options):
    """Shares of the updates that are left, step by step."""
    made = plateau(optimizer=adamw(learning_rate=1.0, b1=0.0, b2=0.0, weight_decay=0.0), **options)
    state, found = made.transform.init(PARAMS), []
    step = jax.jit(lambda state, loss: made.transform.update(GRADS, state, PARAMS, value=loss))
    for loss in losses:
        updates, state = step(state, jnp.float32(loss))
        found.append(float(np.abs(updates["dense"]["bias"]).max()))
    return np.array(found)


def test_updates_shrink_where_the_loss_no_longer_falls():
    falling = scales(np.linspace(2, 1, 24), window=2, patience=2)
    np.testing.assert_allclose(falling, 1, rtol=1e-5)
    # A fall of single steps is no fall of the windows' means.
    flat = scales([1, 3] * 12, window=2, patience=2, factor=0.5, floor=0.2)
    assert flat[:5] == pytest.approx(1) and (np.diff(flat) <= 0).all()
    assert sorted(set(np.round(flat, 3)), reverse=True) == [1.0, 0.5, 0.25, 0.2]
    assert flat[-1] == pytest.approx(0.2)


def test_plateaus_need_the_loss_and_numbers_in_range():
    made = plateau(optimizer=adamw(), window=3)
    with pytest.raises(UserError, match="does not give optimizers the loss"):
        made.transform.update(GRADS, made.transform.init(PARAMS), PARAMS)
    for wrong in ({"window": 0}, {"window": 1, "factor": 1.0}, {"window": 1, "patience": 0},
                  {"window": 1, "floor": 2.0}):
        with pytest.raises(UserError, match="plateau needs"):
            plateau(optimizer=adamw(), **wrong)


def test_frozen_parameters_have_no_update_and_no_state():
    mask = frozen_mask(PARAMS, ("dense/bias$",), strict=True)
    assert mask == {"dense": {"kernel": False, "bias": True}}
    transform = skip_frozen(adamw(learning_rate=0.1, weight_decay=1.0).transform, mask)
    update = first_update(transform)
    assert np.all(update["bias"] == 0) and np.all(update["kernel"] != 0)
    sizes = [np.size(x) for x in optax.tree.map_params(
        transform, lambda x: x, transform.init(PARAMS), transform_non_params=lambda _: None)
        .inner_states["trained"].inner_state[0].mu["dense"].values() if np.size(x)]
    assert sizes == [12] or sizes == [12, 1]  # the bias has at most a placeholder


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UserError, match="embeding"):
        frozen_mask(PARAMS, ("embeding",), strict=True)
    assert not any(frozen_mask(PARAMS, ("embeding",), strict=False)["dense"].values())


PARTS = {"g": PARAMS, "d": {"w": jnp.asarray(RNG.normal(size=5), jnp.float32)}}


def part_grads(steps):
    """[step] of gradients that change from step to step."""
    rng = np.random.default_rng(1)
    return [jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARTS)
            for _ in range(steps)]


def run(transform, params, grads):
    """The parameters after each of the steps."""
    state, path = transform.init(params), []
    for grad in grads:
        updates, state = transform.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_two_parts_are_two_runs():
    g, d = adamw(learning_rate=0.1, b1=0.5), adafactor(learning_rate=0.3)
    both = by_part(parts={"g": PartOptimizer(optimizer=g, clip_norm=0.5),
                          "d": PartOptimizer(optimizer=d)})
    grads = part_grads(4)
    path = run(both.transform, PARTS, grads)
    clipped = []
    for grad in grads:
        norm = np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(grad["g"])))
        clipped.append(jax.tree.map(lambda x, n=norm: np.float32(x * min(1, 0.5 / n)), grad["g"]))
    alone = run(g.transform, PARTS["g"], clipped)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), path[-1]["g"], alone)
    assert_equal(path[-1]["d"], run(d.transform, PARTS["d"], [g["d"] for g in grads])[-1])
    assert float(both.learning_rate(0)) == pytest.approx(0.1)


def test_a_part_moves_at_every_third_step():
    schedule = warmup_constant(peak=0.1, warmup_steps=10)
    g = adamw(learning_rate=schedule)
    both = by_part(parts={"g": PartOptimizer(optimizer=g, every=3),
                          "d": PartOptimizer(optimizer=adamw(learning_rate=0.1))})
    grads = part_grads(9)
    path = [PARTS, *run(both.transform, PARTS, grads)]
    for step, (before, after) in enumerate(zip(path, path[1:], strict=False), 1):
        if step % 3:
            assert_equal(before["g"], after["g"])
        assert np.abs(before["d"]["w"] - after["d"]["w"]).max() > 1e-3
    # By the third, sixth, ninth gradient alone, as a run of three steps.
    alone = run(g.transform, PARTS["g"], [g["g"] for g in grads[2::3]])[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), path[-1]["g"], alone)
    assert np.abs(path[-1]["g"]["dense"]["bias"] - PARTS["g"]["dense"]["bias"]).max() > 1e-3
    rates = [float(both.learning_rate(jnp.int32(step))) for step in range(7)]
    np.testing.assert_allclose(rates, [0, 0, 0, 0.01, 0.01, 0.01, 0.02], atol=1e-7)


def test_parts_and_parameters_have_to_meet():
    only_g = by_part(parts={"g": PartOptimizer(optimizer=adamw())})
    with pytest.raises(UserError, match="no optimizer for the model's part 'd', only for g"):
        only_g.transform.init(PARTS)
    # A discriminator that a run does without is no error.
    more = by_part(parts={"g": PartOptimizer(optimizer=adamw(learning_rate=0.1)),
                          "d": PartOptimizer(optimizer=adamw(), clip_norm=1.0, every=2)})
    assert_equal(run(more.transform, {"g": PARAMS}, [{"g": GRADS}] * 2)[-1]["g"],
                 run(adamw(learning_rate=0.1).transform, PARAMS, [GRADS] * 2)[-1])
    for fields in ({"clip_norm": 0.0}, {"every": 0}):
        with pytest.raises(UserError, match=next(iter(fields))):
            PartOptimizer(optimizer=adamw(), **fields)
    with pytest.raises(UserError, match="parts is empty"):
        by_part(parts={})


def test_parts_with_frozen_parameters():
    both = by_part(parts={"g": PartOptimizer(optimizer=adamw(learning_rate=0.1, frozen=("g/.*bias",))),
                          "d": PartOptimizer(optimizer=adamw(learning_rate=0.1))})
    assert both.frozen == ("g/.*bias",)
    transform = skip_frozen(both.transform, frozen_mask(PARTS, both.frozen, strict=True))
    after = run(transform, PARTS, part_grads(2))[-1]
    np.testing.assert_array_equal(after["g"]["dense"]["bias"], PARAMS["dense"]["bias"])
    assert np.all(after["g"]["dense"]["kernel"] != PARAMS["dense"]["kernel"])
    assert np.all(after["d"]["w"] != PARTS["d"]["w"])
