"""The map of the package: which folder may import which, and that importing does nothing."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "music_diffusion"

# From the bottom up; a part imports only itself and what stands before it. Parts in one row
# do not import each other.
ORDER = [
    {"errors", "speed", "types"}, {"paths"}, {"files", "tables"}, {"notes"}, {"audio"}, {"diffusion"},
    {"networks"}, {"conditions"}, {"models"}, {"data"}, {"training"}, {"gin_setup"}, {"configuration"},
    {"train"}, {"synthesis"}, {"evaluation"}, {"tasks"}, {"workflows"}, {"t5x"}, {"cli", "demo"},
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
# Beyond the order: what a part does not know although it stands higher.
STRANGERS = {
    "networks": {"notes"},  # arrays in, arrays out
    "conditions": {"diffusion"},  # what a member hears, not how it samples
    "training": {"data"},  # a data source is handed in
    # Takes arrays.
    "evaluation": {"data", "training", "gin_setup", "configuration", "train", "synthesis"},
    "tasks": {"training", "train", "synthesis"},
}
# How pieces are made of segments knows of models what all of them have, and no class of one.
ANY_MODEL = ("music_diffusion.models.base", "music_diffusion.models.spaces")
KNOW_NO_MEMBER = tuple(f"synthesis/{name}.py" for name in (
    "choose_joining", "compiled", "context", "joining", "overlap", "render", "settings", "synthesizer"))
# Heavy or unusual packages -> the only places that may import them, folders or files.
RESERVED = {
    "tensorflow": ("tasks", "t5x", "audio/saved_model.py"),
    "tensorflow_hub": ("audio/saved_model.py",),
    "seqio": ("tasks", "t5x"),
    "t5x": ("t5x",),
    "torch": (),
    "gradio": ("demo",),
    "note_seq": ("notes/note_sequence.py", "tasks"),
    "pretty_midi": (),
    "optax": ("training", "t5x"),
    "orbax": ("training",),
    "grain": ("training", "data"),
    "typer": ("cli",),
    "rich": ("cli", "training"),
}


def python_files():
    # Not rglob: before Python 3.13 it does not enter the linked folder `tasks`.
    return [pathlib.Path(folder) / file
            for folder, _, files in os.walk(PACKAGE, followlinks=True)
            for file in sorted(files) if file.endswith(".py")]


def imported_names(tree: ast.AST) -> set[str]:
    """Absolute names of all imports, those inside functions and TYPE_CHECKING blocks too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the long name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def violations(path: pathlib.PurePath, source: str) -> list[str]:
    """What a file of the package (path relative to it) imports against the rules."""
    part = path.parts[0].removesuffix(".py")
    wrong = []
    for name in sorted(imported_names(ast.parse(source))):
        top, _, rest = name.partition(".")
        if top == "music_diffusion":
            target = rest.partition(".")[0]
            if target in LEVEL and not may_import(part, target):
                wrong.append(f"{path}: {part} must not import {target} ({name})")
            if target == "models" and str(path) in KNOW_NO_MEMBER and not name.startswith(ANY_MODEL):
                wrong.append(f"{path}: must know no member of the zoo ({name})")
        elif top == "tasks":
            wrong.append(f"{path}: import music_diffusion.tasks, not tasks ({name})")
        elif top in RESERVED and not any(
                path.is_relative_to(allowed) for allowed in RESERVED[top]):
            wrong.append(f"{path}: {top} may be imported only in {RESERVED[top] or 'no file'}")
    return wrong


def may_import(part: str, target: str) -> bool:
    return part == target or (
        LEVEL[target] < LEVEL[part] and target not in STRANGERS.get(part, ()))


def test_every_part_has_its_place_in_the_order():
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(LEVEL)


