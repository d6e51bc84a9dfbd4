"""Scores of timbre transfer."""

import csv
import dataclasses

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.conversions import (
    envelope_correlation,
    loud_patches,
    named_share,
    restyle_rows,
    strength_rows,
    style_files,
    transfer_rows,
)
from music_diffusion.evaluation.plan import METHODS, EvaluationPlan
from music_diffusion.notes.conversions import Conversion, ConversionTable

RATE = 16000


def table(path, *rows):
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([("file", "source", "target"), *rows])
    return str(path)


def test_one_instrument_is_named_where_it_is_the_surest():
    presence = np.array([[.9, .1, .0], [.2, .7, .1], [.3, .2, .5], [.6, .5, .4]])
    assert named_share(presence, {0}) == 0.5
    assert named_share(presence, {1}) == 0.25
    assert named_share(presence, {0}, np.array([True, True, False, False])) == 0.5


def test_of_two_instruments_each_counts_half():
    presence = np.array([[.9, .8, .0], [.2, .7, .1], [.0, .2, .5]])
    assert named_share(presence, {0, 1}) == pytest.approx((1 + 1 + .5) / 3)


def test_no_instrument_and_no_patch_have_no_share():
    assert np.isnan(named_share(np.ones((2, 3)), set()))
    assert np.isnan(named_share(np.ones((2, 3)), {1}, np.zeros(2, bool)))


def swelling(gains):
    """Noise whose level changes every tenth of a second."""
    noise = np.random.default_rng(0).normal(size=(len(gains), RATE // 10))
    return (noise * np.array(gains)[:, None]).ravel()


def test_levels_that_rise_and_fall_together_correlate_whatever_the_sound():
    gains = np.random.default_rng(1).uniform(0.01, 1, 40)
    other = np.repeat(gains, RATE // 10) * np.sin(np.arange(4 * RATE) * 0.3)
    assert envelope_correlation(swelling(gains), 0.2 * other, RATE) > 0.98
    assert envelope_correlation(swelling(gains), swelling(1 / gains), RATE) < -0.9
    assert abs(envelope_correlation(swelling(gains), swelling(np.random.default_rng(2).permutation(gains)),
                                    RATE)) < 0.5


def test_what_has_no_level_to_follow_has_no_correlation():
    assert np.isnan(envelope_correlation(np.zeros(RATE), swelling([1, .1, 1]), RATE))
    assert np.isnan(envelope_correlation(np.ones(100), np.ones(100), RATE))


def test_below_the_floor_all_is_silence():
    """What is 60 dB and what is 90 dB below the loudest count alike."""
    one, other = swelling([1, 1e-3, 1, 1e-3]), swelling([1, 3e-5, 1, 3e-5])
    assert envelope_correlation(one, other, RATE) > 0.9999


def test_silent_patches_do_not_count():
    assert loud_patches(swelling([1, 1e-4, .5, 0]), 4).tolist() == [True, False, True, False]


def test_a_table_names_classes_by_instruments(tmp_path):
    rows = ConversionTable(table(tmp_path / "c.csv", ("A Song", "clarinet+vibraphone", "strings + piano")))
    row = rows.of("A Song")
    assert row.source == ("clarinet", "vibraphone") and row.target == ("strings", "piano")
    source, target = row.classes
    assert len(source) == len(target) == 2 and not source & target
    assert rows.of("another") is None


@pytest.mark.parametrize(("row", "what"), [
    (("a", "clarinet+piano", "flute"), "2 instruments become 1"),
    (("a", "clarinett", "flute"), "did you mean clarinet"),
    (("a", "", "flute"), "no such instrument"),
])
def test_a_bad_table_says_which_row(tmp_path, row, what):
    with pytest.raises(UserError, match=what) as error:
        ConversionTable(table(tmp_path / "c.csv", row))
    assert "c.csv: a: " in str(error.value) and "\n" not in str(error.value)


def test_every_task_has_the_model_and_what_it_has_to_beat():
    rows = transfer_rows(plan=EvaluationPlan, pairs="pairs", model="m", player="p")
    assert len(rows) == 15 and len(set(rows.values())) == 15
    assert {plan.method for plan in rows.values()} == set(METHODS) - {"liked"}
    assert rows["mixture: model"].parts is None and rows["mixture: model"].model == "m"
    assert rows["single/mixed: heard and played"].model == "p"
    assert rows["single/mixed: model"].parts == "pairs/mixture/parts"
    assert rows["single: nothing"].sources == "pairs/single/source"
    with pytest.raises(UserError, match="single/mixed"):
        transfer_rows(plan=EvaluationPlan, pairs="pairs", model="m", player="p", tasks=("mixed",))


def test_a_style_is_the_next_recording_of_the_same_target():
    a, b = (Conversion(source=("flute",), target=(name,)) for name in ("piano", "violin"))
    rows = {"3": a, "1": a, "2": b, "4": a, "5": b, "6": dataclasses.replace(a, target=("organ",))}
    recordings = {name: f"{name}.wav" for name in "123456"}
    assert style_files(rows, recordings) == {
        "1": "3.wav", "3": "4.wav", "4": "1.wav", "2": "5.wav", "5": "2.wav"}
    del recordings["4"]
    assert style_files(rows, recordings)["3"] == "1.wav"


def test_restyling_is_compared_in_every_kind_of_style():
    rows = restyle_rows(plan=EvaluationPlan, pairs="pairs", model="m", player="p", others="others",
                        strengths=(0.5,))
    assert [plan.model for plan in rows.values()] == [None, "p", "m", "m"] * 2
    assert rows["heard: model"].method == "liked" and rows["heard: strength 0.5"].strength == 0.5
    assert {plan.styles for name, plan in rows.items() if name.startswith("unheard")} == {
        "others/single/target"}
    assert {plan.reference for plan in rows.values()} == {"pairs/single/target"}
    assert len(restyle_rows(plan=EvaluationPlan, pairs="pairs", model="m", player="p")) == 3


def test_strengths_end_with_nothing_kept():
    rows = strength_rows(plan=EvaluationPlan, pairs="pairs", model="m")
    assert [plan.strength for plan in rows.values()] == [None, .2, .4, .6, .8, 1.0]
    assert rows["nothing"].method == "nothing" and rows["strength 1"].reference == "pairs/mixture/target"
