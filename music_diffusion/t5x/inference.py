"""Parts that t5x's evaluation and inference need beside the model: figures and files."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import soundfile
import tensorflow as tf

from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.phase_vocoder import PhaseVocoderModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.models.spectrogram_inverter import SpectrogramInverterModel
from music_diffusion.t5x.recipe import Recipe

INVERTERS = (SpectrogramInverterModel, PhaseVocoderModel)  # predict audio
MEL_MODELS = (SpectrogramDiffusionModel, FrameDiffusionModel)  # predict scaled mel
# Of t5x's output: TASK-MODE.EXTENSION-SHARD-of-SHARDS
_NAME = re.compile(r"(.*)-(predict|predict_with_aux|score)\.\w+-(\d+)-of-(\d+)")


class LossEvaluator:
    """Mean loss of every example of a task by itself, in the place of `seqio.Evaluator`.

    Writes a line {"step", "loss", "examples"} to `TASK-loss.jsonl` in `log_dir`.
    """

    def __init__(self, mixture_or_task_name: str, feature_converter: seqio.FeatureConverter,
                 eval_split: str, *, use_cached: bool = False, seed: int | None = None,
                 log_dir: str | None = None, **_: Any):
        tasks = seqio.get_subtasks(seqio.get_mixture_or_task(mixture_or_task_name))
        self.eval_tasks = [task for task in tasks if eval_split in task.splits]
        self._log_dir = log_dir
        self._examples = {
            task.name: _counted(feature_converter(task.get_dataset(
                None, eval_split, shuffle=False, use_cached=use_cached, seed=seed), {}))
            for task in self.eval_tasks}

    @property
    def model_feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the features of one example."""
        examples = next(iter(self._examples.values()))
        return {name: tuple(spec.shape) for name, spec in examples.element_spec.items()}

    def evaluate(self, *, compute_metrics: bool, step: int, score_fn: Any, **_: Any
                 ) -> tuple[_Done, None]:
        """See `seqio.Evaluator.evaluate`."""
        metrics = {}
        for name, examples in self._examples.items():
            scores = [score for _, score in score_fn(examples.enumerate())]
            metrics[name] = {"loss": -float(np.mean(scores)), "examples": len(scores)}
            if compute_metrics and self._log_dir is not None:
                tf.io.gfile.makedirs(self._log_dir)
                path = os.path.join(self._log_dir, f"{name}-loss.jsonl")
                with tf.io.gfile.GFile(path, "a") as file:
                    file.write(json.dumps({"step": step} | metrics[name]) + "\n")
        return _Done(metrics), None

    def close(self) -> None:
        """Nothing is open."""


class _Done:
    """A future that has come."""

    def __init__(self, metrics: dict[str, dict[str, float]]):
        self._metrics = metrics

    def result(self) -> dict[str, dict[str, float]]:
        return self._metrics


def _counted(examples: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a data set of known length, for which it may be read once. Not in memory: it may be large."""
    count = int(examples.cardinality())
    count = count if count >= 0 else sum(1 for _ in examples)
    return examples.apply(tf.data.experimental.assert_cardinality(count))


class InferenceFiles:
    """Files that t5x's inference makes of predictions, one for every example.

    Audio becomes .wav; log-mel (nat), embeddings and activations .npy. They lie in
    the folder TASK-predict of the output folder, numbered in the order of the
    examples. Of scores there is one .npy for all examples of a shard.
    """

    def __init__(self, recipe: Recipe):
        model = recipe.model
        self._rate = model.codec.sample_rate if isinstance(model, INVERTERS) else None
        self._nat = model.codec.unscale if isinstance(model, MEL_MODELS) else np.asarray

    def write(self, path: str, inferences: tuple[Sequence[Any], Mapping[str, Any]],
              task_ds: tf.data.Dataset, mode: str, vocabulary: Any = None) -> None:
        """The predictions of a chunk into one file."""
        del task_ds, vocabulary
        values = np.asarray(inferences[0], np.float32)
        _save(path, values if mode == "score" else self._nat(values))

    def merge(self, output_dir: str, output_fname: str, tmp_dir: str, step: int | None) -> None:
        """Files of chunks into files of examples."""
        del step
        named = _NAME.fullmatch(output_fname)
        if named is None:
            raise ValueError(f"{output_fname}: t5x names its output in another way than is known here")
        name, mode, shard, count = named.groups()
        chunks = sorted(tf.io.gfile.glob(os.path.join(tmp_dir, f"{output_fname}-chunk?????")))
        values = (value for chunk in chunks for value in _load(chunk))
        stem = os.path.join(output_dir, f"{name}-{mode}")
        part = "" if int(count) == 1 else f"{shard}-of-{count}-"
        if mode == "score":
            _save(f"{stem}{part and '-' + part[:-1]}.npy", np.asarray(list(values)))
            return
        tf.io.gfile.makedirs(stem)
        for number, value in enumerate(values):
            self._write_example(os.path.join(stem, f"{part}{number:05d}"), value)

    def _write_example(self, stem: str, value: np.ndarray) -> None:
        if self._rate is None:
            _save(f"{stem}.npy", value)
            return
        buffer = io.BytesIO()
        soundfile.write(buffer, value, self._rate, format="WAV", subtype="FLOAT")
        with tf.io.gfile.GFile(f"{stem}.wav", "wb") as file:
            file.write(buffer.getvalue())


def inference_writer(recipe: Recipe) -> Callable[..., None]:
    """Returns a function for `infer.write_fn`."""
    return InferenceFiles(recipe).write


def inference_merger(recipe: Recipe) -> Callable[..., None]:
    """Returns a function for `infer.merge_fn`."""
    return InferenceFiles(recipe).merge


def _save(path: str, values: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values)
    with tf.io.gfile.GFile(path, "wb") as file:  # may be a bucket
        file.write(buffer.getvalue())


def _load(path: str) -> np.ndarray:
    with tf.io.gfile.GFile(path, "rb") as file:
        return np.load(io.BytesIO(file.read()))
