"""Functions that can be compiled before they are called, without being run."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Any

import jax

MOST = 32  # compiled programs that are kept, those used last


class Compiled:
    """A pure function under `jax.jit` whose programs are kept by its static arguments and shapes.

    `jax.jit` compiles when a function is first run; `compile` does so without running it.
    """

    def __init__(self, function: Callable[..., Any], *, static: int):
        """`static`: so many first arguments are hashable constants of the program."""
        self._static = static
        self._jitted = jax.jit(function, static_argnums=tuple(range(static)))
        self._programs: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def compile(self, *arguments: Any) -> None:
        """Compiles the program for such arguments, if there is none yet."""
        self._program(arguments)

    def __call__(self, *arguments: Any) -> Any:
        """Returns the function's result."""
        return self._program(arguments)(*arguments[self._static:])

    def _program(self, arguments: tuple) -> Any:
        constants, arrays = arguments[:self._static], arguments[self._static:]
        leaves, tree = jax.tree.flatten(arrays)
        key = (constants, tree, tuple(jax.typeof(x) for x in leaves))
        if key not in self._programs:
            self._programs[key] = self._jitted.lower(*arguments).compile()
            if len(self._programs) > MOST:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]
