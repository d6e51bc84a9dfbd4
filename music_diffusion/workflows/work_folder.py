"""The folder beside a new model that keeps what lies between, so that a workflow goes on in it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.files import write_json
from music_diffusion.models.weights import WEIGHTS
from music_diffusion.paths import check_utf8

SUFFIX = ".work"
NOTE = "settings.json"  # in the folder: what all of its content depends on


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkFolder:
    """MODEL.work beside the folder MODEL."""

    output: str  # folder of the model
    depends: Mapping[str, Any]  # settings on which all that lies in the folder depends

    def path(self, *names: str) -> str:
        """Returns the path of something in the folder."""
        return os.path.join(f"{os.path.normpath(self.output)}{SUFFIX}", *names)

    def check(self) -> None:
        """Raises UserError where the output holds other things, or the work was begun otherwise."""
        check_utf8(self.output)
        out = pathlib.Path(self.output)
        if out.exists() and not out.is_dir():
            raise UserError(f"{out}: is a file; give a folder for the model")
        if out.is_dir() and any(out.iterdir()) and not (out / WEIGHTS).is_file():
            raise UserError(f"{out}: holds other things; give a new folder for the model")
        note = pathlib.Path(self.path(NOTE))
        if note.is_file():
            before = json.loads(note.read_text())
            changed = sorted(k for k, v in self._depends().items() if before.get(k) != v)
            if changed:
                raise UserError(f"{self.path()}: was begun with other {', '.join(changed)}; delete it to "
                                "begin anew, or give another --output")

    def claim(self) -> None:
        """Makes the folder, with a note of what it depends on. Raises UserError as `check` does."""
        self.check()
        note = pathlib.Path(self.path(NOTE))
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, self._depends())

    def _depends(self) -> dict[str, Any]:
        """Returns the settings as JSON gives them back: tuples are lists."""
        return json.loads(json.dumps(dict(self.depends)))
