"""Starting up is quick because little is imported: looked up in sys.modules, not timed."""

import subprocess
import sys

import pytest

import music_diffusion

HEAVY = ("jax", "flax", "tensorflow", "torch", "matplotlib", "scipy", "orbax", "grain", "note_seq")


def heavy_after(code: str) -> list[str]:
    """Runs code in a new interpreter; returns those of HEAVY that it has imported."""
    report = f"\nimport sys\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()[1:]


def command(*arguments: str) -> str:
    """Code that runs the command line and expects exit code 0."""
    return f"""
import sys
sys.argv = ['music-diffusion', *{list(arguments)!r}]
from music_diffusion.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def test_importing_the_package_imports_nothing_heavy():
    assert heavy_after("import music_diffusion") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["synthesize", "--help"],
                                       ["reconstruct", "--help"]],
                         ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    assert heavy_after(command(*arguments)) == []


@pytest.mark.slow
def test_the_check_would_notice_jax():
    assert "jax" in heavy_after("import music_diffusion; music_diffusion.load")


def test_load_is_the_hubs_and_other_names_are_errors():
    from music_diffusion.synthesis import hub

    assert music_diffusion.load is hub.load
    assert {"load", "__version__"} <= set(dir(music_diffusion))
    with pytest.raises(AttributeError, match="lode"):
        _ = music_diffusion.lode
