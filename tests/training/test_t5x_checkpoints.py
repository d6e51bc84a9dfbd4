"""Checkpoints in t5x's two formats, written here without t5x."""

import shutil

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import tensorstore
from reference.tiny_release import GIN, MODEL, tiny_params

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.release import release
from music_diffusion.training.runs import is_run, read_run
from music_diffusion.training.t5x_checkpoints import is_t5x, read_t5x
from music_diffusion.training.warm_start import stored_params

LAST = {"encoder": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
                    "bias": np.ones(4, np.float32)},
        "decoder": {"layers_0": {"scale": np.full(2, 0.5, np.float32)}}}
AVERAGE = jax.tree.map(lambda x: x + 1, LAST)


def state_of(last, average=None, step=20):
    """As t5x's `state_dict` of a run with this package's optimizer, or with another one."""
    moments = {"v": jax.tree.map(np.zeros_like, last)}
    own = moments if average is None else {"inner": moments, "step": np.int32(step), "ema_params": average}
    return {"target": last, "state": {"step": np.int32(step), "param_states": own}}


def packed(value):
    """MessagePack as flax writes arrays: an extension of (shape, type, bytes)."""
    if isinstance(value, dict):
        return {k: packed(v) for k, v in value.items()}
    if isinstance(value, str | list | int):
        return value
    array = np.asarray(value)
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def write_message(folder, state, driver="file", dtype="float32"):
    """The older format: large arrays as zarr in folders beside `checkpoint`, in which they have a
    specification; here all of the parameters."""
    def write(tree, name):
        if isinstance(tree, dict):
            return {k: write(v, f"{name}.{k}") for k, v in tree.items()}
        if not name.startswith(("target", "state.param_states")) or tree.ndim == 0:
            return tree
        array = np.asarray(tree, jnp.dtype(dtype))
        metadata = {"shape": list(array.shape), "chunks": list(array.shape),
                    "compressor": {"id": "gzip"}}
        place = {"driver": "file", "path": str(folder / name)}
        tensorstore.open({"driver": "zarr", "kvstore": place, "metadata": metadata, "dtype": dtype},
                         create=True).result().write(array).result()
        written_at = {"driver": driver, "path": name}
        if driver == "gcs":
            written_at["bucket"] = "t5x-dummy-bucket"
        return {"driver": "zarr", "dtype": dtype, "kvstore": written_at, "metadata": metadata}

    folder.mkdir(parents=True)
    optimizer = {key: write(tree, key) for key, tree in state.items()}
    (folder / "checkpoint").write_bytes(msgpack.packb(packed({"version": 3, "optimizer": optimizer})))


def write_orbax(folder, state):
    """The newer format."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as writer:
        writer.save((folder / "state").absolute(), args=ocp.args.PyTreeSave(state))
    (folder / "dataset").mkdir()


WRITERS = pytest.mark.parametrize("write", [write_message, write_orbax])


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(found))


@WRITERS
def test_parameters_and_step_come_back(tmp_path, write):
    write(tmp_path / "checkpoint_20", state_of(LAST))
    for path in (tmp_path, str(tmp_path / "checkpoint_20")):
        assert is_t5x(path) and is_run(path)
        params, step = read_t5x(path)
        same(params, LAST)
        assert step == 20


@WRITERS
def test_the_average_is_preferred(tmp_path, write):
    write(tmp_path / "checkpoint_20", state_of(LAST, AVERAGE))
    same(read_t5x(tmp_path)[0], AVERAGE)


@WRITERS
def test_an_empty_average_is_none(tmp_path, write):
    """As of this package's optimizer with ema_decay=0."""
    state = state_of(LAST, {})
    if write is write_orbax:  # t5x leaves empty nodes out
        del state["state"]["param_states"]["ema_params"]
    write(tmp_path / "checkpoint_20", state)
    same(read_t5x(tmp_path)[0], LAST)


@WRITERS
def test_the_newest_or_a_named_step_of_complete_checkpoints(tmp_path, write):
    for step in (5, 100, 20):
        write(tmp_path / f"checkpoint_{step}",
              state_of(jax.tree.map(lambda x, s=step: x * s, LAST), step=step))
    shutil.copytree(tmp_path / "checkpoint_20", tmp_path / "checkpoint_300.orbax-checkpoint-tmp")
    (tmp_path / "checkpoint_400").mkdir()
    assert read_t5x(tmp_path)[1] == 100
    params, step = read_t5x(tmp_path, 5)
    same(params, jax.tree.map(lambda x: x * 5, LAST))
    assert step == 5
    with pytest.raises(UserError, match="no checkpoint_7 there; there are 5, 20, 100"):
        read_t5x(tmp_path, 7)


