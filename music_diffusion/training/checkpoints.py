"""Checkpoints: train state, position in the data and configuration, written atomically."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.training.state import TrainState
from music_diffusion.types import Params

FOLDER = "checkpoints"


class _IteratorState:
    """A data iterator in the shape that grain's checkpoint handler takes (bytes of JSON)."""

    def __init__(self, iterator: Any):
        self._iterator = iterator

    def get_state(self) -> bytes:
        return json.dumps(self._iterator.get_state()).encode()

    def set_state(self, state: bytes) -> None:
        self._iterator.set_state(json.loads(state))

    def start_prefetch(self) -> None:
        pass


class Checkpoints:
    """The checkpoints of one model_dir, one folder per step under `checkpoints/`.

    A folder appears under its final name only when it is complete, so a run that
    is killed while saving leaves the checkpoint before.
    """

    def __init__(self, model_dir: str | pathlib.Path, keep: int = 2):
        import orbax.checkpoint as ocp

        self.folder = (pathlib.Path(model_dir) / FOLDER).absolute()
        # Saved before the next step runs: that step donates the buffers saved here.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, iterator: Any, config: str) -> None:
        """Writes `state`, the iterator's position and the gin configuration."""
        import grain.checkpoint
        import orbax.checkpoint as ocp

        self._manager.save(step, force=True, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain.checkpoint.CheckpointSave(_IteratorState(iterator)),
            config=ocp.args.JsonSave({"gin": config, "step": step})))
        self._manager.wait_until_finished()

    def restore(self, abstract: TrainState, iterator: Any) -> TrainState:
        """The newest state, laid out as `abstract` says; moves `iterator` to its position.

        Raises UserError where the checkpoint is of another model or optimizer.
        """
        import grain.checkpoint
        import orbax.checkpoint as ocp

        step = self.latest_step()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                data=grain.checkpoint.CheckpointRestore(_IteratorState(iterator))))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.folder}/{step}: the checkpoint does not fit this model, optimizer or "
                f"data source ({_first_line(error)}); use another --model_dir to start afresh"
            ) from error
        return restored.state

    def close(self) -> None:
        self._manager.close()


def read_params(
    model_dir: str | os.PathLike, step: int | None = None
) -> tuple[Params, int, str]:
    """(params, step, gin configuration) of a checkpoint, without building its model.

    The parameters are the averaged ones where the run kept an average, else the
    last; nested dicts of NumPy arrays. Raises UserError where there is none.
    """
    import grain.checkpoint
    import orbax.checkpoint as ocp

    folder = (pathlib.Path(model_dir) / FOLDER).absolute()
    if not folder.is_dir():
        raise UserError(f"{model_dir}: no {FOLDER}/ there; name the --model_dir of a training run")
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "config": ocp.JsonCheckpointHandler(),
                "data": grain.checkpoint.CheckpointHandler()}
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
