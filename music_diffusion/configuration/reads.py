"""Finds what a configurable reads of gin's configuration when it is called, without calling it.

gin reads a binding when the configurable that it is of is called, and what is called follows from
the references: `train.model = @TaggerModel()` calls TaggerModel. So the bindings that reach
`train` are known beforehand, those that are read only in the course of training too: functions that
are handed over (`@squared`) count as called.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.gin_setup import Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reads:
    """Bindings and defaults that are read; values have gin's references in them, unresolved."""

    signatures: Mapping[str, tuple[str, ...]]  # what is called, in this order, and its parameters
    bound: Mapping[Key, Any]
    defaults: Mapping[Key, Any]  # what nobody bound: values of signatures, without scopes
    missing: tuple[str, ...]  # what has neither, though something calls for it


def reads(root: str, given: Collection[str] = ()) -> Reads:
    """Returns what a call of `root` ('train') reads.

    Args:
      root: a configurable, with its scope if it is called in one.
      given: parameters that its caller gives.
    """
    import gin

    every = gin_setup.bindings()
    signatures: dict[str, tuple[str, ...]] = {}
    bound: dict[Key, Any] = {}
    defaults: dict[Key, Any] = {}
    missing: dict[str, None] = {}
    seen: set[tuple[str, str, bool]] = set()

    def call(scope: str, configurable, evaluated: bool, given: Collection[str] = ()) -> None:
        selector = configurable.selector
        if (scope, selector, evaluated) in seen:
            return
        seen.add((scope, selector, evaluated))
        parameters = _parameters(configurable)
        signatures.setdefault(selector, tuple(parameters))
        for name, parameter in parameters.items():
            if name in given:
                continue
            key = Key(scope, selector, name).bound_among(every)
            if key is not None:
                bound[key] = every[key]
                follow(scope, every[key])
            elif parameter.default is not parameter.empty:
                defaults[Key("", selector, name)] = parameter.default
            elif evaluated:
                missing[str(Key(scope, selector, name))] = None

    def follow(scope: str, value: Any) -> None:
        for reference in gin.config.iterate_references({"": value}):
            inner = "/".join(reference.scopes)
            # A function that is handed over is called later, outside of all scopes.
            call(inner or (scope if reference.evaluate else ""), reference.configurable,
                 reference.evaluate)

    reference = gin.config.ConfigurableReference(root, True)
    call("/".join(reference.scopes), reference.configurable, True, given)
    return Reads(signatures=signatures, bound=bound, defaults=defaults, missing=tuple(missing))


def unread(found: Reads) -> dict[Key, Any]:
    """Returns the bindings that are not among those read."""
    return {key: value for key, value in gin_setup.bindings().items() if key not in found.bound}


def check(found: Reads, overrides: Collection[str]) -> dict[Key, Any]:
    """Returns the bindings that nothing reads.

    Args:
      found: what is read.
      overrides: bindings ('TOTAL_STEPS = 3') that have to be.

    Raises UserError for the first override that is not read.
    """
    unused = unread(found)
    for override in overrides:
        name = override.partition("=")[0].strip()
        if gin_setup.key_of(name) in unused:
            raise UserError(f"--gin.{name}: nothing in this run reads it")
    return unused


def build(root: str, given: Collection[str] = ()) -> dict[str, Any]:
    """Makes the arguments of `root` beside those that its caller gives: models, sources of data …

    Raises UserError, one line, where something is missing or does not fit.
    """
    import gin

    missing = reads(root, given).missing
    if missing:
        raise UserError(f"no gin file binds {', '.join(missing)}, which this run needs")
    try:
        return gin.get_bindings(root)
    except (UserError, *gin_setup.GIN_ERRORS) as error:  # gin adds lines that say where
        raise UserError(str(error).strip().splitlines()[0]) from error


def _parameters(configurable) -> dict[str, inspect.Parameter]:
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in inspect.signature(configurable.wrapped).parameters.items()
            if p.kind not in fixed}
