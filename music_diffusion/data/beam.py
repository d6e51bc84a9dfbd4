"""Shards written by an Apache Beam pipeline: large data sets, on many machines.

The same function writes a shard here as over processes (`data.shards.WriteShard`), into
a folder that all machines of the runner share; this package is installed on each. Facts
stay beside the shards, and are read there when the pipeline has ended: no result passes
through it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import io
import pickle
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from music_diffusion.data.parallel import Runner
from music_diffusion.errors import UserError
from music_diffusion.types import StepProgress

# Before the message of a UserError, in letters that no runner changes, wherever it puts them.
MARK = "music-diffusion-error:"


class TaskError(RuntimeError):
    """A UserError of a task, such that its message is found in any traceback."""


def beam_runner(runner: str, options: Sequence[str] = ()) -> Runner:
    """Runs the tasks of `data.shards.write_shards` as a pipeline.

    Args:
      runner: Beam's name of it: DirectRunner, DataflowRunner, FlinkRunner …
      options: Beam's own, such as `--direct_num_workers=4`. They say how many
        workers there are.

    Raises (when it runs):
      UserError: of a task; apache_beam is not installed; the runner or its
        options are unknown; a shard is not there at the end.
    """
    return functools.partial(_run, runner, tuple(options))


def _run(runner: str, options: Sequence[str], task: Callable[[Any], Any], items: Sequence[Any],
         workers: int, progress: StepProgress) -> list[Any]:
    """Runs tasks; see `data.parallel.Runner`. `task` has `finished`, which reads an item's result again."""
    finished = getattr(task, "finished", None)
    if finished is None:
        raise TypeError(f"{task}: a pipeline brings back no results, so a task must find them again")
    left = [item for item in items if finished(item) is None]
    if left:
        _pipeline(runner, options, task, left)
    results = [finished(item) for item in items]
    missing = sum(result is None for result in results)
    if missing:
        raise UserError(f"{missing} of {len(items)} shards are not there after the pipeline; choose a "
                        "destination that this machine and those of the runner share")
    progress(len(items), len(items))
    return results


def _pipeline(runner: str, options: Sequence[str], task: Callable[[Any], Any], items: Sequence[Any]
              ) -> None:
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as e:
        raise UserError("a Beam pipeline needs apache_beam; install it with: "
                        "pip install 'music-diffusion[beam]'") from e
    asked = " ".join((f"--runner {runner}", *options))
    try:
        with contextlib.redirect_stderr(io.StringIO()) as usage:
            settings = PipelineOptions(list(options), runner=runner)
            settings.get_all_options()  # parses them
        pipeline = beam.Pipeline(options=settings)
    except SystemExit as e:  # argparse: its reason is the last line
        raise UserError(f"{asked}: {usage.getvalue().strip().rpartition('error: ')[2]}") from e
    except ValueError as e:
        raise UserError(f"{asked}: {_line(e)}") from e
    _ = (pipeline | "shards" >> beam.Create(_packed(items)) | beam.Reshuffle()
         | "write" >> beam.Map(_Attempt(task=pickle.dumps(task))))
    try:
        pipeline.run().wait_until_finish()
    except Exception as e:  # of whatever class the runner has
        raise UserError(_message(e) or f"{asked}: the pipeline failed: {_line(e)}") from e


def _packed(items: Sequence[Any]) -> list[bytes]:
    """Packs items small: the pipeline's description holds them, which runners limit to some MB."""
    return [zlib.compress(pickle.dumps(item)) for item in items]


def _unpacked(packed: bytes) -> Any:
    return pickle.loads(zlib.decompress(packed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Attempt:
    """Does one task on a machine of the runner."""

    task: bytes  # pickled

    def __call__(self, packed: bytes) -> None:
        try:
            pickle.loads(self.task)(_unpacked(packed))
        except UserError as e:
            raise TaskError(f"{e} [{MARK}{base64.b64encode(str(e).encode()).decode()}]") from e


def _message(error: BaseException) -> str | None:
    """Returns the message of a task's UserError out of an error in the runner's words; None without one."""
    found = re.search(MARK + "([A-Za-z0-9+/=]*)", str(error))
    return None if found is None else base64.b64decode(found[1]).decode()


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
