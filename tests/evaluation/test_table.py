"""Tables of several evaluations: which figure lands in which cell."""

import csv
import io
import math

import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.table import Table, fill, row_folder

PLAN = EvaluationPlan(reference="r", generated="g")


def figure(key, value, *, better="lower", ceilings=()):
    return {"key": key, "label": key.upper(), "value": value, "better": better,
            "ceilings": [{"value": v, "of": of} for v, of in ceilings]}


def content(*figures, minutes=12.5, warnings=("w",)):
    return {"figures": list(figures), "amounts": {"generated": {"minutes": minutes}},
            "warnings": list(warnings)}


@pytest.fixture
def filled():
    table = Table(title="T | 1", rows={"a": PLAN, "b": PLAN}, columns=("fad:*", "f1"))
    return fill(table, {
        "a": content(figure("f1", 0.5, better="higher", ceilings=[(0.9, "audio as it is")]),
                     figure("fad:x", 2.0, ceilings=[(0.1, "inverter")]), figure("other", 7.0)),
        "b": content(figure("fad:x", 3.0), figure("fad:y", 4.0), figure("f1", None, better="higher"),
                     minutes=3.0)})


def test_columns_follow_the_patterns_and_rows_the_reports(filled):
    assert filled.columns == ("FAD:X ↓", "FAD:Y ↓", "F1 ↑")
    assert filled.rows["a"][0] == 2.0 and math.isnan(filled.rows["a"][1]) and filled.rows["a"][2] == 0.5
    assert filled.rows["b"][:2] == (3.0, 4.0) and math.isnan(filled.rows["b"][2])
    assert filled.minutes == {"a": 12.5, "b": 3.0} and filled.warnings == ("w",)


def test_ceilings_are_rows_of_their_own(filled):
    assert filled.rows["inverter"][0] == 0.1 and math.isnan(filled.rows["inverter"][2])
    assert filled.rows["audio as it is"][2] == 0.9
    bare = fill(Table(title="T", rows={"a": PLAN}, columns=("f1",), ceilings=False),
                {"a": content(figure("f1", 0.5, ceilings=[(0.9, "audio")]))})
    assert set(bare.rows) == {"a"}


def test_all_forms_hold_the_same_numbers(filled):
    rows = list(csv.reader(io.StringIO(filled.csv())))
    assert rows[0] == ["row", *filled.columns, "minutes"]
    assert {r[0]: tuple(math.nan if c == "" else float(c) for c in r[1:-1]) for r in rows[1:]
            }.keys() == filled.rows.keys()
    assert rows[1] == ["a", "2.0", "", "0.5", "12.5"]
    facts = filled.facts()
    assert facts["rows"]["b"] == {"FAD:X ↓": 3.0, "FAD:Y ↓": 4.0, "F1 ↑": None}
    lines = filled.markdown().splitlines()
    assert lines[0] == "# T | 1" and lines[4] == "| a | 2 |  | 0.5 | 12.5 |"
    assert len({line.count("|") for line in lines[2:] if line.startswith("|")}) == 1


def test_a_column_that_nothing_fills_is_an_error():
    table = Table(title="T", rows={"a": PLAN}, columns=("fad:*",))
    with pytest.raises(UserError, match=r"no row .* fad:\*; there are f1"):
        fill(table, {"a": content(figure("f1", 0.5))})


def test_tables_need_rows_columns_and_names_that_differ_as_folders():
    for rows, columns in (({}, ("f1",)), ({"a": PLAN}, ()), ({"A 1": PLAN, "a-1": PLAN}, ("f1",))):
        with pytest.raises(UserError):
            Table(title="T", rows=rows, columns=columns)
    assert row_folder("100 steps") == "100-steps" and row_folder("??") == "row"


def test_a_curve_is_of_two_columns_and_of_the_rows_that_have_both():
    table = Table(title="T", rows={"a": PLAN, "b": PLAN, "c": PLAN}, columns=("f1", "fad:*"),
                  curve=("fad:*", "f1"))
    filled = fill(table, {
        "a": content(figure("f1", 0.5, better="higher"), figure("fad:x", 2.0)),
        "b": content(figure("f1", 0.6, better="higher"), figure("fad:x", 1.0)),
        "c": content(figure("f1", None, better="higher"), figure("fad:x", 3.0))})
    assert filled.curve == ("FAD:X ↓", "F1 ↑")
    assert filled.points() == {"a": (2.0, 0.5), "b": (1.0, 0.6)}
    with pytest.raises(UserError, match="f1, fad"):
        Table(title="T", rows={"a": PLAN}, columns=("f1", "fad:*"), curve=("f1", "kad:x"))
    assert fill(Table(title="T", rows={"a": PLAN}, columns=("f1",)),
                {"a": content(figure("f1", 0.5))}).points() == {}
