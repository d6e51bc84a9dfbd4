"""`music-diffusion evaluate --gin_file`: a recipe fills a table, or says what it lacks."""

import json

import pytest
import soundfile
from reference.toy_listeners import RATE, ToyLoader, play, sine_notes

from music_diffusion.notes.midi import write_midi
from music_diffusion.workflows import evaluate

RECIPE = "recipes/evaluation/difftransfer.gin"


@pytest.fixture
def cli(tmp_path, monkeypatch, program):
    """Runs the command in a folder with recordings of three pieces, and three conversions of them:
    `same` has their notes, `half` only those of one piece, `other` has others."""
    for folder, seeds in (("real", (0, 1, 2)), ("same", (0, 1, 2)), ("half", (0, 4, 5)),
                          ("other", (3, 4, 5))):
        (tmp_path / folder).mkdir()
        for i, seed in enumerate(seeds):
            soundfile.write(tmp_path / folder / f"{i}.wav", play(sine_notes(seed)), RATE)
    (tmp_path / "midi").mkdir()
    for i in range(3):
        write_midi(sine_notes(i), tmp_path / "midi" / f"{i}.mid")
    monkeypatch.setattr(evaluate.LoadTools, "__call__", lambda self: ToyLoader()())
    monkeypatch.chdir(tmp_path)

    return lambda *arguments: program("evaluate", *arguments)


def bindings(**macros):
    return [part for name, value in macros.items() for part in ("--binding", f"{name}={value!r}")]


def test_a_recipe_fills_its_table(cli, tmp_path):
    code, out, err = cli("--gin_file", RECIPE, "-o", "out", "--json", *bindings(
        SINGLE="same", SINGLE_MIXED="half", MIXTURE="other", REFERENCE="real", EMBEDDINGS=("toy",)))
    assert code == 0, err
    table = json.loads(out)
    assert list(table["rows"])[:3] == ["single", "single/mixed", "mixture"]
    jaccard = [next(v for k, v in table["rows"][row].items() if "Jaccard" in k)
               for row in ("single", "single/mixed", "mixture")]
    assert jaccard[0] == 0 and jaccard[0] < jaccard[1] < jaccard[2]
    fad = [next(v for k, v in table["rows"][row].items() if "FAD" in k)
           for row in ("single", "mixture")]
    assert fad[0] == pytest.approx(0, abs=1e-9) and fad[1] > 0.01
    assert all("toy" in k for k in table["rows"]["single"] if "FAD" in k)
    for row in ("single", "single-mixed", "mixture"):
        assert (tmp_path / "out" / row / "report.html").is_file() and row in err
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == table
    assert (tmp_path / "out" / "table.md").read_text().startswith("# DiffTransfer\n")
    assert (tmp_path / "out" / "table.csv").read_text().startswith("row,")


def test_people_get_the_table(cli):
    code, out, _ = cli("--gin_file", "recipes/evaluation/style_transfer.gin", "-o", "out", *bindings(
        RESTYLED="half", STYLE="other", CONTENT="real", EMBEDDINGS=("toy",)))
    assert code == 0 and out.startswith("# Style transfer\n")
    assert "| against the style |" in out and "| against the content |" in out


@pytest.mark.parametrize("arguments, word", [
    ((), "--reference is missing"),
    (("--gin_file", "recipes/evaluation/none.gin"), "no such gin file"),
    (("--gin_file", "recipes/tiny.gin"), "recipes/tiny.gin"),
    (("--gin_file", "recipes/evaluation/table.gin"), "rows"),
    (("--gin_file", RECIPE, *bindings(SINGLE="same", SINGLE_MIXED="half", MIXTURE="other")),
     "no reference"),
    (("--gin_file", RECIPE, *bindings(REFERENCE="real")), "--binding NAME=VALUE"),
    (("--gin_file", RECIPE, *bindings(REFERENC="real")), "did you mean REFERENCE?"),
    (("--gin_file", RECIPE, *bindings(SINGLE="same", SINGLE_MIXED="half", MIXTURE="other",
                                      REFERENCE="nowhere")), "nowhere"),
], ids=str)
def test_what_is_missing_is_said_in_one_line(cli, arguments, word):
    code, out, err = cli("-o", "out", *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and word in err
