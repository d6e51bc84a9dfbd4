"""seqio's examples are grain's: for every member, shuffled or not, of one host or several."""

import itertools

import numpy as np
import pytest
from reference import needs
from reference.tiny_records import CODEC

seqio = needs.module("seqio")
tf = needs.module("tensorflow")

from music_diffusion.conditions.note_frames import NoteFrames  # noqa: E402
from music_diffusion.conditions.note_tokens import NoteTokens  # noqa: E402
from music_diffusion.conditions.performance_numbers import PerformanceNumbers  # noqa: E402
from music_diffusion.conditions.regions import ClassAndRegion  # noqa: E402
from music_diffusion.conditions.spectrograms import (  # noqa: E402
    Nothing,
    SourceSpectrogram,
    StyleSpectrogram,
)
from music_diffusion.data.pipeline import RecordSource  # noqa: E402
from music_diffusion.tasks import recording_list, soundfont  # noqa: E402

# What the models' docstrings ask for, as grain's source says it.
SOURCES = {
    "recording_list_spectrogram_diffusion": dict(conditions=NoteTokens()),
    "recording_list_spectrogram_diffusion_context": dict(conditions=NoteTokens(context=True)),
    "recording_list_frame_diffusion": dict(conditions=NoteFrames()),
    "recording_list_performance": dict(conditions=NoteTokens(performance=PerformanceNumbers())),
    "recording_list_performance_frames": dict(
        conditions=NoteFrames(slots=0, performance=PerformanceNumbers())),
    "recording_list_style_transfer": dict(conditions=StyleSpectrogram(), frames=128),
    "recording_list_unconditional": dict(conditions=Nothing()),
    "recording_list_unconditional_long": dict(conditions=Nothing(), frames=512),
    "recording_list_classes": dict(conditions=ClassAndRegion(classes=("folk", "jazz")), frames=512),
    "soundfont_timbre_transfer": dict(conditions=SourceSpectrogram(), frames=128),
}


@pytest.fixture(autouse=True)
def registered(folder):
    recording_list.register(folder, codec=CODEC)
    soundfont.register(folder, codec=CODEC)


def source(folder, name, **options):
    return RecordSource(folder=folder, codec=CODEC, **SOURCES[name], **options)


def take(dataset, count=None):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.keys() == b.keys()
        for name in b:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
            assert np.asarray(a[name]).dtype == b[name].dtype, name


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_members_examples_are_those_of_grain(folder, name):
    task = seqio.get_mixture_or_task(name)
    for split in ("train", "validation"):
        grid = source(folder, name, shuffle=False)
        size = task.num_input_examples(split)
        assert size == len(grid.examples(split)) > 1
        want = [grid.dataset(split, 0)[i] for i in range(size)]
        assert_same(take(task.get_dataset(split=split, shuffle=False)), want)
    # Shuffled, an epoch and the beginning of the next.
    crops = source(folder, name).dataset("train", 5)
    size = task.num_input_examples("train")
    want = [crops[i] for i in range(size + 2)]
    assert_same(take(task.get_dataset(seed=5, num_epochs=None), size + 2), want)
    assert not np.array_equal(want[0]["targets"], crops[size]["targets"])


@pytest.mark.parametrize("count", [2, 3])
def test_hosts_have_what_grains_hosts_have_across_epochs(folder, count):
    name = "recording_list_spectrogram_diffusion"
    task = seqio.get_mixture_or_task(name)
    size = task.num_input_examples("train")
    assert size % count  # the second epoch begins at another host
    grid = take(task.get_dataset(shuffle=False))
    for i in range(count):
        assert_same(shuffled(task, i, count, size), grains(folder, name, i, count, size))
        shard = seqio.ShardInfo(i, count)
        assert_same(take(task.get_dataset(shuffle=False, shard_info=shard)), grid[i::count])


def test_hosts_may_be_more_than_examples(folder):
    name = "recording_list_unconditional"
    task = seqio.get_mixture_or_task(name)
    assert task.num_input_examples("train") < 20
    assert_same(shuffled(task, 19, 20, 2), grains(folder, name, 19, 20, 2))


def shuffled(task, index, count, number):
    shard = seqio.ShardInfo(index, count)
    return take(task.get_dataset(seed=3, shard_info=shard, num_epochs=None), number)


def grains(folder, name, index, count, number):
    batches = source(folder, name).train_iterator(1, 3, shard_index=index, shard_count=count)
    return [{feature: array[0] for feature, array in batch.items()}
            for batch in itertools.islice(batches, number)]


def test_an_epoch_ends_and_without_a_seed_is_another_one(folder):
    task = seqio.get_mixture_or_task("recording_list_unconditional")
    a, b = (take(task.get_dataset()) for _ in range(2))
    assert len(a) == len(b) == task.num_input_examples("train")
    assert any((x["targets"] != y["targets"]).any() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name, shuffle", [
    ("recording_list_spectrogram_diffusion_context", True), ("recording_list_frame_diffusion", False)])
def test_an_iterator_resumes_in_the_midst_of_an_epoch(folder, tmp_path, name, shuffle):
    def fresh():
        task = seqio.get_mixture_or_task(name)
        return iter(task.get_dataset(seed=7, shuffle=shuffle, num_epochs=None).batch(2))

    iterator = fresh()
    for _ in range(5):  # of 4 or so an epoch
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "state"))
    want = [next(iterator) for _ in range(4)]
    restored = fresh()
    next(restored)
    tf.train.Checkpoint(iterator=restored).restore(path).assert_consumed()
    for expected in want:
        got = next(restored)
        for feature in expected:
            np.testing.assert_array_equal(got[feature], expected[feature])
