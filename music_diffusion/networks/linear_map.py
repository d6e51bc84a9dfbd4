"""Linear maps that bring their transpose with them, differentiable in both modes to any order.

`jax.custom_vjp` gives a function a fast gradient and takes forward mode away. Here
the *tangent* of a function is a linear map with a transpose of our own: forward
mode evaluates the map, reverse mode its transpose, and both are plain JAX
programs, so that they can be differentiated, batched and rematerialised again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

Arrays = Sequence[jax.Array]


def linear_map(
    fun: Callable[[Any, Any], Any], transpose: Callable[[Any, Any], Any], residuals: Any, x: Any
) -> Any:
    """Returns `fun(residuals, x)`, whose transpose is taken to be `transpose`.

    Args:
      fun: linear in its second argument; of pytrees of arrays.
      transpose: `transpose(residuals, y_bar)` → x_bar, with ⟨fun(residuals, x), y_bar⟩ =
        ⟨x, x_bar⟩; where it is not, gradients are wrong without a word.
      residuals: what the map depends on; differentiable, too.
      x: what it is applied to.
    """
    residual_leaves, residual_tree = jax.tree.flatten(residuals)
    x_leaves, x_tree = jax.tree.flatten(x)
    count = len(residual_leaves)
    y_tree = jax.tree.structure(jax.eval_shape(fun, residuals, x))

    def flat(*leaves: jax.Array) -> Arrays:
        return jax.tree.leaves(fun(jax.tree.unflatten(residual_tree, leaves[:count]),
                                   jax.tree.unflatten(x_tree, leaves[count:])))

    def flat_transpose(*leaves: jax.Array) -> Arrays:
        return jax.tree.leaves(transpose(jax.tree.unflatten(residual_tree, leaves[:count]),
                                         jax.tree.unflatten(y_tree, leaves[count:])))

    y = _bind(flat, flat_transpose, count, [*residual_leaves, *x_leaves])
    return jax.tree.unflatten(y_tree, y)


_linear_map = Primitive("linear_map")
_linear_map.multiple_results = True


def _bind(fun: Callable[..., Arrays], transpose: Callable[..., Arrays], count: int, args: Arrays) -> Arrays:
    # As a jaxpr, which counts of operations look into.
    return _linear_map.bind(*args, jaxpr=jax.make_jaxpr(fun)(*args), transpose=transpose, count=count)


def _evaluate(*args: jax.Array, jaxpr: ClosedJaxpr, **_: Any) -> Arrays:
    return jaxpr_as_fun(jaxpr)(*args)


def _jvp(primals, tangents, *, jaxpr, transpose, count):
    fun = jaxpr_as_fun(jaxpr)
    residuals, x = primals[:count], primals[count:]
    x_dot = [ad.instantiate_zeros(t) for t in tangents[count:]]
    y = _bind(fun, transpose, count, primals)
    y_dot = _bind(fun, transpose, count, [*residuals, *x_dot])
    moving = [i for i, t in enumerate(tangents[:count]) if not isinstance(t, ad.Zero)]
    if moving:
        def of_residuals(*some: jax.Array) -> Arrays:
            every = list(residuals)
            for i, residual in zip(moving, some, strict=True):
                every[i] = residual
            return fun(*every, *x)

        _, more = jax.jvp(of_residuals, [residuals[i] for i in moving], [tangents[i] for i in moving])
        y_dot = [a + b for a, b in zip(y_dot, more, strict=True)]
    return y, y_dot


def _transpose(y_bars, *args, jaxpr, transpose, count):
    y_bars = [ad.instantiate_zeros(y_bar) for y_bar in y_bars]
    return [None] * count + list(transpose(*args[:count], *y_bars))


def _batch(args, axes, *, jaxpr, transpose, count):
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    args = [jnp.broadcast_to(x[None], (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
            for x, axis in zip(args, axes, strict=True)]
    y = _bind(jax.vmap(jaxpr_as_fun(jaxpr)), jax.vmap(transpose), count, args)
    return y, [0] * len(y)


_linear_map.def_impl(_evaluate)
_linear_map.def_abstract_eval(lambda *_, jaxpr, **__: jaxpr.out_avals)
mlir.register_lowering(_linear_map, mlir.lower_fun(_evaluate, multiple_results=True))
ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
