"""Parts of a benchmark in processes of their own, so that each has only its own memory."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.types import Progress
from music_diffusion.workflows.benchmark.measuring import Row
from music_diffusion.workflows.monitor import unseen
from music_diffusion.workflows.requests import BenchmarkRequest


class EndedBySignalError(UserError):
    """A part's process was killed, as it is when it takes more memory than there is."""


def interpreter(code: str) -> list[str]:
    """Returns the command that runs code (with `sys` imported) in a new interpreter like this one."""
    # The same folders in the same order: else another installed version might be measured.
    return [sys.executable, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{code}"]


def how_it_ended(code: int, stderr: str) -> str:
    """Returns a line on a process that failed: the signal, or the last line of its traceback."""
    if code < 0:
        return f"its process was ended by signal {-code}" + " (out of memory?)" * (code == -9)
    return stderr.strip().rpartition("\n")[2] or f"its process ended with code {code}"


def printed_by(code: str) -> str:
    """Returns what code prints in a new interpreter. Raises UserError if it fails."""
    done = subprocess.run(interpreter(code), capture_output=True, text=True)
    if done.returncode:
        raise UserError(how_it_ended(done.returncode, done.stderr))
    return done.stdout


def run_part(name: str, request: BenchmarkRequest, progress: Progress = unseen, *, fits: bool = False
             ) -> list[Row]:
    """Runs `parts.work` in a new process, and returns its rows. Raises UserError if it fails."""
    fields: dict[str, Any] = dataclasses.asdict(request)
    code = ("from music_diffusion.workflows.benchmark.parts import work\n"
            f"work({name!r}, {fields!r}, fits={fits})")
    with (tempfile.TemporaryFile("w+") as errors,
          subprocess.Popen(interpreter(code), stdout=subprocess.PIPE, stderr=errors, text=True) as process):
        assert process.stdout is not None
        message: dict[str, Any] = {}
        try:
            for line in process.stdout:
                message = json.loads(line)
                progress(message.get("share", 1.0))
        except BaseException:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            kind = EndedBySignalError if process.returncode < 0 else UserError
            raise kind(how_it_ended(process.returncode, errors.read()))
    if "rows" not in message:
        raise UserError(message.get("error", "its process reported nothing"))
    return message["rows"]
