"""CSV, TensorBoard and the progress lines."""

import csv
import io
import struct

import pytest

from music_diffusion.training.metrics import CsvLog, MetricWriter, Progress, format_seconds


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_continues_after_its_step_and_takes_new_columns(tmp_path):
    path = tmp_path / "train.csv"
    log = CsvLog(path, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": step / 3})
    log = CsvLog(path, 2)  # the run died after step 3, with a checkpoint of step 2
    log.write(3, {"loss": 7.0, "extra": 1.5})
    log.write(4, {"extra": 2.5})
    table = read(path)
    assert [r["step"] for r in table] == ["1", "2", "3", "4"]
    assert [r["loss"] for r in table][2:] == ["7", ""]
    assert [r["extra"] for r in table] == ["", "", "1.5", "2.5"]
    assert float(table[0]["loss"]) == pytest.approx(1 / 3, rel=1e-7)


def test_a_half_written_row_is_dropped_and_a_step_stands_once(tmp_path):
    path = tmp_path / "eval.csv"
    log = CsvLog(path, 0)
    for step in (10, 20):
        log.write(step, {"loss": step / 4})
    path.write_bytes(path.read_bytes() + b"1")  # of "100,25": the process was killed
    log = CsvLog(path, 20)
    log.write(20, {"loss": 9.0})
    log.write(30, {"loss": 1.0})
    assert [(r["step"], r["loss"]) for r in read(path)] == [("10", "2.5"), ("20", "9"), ("30", "1")]


def test_tensorboard_file_holds_the_scalars(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    writer = MetricWriter(tmp_path, 0)
    writer.write("train", 5, {"loss": 0.25})
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, scalars = path.read_bytes(), {}
    while data:  # TFRecord: length, crc, message, crc
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12:12 + size])
        scalars |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
        data = data[16 + size:]
    assert scalars == {("train/loss", 5): 0.25}


def test_progress_off_a_terminal_is_a_line_now_and_then():
    quiet, chatty = io.StringIO(), io.StringIO()
    for stream, every in ((quiet, 1e9), (chatty, 0.0)):
        progress = Progress(4, 0, line_every_seconds=every, stream=stream)
        for step in range(1, 5):
            progress.update(step, loss=1.0 / step)
        progress.close()
    assert [line.split()[1] for line in quiet.getvalue().splitlines()] == ["4/4"]
    seen = [line.split()[1] for line in chatty.getvalue().splitlines()]
    assert seen == ["1/4", "2/4", "3/4", "4/4"]
    assert "loss 0.25" in quiet.getvalue()


def test_progress_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(4, 0, stream=stream)
    progress.update(4, loss=0.125)
    progress.say("hello")
    progress.close()
    assert all(text in stream.getvalue() for text in ("0.125", "4/4", "hello"))


def test_format_seconds():
    seconds = (0, 59.6, 3723, float("inf"))
    assert [format_seconds(s) for s in seconds] == ["0:00", "1:00", "1:02:03", "?"]
