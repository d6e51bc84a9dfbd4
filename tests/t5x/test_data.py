"""A recipe's data under t5x: the batches of the built-in trainer, at the same position."""

import itertools

import numpy as np
import pytest
from reference.toy_regression import ToySource
from reference.zoo_recipes import ZOO

import gin
from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.t5x.adapter import NUMBER
from music_diffusion.t5x.data import EvalBatches, TrainBatches, examples


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.asarray(a[name]).dtype == np.asarray(b[name]).dtype
        np.testing.assert_array_equal(a[name], b[name])


def expected(count, batch_size=8, seed=5):
    return list(itertools.islice(ToySource().train_iterator(batch_size, seed), count))


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_training_batches_are_those_of_the_built_in_trainer(name, tmp_path):
    """Of every member's recipe."""
    arguments = [a.removeprefix("--") for a in ZOO[name].arguments(tmp_path / "data")]
    files = [a.removeprefix("gin_file=") for a in arguments if a.startswith("gin_file=")]
    bindings = [a.removeprefix("gin.").replace("=", " = ", 1) for a in arguments
                if a.startswith("gin.")]
    try:
        gin_setup.parse(files, bindings)
        data, config = (gin.query_parameter(f"train.{p}").scoped_configurable_fn()
                        for p in ("data", "config"))
        theirs = data.train_iterator(config.batch_size, 3)
        ours = TrainBatches(data, config.batch_size, 3)
        for _ in range(3):
            batch = next(ours)
            same(batch, next(theirs))
            assert {k: (s.shape, s.dtype) for k, s in ours.element_spec.items()} == {
                k: (np.shape(v), np.asarray(v).dtype) for k, v in batch.items()}
        of_eval = next(data.eval_batches(config.batch_size))
        first = next(iter(EvalBatches(data, config.batch_size)))
        assert set(first.pop(NUMBER)) == {0}
        same(first, of_eval)
    finally:
        gin.clear_config()


@pytest.mark.slow
@pytest.mark.parametrize("consumed", [0, 1, 7])
@pytest.mark.parametrize("read", [1, 2, 5])
def test_a_restored_position_goes_on_where_it_was_saved(tmp_path, read, consumed):
    """Whatever the iterator has given before; and again, from what was restored."""
    batches = TrainBatches(ToySource(), 8, 5)
    for _ in range(read):
        next(batches)
    batches.save(tmp_path / "first")
    fresh = TrainBatches(ToySource(), 8, 5)
    for _ in range(consumed):
        next(fresh)
    fresh.restore(tmp_path / "first")
    same(next(fresh), expected(read + 1)[-1])
    fresh.save(tmp_path / "second")
    batches.restore(tmp_path / "second")
    same(next(batches), expected(read + 2)[-1])
    batches.reset()
    same(next(batches), expected(1)[0])


@pytest.mark.parametrize("looked_ahead", [False, True])
def test_before_the_first_step_nothing_has_been_used(tmp_path, looked_ahead):
    """t5x looks at a batch before it saves the checkpoint of step 0."""
    batches = TrainBatches(ToySource(), 8, 5)
    if looked_ahead:
        next(batches)
    file = tmp_path / "checkpoint_0.orbax-checkpoint-tmp"
    batches.save(file)
    fresh = TrainBatches(ToySource(), 8, 5)
    fresh.restore(file)
    same(next(fresh), expected(1)[0])


def test_shards_make_up_the_batch():
    whole = expected(3)
    shards = [TrainBatches(ToySource(), 2, 5, shard_index=i, shard_count=4) for i in range(4)]
    for batch in whole:
        parts = [next(shard) for shard in shards]
        same({k: np.concatenate([p[k] for p in parts]) for k in batch}, batch)


def test_evaluation_batches_are_numbered_and_the_same_on_every_pass():
    """The toy's second batch is not whole, which t5x has not compiled for."""
    batches = EvalBatches(ToySource(), 8)
    for _ in range(2):
        (only,) = batches
        np.testing.assert_array_equal(only.pop(NUMBER), np.zeros(8, np.int32))
        same(only, next(ToySource().eval_batches(8)))
    numbers = [set(b[NUMBER]) for b in EvalBatches(ToySource(), 3)]
    assert numbers == [{0}, {1}]


def test_shards_of_an_evaluation_batch_are_its_rows():
    whole = next(ToySource().eval_batches(8))
    parts = [next(iter(EvalBatches(ToySource(), 8, shard_index=i, shard_count=4))) for i in range(4)]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole[name])


def test_no_whole_batch_to_evaluate_is_an_error():
    with pytest.raises(UserError, match="no batch of 100 examples") as error:
        EvalBatches(ToySource(), 100)
    assert "\n" not in str(error.value)


def test_examples_are_the_rows_of_all_evaluation_batches():
    rows = list(examples(ToySource(), 8))
    assert len(rows) == 8 + 3
    first, second = ToySource().eval_batches(8)
    np.testing.assert_array_equal([r["x"] for r in rows], np.concatenate([first["x"], second["x"]]))
