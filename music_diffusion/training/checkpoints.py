"""Checkpoints: train state, position in the data and configuration, written atomically."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.training.state import TrainState
from music_diffusion.types import Params

FOLDER = "checkpoints"
UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that are being written


class Checkpoints:
    """The checkpoints of one model_dir, one folder per step under `checkpoints/`.

    A folder appears under its final name only when it is complete, so a run that
    is killed while saving leaves the checkpoint before; what it had begun goes with the
    next `save`. Reading changes nothing in the folder.
    """

    def __init__(self, model_dir: str | pathlib.Path, keep: int = 2):
        import orbax.checkpoint as ocp

        self.folder = (pathlib.Path(model_dir) / FOLDER).absolute()
        # Saved before the next step runs: that step donates the buffers saved here. The manager would
        # clean up in a thread that outlives it, and two of them stumble over each other's folders.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, iterator: Any, config: str, evaluated: bool) -> None:
        """Writes `state`, the iterator's position and the gin configuration.

        Args:
          step: completed updates.
          state: on the devices of all processes, every one of which calls this.
          iterator: its `get_state()` is JSON, and the same in all processes.
          config: what gin bound.
          evaluated: whether the model has been evaluated at this step, if that was due.

        Raises UserError where the disk is full or does not take it; earlier checkpoints stay.
        """
        import orbax.checkpoint as ocp

        position = {"position": iterator.get_state()}
        self._remove_unfinished()
        try:
            self._manager.save(step, force=True, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(position),
                config=ocp.args.JsonSave({"gin": config, "step": step, "evaluated": evaluated})))
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:  # tensorstore's errors of a disk are ValueErrors
            latest = self.latest_step()
            kept = "there is none before" if latest in (None, step) else f"that of step {latest} is good"
            raise UserError(f"{self.folder}/{step}: the checkpoint cannot be written "
                            f"({_first_line(error)}); {kept}: make room and run the same command again"
                            ) from error

    def restore(self, abstract: TrainState, iterator: Any) -> tuple[TrainState, bool]:
        """The newest state, laid out as `abstract` says, and whether it has been evaluated.

        Moves `iterator` to its position.

        Raises UserError where the checkpoint is of another model or optimizer.
        """
        import orbax.checkpoint as ocp

        step = self.latest_step()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore(),
                config=ocp.args.JsonRestore()))
            iterator.set_state(restored.data["position"])
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise UserError(
                f"{self.folder}/{step}: the checkpoint does not fit this model, optimizer or "
                f"data source ({_first_line(error)}); use another --model_dir to start afresh"
            ) from error
        return restored.state, restored.config.get("evaluated", False)

    def close(self) -> None:
        self._manager.close()

    def _remove_unfinished(self) -> None:
        """Removes what another process left; the others wait for the first one at the start of a save."""
        if jax.process_index() == 0:
            for path in self.folder.glob(f"*{UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)


def read_params(
    model_dir: str | os.PathLike, step: int | None = None
) -> tuple[Params, int, str]:
    """(params, step, gin configuration) of a checkpoint, without building its model.

    The parameters are the averaged ones where the run kept an average, else the
    last; nested dicts of NumPy arrays. Raises UserError where there is none.
    """
    import orbax.checkpoint as ocp

    folder = (pathlib.Path(model_dir) / FOLDER).absolute()
    if not folder.is_dir():
        raise UserError(f"{model_dir}: no {FOLDER}/ there; name the --model_dir of a training run")
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "config": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(folder, item_handlers=handlers) as manager:
        step = manager.latest_step() if step is None else step
        if step is None or step not in manager.all_steps():
            raise UserError(f"{folder}: no checkpoint" + (f" of step {step}" if step else ""))
        tree = manager.item_metadata(step).state.tree
        name = "ema_params" if tree.get("ema_params") else "params"
        item = {name: jax.tree.map(lambda _: np.zeros(()), tree[name])}
        restored = manager.restore(step, args=ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                item, partial_restore=True,
                restore_args=jax.tree.map(
                    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)),
            config=ocp.args.JsonRestore()))
    return restored.state[name], step, restored.config["gin"]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
