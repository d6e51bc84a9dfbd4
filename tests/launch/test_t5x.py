"""launch/t5x.sh: the command lines of t5x's programs."""

import pathlib
import sys

import pytest

from music_diffusion import gin_setup

PYTHON = """
if [[ $1 == -c ]]; then echo "/the/gin files"; exit "${BROKEN:-0}"; fi
exit "${CODE:-0}"
"""


@pytest.mark.parametrize("program", ["train", "eval", "infer"])
def test_the_recipe_follows_the_programs_gin_file(shell, awkward, program):
    shell.stub("python", PYTHON)
    assert shell.run("t5x.sh", program, *awkward, CODE="5").returncode == 5
    file = f"runs/t5x_{program}.gin"
    assert shell.calls("python")[-1] == [
        "-m", f"t5x.{program}", "--gin_search_paths=/the/gin files", f"--gin_file={file}", *awkward]
    assert (gin_setup.gin_root() / file).is_file()


def test_several_processes(shell, fails):
    shell.stub("python", PYTHON)
    assert shell.run("t5x.sh", "train", "--", "--gin_file=a", "--distributed").returncode == 0
    assert shell.calls("python")[-1][-2:] == ["--gin_file=a", "--multiprocess_gpu"]
    fails(shell.run("t5x.sh", "infer", "--gin_file=a", "--distributed"), "one process")


def test_what_is_missing_is_named(shell, fails):
    fails(shell.run("t5x.sh"), "train, eval or infer")
    fails(shell.run("t5x.sh", "--gin_file=a"), "train, eval or infer")
    fails(shell.run("t5x.sh", "train"), "--gin_file", "MODEL_DIR")
    fails(shell.run("t5x.sh", "train", "--gin_file=a"), "python is not there")
    # A Python without site-packages, and so without t5x.
    shell.stub("python", f'exec {sys.executable} -S "$@"')
    result = shell.run("t5x.sh", "train", "--gin_file=a")
    assert result.returncode == 2 and "has no" in result.stderr and "docs/t5x.md" in result.stderr


def test_the_gin_files_are_found(shell, tmp_path):
    """The question for the gin root, answered by the real Python; t5x itself is a stand-in."""
    (tmp_path / "t5x").mkdir()
    (tmp_path / "t5x" / "__init__.py").touch()
    (tmp_path / "t5x" / "train.py").write_text("import sys; print(*sys.argv[1:], sep='\\n')")
    root = str(pathlib.Path(__file__).parents[2])
    result = shell.run("t5x.sh", "train", "--gin_file=recipes/tiny.gin", PYTHON=sys.executable,
                       PYTHONPATH=f"{tmp_path}:{root}")
    assert result.stdout.splitlines() == [
        f"--gin_search_paths={gin_setup.gin_root()}", "--gin_file=runs/t5x_train.gin",
        "--gin_file=recipes/tiny.gin"], result.stderr
