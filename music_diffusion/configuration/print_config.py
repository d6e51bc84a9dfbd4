"""Printing for `train --print_config`: all that a run would read, and where each value comes from.

The output is a gin file with comments. Used in place of the files and overrides that it was made
from, it gives the same run.
"""

from __future__ import annotations

import dataclasses
import inspect
import json as json_module
import math
import pprint
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.configuration.origins import Written, written
from music_diffusion.configuration.reads import build, reads, unread
from music_diffusion.gin_setup import MACRO, Key

ROOT = "train"
GIVEN = ("model_dir", "on_first_step")  # by the command
DEFAULT = "default"  # the origin of what nobody bound
WIDTH = 100
COLUMN = 60  # comments begin here at the latest, if the binding leaves room


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A parameter that is read, or one that is not."""

    name: str  # 'TrainConfig.total_steps', 'generator/adamw.b1', or a macro's
    value: str  # as gin writes it; or Python's repr of a default that gin cannot write
    is_gin: bool = True
    origin: str = DEFAULT
    included: bool = False  # whether the origin is a file that another one includes
    macros: tuple[tuple[str, str, str], ...] = ()  # in the value: name, value, origin
    instead_of: tuple[tuple[str, str], ...] = ()  # earlier bindings: value, origin; newest first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effective:
    """The configuration of a run, in the order in which it is read."""

    command: tuple[str, ...]  # gin files and overrides
    groups: dict[str, tuple[Line, ...]]  # by configurable; 'macros' first
    unread: tuple[Line, ...]


def run(gin_files: Sequence[str], bindings: Sequence[str], *, json: bool = False) -> None:
    """Prints the effective configuration of a training run, as gin text or one JSON object.

    The model is built without memory for its parameters, so that they can be counted.

    Raises UserError, one line, for what `train` would refuse before it reads data.
    """
    gin_setup.parse(gin_files, bindings)
    gin_setup.require("train.model", "train.data", "train.optimizer", "train.config")
    config = effective(gin_files, bindings)
    if not json:  # before what may be wrong with it
        print("\n".join(text(config)))
    model = build(ROOT, GIVEN)["model"]
    count = parameter_count(model)
    if json:
        print(json_module.dumps({"model": type(model).__name__, "parameters": count,
                                 **dataclasses.asdict(config)}))
    else:
        print(f"\n# {type(model).__name__}: {count:,} parameters")


def parameter_count(model: Any) -> int:
    """Counts the parameters of all parts of a model, those that only training needs included."""
    import jax

    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))


def effective(gin_files: Sequence[str], overrides: Sequence[str]) -> Effective:
    """Returns what `train` reads of the configuration that was parsed last, from these files."""
    found = reads(ROOT, GIVEN)
    history: dict[Key, list[Written]] = {}
    for binding in written(gin_files, overrides):
        history.setdefault(binding.key, []).append(binding)

    def line(key: Key) -> Line:
        if key not in history:
            return _default(key, found.defaults[key])
        *earlier, last = history[key]
        return Line(
            name=str(key), value=repr(last.value), origin=str(last.origin),
            included=last.origin.included, macros=tuple(_macros(last.value, history)),
            instead_of=tuple((repr(w.value), str(w.origin)) for w in reversed(earlier)))

    def place(key: Key) -> tuple[int, str]:
        return found.signatures[key.selector].index(key.parameter), key.scope

    groups: dict[str, list[Key]] = {selector: [] for selector in (MACRO, *found.signatures)}
    for key in sorted((*found.bound, *found.defaults), key=place):
        groups[key.selector].append(key)
    return Effective(
        command=(*(str(f) for f in gin_files), *(f"--gin.{_compact(o)}" for o in overrides)),
        groups={"macros" if selector == MACRO else gin_setup.short(selector): tuple(map(line, keys))
                for selector, keys in groups.items() if keys},
        unread=tuple(line(k) for k in unread(found)))


def _compact(override: str) -> str:
    name, _, value = override.partition("=")
    return f"{name.strip()}={value.strip()}"


def _macros(value: Any, history: dict[Key, list[Written]]) -> Iterator[tuple[str, str, str]]:
    """Yields the macros in a value, and those in their values."""
    import gin

    for reference in gin.config.iterate_references({"": value}):
        if reference.configurable.selector == MACRO:
            bound = history.get(Key("/".join(reference.scopes), MACRO, "value"))
            if bound:  # else it is missing
                yield str(bound[-1].key), repr(bound[-1].value), str(bound[-1].origin)
                yield from _macros(bound[-1].value, history)


def _default(key: Key, value: Any) -> Line:
    """Makes the line of a default; functions by their name."""
    import gin

    try:
        is_gin = gin.config.parse_value(repr(value)) == value
    except SyntaxError:
        is_gin = False
    shown = value.__name__ if not is_gin and inspect.isroutine(value) else repr(value)
    return Line(name=str(key), value=shown, is_gin=is_gin)


def text(config: Effective) -> Iterator[str]:
    """Yields the lines of a gin file."""
    yield from _remark(" ".join(config.command))
    for name, lines in config.groups.items():
        yield from ("", f"# {name}")
        column = max((len(s) for s in map(_statement, lines) if len(s) <= COLUMN), default=0)
        for line in lines:
            if line.is_gin:
                yield f"{_statement(line):{column}}  # {_comment(line)}"
            else:
                yield from _remark(f"{line.name}: {line.value}  ({line.origin})")
    if config.unread:
        yield from ("", "# Nothing in this run reads:")
        for line in config.unread:
            yield from _remark(f"{line.name} = {line.value}  ({_comment(line)})")


def _statement(line: Line) -> str:
    """Writes a binding, on several lines if it is long: gin goes on where brackets are open."""
    statement = f"{line.name} = {line.value}"
    if len(statement) <= WIDTH or line.value[0] not in "([{":
        return statement
    import gin

    folded = pprint.pformat(gin.config.parse_value(line.value), sort_dicts=False, compact=True,
                            width=WIDTH - len(f"{line.name} = "))
    return f"{line.name} = {folded}"


def _comment(line: Line) -> str:
    parts = [f"{line.origin} (included)" if line.included else line.origin]
    parts += [f"{name} = {value} ({origin})" for name, value, origin in line.macros]
    if line.instead_of:
        parts.append("instead of " + ", ".join(f"{v} ({origin})" for v, origin in line.instead_of))
    return "; ".join(parts)


def _remark(line: str) -> Iterator[str]:
    return (f"# {part}" for part in textwrap.wrap(line, WIDTH - 2, subsequent_indent="    "))
