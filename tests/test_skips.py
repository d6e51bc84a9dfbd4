"""A test is skipped only for what a machine may really lack, by `reference.needs`, and only there."""

import ast
import ctypes.util
import importlib.metadata
import pathlib
import re
import sys

import pytest
from reference import needs

TESTS = pathlib.Path(__file__).parent
# The one place, and what tests it.
EXEMPT = {TESTS / "reference" / "needs.py", pathlib.Path(__file__)}
# How else a test could fall silent.
SKIPS = {"skip", "skipif", "importorskip", "xfail", "skipTest", "skipUnless", "SkipTest"}
MISSING = {"ImportError", "ModuleNotFoundError"}
# Module -> the distribution it comes from.
DISTRIBUTIONS = {
    "fluidsynth": "pyfluidsynth", "tensorflow": "tensorflow", "tensorflow_hub": "tensorflow-hub",
    "seqio": "seqio", "apache_beam": "apache-beam", "note_seq": "note-seq", "onnx": "onnx",
    "onnxruntime": "onnxruntime", "t5x.train": "t5x"}
# The stand-in for a worker's machine takes what programs there are; its tests ask for those they need.
WHICH = {TESTS / "launch" / "conftest.py"}


def faults(path):
    """Ways in which a file skips without `needs`, and names that `needs` does not know."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="needs")):
                if not hasattr(needs, node.attr):
                    yield node.lineno, f"needs.{node.attr}"
            case ast.Attribute(attr=name) if name in SKIPS:
                yield node.lineno, name
            case ast.Attribute(attr="which") if path not in WHICH:
                yield node.lineno, "which"
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, n.name) for n in names if n.name in SKIPS | {"which"})
            case ast.ExceptHandler(type=ast.expr() as kind):
                yield from ((node.lineno, n.id) for n in ast.walk(kind)
                            if isinstance(n, ast.Name) and n.id in MISSING)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="needs"), attr="module" | "installed")):
                name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                if name not in needs.MODULES:
                    yield node.lineno, f"{name} is not in needs.MODULES"


def test_every_skip_is_one_of_needs():
    found = [f"{path.relative_to(TESTS)}:{line}: {fault}" for path in sorted(TESTS.rglob("*.py"))
             if path not in EXEMPT for line, fault in faults(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", [
    "pytest.skip('x')", "m = pytest.mark.skipif(True, reason='x')", "pytest.importorskip('x')",
    "from pytest import importorskip", "shutil.which('x')", "needs.fluidsinth",
    "needs.module('tensorflowe')", "needs.module(name)", "needs.installed('numpy')",
    "try:\n  import x\nexcept (ValueError, ImportError):\n  pass"])
def test_other_skips_are_found(tmp_path, line):
    (tmp_path / "test_a.py").write_text(f"{line}\nneeds.module('fluidsynth')\nneeds.proc\n")
    assert len(list(faults(tmp_path / "test_a.py"))) == 1


def test_reasons_differ():
    assert len(set(needs.REASONS)) == len(needs.REASONS) == len(needs.MODULES) + 5
    assert DISTRIBUTIONS.keys() == needs.MODULES.keys() - {"resource"}


@pytest.mark.parametrize("error", ["ImportError('no library')", "ModuleNotFoundError('x')"])
def test_a_module_without_its_library_is_a_skip_with_a_reason(tmp_path, monkeypatch, error):
    (tmp_path / "half_installed.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(needs.MODULES, "half_installed", "needs the other half")
    with pytest.raises(BaseException, match="needs the other half") as caught:
        needs.module("half_installed")
    assert caught.type.__name__ == "Skipped"


def test_a_broken_module_is_no_skip(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(needs.MODULES, "broken_module", "needs luck")
    with pytest.raises(ZeroDivisionError):
        needs.module("broken_module")


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_is_installed_is_not_skipped(name):
    """By what pip has written down, and what the system's linker finds."""
    try:
        importlib.metadata.distribution(DISTRIBUTIONS[name])
    except importlib.metadata.PackageNotFoundError:
        assert name not in sys.modules
        return
    assert needs.found(name) and not needs.installed(name).args[0]
    if name == "fluidsynth" and ctypes.util.find_library("fluidsynth"):
        assert needs.module(name).Synth


def test_the_extra_test_has_every_module_but_t5x():
    """So that `make test` skips only what the system has to bring."""
    def required(extra):
        for line in importlib.metadata.requires("music-diffusion"):
            requirement, _, marker = line.partition(";")
            if f'extra == "{extra}"' not in marker.replace("'", '"'):
                continue
            if inner := re.match(r"music-diffusion\[(.*)\]", requirement):
                for other in inner[1].split(","):
                    yield from required(other.strip())
            else:
                yield re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")

    assert set(DISTRIBUTIONS.values()) - {"t5x"} <= set(required("test"))
