"""Files and lines of bindings, counted by hand."""

import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.configuration.origins import written

RECIPES = sorted(p.relative_to(gin_setup.gin_root()).as_posix()
                 for p in (gin_setup.gin_root() / "recipes").glob("*.gin"))
MAIN = """\
# A comment.
include 'inner.gin'

X = 1  # line 4
a/adamw.b1 = 0.5
warmup_cosine:
    peak = 1.0

    # Within a block.
    warmup_steps = %X
by_part.parts = {
    'a': @a/PartOptimizer(),
    'b': @b/PartOptimizer()}
adamw.eps = \\
    1e-9
X = 2
"""
INNER = """\
X = 0

adamw.b2 = 0.7
"""


@pytest.fixture(autouse=True)
def clear():
    yield
    gin.clear_config()


def test_lines_are_those_of_the_files(tmp_path, monkeypatch):
    (tmp_path / "main.gin").write_text(MAIN)
    (tmp_path / "inner.gin").write_text(INNER)
    monkeypatch.chdir(tmp_path)
    overrides = ["X = 3", "a/adamw.b1=0.6"]
    gin_setup.parse(["main.gin"], overrides)
    found = [(str(w.key), repr(w.value), str(w.origin), w.origin.included)
             for w in written(["main.gin"], overrides)]
    assert found == [
        ("X", "0", "inner.gin:1", True), ("adamw.b2", "0.7", "inner.gin:3", True),
        ("X", "1", "main.gin:4", False), ("a/adamw.b1", "0.5", "main.gin:5", False),
        ("warmup_cosine.peak", "1.0", "main.gin:7", False),
        ("warmup_cosine.warmup_steps", "%X", "main.gin:10", False),
        ("by_part.parts", "{'a': @a/PartOptimizer(), 'b': @b/PartOptimizer()}", "main.gin:11",
         False),
        ("adamw.eps", "1e-09", "main.gin:14", False), ("X", "2", "main.gin:16", False),
        ("X", "3", "--gin.X", False), ("a/adamw.b1", "0.6", "--gin.a/adamw.b1", False)]


def test_files_of_the_project_are_named_as_recipes_name_them():
    root = gin_setup.gin_root()
    for name in ("runs/train.gin", str(root / "runs" / "train.gin")):
        gin_setup.parse([name])
        first = written([name])[0]
        assert (str(first.key), str(first.origin)) == ("train.config", "runs/train.gin:2")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_last_one_written_is_what_gin_has(recipe):
    overrides = ["TOTAL_STEPS = 7", "TrainConfig.keep = 9"]
    gin_setup.parse([recipe], overrides)
    last = {w.key: repr(w.value) for w in written([recipe], overrides)}
    assert last == {key: repr(value) for key, value in gin_setup.bindings().items()}
