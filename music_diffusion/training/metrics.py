"""Metrics on disk (CSV, TensorBoard) and progress on the terminal."""

from __future__ import annotations

import csv
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from music_diffusion.files import atomic_write

Scalars = Mapping[str, float]


def format_seconds(seconds: float) -> str:
    """Seconds -> '1:02:03' or '2:03'."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class CsvLog:
    """One table of scalars, a row per step; a resumed run continues it.

    Rows after `start_step` (of a run that died after its last checkpoint) are
    dropped, and a row that was half written, so every step stands once; a step that
    is written again takes the place of the one before. A new column makes the table
    be rewritten.
    """

    def __init__(self, path: str | os.PathLike, start_step: int):
        self._path = pathlib.Path(path)
        self._columns: list[str] = []
        self._rows: list[dict] = []
        if self._path.is_file():
            lines = self._path.read_text().splitlines(keepends=True)
            reader = csv.DictReader(line for line in lines if line.endswith("\n"))
            self._columns = list(reader.fieldnames or [])
            self._rows = [r for r in reader if int(r["step"]) <= start_step]
            self._rewrite()

    def write(self, step: int, scalars: Scalars) -> None:
        row = {"step": step} | {k: f"{v:.8g}" for k, v in scalars.items()}
        again = bool(self._rows) and int(self._rows[-1]["step"]) == step
        self._rows[-1 if again else len(self._rows):] = [row]
        if again or set(row) - set(self._columns):
            self._columns += [c for c in row if c not in self._columns]
            self._rewrite()
        else:
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _rewrite(self) -> None:
        with atomic_write(self._path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)


class MetricWriter:
    """`train.csv`, `eval.csv` and a TensorBoard log in model_dir."""

    def __init__(self, model_dir: str | os.PathLike, start_step: int):
        from tensorboardX import SummaryWriter

        folder = pathlib.Path(model_dir)
        self._tables = {name: CsvLog(folder / f"{name}.csv", start_step)
                        for name in ("train", "eval")}
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1,
                                    write_to_disk=True)

    def write(self, table: str, step: int, scalars: Scalars) -> None:
        """Writes one row; `table` is 'train' or 'eval'."""
        self._tables[table].write(step, scalars)
        for name, value in scalars.items():
            self._board.add_scalar(f"{table}/{name}", value, step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class Progress:
    """A bar with loss, speed and time left on a terminal, else a line now and then."""

    def __init__(self, total_steps: int, start_step: int, *, line_every_seconds: float = 30.0,
                 stream: TextIO | None = None):
        self._total, self._start = total_steps, start_step
        self._origin: tuple[int, float] | None = None  # first update: compilation is over
        self._stream = sys.stderr if stream is None else stream
        self._every = line_every_seconds
        self._last_line = time.monotonic()
        self._loss = "-"
        self._bar = self._make_bar() if self._stream.isatty() else None

    def update(self, step: int, loss: float | None = None) -> None:
        """Shows the step reached and, where known, a new loss."""
        self._loss = self._loss if loss is None else f"{loss:.4g}"
        now = time.monotonic()
        self._origin = self._origin or (step, now)
        speed = (step - self._origin[0]) / max(now - self._origin[1], 1e-9)
        left = (self._total - step) / speed if speed > 0 else math.inf
        text = f"loss {self._loss}  {speed:.3g} steps/s  {format_seconds(left)} left"
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        elif now - self._last_line >= self._every or step == self._total:
            self._last_line = now
            self.say(f"step {step}/{self._total}  {text}")

    def say(self, line: str) -> None:
        """Prints a line (above the bar)."""
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    def _make_bar(self):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        bar = RichProgress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                           console=Console(file=self._stream))
        self._task = bar.add_task("train", total=self._total, completed=self._start, text="")
        bar.start()
        return bar
