"""`music-diffusion benchmark --only train_step`. How fast a step is, is never asserted."""

import json
import sys

import jax
import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.cli import main as module
from music_diffusion.errors import UserError
from music_diffusion.training.state import init_state
from music_diffusion.workflows.benchmark import benchmark
from music_diffusion.workflows.benchmark import largest as benchmark_largest
from music_diffusion.workflows.benchmark import step as benchmark_step
from music_diffusion.workflows.benchmark.batches import made_up_batch
from music_diffusion.workflows.benchmark.largest import largest_batch
from music_diffusion.workflows.benchmark.parts import PARTS, EndedBySignalError, Request
from music_diffusion.workflows.benchmark.step import CompiledStep, Recipe

RECIPE = ["recipes/tiny.gin"]
SMALL = ["FRAMES = 8", "TOKENS = 32", "T5Config.decoder_layers = 1"]
QUICK = ["recipes/note_timbre.gin"]  # compiles in a moment


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture
def cli(monkeypatch, capfd):
    """Runs the command in this process; returns (exit code, stdout, stderr)."""
    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", "benchmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return cli


def request(**options):
    return Request(**{"model": "", "inverter": None, "seconds": 1, "repeats": 2, "gin_file": QUICK,
                      "batch": 4} | options)


@pytest.fixture(scope="module")
def step():
    """Compiled once."""
    step = CompiledStep(Recipe.read(QUICK, ["adamw.learning_rate = 0.01"]), 4)
    gin.clear_config()
    return step


@pytest.fixture
def compiled(monkeypatch, step):
    monkeypatch.setattr(benchmark_step, "CompiledStep", lambda recipe, batch: step)
    monkeypatch.setattr(benchmark_step, "_matrix_product_speed", lambda dtype, device: 1e12)


@pytest.fixture(scope="module")
def row():
    found, = PARTS["train_step"](request(gin_file=RECIPE, binding=SMALL))
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


