"""`music-diffusion dump`: what is handed on, and the table."""

import json

import pytest

from music_diffusion.workflows import dump
from music_diffusion.workflows.dump import DumpedExamples
from music_diffusion.workflows.requests import DumpRequest

FACTS = {"task": "t", "output": "out", "features": {
    "targets": {"shape": [256, 16], "dtype": "float32", "min": -1.0, "max": 0.123456},
    "performance": {"shape": [], "dtype": "int32", "min": 0, "max": 3}},
    "examples": [{"files": ["000.png"], "notes": 3}]}


@pytest.fixture
def seen(monkeypatch):
    seen = []
    done = DumpedExamples(facts=FACTS, remarks={"targets": "", "performance": "trio (4)"})
    monkeypatch.setattr(dump, "dump_examples", lambda request, monitor: seen.append(request) or done)
    return seen


def test_people_get_a_table_and_where_the_files_are(program, seen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = program("dump", "t", "data", "-o", "out")
    assert (code, err) == (0, "") and seen == [DumpRequest(task="t", folder="data", output="out")]
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert all(word in rows["targets"] for word in ("256 × 16", "float32", "-1 to 0.123"))
    assert "one" in rows["performance"] and "0 to 3" in rows["performance"] and "trio (4)" in out
    assert rows["out:"] == "out: 4 examples as .png and .wav, their notes as .mid"


def test_every_option_is_handed_on_and_json_is_the_facts(program, seen):
    code, out, _ = program("dump", "t", "data", "-o", "out", "--count", "2", "--split", "test",
                           "--inverter", "griffin_lim", "--seed", "3", "--json")
    assert code == 0 and json.loads(out) == FACTS
    assert seen == [DumpRequest(task="t", folder="data", output="out", count=2, split="test",
                                inverter="griffin_lim", seed=3)]
