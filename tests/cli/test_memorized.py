"""`music-diffusion evaluate --memorized`: what is asked, and what people and machines get."""

import json

import pytest

from music_diffusion.workflows import memorized as workflow
from music_diffusion.workflows.requests import MemorizedRequest

FACTS = {"samples": 8, "threshold": 0.71, "replicas": 1, "share": 0.125, "median": 0.5, "null_median": 0.45,
         "null": 40, "planted": 60, "found": 0.98}


@pytest.fixture
def asked(monkeypatch):
    """The requests; the workflow answers at once."""
    seen = []

    def memorized(request, output, monitor):
        seen.append((request, output))
        return FACTS

    monkeypatch.setattr(workflow, "memorized", memorized)
    return seen


def test_people_get_a_table_and_machines_the_figures(program, asked):
    arguments = ("evaluate", "--memorized", "train", "--generated", "made", "--reference", "held",
                 "--seed", 3)
    code, out, _ = program(*arguments, "-o", "out")
    assert code == 0
    request = MemorizedRequest(training="train", generated="made", reference="held", seed=3)
    assert asked == [(request, "out")]
    assert "| **samples beyond it: replicas** | **1** (0.125) |" in out and "0.98 of 60" in out
    code, out, _ = program(*arguments, "--json")
    assert code == 0 and json.loads(out) == FACTS


@pytest.mark.parametrize("missing", ["--generated", "--reference"])
def test_both_folders_are_needed(program, asked, missing):
    given = "--generated" if missing == "--reference" else "--reference"
    code, _, err = program("evaluate", "--memorized", "train", given, "made")
    assert code == 2 and f"{missing} is missing" in err and not asked