def test_the_step_is_the_trainers(step):
    """It learns its one batch."""
    losses = [step() for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert step.parameters == sum(p.size for p in jax.tree.leaves(step._state.params))


def test_the_smallest_batch_is_one_of_each_microbatch():
    assert CompiledStep(Recipe.read(QUICK, ["MICROBATCHES = 2"]), None).batch_size == 2
    with pytest.raises(UserError, match="--batch 3: must be a multiple of 2"):
        CompiledStep(Recipe.read(QUICK, ["MICROBATCHES = 2"]), 3)


@pytest.mark.parametrize("bindings, word", [
    (["T5Config.decodre_layers = 1"], "decodre_layers"), (["TOTAL_STEP = 1"], "did you mean TOTAL_STEPS"),
    (["adamw.b1 = 0.5"], "nothing in this run reads it"),
    (["T5Config.dtype = 'float8'"], "float32, bfloat16")])
def test_bindings_that_do_not_fit_are_one_line(bindings, word):
    with pytest.raises(UserError, match=word) as caught:
        Recipe.read(RECIPE, bindings)
    assert "\n" not in str(caught.value)


def test_what_is_too_large_does_not_run(monkeypatch, compiled):
    monkeypatch.setattr(CompiledStep, "__call__", lambda self: pytest.fail("it ran"))
    found, = PARTS["train_step"](request(fits=True, memory=0.001))
    assert found == {"what": "train_step", "fits": False, "batch": 4}
    with pytest.raises(UserError, match="give --memory GB"):  # a CPU does not tell
        PARTS["train_step"](request(fits=True))


@pytest.mark.parametrize("message, fits", [("RESOURCE_EXHAUSTED: Out of memory", False),
                                           ("INTERNAL: else", None)])
def test_running_out_of_memory_does_not_fit(monkeypatch, compiled, message, fits):
    def run_out(self):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(CompiledStep, "__call__", run_out)
    if fits is None:
        with pytest.raises(jax.errors.JaxRuntimeError):
            PARTS["train_step"](request(fits=True, memory=99))
        return
    assert PARTS["train_step"](request(fits=True, memory=99))[0]["fits"] is fits


def test_more_in_use_than_the_limit_does_not_fit(monkeypatch, compiled):
    monkeypatch.setattr(benchmark_step, "device_peak_bytes", lambda devices: 2 * 10**9)
    assert not PARTS["train_step"](request(fits=True, memory=1.9, repeats=1))[0]["fits"]
    assert PARTS["train_step"](request(fits=True, memory=2.1, repeats=1))[0]["fits"]


@pytest.mark.parametrize("name", sorted(p.name for p in (gin_setup.gin_root() / "recipes").glob("*.gin")))
def test_made_up_batches_are_what_the_recipes_train_with(name):
    recipe = Recipe.read([f"recipes/{name}"], [])
    batch = made_up_batch(recipe.data, 2)
    shapes = {k: v.shape for k, v in batch.items()}
    state = jax.eval_shape(lambda: init_state(recipe.model, recipe.optimizer, shapes, seed=0, ema=False)[0])
    loss, _ = jax.eval_shape(recipe.model.loss_fn, state.params, batch, jax.random.key(0))
    assert loss.shape == ()


class Memory:
    """`run_part` for steps of which batches up to `largest` fit."""

    def __init__(self, largest, unit, killed=False):
        self.largest, self.unit, self.killed, self.asked = largest, unit, killed, []

    def __call__(self, name, options, told):
        assert name == "train_step"
        batch = options["batch"] or self.unit
        assert batch % self.unit == 0
        self.asked.append((batch, options.get("fits", False), options["repeats"]))
        if batch > self.largest and self.killed:
            raise EndedBySignalError("its process was ended by signal 9")
        return [{"fits": batch <= self.largest, "batch": batch}]


@pytest.mark.parametrize("largest, unit, killed, found", [
    (1, 1, False, 1), (2, 1, True, 2), (7, 1, False, 7), (31, 1, True, 31), (24, 8, False, 24),
    (30, 8, False, 24), (1000, 1, True, 992), (10**9, 4, False, 4 * 2**16)])
def test_the_largest_batch_is_found(monkeypatch, largest, unit, killed, found):
    memory, shares = Memory(largest, unit, killed), []
    monkeypatch.setattr(benchmark_largest, "run_part", memory)
    row, = largest_batch({"batch": 2, "repeats": 3}, shares.append)
    assert row["batch"] == found and largest * 15 / 16 - unit < found or found == 4 * 2**16
    assert memory.asked[-1] == (found, False, 3)  # the one that is reported
    tries = memory.asked[:-1]
    assert all(fits and repeats == 1 for _, fits, repeats in tries)
    assert len({b for b, _, _ in tries}) == len(tries) <= 22  # none twice
    assert shares == sorted(shares) and shares[-1] < 1


def test_a_batch_of_nothing_fits(monkeypatch):
    monkeypatch.setattr(benchmark_largest, "run_part", Memory(1, 2))
    with pytest.raises(UserError, match="not even the smallest batch fits"):
        largest_batch({"batch": 2, "repeats": 3}, lambda share: None)


def test_mistakes_are_no_tries(monkeypatch):
    def run_part(name, options, told):
        raise UserError("no such gin file")

    monkeypatch.setattr(benchmark_largest, "run_part", run_part)
    with pytest.raises(UserError, match="no such gin file"):
        largest_batch({"batch": 2, "repeats": 3}, lambda share: None)


@pytest.fixture
def stub(monkeypatch, row):
    """A part that answers at once; returns what it was asked."""
    asked = []

    def answer(*arguments):
        asked.append(arguments[:-1])
        return [row | {"what": "train_step tiny", "flops": 1.5e12, "wall_seconds": 2.0, "batch": 4,
                       "device_peak_bytes": 3e9, "parameters": 1234567}]

    monkeypatch.setattr(benchmark, "run_part", answer)
    monkeypatch.setattr(benchmark, "find_largest_batch", answer)
    return asked


def test_people_get_lines_that_fit_80_columns(cli, stub, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli("--only", "train_step", "--gin_file", RECIPE[0], "--gin-file", "b.gin",
                         "--binding", "A = 1", "--batch", "4")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    (name, options), = stub
    assert name == "train_step" and options["gin_file"] == [RECIPE[0], "b.gin"]
    assert (options["binding"], options["batch"], options["memory"]) == (["A = 1"], 4, None)
    words = ("train_step tiny, batch 4", "2 s (spread", "1.5 TFLOP, ", "of a matrix product here",
             "3.00 GB at most", "1,234,567")
    assert all(word in out for word in words)
    assert "music / time" not in out  # there is no music


def test_the_largest_batch_is_an_option(cli, stub):
    code, out, err = cli("--only", "train_step", "--gin_file", RECIPE[0], "--largest-batch",
                         "--memory", "6.5", "--json")
    assert (code, err) == (0, "")
    (options,), = stub
    assert options["memory"] == 6.5
    assert json.loads(out)["results"][0]["part"] == "train_step"


@pytest.mark.parametrize("arguments, word", [
    (["--largest-batch"], "give it by --gin_file"), (["--binding", "A = 1"], "give it by --gin_file"),
    (["--gin_file", "a.gin", "--memory", "3"], "--largest-batch: give that, too")],
    ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_bad_options_are_found_before_the_work(cli, stub, arguments, word):
    code, out, err = cli(*arguments)
    assert code == 2 and not out and word in err and not stub


def test_batches_are_positive(cli, stub):
    code, out, err = cli("--gin_file", "a.gin", "--batch", "0")
    assert code == 2 and not out and not stub and "equal to 1" in err


def test_in_a_true_process_a_missing_recipe_is_one_line(cli):
    code, out, err = cli("--only", "train_step", "--gin_file", "none.gin", "--json")
    assert code == 2 and err.startswith("error: train_step: none.gin: no such gin file")
    assert err.count("\n") == 1 and json.loads(out)["results"] == []
