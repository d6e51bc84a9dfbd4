"""Programs that are compiled before they are called, and kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.synthesis import compiled as module
from music_diffusion.synthesis.compiled import Compiled


@pytest.fixture
def counted():
    """(a function of two constants and a tree, how often it was traced, how often it ran)."""
    traced, ran = [], []

    def function(power, name, tree, shift):
        traced.append((power, name, jnp.shape(tree["x"])))
        jax.debug.callback(lambda: ran.append(name))
        return {name: jnp.cumsum(tree["x"] ** power) + shift, "key": jax.random.normal(tree["key"], (2,))}

    return function, traced, ran


def arguments(size=3, seed=0, dtype=np.float32):
    return {"x": np.arange(size).astype(dtype), "key": jax.random.key(seed)}, jnp.float32(0.5)


def count(calls):
    jax.effects_barrier()
    return len(calls)


def test_compiling_runs_nothing_and_calling_compiles_no_more(counted):
    function, traced, ran = counted
    compiled = Compiled(function, static=2)
    compiled.compile(2, "a", *arguments())
    compiled.compile(2, "a", *arguments(seed=5))  # again, with other values
    assert (count(traced), count(ran)) == (1, 0)
    for seed in range(3):
        compiled(2, "a", *arguments(seed=seed))
    assert (count(traced), count(ran)) == (1, 3)


def test_a_call_compiles_what_was_not(counted):
    function, traced, ran = counted
    compiled = Compiled(function, static=2)
    compiled(2, "a", *arguments())
    assert (count(traced), count(ran)) == (1, 1)


def test_programs_are_kept_by_constants_shapes_and_kinds(counted):
    function, traced, _ = counted
    compiled = Compiled(function, static=2)
    cases = [(2, "a", *arguments()), (3, "a", *arguments()), (2, "b", *arguments()),
             (2, "a", *arguments(size=4)), (2, "a", *arguments(dtype=np.int32))]
    for _ in range(2):
        for case in cases:
            compiled.compile(*case)
            compiled(*case)
    assert count(traced) == len(cases)


def test_results_are_those_of_plain_jit(counted):
    function, _, _ = counted
    compiled, plain = Compiled(function, static=2), jax.jit(function, static_argnums=(0, 1))
    for constants in ((2, "a"), (1, "b")):
        for size, seed in ((3, 0), (3, 1), (7, 0)):
            for compile_first in (False, True):
                given = (*constants, *arguments(size, seed))
                if compile_first:
                    compiled.compile(*given)
                jax.tree.map(np.testing.assert_array_equal, compiled(*given), plain(*given))


def test_arrays_of_numpy_and_of_jax_are_one_program_and_doubles_are_rounded(counted):
    function, traced, _ = counted
    compiled = Compiled(function, static=2)
    tree, shift = arguments()
    single = compiled(2, "a", tree, shift)
    again = compiled(2, "a", {**tree, "x": jnp.asarray(tree["x"])}, np.float32(shift))
    assert count(traced) == 1
    double = compiled(2, "a", {**tree, "x": tree["x"].astype(np.float64)}, shift)
    for result in (again, double):
        jax.tree.map(np.testing.assert_array_equal, result, single)


def test_only_programs_that_were_used_last_are_kept(counted, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    compiled = Compiled(counted[0], static=2)
    for name in "abac":  # b is the one that was not used for longest
        compiled(1, name, *arguments())
    assert [constants[1] for constants, *_ in compiled._programs] == ["a", "c"]
    compiled(1, "b", *arguments())
    assert [constants[1] for constants, *_ in compiled._programs] == ["c", "b"]
