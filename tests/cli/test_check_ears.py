import json

import pytest

from music_diffusion.workflows import check_ears as workflow
from music_diffusion.workflows.requests import EarsRequest

SCORES = {"share": 0.75, "low": None, "high": None, "triples": 4, "recordings": 2,
          "by_order": {"other half < others' recordings": [0.5, 2],
                       "noise at 40 dB < noise at 20 dB": [1.0, 2]}}


@pytest.fixture
def asked(monkeypatch):
    """The requests; the workflow answers at once."""
    seen = []

    def check_ears(request, output, monitor):
        seen.append((request, output))
        both = {"tagger": SCORES, "mfcc": SCORES | {"low": 0.6, "high": 0.9}}
        return {"recordings": 2, "embeddings": both}

    monkeypatch.setattr(workflow, "check_ears", check_ears)
    return seen


def test_options_are_handed_on_and_people_get_a_table(program, asked):
    code, out, _ = program("evaluate", "--check-ears", "--reference", "in", "--groups", "g.csv",
                           "--notes", "n", "--soundfont", "a.sf2", "--embedding", "tagger",
                           "--embedding", "mfcc", "--seed", "3", "-o", "out")
    assert code == 0 and asked == [(EarsRequest(
        reference="in", groups="g.csv", notes="n", soundfont="a.sf2", embeddings=("tagger", "mfcc"), seed=3,
        max_minutes=10.0), "out")]
    assert out.splitlines()[0] == "# Order of an ear: 2 recordings"
    assert "| other half < others' recordings | 0.50 of 2 | 0.50 of 2 |" in out
    assert out.splitlines()[-3] == "| all | **0.750** of 4 | **0.750** (0.60 … 0.90) of 4 |"


def test_machines_get_the_figures(program, asked):
    code, out, _ = program("evaluate", "--check-ears", "--reference", "in", "--json")
    assert code == 0 and json.loads(out)["embeddings"]["tagger"] == SCORES


def test_bad_input_is_one_line(program, asked):
    for arguments, advice in ((["--check-ears"], "--reference is missing"),
                              (["--reference", "in", "--soundfont", "a.sf2", "-o", "out"],
                               "--soundfont goes with --check-ears")):
        code, _, err = program("evaluate", *arguments)
        assert code != 0 and advice in err and err.strip().count("\n") == 0
    assert not asked
