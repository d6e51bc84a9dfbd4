"""Search for hyper-parameters: better than the start, early ends of bad trials, and nothing lost."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from reference.toy_recipe import RECIPE

from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.workflows.fine_tuning import fine_tune, validation_losses
from music_diffusion.workflows.requests import TuneRequest
from music_diffusion.workflows.search_space import PAPER, parse_range
from music_diffusion.workflows.tune import tune

ROOT = pathlib.Path(__file__).parents[2]
RATE = "adamw.learning_rate=log:1e-5:1e-1"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "toy.gin"
    path.write_text(RECIPE)
    return str(path)


def rows(folder):
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(recipe, tmp_path_factory):
    """A search of ten trials, its request and what it said."""
    folder = tmp_path_factory.mktemp("search") / "study"
    request = TuneRequest(gin_file=recipe, output=str(folder), trials=10, steps=24, seed=3,
                          search=(RATE, "adamw.weight_decay=float:0:0.1"), bindings=("BATCH_SIZE = 8",))
    return folder, request, tune(request)


def test_a_short_search_begins_with_the_recipe_s_own_values(recipe, tmp_path):
    folder = tmp_path / "study"
    done = tune(TuneRequest(gin_file=recipe, output=str(folder), trials=2, steps=6, search=(RATE,)))
    first, second = rows(folder)
    assert (done.trials, first["adamw.learning_rate"]) == (2, "0.0001") != second["adamw.learning_rate"]
    losses = [float(row["loss"]) for row in (first, second)]
    assert (done.start, done.best) == (losses[0], min(losses))
    best = f"adamw.learning_rate = {done.values['adamw.learning_rate']!r}"
    assert best in (folder / "best.gin").read_text()


@pytest.mark.slow
def test_better_than_the_start(searched):
    folder, _, done = searched
    assert done.trials == 10 and done.failed == 0
    first = rows(folder)[0]
    assert float(first["adamw.learning_rate"]) == 1e-4 and float(first["loss"]) == pytest.approx(done.start)
    assert done.best < 0.8 * done.start
    assert json.loads((folder / "study.json").read_text())["best"] == done.best
    for name in ("history.png", "importances.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_bad_trials_end_early(searched):
    folder, _, done = searched
    assert 0 < done.pruned == sum(row["state"] == "pruned" for row in rows(folder))
    complete = [validation_losses(str(folder / "trials" / f"{int(r['folder']):04}")) for r in rows(folder)
                if r["state"] == "complete"]
    for row in rows(folder):
        course = validation_losses(str(folder / "trials" / f"{int(row['folder']):04}"))
        if row["state"] == "pruned":
            last = max(course)
            assert min(course.values()) > min(c[last] for c in complete)
        else:
            assert max(course) == 24


@pytest.mark.slow
def test_gin_file_of_the_best_gives_its_loss(searched, tmp_path):
    folder, _, done = searched
    text = (folder / "best.gin").read_text()
    assert "BATCH_SIZE = 8" in text
    fine_tune((str(folder / "best.gin"),), {"TOTAL_STEPS": 24, "TrainConfig.eval_every": 4}, (),
              model_dir=str(tmp_path / "run"))
    assert min(validation_losses(str(tmp_path / "run")).values()) == pytest.approx(done.best, rel=1e-6)


@pytest.mark.slow
def test_more_trials_go_on_with_the_same_search(searched):
    folder, request, done = searched
    before = rows(folder)
    again = tune(request)
    assert again.trials == 10 and rows(folder) == before  # all are done
    other = TuneRequest(**{**vars(request), "steps": 12})
    with pytest.raises(UserError, match="a search with other steps"):
        tune(other)


@pytest.mark.parametrize("changes, words", [
    ({"search": ("adamw.learning_rat=log:1e-5:1",)}, "adamw.learning_rat"),
    ({"search": ("LinearLogSNRSchedule.logsnr_min=float:-9:-1",)}, "nothing in this run reads it"),
    ({"search": (RATE, RATE)}, "twice"), ({"search": ("adamw.b1=log:0:1",)}, "both above 0"),
    ({"search": ("adamw.b1",)}, "NAME=log:LOW:HIGH"), ({"search": ("BATCH_SIZE=int:1.5:4",)}, "both whole"),
    ({"search": ("BATCH_SIZE=choice:8",)}, "two choices"),
    ({"search": ("adamw.b1=float:2:1",)}, "the lower first"),
    ({"pruner": "never"}, "--pruner never: unknown; choose median"),
    ({"gin_file": "none.gin"}, "no such gin file")])
def test_bad_input(recipe, tmp_path, changes, words):
    request = {"gin_file": recipe, "output": str(tmp_path / "study"), "search": (RATE,)} | changes
    with pytest.raises(UserError, match=words):
        tune(TuneRequest(**request))


def test_folders_that_are_no_search(recipe, tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(b"mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.db").write_text("no database")
    for name, words in (("music", "has other files"), ("broken", "damaged, or no search"),
                        ("music/a.wav", "is a file")):
        with pytest.raises(UserError, match=words):
            tune(TuneRequest(gin_file=recipe, output=str(tmp_path / name), search=(RATE,)))
    assert [p.name for p in (tmp_path / "music").iterdir()] == ["a.wav"]


def test_values_that_cannot_be_trained_with_and_the_search_after_they_are_corrected(recipe, tmp_path):
    request = {"gin_file": recipe, "output": str(tmp_path / "study"), "trials": 1, "steps": 2}
    with pytest.raises(UserError, match="trial 0 cannot be trained with"):
        tune(TuneRequest(**request, search=("adamw.learning_rate=choice:'a','b'",)))
    assert tune(TuneRequest(**request, search=(RATE,))).trials == 1


def test_ranges_as_they_are_written():
    for text in ("a.b=log:0.001:0.1", "a.b=float:-1:2", "a.b=int:1:4", "a.b=choice:'x',8"):
        assert str(parse_range(text)) == text
    assert [r.name for r in PAPER] == ["adamw.learning_rate", "adamw.weight_decay", "signal_rates.lowest",
                                       "signal_rates.highest", "UNet2DConfig.blocks"]
    found = dict(zip((r.name for r in PAPER), (3.3107e-5, 0.0688, 0.1952, 0.9326, 4), strict=True))
    for r in PAPER:  # what the paper found lies in them
        assert r.near(found[r.name]) == pytest.approx(found[r.name])
    assert parse_range("a=log:0.01:1").near(None) == pytest.approx(0.1)
    assert parse_range("a=int:1:4").near(9) == 4 and parse_range("a=choice:8,16").near(7) == 8


def start(recipe, folder, *arguments):
    command = [sys.executable, "-c", "from music_diffusion.cli.main import main; main()", "tune",
               "--gin-file", recipe, "-o", str(folder), "--search", RATE, "--steps", "24", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests", ROOT)))}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_search_goes_on(recipe, tmp_path, number):
    folder = tmp_path / "study"
    slow = ("--trials", "3", "--binding", "SLEEP = 0.7", "--pruner", "none")
    process = start(recipe, folder, *slow)
    checkpoint = folder / "trials" / "0001" / "checkpoints" / "8"
    wait_until(checkpoint.exists)
    process.send_signal(number)
    assert process.wait(60) != 0
    process.stderr.close()
    again = start(recipe, folder, *slow)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err.decode()
    table = rows(folder)
    assert [row["state"] for row in table] == ["complete", "fail", "complete", "complete"]
    # The trial that was stopped went on from its checkpoint, with its values.
    stopped, going_on = table[1], next(row for row in table[2:] if row["folder"] == "1")
    assert stopped["adamw.learning_rate"] == going_on["adamw.learning_rate"]
    assert b"resuming at step" in err


@pytest.mark.slow
def test_two_processes_share_a_search(recipe, tmp_path):
    folder = tmp_path / "study"
    both = [start(recipe, folder, "--trials", "8", "--binding", "SLEEP = 0.3") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err.decode()
        assert err.count(b"trial ") >= 1
    table = [row for row in rows(folder) if row["state"] in ("complete", "pruned")]
    assert 8 <= len(table) <= 9  # one may have begun when the other ended the last
    values = [float(row["adamw.learning_rate"]) for row in table]
    assert len(set(np.round(values, 12))) == len(values)


def test_recipes_of_the_package_have_the_paper_s_five():
    with gin_setup.private_gin():
        for r in PAPER:
            gin_setup.register_configurables()
            assert gin_setup.key_of(r.name)
