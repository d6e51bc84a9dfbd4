import io
import sys

import pytest

from music_diffusion.cli.terminal import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_title_share_and_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress_bar("rendering out.wav") as bar:
        for share in (0.25, 0.5, 1.0):
            bar(share)
    text = terminal.getvalue()
    assert "rendering out.wav" in text and "100%" in text


@pytest.mark.parametrize("error", [None, RuntimeError("stop")])
def test_a_pipe_sees_nothing_and_errors_pass(monkeypatch, capsys, error):
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    try:
        with progress_bar("rendering") as bar:
            bar(0.5)
            if error:
                raise error
    except RuntimeError as raised:
        assert raised is error
    else:
        assert error is None
    assert pipe.getvalue() == "" and capsys.readouterr().out == ""
