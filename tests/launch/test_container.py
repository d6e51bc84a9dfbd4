"""launch/Containerfile, as far as it can be checked without building it."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "launch" / "Containerfile").read_text()
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]


def steps(name):
    return [rest for step, rest in STEPS if step == name]


def test_what_it_copies_is_there_and_is_all_that_the_package_is_built_from():
    copied = {word for rest in steps("COPY") for word in rest.split()[:-1]}
    for name in copied:
        assert (ROOT / name).exists(), name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert copied >= {"pyproject.toml", "setup.py", "music_diffusion", project["readme"],
                      *project["license-files"]}
    links = [path.readlink() for path in (ROOT / "music_diffusion").iterdir() if path.is_symlink()]
    assert links and copied >= {link.parts[-1] for link in links}
    for rest in steps("COPY"):
        *sources, target = rest.split()
        if (ROOT / sources[0]).is_dir():  # of a folder COPY puts what is in it
            assert sources == [target]


def test_its_extras_are_the_packages():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [wanted] = re.findall(r'"\.\[([\w,]+)\]"', TEXT)
    assert set(wanted.split(",")) <= set(extras) and "train" in wanted


def test_the_python_of_its_base_is_new_enough():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"]).groups()
    [base] = steps("FROM")
    assert tuple(map(int, re.match(r"python:(\d+)\.(\d+)-", base).groups())) >= tuple(map(int, least))


def test_it_trains_as_an_ordinary_user():
    names = [step for step, _ in STEPS]
    assert steps("USER") == ["trainer"] and names.index("USER") < names.index("ENTRYPOINT")
    assert f"useradd --create-home {steps('USER')[0]}" in TEXT
    # As a list, so that signals reach the trainer and no shell.
    assert steps("ENTRYPOINT") == ['["python", "-m", "music_diffusion.train"]']


@pytest.mark.parametrize("folder", ["/data", "/runs"])
def test_data_and_runs_are_volumes_of_that_user(folder):
    assert f'"{folder}"' in steps("VOLUME")[0]
    assert re.search(rf"install -d -o trainer -g trainer.* {folder}\b", TEXT)
