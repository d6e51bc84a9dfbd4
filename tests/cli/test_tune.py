"""`music-diffusion tune`: what is asked, and what people and machines get."""

import dataclasses
import json

import pytest

from music_diffusion.workflows import tune as workflow
from music_diffusion.workflows.requests import TuneRequest

DONE = workflow.Tuned(folder="study", trials=12, pruned=3, failed=0, start=0.9, best=0.5,
                      values={"adamw.b1": 0.8}, gin_file="study/best.gin")


@pytest.fixture
def asked(monkeypatch):
    """The requests; the workflow answers at once."""
    seen = []

    def tune(request, monitor):
        seen.append(request)
        return DONE

    monkeypatch.setattr(workflow, "tune", tune)
    return seen


def test_people_read_what_was_found_and_machines_get_it(program, asked):
    arguments = ("tune", "--gin-file", "recipes/tiny.gin", "-o", "study", "--search", "adamw.b1=float:0:1",
                 "--binding", "BATCH_SIZE = 4", "--pruner", "hyperband", "--steps", 50)
    code, out, _ = program(*arguments)
    assert code == 0 and asked == [TuneRequest(
        gin_file="recipes/tiny.gin", output="study", search=("adamw.b1=float:0:1",),
        bindings=("BATCH_SIZE = 4",), pruner="hyperband", steps=50)]
    assert "12 trials, 3 pruned: best loss 0.5000; the recipe's own values 0.9000" in out
    assert "adamw.b1 = 0.8" in out and "--gin_file=study/best.gin" in out
    code, out, _ = program(*arguments, "--json")
    assert code == 0 and json.loads(out) == dataclasses.asdict(DONE)


def test_recipe_and_folder_are_needed(program, asked):
    code, _, err = program("tune", "-o", "study")
    assert code == 2 and "--gin-file" in err and not asked
