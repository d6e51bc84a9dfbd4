"""The tasks' names, and that their features are those that the models ask for. Without seqio."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from reference import compiled
from reference.knowing_listener import Knowing
from reference.tiny_records import CODEC, TinySet, write_records

from music_diffusion.data import records
from music_diffusion.data.dump import example_notes
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.sets.catalogue import CATALOGUE
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.note_timbre import NoteTimbreModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.transformer import T5Config
from music_diffusion.tasks import mega, members
from music_diffusion.tasks.catalogue import DATA_SETS, find_task


def test_every_data_set_that_is_prepared_has_tasks():
    assert set(DATA_SETS) == set(CATALOGUE)
    assert set(mega.DATA_SETS) < set(DATA_SETS)
    for name in mega.DATA_SETS:
        assert set(members.FROM_NOTES) <= set(DATA_SETS[name].members)


def test_tasks_are_found_by_name():
    tasks, member = find_task("bach_violin_performance_frames")
    assert (tasks.data_set, member) == ("bach_violin", members.PERFORMANCE_FRAMES)
    names = [name for tasks in DATA_SETS.values() for name in tasks.task_names]
    assert len(names) == len(set(names)) and all(find_task(n)[0].task_name(find_task(n)[1]) == n
                                                 for n in names)


@pytest.mark.parametrize("name, message", [
    ("maestro_frame_difusion", "did you mean maestro_frame_diffusion"),
    ("gtzan_performance", "gtzan_unconditional_long"),
    ("bird_song", "such as maestro_frame_diffusion"),
])
def test_unknown_tasks_tell_what_there_is(name, message):
    with pytest.raises(UserError, match=f"{name}: no such task.*{message}"):
        find_task(name)


def features(folder, member):
    """An example as abstract arrays, with the number of bins that the published codec gives it."""
    holdings = members.Holdings.of(folder, CODEC)
    example = member.fitted(holdings).examples(folder, "train", CODEC).crops(0)(0)
    return {k: jax.ShapeDtypeStruct([128 if n == CODEC.mels else n for n in v.shape], v.dtype)
            for k, v in example.items()}


@pytest.mark.parametrize("member", [members.SPECTROGRAM_DIFFUSION, members.SPECTROGRAM_DIFFUSION_CONTEXT])
def test_spectrogram_diffusion_gets_its_features(folder, member):
    model = SpectrogramDiffusionModel(config=T5Config(
        embed_dim=4, num_heads=1, head_dim=4, mlp_dim=4, encoder_layers=1, decoder_layers=1,
        context=member.conditions.context))
    got = {k: (1, *v.shape) for k, v in features(folder, member).items()}
    assert got == model.feature_shapes


@pytest.mark.slow
def test_the_default_model_gets_its_features(folder):
    batch = {k: jax.ShapeDtypeStruct((1, *v.shape), v.dtype)
             for k, v in features(folder, members.FRAME_DIFFUSION).items()}
    model = FrameDiffusionModel()
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), {}))["params"]
    loss, _ = jax.eval_shape(model.loss_fn, params, batch, jax.random.key(0))
    assert loss.shape == ()
    del batch["slot_age"]
    with pytest.raises(UserError, match="slot_age"):
        jax.eval_shape(model.loss_fn, params, batch, jax.random.key(0))


@pytest.fixture(scope="module")
def heard_folder(tmp_path_factory):
    """Pairs that were heard, with maps."""
    root = tmp_path_factory.mktemp("heard")
    one = TinySet(labels=False, seconds={"train": (6.0,), "validation": (6.0,)})
    folder = write_records(root / "data", one, listener=Knowing(name="train/0", seconds=6.0))
    config = NoteTimbreConfig(width=8, layers=1, codec=CODEC)
    timbre = compiled.init(NoteTimbreModel(config=config))["params"]
    add_note_maps(folder, str(root / "mapped"), config, timbre)
    return str(root / "mapped")


@pytest.mark.parametrize("member", {m: 0 for t in DATA_SETS.values() for m in t.members},
                         ids=lambda m: m.name)
def test_blank_arrays_are_like_the_examples(folder, heard_folder, member):
    heard = (members.TRANSFER, members.RESTYLE, members.RESTYLE_LATENT)
    folder = heard_folder if member in heard else folder
    fitted = member.fitted(members.Holdings.of(folder, CODEC))
    blank = fitted.blank(folder, "train", CODEC)
    example = fitted.examples(folder, "train", CODEC).crops(0)(0)
    assert {k: (v.shape, v.dtype) for k, v in blank.items()} == {
        k: (v.shape, v.dtype) for k, v in example.items()}


@pytest.mark.parametrize("member", [members.PERFORMANCE, members.FRAME_DIFFUSION], ids=lambda m: m.name)
def test_notes_follow_the_codecs_frames(tmp_path, member):
    slow = dataclasses.replace(CODEC, hop=160)
    hop, first, member = 0.04, 5, dataclasses.replace(member, frames=128)  # a token segment's 5.12 s
    folder = write_records(tmp_path / "slow", codec=slow)
    fitted = member.fitted(members.Holdings.of(folder, slow))
    assert fitted == member
    path = records.shard_paths(folder, "train")[0]
    record = records.Record.from_bytes(next(iter(records.read_shard(path))))
    example = fitted.examples(folder, "train", slow).segment(0, first)
    got = example_notes(example, member.conditions.events, hop).start
    want = record.notes.start - record.start - first * hop
    want = np.sort(want[(want > 1e-3) & (want < member.frames * hop)])
    assert len(want) > 5
    np.testing.assert_allclose(np.sort(got[got > 1e-3]), want, atol=1e-3)


def test_without_seqio_registering_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "seqio", None)
    monkeypatch.delitem(sys.modules, "music_diffusion.tasks.registering", raising=False)
    for register in (lambda: DATA_SETS["maestro"].register(folder, codec=CODEC),
                     lambda: mega.register({"urmp": folder}, codec=CODEC)):
        with pytest.raises(UserError, match=r"pip install 'music-diffusion\[t5x\]'"):
            register()