@pytest.mark.parametrize("driver, dtype", [("gcs", "float32"), ("gfile", "bfloat16")])
def test_copies_from_buckets_and_half_precision(tmp_path, driver, dtype):
    """As the published checkpoints of spectrogram diffusion are: written to a bucket."""
    write_message(tmp_path / "checkpoint_500000", state_of(LAST, step=500000), driver, dtype)
    params, step = read_t5x(tmp_path / "checkpoint_500000")
    same(params, LAST)  # small numbers, exact in bfloat16
    assert step == 500000


def damage(folder, what):
    if what == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "checkpoint").write_bytes(b"")
    if what == "garbage":
        (folder / "checkpoint").write_bytes(b"\x80\x04cos\nsystem\n")
    if what == "array":
        shutil.rmtree(folder / "target.encoder.kernel")
    if what == "short":
        (folder / "checkpoint").write_bytes((folder / "checkpoint").read_bytes()[:-20])
    if what == "foreign":
        (folder / "checkpoint").write_bytes(msgpack.packb({"version": 3}))


@pytest.mark.parametrize("what", ["empty", "garbage", "array", "short", "foreign"])
def test_damage_is_a_one_line_error(tmp_path, what):
    write_message(tmp_path / "checkpoint_20", state_of(LAST))
    damage(tmp_path / "checkpoint_20", what)
    with pytest.raises(UserError, match="checkpoint_20: no checkpoint of t5x") as error:
        read_t5x(tmp_path)
    assert "\n" not in str(error.value)


def test_other_folders_are_no_runs(tmp_path):
    (tmp_path / "checkpoint_x").mkdir()
    for name in ("export", "tensorflow"):  # whose files happen to be called so
        (tmp_path / name).mkdir()
    (tmp_path / "export" / "state").mkdir()
    (tmp_path / "tensorflow" / "checkpoint").write_text("model_checkpoint_path: 'x'")
    assert not is_t5x(tmp_path / "export") and not is_t5x(tmp_path / "tensorflow")
    assert not is_t5x(tmp_path) and not is_t5x(tmp_path / "nowhere") and not is_run(tmp_path)
    with pytest.raises(UserError, match="no checkpoint_STEP there; there are none"):
        read_t5x(tmp_path)


# As `t5x.train` with runs/t5x_train.gin writes it: names that only t5x's program knows, too.
CONFIG = "import music_diffusion.t5x.from_gin\n\nMODEL_DIR = 'gone'\n" + GIN.replace(
    "released.model", "train.model") + """
FrameDiffusionModel.timbre_weights = 'gone.safetensors'
train.optimizer = @adamw()
__main__.train.model = @T5XModel()
__main__.train.model_dir = %MODEL_DIR
__main__.train.trainer_cls = @RecipeTrainer
T5XModel.recipe = @train()
dataset.split = 'validation'
"""


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture
def run(tmp_path, params):
    write_orbax(tmp_path / "run" / "checkpoint_20",
                state_of(jax.tree.map(np.zeros_like, params), params))
    (tmp_path / "run" / "config.gin").write_text(CONFIG)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_of_t5x_is_opened_as_the_model_of_its_recipe(run, params, tmp_path):
    for path in (run, run / "checkpoint_20"):
        synthesizer = hub.load(path)
        assert synthesizer.model == MODEL and synthesizer.name == path.name
        same(synthesizer.params, params)
        assert read_run(path)[1:] == (20, CONFIG)
    release(str(run), str(tmp_path / "out"))
    assert hub.load(tmp_path / "out").model == MODEL
    same(load_safetensors(tmp_path / "out" / "weights.safetensors"), params)  # fits float16
    same(stored_params(run), params)


def test_a_run_of_other_sizes_than_its_configuration_is_an_error(run):
    (run / "config.gin").write_text(CONFIG.replace("width = 8", "width = 4"))
    with pytest.raises(UserError, match="run: weights do not fit the configuration"):
        hub.load(run)


def test_a_run_without_a_configuration_is_an_error(run):
    (run / "config.gin").unlink()
    with pytest.raises(UserError, match="has no config.gin"):
        hub.load(run)


def test_a_run_whose_model_this_version_does_not_know_is_an_error(run):
    (run / "config.gin").write_text(CONFIG.replace("@FrameDiffusionModel()", "@NoSuchModel()"))
    with pytest.raises(UserError, match="no train.model that this version knows") as error:
        hub.load(run)
    assert "\n" not in str(error.value)


def test_a_released_model_goes_before_a_run_in_the_same_folder(run, params, tmp_path):
    release(str(run), str(run), bindings=["FrameDiffusionModel.num_steps = 5"])
    assert hub.load(run).model.num_steps == 5
