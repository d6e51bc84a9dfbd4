"""What pyproject.toml promises: a light base install, extras, and data inside the package."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

import music_diffusion
from music_diffusion import gin_setup

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "music_diffusion"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# Where the name of a distribution is not that of its module.
MODULES = {"gin-config": "gin", "pyfluidsynth": "fluidsynth", "orbax-checkpoint": "orbax",
           "pytest-xdist": "xdist", "note-seq": "note_seq", "tensorflow-hub": "tensorflow_hub",
           "google-crc32c": "google_crc32c", "protobuf": "google", "pyyaml": "yaml",
           "apache-beam": "apache_beam", "pillow": "PIL"}
# What each folder or file of the package may import beside the base install.
NEEDS_EXTRA = {"evaluation": {"evaluate"}, "training": {"train"},
               "data": {"train", "data", "soundfont", "beam"},
               "tasks": {"t5x", "notes"},
               "t5x": {"t5x", "train"}, "demo": {"demo"}, "notes": {"notes", "data"},
               "audio": {"hub", "onnx"}, "workflows": {"tune"}}


def distributions(requirements) -> set[str]:
    return {Requirement(r).name for r in requirements}


def modules(requirements) -> set[str]:
    return {MODULES.get(name, name) for name in distributions(requirements)}


def third_party_imports(file: pathlib.Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {"music_diffusion"}


def test_base_install_needs_neither_tensorflow_nor_torch():
    base = distributions(PROJECT["dependencies"])
    heavy = "tensorflow|torch|seqio|t5|gradio|note-seq"
    assert not [name for name in base if re.match(heavy, name)]
    # note-seq and the like reach the base only through an extra of ourselves.
    assert "music-diffusion" not in base


@pytest.mark.slow
def test_every_import_is_a_dependency_of_the_base_or_of_the_folders_extra():
    missing = []
    for file in sorted(PACKAGE.rglob("*.py")):
        part = file.relative_to(PACKAGE).parts[0]
        allowed = modules(PROJECT["dependencies"]).union(
            *(modules(EXTRAS[extra]) for extra in NEEDS_EXTRA.get(part, ())))
        if part == "t5x":
            allowed |= {"t5x"}  # on no index; docs/t5x.md tells how it is installed
        missing += [f"{file.relative_to(ROOT)}: {name}"
                    for name in sorted(third_party_imports(file) - allowed)]
    assert not missing


@pytest.mark.slow
def test_no_base_dependency_is_unused():
    used = set().union(*(third_party_imports(f) for f in PACKAGE.rglob("*.py")))
    assert modules(PROJECT["dependencies"]) <= used


@pytest.mark.slow
def test_test_extra_has_what_tests_import():
    own = {p.stem for p in (ROOT / "tests").iterdir()}  # `from reference import ...`
    (ours,) = [Requirement(r) for r in EXTRAS["test"] if Requirement(r).name == "music-diffusion"]
    base = modules(sum((EXTRAS[extra] for extra in ours.extras), PROJECT["dependencies"] + EXTRAS["test"]))
    allowed = base | own | {"packaging", "pytest", "absl", "t5x"}  # come with pytest and seqio
    for file in (ROOT / "tests").rglob("*.py"):
        assert third_party_imports(file) <= allowed, file
    assert ours.extras <= set(EXTRAS) and {"train", "data", "evaluate", "t5x"} <= ours.extras


def test_versions_and_entry_point():
    assert PROJECT["version"] == music_diffusion.__version__
    module, _, function = PROJECT["scripts"]["music-diffusion"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name, target", [("configs", "../gin"), ("tasks", "../tasks")])
def test_links_are_relative(name, target):
    link = PACKAGE / name
    assert link.is_symlink()
    assert link.readlink() == pathlib.Path(target)


def test_gin_files_are_found_and_are_no_package():
    assert (gin_setup.gin_root() / "recipes" / "tiny.gin").is_file()
    assert not list((ROOT / "gin").rglob("__init__.py"))  # it would shadow gin-config


@pytest.mark.slow
def test_rendering_needs_only_the_base_install():
    extra_only = sorted(set().union(*(modules(r) for r in EXTRAS.values()))
                        - modules(PROJECT["dependencies"])
                        - {"etils", "msgpack", "optax", "orbax", "tensorstore", "yaml"})  # come with flax
    code = f"""
import sys
for name in {extra_only!r}:
    sys.modules[name] = None  # importing it raises ImportError
import music_diffusion
from music_diffusion.cli import main
from music_diffusion.synthesis import render
from music_diffusion.workflows import listen, models
assert models.released_models() and models.known_performances("performances")
music_diffusion.load("default")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
