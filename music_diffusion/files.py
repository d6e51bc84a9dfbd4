"""Files that appear when they are complete: written under another name, then renamed.

A reader sees the file of before or the new one, never half of it; what is left behind by a
process that was killed is hidden, and its name ends in `.part`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.paths import encoded, shown

PART = ".part"  # the suffix of files that are being written


class PartFile:
    """An unused, hidden name in the folder of a file, so that renaming to it is atomic.

    Links are followed: the file that a link points to is replaced, not the link.
    """

    def __init__(self, target: str | os.PathLike):
        self._target = os.path.realpath(target)
        # Short, because the target's own name may already be as long as a name can be.
        self.path = pathlib.Path(os.path.dirname(self._target), f".{secrets.token_hex(6)}{PART}")

    def complete(self) -> None:
        """Gives the file its name, in place of one that was there."""
        os.replace(self.path, self._target)

    def remove(self) -> None:
        """Removes what was written, if anything; after `complete` it does nothing."""
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(target: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path to write; it becomes `target` when the block ends well and is removed otherwise."""
    part = PartFile(target)
    try:
        yield part.path
        part.complete()
    finally:
        part.remove()


@contextlib.contextmanager
def atomic_write(target: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Does what `replacing` does, for a block that only writes.

    Raises:
      UserError: in place of an OSError of the block: the disk is full or the folder is not there.
    """
    try:
        with replacing(target) as path:
            yield path
    except OSError as e:
        raise UserError(f"{shown(target)}: writing failed ({e.strerror or e}); is the disk full?"
                        ) from e


def write_text(target: str | os.PathLike, text: str) -> None:
    """Writes UTF-8, line ends as they are; names in it may be of any bytes (`paths.encoded`).

    Raises UserError as `atomic_write`.
    """
    write_bytes(target, encoded(text))


def write_json(target: str | os.PathLike, facts: Any) -> None:
    """Writes facts as JSON for people and programs, whole or not at all.

    Raises ValueError where a number is not finite, which JSON does not have.
    """
    write_text(target, json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_bytes(target: str | os.PathLike, content: bytes) -> None:
    """Writes a binary file. Raises UserError as `atomic_write`."""
    with atomic_write(target) as path:
        path.write_bytes(content)
