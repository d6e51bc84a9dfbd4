"""What one training step of a recipe takes. How fast a step is, is never asserted."""

import dataclasses
import json

import jax
import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.networks.transformer import T5Config
from music_diffusion.training.state import init_state
from music_diffusion.workflows.benchmark import step as step_module
from music_diffusion.workflows.benchmark.batches import made_up_batch
from music_diffusion.workflows.benchmark.measuring import Measurement
from music_diffusion.workflows.benchmark.parts import PARTS
from music_diffusion.workflows.benchmark.step import CompiledStep, StepSetup
from music_diffusion.workflows.requests import BenchmarkRequest

RECIPE = ("recipes/tiny.gin",)
SMALL = ("FRAMES = 8", "TOKENS = 32", "T5Config.decoder_layers = 1")
QUICK = ("recipes/note_timbre.gin",)  # compiles in a moment


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def measurement(*, fits=False, **fields):
    return Measurement(request=BenchmarkRequest(**{"repeats": 2, "gin_files": QUICK, "batch": 4} | fields),
                       fits=fits)


@pytest.fixture(scope="module")
def step():
    """Compiled once."""
    step = CompiledStep(StepSetup.read(QUICK, ["adamw.learning_rate = 0.01"]), 4)
    gin.clear_config()
    return step


@pytest.fixture
def compiled(monkeypatch, step):
    monkeypatch.setattr(step_module, "CompiledStep", lambda setup, batch: step)
    monkeypatch.setattr(step_module, "_matrix_product_speed", lambda dtype, device: 1e12)


@pytest.fixture(scope="module")
def row():
    found, = PARTS["train_step"](measurement(gin_files=RECIPE, bindings=SMALL))
    gin.clear_config()
    return found


def test_a_step_is_measured(row):
    assert row["what"] == "train_step tiny, FRAMES = 8, TOKENS = 32, T5Config.decoder_layers = 1"
    assert (row["batch"], row["repeats"], row["peak"]) == (4, 2, "measured")
    assert row["wall_seconds_min"] <= row["wall_seconds"] <= row["wall_seconds_max"]
    assert row["core_seconds"] > 0 and row["compile_seconds"] > 0 and row["peak_fraction"] > 0
    assert row["examples_per_second"] == pytest.approx(4 * row["steps_per_second"])
    assert row["flops_per_second"] == pytest.approx(row["flops"] * row["steps_per_second"])
    # XLA plans more than parameters and their average, the process holds more than that.
    assert 2 * 4 * row["parameters"] < row["device_bytes"] < row["device_peak_bytes"]
    assert json.loads(json.dumps(row)) == row
    assert not {"audio_seconds", "realtime_factor"} & set(row)


def test_work_is_that_of_the_recipes_own_batch(row):
    """Counted by hand: a transformer with one layer in each stack."""
    batch, tokens, frames, mels, width, heads, mlp, rows = 4, 32, 8, 128, 32, 32, 64, 1536
    attend = lambda q, n: 2 * q * n * heads  # noqa: E731  (logits and values)
    block = lambda n: 4 * n * width * heads + attend(n, n) + 3 * n * width * mlp  # noqa: E731
    encoder = tokens * rows * width + block(tokens)
    cross = 2 * frames * width * heads + 2 * tokens * width * heads + attend(frames, tokens)
    film = 2 * (4 * width) * (2 * width)
    decoder = block(frames) + cross + film + 2 * frames * mels * width
    time = width * 4 * width + 4 * width * 4 * width
    # Forward and two gradients; the first products have one, as ids, z and time need none.
    products = 3 * (encoder + decoder + time)
    products -= tokens * rows * width + frames * mels * width + width * 4 * width
    # The gradient of attention computes its logits again.
    products += tokens * tokens * heads + frames * frames * heads + frames * tokens * heads
    assert row["flops"] == 2 * batch * products


@pytest.mark.slow
def test_the_step_is_the_trainers(step):
    """It learns its one batch."""
    losses = [step() for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert step.parameters == sum(p.size for p in jax.tree.leaves(step._state.params))


@pytest.mark.slow
def test_the_smallest_batch_is_one_of_each_microbatch():
    assert CompiledStep(StepSetup.read(QUICK, ["MICROBATCHES = 2"]), None).batch_size == 2
    with pytest.raises(UserError, match="--batch 3: must be a multiple of 2"):
        CompiledStep(StepSetup.read(QUICK, ["MICROBATCHES = 2"]), 3)


@pytest.mark.parametrize("bindings, word", [
    (["T5Config.decodre_layers = 1"], "decodre_layers"), (["TOTAL_STEP = 1"], "did you mean TOTAL_STEPS"),
    (["adamw.b1 = 0.5"], "nothing in this run reads it"),
    (["T5Config.dtype = 'float8'"], "float32, bfloat16")])
def test_bindings_that_do_not_fit_are_one_line(bindings, word):
    with pytest.raises(UserError, match=word) as caught:
        StepSetup.read(RECIPE, bindings)
    assert "\n" not in str(caught.value)


def test_what_is_too_large_does_not_run(monkeypatch, compiled):
    monkeypatch.setattr(CompiledStep, "__call__", lambda self: pytest.fail("it ran"))
    found, = PARTS["train_step"](measurement(fits=True, memory=0.001))
    assert found == {"what": "train_step", "fits": False, "batch": 4}
    with pytest.raises(UserError, match="give --memory GB"):  # a CPU does not tell
        PARTS["train_step"](measurement(fits=True))


@pytest.mark.parametrize("message, fits", [("RESOURCE_EXHAUSTED: Out of memory", False),
                                           ("INTERNAL: else", None)])
def test_running_out_of_memory_does_not_fit(monkeypatch, compiled, message, fits):
    def run_out(self):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(CompiledStep, "__call__", run_out)
    if fits is None:
        with pytest.raises(jax.errors.JaxRuntimeError):
            PARTS["train_step"](measurement(fits=True, memory=99))
        return
    assert PARTS["train_step"](measurement(fits=True, memory=99))[0]["fits"] is fits


def test_more_in_use_than_the_limit_does_not_fit(monkeypatch, compiled):
    monkeypatch.setattr(step_module, "device_peak_bytes", lambda devices: 2 * 10**9)
    assert not PARTS["train_step"](measurement(fits=True, memory=1.9, repeats=1))[0]["fits"]
    assert PARTS["train_step"](measurement(fits=True, memory=2.1, repeats=1))[0]["fits"]


def shallow(model):
    """Returns the model with one layer of many alike, where it is a transformer."""
    if not isinstance(getattr(model, "config", None), T5Config):
        return model
    return dataclasses.replace(model, config=dataclasses.replace(
        model.config, encoder_layers=1, decoder_layers=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in (gin_setup.gin_root() / "recipes").glob("*.gin")))
def test_made_up_batches_are_what_the_recipes_train_with(name):
    setup = StepSetup.read([f"recipes/{name}"], [])
    batch = made_up_batch(setup.data, 2)
    shapes = {k: v.shape for k, v in batch.items()}
    model = shallow(setup.model)
    state = jax.eval_shape(lambda: init_state(model, setup.optimizer, shapes, seed=0, ema=False)[0])
    loss, _ = jax.eval_shape(model.loss_fn, state.params, batch, jax.random.key(0))
    assert loss.shape == ()
