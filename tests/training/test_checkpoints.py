"""What a killed run leaves of a checkpoint, and who removes it."""

import threading
import time
import types

import numpy as np
import pytest

from music_diffusion.training.checkpoints import Checkpoints

ITERATOR = types.SimpleNamespace(get_state=lambda: 0)
STATE = {"w": np.arange(4.0)}


def leave_unfinished(model_dir, files):
    """As a run does that is killed while it writes step 8."""
    folder = model_dir / "checkpoints" / "8.orbax-checkpoint-tmp"
    for i in range(files):
        part = folder / f"state.{i // 100}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{i}").write_text("half")
    return folder


def test_reading_leaves_what_is_unfinished_and_saving_removes_it(tmp_path):
    folder = leave_unfinished(tmp_path, 3)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() is None
    checkpoints.close()
    time.sleep(0.2)  # a thread that went on after closing would have removed it
    assert len(list(folder.rglob("state*/*"))) == 3
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(8, STATE, ITERATOR, "", False)
    checkpoints.close()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["8"]


@pytest.mark.parametrize("times", range(3))
def test_one_after_the_other_does_not_stumble(tmp_path, times):
    """The first one's cleaning must not meet the second one's."""
    leave_unfinished(tmp_path, 1500)
    Checkpoints(tmp_path).close()
    second = Checkpoints(tmp_path)
    second.save(times, STATE, ITERATOR, "", False)
    second.close()
    assert Checkpoints(tmp_path).latest_step() == times


def test_files_that_vanish_while_they_are_removed_do_not_matter(tmp_path):
    folder = leave_unfinished(tmp_path, 1500)

    files = sorted(folder.rglob("state*/*"), reverse=True)

    def vanish():
        for path in files:
            path.unlink(missing_ok=True)

    thread = threading.Thread(target=vanish)
    thread.start()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, STATE, ITERATOR, "", False)
    thread.join()
    checkpoints.save(2, STATE, ITERATOR, "", False)
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]
