"""Origins of bindings: the file and line where each was written, or the override."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.gin_setup import Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Place where a binding stands."""

    source: str  # a gin file, below the gin root if it lies there; or '--gin.NAME'
    line: int | None = None  # number of the binding's first line, from 1; None for an override
    included: bool = False  # whether another file includes that file

    def __str__(self) -> str:
        """Returns the place for people: 'runs/train.gin:5'."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A binding as it was written."""

    key: Key
    value: Any  # with gin's references in it, unresolved
    origin: Origin


def written(gin_files: Sequence[str], overrides: Sequence[str] = ()) -> list[Written]:
    """Returns all bindings of files and overrides in gin's order; of those with one key the last counts.

    `gin_setup.parse` must have read them before, without errors.
    """
    found = [w for file in gin_files for w in _of_file(str(file), included=False)]
    for override in overrides:
        source = f"--gin.{override.partition('=')[0].strip()}"
        found += _of_statements(override, Origin(source=source))
    return found


def _of_file(file: str, *, included: bool) -> Iterator[Written]:
    from gin import config

    prefixes = [""] if os.path.isabs(file) else config._LOCATION_PREFIXES
    for path in (os.path.join(prefix, file) for prefix in prefixes):
        for read, exists in config._FILE_READERS:
            if exists(path):
                with read(path) as opened:
                    yield from _of_statements(opened, Origin(source=_shown(path), included=included))
                return
    raise FileNotFoundError(file)  # gin_setup.parse has said so before


def _of_statements(text: Any, origin: Origin) -> Iterator[Written]:
    """Yields the bindings of a gin text or opened file, those of included files in their place."""
    from gin import config, config_parser

    for statement in config_parser.ConfigParser(text, config.ParserDelegate()):
        if isinstance(statement, config_parser.IncludeStatement):
            yield from _of_file(statement.filename, included=True)
        elif isinstance(statement, config_parser.BindingStatement):
            scope, selector, parameter, value, location = statement
            name = "/".join(filter(None, (scope, ".".join(filter(None, (selector, parameter))))))
            line = None if origin.source.startswith("--gin.") else location.line_num
            yield Written(key=gin_setup.key_of(name), value=value,
                          origin=dataclasses.replace(origin, line=line))


def _shown(path: str) -> str:
    """Returns a path below the gin root as recipes name it."""
    resolved = pathlib.Path(path).resolve()
    root = gin_setup.gin_root()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path
