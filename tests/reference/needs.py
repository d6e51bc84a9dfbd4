"""What a machine may lack: the one place where tests are skipped, and the reasons that there are.

A machine with Python and the extra `test` has every module of this table but two: the library below
`fluidsynth` comes from the system, and t5x from no package index.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import types

import pytest

# Module -> why a test that uses it may be skipped.
MODULES = {
    "fluidsynth": "needs FluidSynth: libfluidsynth3 of the system, and the extra soundfont",
    "tensorflow": "needs TensorFlow: the extra hub or t5x",
    "tensorflow_hub": "needs TensorFlow Hub: the extra hub",
    "seqio": "needs seqio: the extra t5x",
    "apache_beam": "needs Apache Beam: the extra beam",
    "note_seq": "needs note-seq: the extra notes",
    "onnx": "needs ONNX: the extra test",
    "onnxruntime": "needs ONNX Runtime: the extra onnx",
    "resource": "needs a POSIX system",
    "t5x.train": "needs t5x: see docs/t5x.md",
}
SOUNDFONT = "needs the SoundFont FluidR3_GM: fluid-soundfont-gm of the system"
FONTS = sorted(pathlib.Path("/usr/share/sounds/sf2").glob("FluidR3*.sf2"))
PROGRAM = "needs the program"
MOUNT = "needs the right to mount a file system"
NOT_ROOT = "needs a user who is not root, whom permissions hold"
PROC = "needs /proc of Linux"
REASONS = (*MODULES.values(), SOUNDFONT, PROGRAM, MOUNT, NOT_ROOT, PROC)

not_root = pytest.mark.skipif(os.geteuid() == 0, reason=NOT_ROOT)
proc = pytest.mark.skipif(not pathlib.Path("/proc/self/stat").is_file(), reason=PROC)


def module(name: str) -> types.ModuleType:
    """Imports a module, or skips the test (at the top of a file: the file) that asks for it.

    A module whose system library is missing is there and raises ImportError: it counts as missing.
    """
    return pytest.importorskip(name, reason=MODULES[name], exc_type=ImportError)


def installed(name: str) -> pytest.MarkDecorator:
    """Returns the mark of tests that use a module only in processes of their own."""
    return pytest.mark.skipif(not found(name), reason=MODULES[name])


def found(name: str) -> bool:
    """Reports whether a module is installed, without importing it."""
    # Not `find_spec` of the parent alone: the folder tests/t5x looks like a package of that name.
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def soundfont() -> pathlib.Path:
    """Returns the General MIDI SoundFont, or skips the file that asks for it."""
    if not FONTS:
        pytest.skip(SOUNDFONT, allow_module_level=True)
    return FONTS[0]


def programs(*names: str) -> None:
    """Skips where a program is not on the PATH."""
    for name in names:
        if not shutil.which(name):
            pytest.skip(f"{PROGRAM} {name}")


def mounted(returncode: int) -> None:
    """Skips where `mount`, whose exit code this is, was refused; only root may mount."""
    if returncode:
        pytest.skip(MOUNT)
