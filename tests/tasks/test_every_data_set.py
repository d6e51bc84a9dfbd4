"""Every data set from its published layout to a trained step, the same from grain and from seqio."""

import dataclasses
import functools
import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import needs
from reference.tiny_release import MODEL

from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.pipeline import RecordSource
from music_diffusion.data.sets.catalogue import CATALOGUE, open_set
from music_diffusion.models.base import ModelBase
from music_diffusion.tasks.catalogue import DATA_SETS
from music_diffusion.tasks.members import CODEC
from music_diffusion.training.optimizers import adamw
from music_diffusion.training.state import init_state, make_train_step

BATCH, STEPS = 2, 5
OPTIONS = {"slakh": {"subsets": 2}, "instrument_folders": {"held_out": 0.3}}


@dataclasses.dataclass(frozen=True)
class Linear(ModelBase):
    """Any batch trains it: frames from those of the second timbre, or from their neighbours."""

    def init(self, rng, shapes):
        return {"params": {"w": jnp.zeros((128, 128))}}

    def loss_fn(self, params, batch, rng):
        inputs = jnp.asarray(batch["source"] if "source" in batch else jnp.roll(batch["targets"], 1, 1))
        loss = jnp.mean((inputs @ params["w"] - batch["targets"]) ** 2)
        return loss, {"loss": loss}


@functools.cache
def compiled(model, shapes):
    """The state before the first step, and the step."""
    optimizer = adamw(learning_rate=1e-3)
    state, _ = init_state(model, optimizer, dict(shapes), seed=0, ema=False)
    return state, jax.jit(make_train_step(model, optimizer, seed=0, microbatches=1, clip_norm=1.0,
                                          ema_decay=0.0, ema_warmup=False))


def trained(model, batches):
    """The losses of a few steps, and the parameters after them."""
    state, step = compiled(model, tuple((k, v.shape) for k, v in sorted(batches[0].items())))
    losses = []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert not int(state.bad_step)
    return losses, jax.tree.map(np.asarray, state.params)


def lay_out(name, folder):
    """The data set's fixture; returns what SRC is, and the reader's options."""
    if name == "soundfont":
        from reference.soundfont_file import soundfont

        needs.module("fluidsynth")
        for i in range(6):
            midi = importlib.import_module("layouts.common").scale(pitch=50 + i, program=8 * i, count=12)
            (folder / "scores").mkdir(parents=True, exist_ok=True)
            importlib.import_module("music_diffusion.notes.midi").write_midi(
                midi, folder / "scores" / f"{i}.mid")
        (folder / "sine.sf2").write_bytes(soundfont())
        return folder / "scores", {"soundfonts": (str(folder / "sine.sf2"),), "seconds": 4.0,
                                   "train_hours": 12 / 3600, "validation_hours": 4 / 3600}
    folder.mkdir()
    importlib.import_module(f"layouts.{name}").build(folder)
    return folder, OPTIONS.get(name, {})


def test_every_data_set_has_tasks_and_a_fixture():
    assert DATA_SETS.keys() == CATALOGUE.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_from_the_published_layout_to_five_training_steps(name, tmp_path):
    seqio = needs.module("seqio")
    source, options = lay_out(name, tmp_path / "in")
    data_set = open_set(name, str(source), options)
    folder = str(tmp_path / "out")
    manifest = build(data_set, name, BuildPlan(workers=1, shards=2), folder)
    assert manifest["records"]["train"] and manifest["records"]["validation"]

    tasks = DATA_SETS[name]
    member = tasks.usable(folder, CODEC)[0]
    if any(m.name == "frame_diffusion" for m in tasks.members):
        (member,) = tasks.usable(folder, CODEC, ["frame_diffusion"])
    grain_source = RecordSource(folder=folder, frames=member.frames, conditions=member.conditions)
    grains = list(itertools.islice(grain_source.train_iterator(BATCH, 7), STEPS))
    (task_name,) = tasks.register(folder, members=[member.name])
    dataset = seqio.get_mixture_or_task(task_name).get_dataset(seed=7, num_epochs=None).batch(BATCH)
    seqios = list(itertools.islice(dataset.as_numpy_iterator(), STEPS))
    for a, b in zip(grains, seqios, strict=True):
        assert a.keys() == b.keys()
        for feature in a:
            np.testing.assert_array_equal(a[feature], b[feature], err_msg=feature)
            assert a[feature].dtype == b[feature].dtype

    model = MODEL if isinstance(member.conditions, NoteFrames) else Linear()
    losses, params = trained(model, grains)
    assert all(math.isfinite(loss) for loss in losses)
    again, same = trained(model, seqios)
    assert losses == again
    jax.tree.map(np.testing.assert_array_equal, params, same)
