"""How records' performances are numbered, and what rendering has instead."""

import numpy as np
import pytest
from reference.excerpts import MELS, WEIGHTS, excerpt_of

from music_diffusion.conditions.performance_numbers import (
    PerformanceNumbers,
    performance_of_windows,
)
from music_diffusion.conditions.performances import Performance, Performances, write_performances
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

CLASSES = {"performance": ["hall", "studio"], "style": ["folk"]}  # of the folder


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.json"
    write_performances(path, Performances(default="studio", performances=tuple(
        Performance(name=name) for name in ("studio", "attic", "hall"))))
    return str(path)


def number(numbers, performance, classes=CLASSES):
    labels = {} if performance is None else {"performance": performance}
    record = Record(mel=np.zeros((8, MELS)), notes=Notes.empty(), labels=labels)
    return numbers.of_record(excerpt_of(record, 0, 8, **numbers.check(classes, "folder")))["performance"]


def test_by_the_folders_own_order_or_by_a_file(names):
    assert [int(number(PerformanceNumbers(), n)) for n in ("hall", "studio")] == [0, 1]
    by_file = PerformanceNumbers(file=names)
    assert [int(number(by_file, n)) for n in ("hall", "studio", "attic")] == [2, 0, 1]
    assert number(by_file, "hall").dtype == np.int32 and number(by_file, "hall").shape == ()
    checked = by_file.check(CLASSES, "folder")
    assert tuple(checked["performance"]) == ("studio", "attic", "hall") and checked["style"] == ["folk"]
    assert CLASSES == {"performance": ["hall", "studio"], "style": ["folk"]}  # as it was


def test_all_alike_whatever_the_records_have():
    for performance in (None, "hall", "strange"):
        assert number(PerformanceNumbers(only=4), performance, {}) == 4
    assert PerformanceNumbers(only=4).check(CLASSES, "folder") == CLASSES


def test_names_are_as_many_as_the_models_rows(names):
    for numbers in (PerformanceNumbers(count=2), PerformanceNumbers(file=names, count=3)):
        assert "performance" in numbers.check(CLASSES, "folder")
    for wrong, where, found in ((PerformanceNumbers(count=3), "folder", 2),
                                (PerformanceNumbers(file=names, count=2), names, 3)):
        with pytest.raises(UserError, match=f"{where}: names {found} performances, and the model has "
                                            f"{wrong.count}; set NUM_PERFORMANCES={found}"):
            wrong.check(CLASSES, "folder")


def test_performances_must_be_there_and_known(names):
    with pytest.raises(UserError, match="folder: its records have no performance; prepare"):
        PerformanceNumbers().check({"style": ["folk"]}, "folder")
    with pytest.raises(UserError, match="folder: 'cellar' is no performance of .*names.json"):
        PerformanceNumbers(file=names).check({"performance": ["hall", "cellar"]}, "folder")
    with pytest.raises(UserError, match="gone.json: cannot be read"):
        PerformanceNumbers(file="gone.json").check(CLASSES, "folder")
    with pytest.raises(UserError, match="memory: record 0 of train has no performance"):
        number(PerformanceNumbers(), None)


def test_windows_have_the_weights_of_all_rows():
    found = performance_of_windows(WEIGHTS.astype(np.float64), 4)["performance"]
    assert found.shape == (4, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found, [WEIGHTS] * 4)
    assert performance_of_windows(None, 4) == {}
