import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.networks.linear_map import linear_map

ATTEMPTS = {"as it is": lambda f: f, "jit": jax.jit, "remat": jax.checkpoint,
            "jit of remat": lambda f: jax.jit(jax.checkpoint(f)),
            "scan": lambda f: lambda *a: jax.lax.scan(lambda c, _: (c, f(*a)), 0, None, 1)[1][0]}


def apply(matrix, x):
    return {"y": matrix @ x["x"]}


def pull_back(matrix, y_bar):
    return {"x": y_bar["y"] @ matrix}


def product(matrix, x):
    """Matrix times vector by a linear map, with its gradient by our transpose."""
    return linear_map(apply, pull_back, matrix, {"x": x})["y"]


def plain(matrix, x):
    return matrix @ x


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


A, X, A_DOT, X_DOT, Y_BAR = normal(0, 3, 4), normal(1, 4), normal(2, 3, 4), normal(3, 4), normal(4, 3)


def derivatives(f):
    """Derivatives of first and second order, in both modes and mixed."""
    def loss(a, x):
        return jnp.sum(jnp.sin(f(a, x)) * Y_BAR)

    def slope(a, x):
        return jax.jvp(loss, (a, x), (A_DOT, X_DOT))[1]

    gradient = jax.grad(loss, (0, 1))
    return {
        "value": f(A, X), "forward": jax.jvp(f, (A, X), (A_DOT, X_DOT))[1], "reverse": gradient(A, X),
        "forward over reverse": jax.jvp(gradient, (A, X), (A_DOT, X_DOT))[1],
        "reverse over forward": jax.grad(slope, (0, 1))(A, X),
        "reverse over reverse": jax.hessian(loss, 1)(A, X),
        "forward over forward": jax.jvp(slope, (A, X), (A_DOT, X_DOT))[1],
        "only the residual": jax.grad(loss)(A, X)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ATTEMPTS)
def test_all_derivatives_are_those_of_the_plain_product(how):
    got, want = derivatives(ATTEMPTS[how](product)), derivatives(plain)
    jax.tree.map_with_path(lambda name, a, b: np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name),
                           got, want)


@pytest.mark.parametrize("axes", [(0, 1), (None, 0), (2, None)])
def test_maps_are_batched_along_any_axis_forward_and_back(axes):
    a = A if axes[0] is None else jnp.stack([A, 2 * A, A_DOT], axes[0])
    x = X if axes[1] is None else jnp.stack([X, X_DOT, 3 * X], axes[1])

    def gradient(f):
        return jax.grad(lambda a, x: jnp.sum(f(a, x) * Y_BAR), (0, 1))

    for make in (lambda f: f, gradient):
        jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=1e-5),
                     *(jax.vmap(make(f), axes)(a, x) for f in (product, plain)))


def test_the_gradient_is_the_transpose_that_was_given_and_forward_mode_the_map():
    def twice(matrix, y_bar):
        return {"x": 2 * (y_bar["y"] @ matrix)}

    def doubled(x):
        return linear_map(apply, twice, A, {"x": x})["y"]

    np.testing.assert_allclose(jax.vjp(doubled, X)[1](Y_BAR)[0], 2 * Y_BAR @ A, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(doubled, (X,), (X_DOT,))[1], A @ X_DOT, rtol=1e-6)


def test_a_mask_among_the_residuals_has_no_derivative_and_disturbs_none():
    mask = jnp.asarray([True, False, True])

    def masked(a, x):
        return linear_map(lambda r, x: jnp.where(r[1], r[0] @ x, 0.0),
                          lambda r, y_bar: jnp.where(r[1], y_bar, 0.0) @ r[0], (a, mask), x)

    def wanted(a, x):
        return jnp.where(mask, a @ x, 0.0)

    def change(f):
        return jax.jvp(jax.grad(lambda a, x: jnp.sum(f(a, x) ** 2), (0, 1)), (A, X), (A_DOT, X_DOT))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), change(masked), change(wanted))