@pytest.mark.parametrize("file", python_files(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    path = file.relative_to(PACKAGE)
    if path == pathlib.Path("__init__.py"):  # its lazy `load` is tested in test_startup.py
        return
    assert not violations(path, file.read_text())


@pytest.mark.parametrize("path, source", [
    ("diffusion/x.py", "from music_diffusion.networks import film"),
    ("diffusion/x.py", "def f():\n  from music_diffusion.networks.film import FiLM"),
    ("diffusion/x.py", "from music_diffusion import networks"),
    ("networks/x.py", "import music_diffusion.data.records"),
    ("conditions/x.py", "from music_diffusion.models.base import Model"),
    ("conditions/x.py", "from music_diffusion.diffusion import sampling"),
    ("synthesis/overlap.py", "from music_diffusion.models.frame_diffusion import FrameDiffusionModel"),
    ("synthesis/synthesizer.py", "from music_diffusion.models import frame_diffusion"),
    ("evaluation/x.py", "from music_diffusion.synthesis.hub import load"),
    ("train.py", "from music_diffusion.cli import main"),
    ("types.py", "from music_diffusion.errors import UserError"),
    ("models/x.py", "import tensorflow.io"),
    ("t5x/x.py", "import torch"),
    ("cli/x.py", "from gradio import Blocks"),
    ("t5x/x.py", "import tasks.maestro"),
    ("workflows/x.py", "from music_diffusion.cli.terminal import say"),
    ("workflows/x.py", "from rich.console import Console"),
    ("evaluation/x.py", "from music_diffusion.workflows.embedders import load_embedder"),
])
def test_the_rules_catch(path, source):
    assert violations(pathlib.PurePath(path), source)


@pytest.mark.parametrize("path, source", [
    ("networks/x.py", "from music_diffusion.diffusion.schedules import alpha_sigma"),
    ("tasks/x.py", "import seqio\nimport tensorflow as tf"),
    ("t5x/x.py", "from t5x import models\nfrom music_diffusion.models.base import Model"),
    ("demo/x.py", "import gradio"),
])
def test_the_rules_allow(path, source):
    assert not violations(pathlib.PurePath(path), source)


@pytest.mark.parametrize("file", sorted((PACKAGE / "workflows").rglob("*.py")), ids=lambda f: f.stem)
def test_workflows_print_nothing(file):
    names = {node.func.id for node in ast.walk(ast.parse(file.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    # A benchmark's part reports to the process that started it.
    assert "print" not in names or file.name == "parts.py"


# Stand-ins that take note of being imported, whoever does it and installed or not.
STAND_INS = ("tensorflow", "tensorflow_hub", "torch", "seqio", "t5x", "gradio")
IMPORT_ALL = """
import importlib, signal
import gin
import jax._src.xla_bridge as xla_bridge
handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
configurables = set(gin.config._REGISTRY._selector_map)
for name in {names!r}:
    importlib.import_module(name)
assert set(gin.config._REGISTRY._selector_map) == configurables, "registered with gin"
assert not xla_bridge.backends_are_initialized(), "something computed on import"
assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
"""
STAND_IN = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
raise ImportError("a stand-in")
"""


@pytest.mark.slow
def test_importing_everything_registers_nothing_writes_nothing_and_needs_no_tensorflow(tmp_path):
    for name in STAND_INS:
        (tmp_path / "path" / name).mkdir(parents=True)
        (tmp_path / "path" / name / "__init__.py").write_text(STAND_IN)
    (tmp_path / "home").mkdir()
    names = [".".join(("music_diffusion", *f.relative_to(PACKAGE).with_suffix("").parts))
             for f in python_files()
             if f.relative_to(PACKAGE).parts[0] not in ("tasks", "t5x", "demo")
             and f.name not in ("__init__.py", "soundstream.py")]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'path'}", "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-c", IMPORT_ALL.format(names=names)],
                            cwd=tmp_path / "home", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "home").iterdir()), "importing left files behind"
    assert [p.parent.name for p in tmp_path.glob("path/*/imported")] == []
