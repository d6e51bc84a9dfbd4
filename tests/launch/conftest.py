"""Stand-ins for the programs that the launch scripts call: they write down how they were called."""

import os
import pathlib
import shutil
import signal
import stat
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# The real programs that the scripts may find; everything else is a stand-in or missing.
TOOLS = ("awk", "bash", "cat", "chmod", "cp", "dirname", "env", "git", "grep", "gzip", "mkdir", "mktemp",
         "nohup", "paste", "rm", "seq", "setsid", "sh", "sleep", "tail", "tar")
END = "\x1e"  # of a call; its arguments end with NUL
# What shells like to take apart.
AWKWARD = ["--gin_file=my recipes/a.gin", "--gin.DATA='my data'", '--gin.A="$HOME `id` \\n"',
           "--gin.B=(1, 2); exit 9", "--gin.C=*", "--gin.D=two\nlines", ""]


class Shell:
    """A PATH of stand-ins, what was called, and a way to run scripts with it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()
        self._log = folder / "calls"
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.programs / tool).symlink_to(found)
        self.environment = {"PATH": str(self.programs), "HOME": str(folder), "CALLS": str(self._log),
                            "FOLDER": str(folder)}

    def stub(self, name: str, body: str = "", path: pathlib.Path | None = None) -> None:
        """Makes a program that writes its call down and then runs `body` (bash)."""
        file = path or self.programs / name
        file.write_text("#!/bin/bash\n"
                        f"printf '%s\\0' {name} \"$@\" $'\\036' >>\"$CALLS\"\n{body}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of every call of a program so far, in order."""
        text = self._log.read_text() if self._log.exists() else ""
        calls = [call.split("\0")[:-1] for call in text.split(END + "\0")[:-1]]
        return [call[1:] for call in calls if call[0] == name]

    def start(self, script: str | pathlib.Path, *arguments: str, **environment: str) -> subprocess.Popen:
        """Starts a script of `launch/` (or a path), in a folder that is not the repository."""
        return subprocess.Popen(
            [str(ROOT / "launch" / script), *arguments], cwd=self.folder, text=True,
            env=self.environment | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Tests that run in the background of a shell ignore SIGINT, and bash then cannot trap it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def run(self, script: str | pathlib.Path, *arguments: str,
            **environment: str) -> subprocess.CompletedProcess:
        """`start`, and the end of it: returncode, stdout, stderr."""
        process = self.start(script, *arguments, **environment)
        out, error = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "shell").mkdir()
    return Shell(tmp_path / "shell")


@pytest.fixture
def awkward():
    return list(AWKWARD)


@pytest.fixture
def fails():
    """Checks that a script refused: exit code 2 and one line that says why."""

    def check(result: subprocess.CompletedProcess, *words: str) -> None:
        lines = result.stderr.strip().splitlines()
        assert result.returncode == 2, result.stderr
        assert len(lines) == 1 and lines[0].startswith(os.path.basename(result.args[0]) + ": "), lines
        assert all(word in lines[0] for word in words), lines

    return check
