"""The command line in this process."""

import sys

import pytest

from music_diffusion.cli import main as module


@pytest.fixture
def program(monkeypatch, capfd):
    """Runs `music-diffusion` with arguments; returns (exit code, stdout, stderr)."""
    def program(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return program
