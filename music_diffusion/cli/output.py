"""What commands print besides their results."""

from __future__ import annotations

import sys
import warnings

from music_diffusion.errors import PictureError
from music_diffusion.paths import make_lenient, shown


def prepare_streams() -> None:
    """Warnings in one line each, and no name that a terminal cannot show ends the work."""
    make_lenient()
    warnings.showwarning = lambda message, *_: print(f"warning: {one_line(message)}", file=sys.stderr)


def one_line(text: object) -> str:
    """An error or a warning, with whatever names of files are in it."""
    return shown(" ".join(str(text).split()))


def check_picture(error: str | None, output: str) -> None:
    """Raises PictureError, for the exit code, where the picture beside an output failed."""
    if error is not None:
        raise PictureError(f"{error}; {shown(output)} is complete")
