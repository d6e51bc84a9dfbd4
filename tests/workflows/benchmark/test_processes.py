"""Parts in processes of their own: what comes back, and how failures end."""

import os
import sys

import pytest

from music_diffusion.errors import UserError
from music_diffusion.workflows.benchmark import parts, processes
from music_diffusion.workflows.benchmark.processes import interpreter, run_part
from music_diffusion.workflows.requests import BenchmarkRequest


def in_a_new_process(monkeypatch, code):
    """`run_part`, with other code in its process."""
    monkeypatch.setattr(processes, "interpreter", lambda _: interpreter(code))
    shares = []
    return run_part("start_up", BenchmarkRequest(), shares.append), shares


def test_rows_come_back_and_what_else_is_printed_does_not_disturb(monkeypatch):
    rows, shares = in_a_new_process(monkeypatch, """
import os
import sys
from music_diffusion.workflows.benchmark import parts
def part(by):
    print("a library talks")
    os.system("echo and its child")
    by.progress(0.25)
    return [{"what": by.request.model, "repeats": by.request.repeats, "fits": by.fits}]
parts.PARTS["mine"] = part
parts.work("mine", {"model": "a", "repeats": 7}, fits=True)
""")
    assert rows == [{"what": "a", "repeats": 7, "fits": True}] and shares == [0.25, 1.0]


@pytest.mark.parametrize("code, reason", [
    ("raise ZeroDivisionError('at home')", "ZeroDivisionError: at home"),
    ("import os; os.kill(os.getpid(), 9)", r"signal 9 \(out of memory\?\)"),
    ("sys.exit(3)", "code 3"),
    ("from music_diffusion.workflows.benchmark import parts\n"
     "from music_diffusion.errors import UserError\n"
     "def part(by): raise UserError('two\\nlines')\n"
     "parts.PARTS['mine'] = part\n"
     "parts.work('mine', {})", "two lines"),
    ("pass", "reported nothing")], ids=["traceback", "killed", "exit", "user_error", "silent"])
def test_a_process_that_fails_is_one_line(monkeypatch, code, reason):
    with pytest.raises(UserError, match=reason) as caught:
        in_a_new_process(monkeypatch, code)
    assert "\n" not in str(caught.value)


def test_stopping_stops_the_process_too(monkeypatch, tmp_path):
    def stop(share):
        raise KeyboardInterrupt

    code = f"""
import os, time
open({str(tmp_path / 'pid')!r}, "w").write(str(os.getpid()))
print('{{"share": 0.5}}', flush=True)
time.sleep(600)
"""
    monkeypatch.setattr(processes, "interpreter", lambda _: interpreter(code))
    with pytest.raises(KeyboardInterrupt):
        run_part("start_up", BenchmarkRequest(), stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_new_process_imports_from_the_same_folders():
    import subprocess

    done = subprocess.run(interpreter("print(sys.path)"), capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == str(sys.path)




def test_a_request_crosses_to_the_other_process_whole(monkeypatch):
    """What `work` gets there is what `run_part` got here."""
    asked = BenchmarkRequest(model="it's", only=("a",), gin_files=("x.gin",), bindings=('A = "b"',),
                             memory=1.5, batch=None)
    codes = []
    monkeypatch.setattr(processes, "interpreter", lambda code: codes.append(code) or interpreter("pass"))
    with pytest.raises(UserError):
        run_part("start_up", asked, fits=True)
    got = []
    monkeypatch.setattr(parts, "work", lambda name, fields, fits: got.append(
        (name, BenchmarkRequest(**fields), fits)))
    exec(codes[0], {})
    assert got == [("start_up", asked, True)]
