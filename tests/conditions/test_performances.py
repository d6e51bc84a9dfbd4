"""The list of names beside the weights."""

import dataclasses
import json

import numpy as np
import pytest

from music_diffusion.conditions.performances import (
    Performance,
    Performances,
    read_performances,
    table_digest,
    table_of,
    write_performances,
)
from music_diffusion.errors import UserError
from music_diffusion.models.performance import narrowed


def params(rows=3, seed=0):
    table = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    return {"performances": {"embedding": table}, "other": {"kernel": np.ones((2, 2))}}


@pytest.fixture
def known():
    return Performances(default="studio", performances=(
        Performance(name="studio", source="a.sf2", instruments=("Violin", "Drums"), room="dry",
                    minutes=3.5),
        Performance(name="Great Hall"), Performance(name="church")))


def test_round_trip(tmp_path, known):
    known = known.with_table(params())
    write_performances(tmp_path / "p.json", known)
    assert read_performances(tmp_path / "p.json") == known


def test_weights_are_shares(known):
    assert known.weights(None).tolist() == [1, 0, 0]
    assert known.weights({"church": 1.0, "Great Hall": 3.0}).tolist() == [0, 0.75, 0.25]


@pytest.mark.parametrize(("name", "message"), [
    ("Studio", "did you mean studio"), ("great hal", "did you mean Great Hall"),
    ("xyzzy", "there are studio, ")])
def test_unknown_names_suggest_the_nearest(known, name, message):
    with pytest.raises(UserError, match=message):
        known.number(name)


@pytest.mark.parametrize("share", [0.0, -1.0, np.inf, np.nan])
def test_shares_are_positive(known, share):
    with pytest.raises(UserError, match="give one above 0"):
        known.weights({"studio": share})


def test_names_of_another_checkpoint(known):
    ours = known.with_table(params())
    ours.check(params(), "p.json")
    with pytest.raises(UserError, match="names 3 performances of a model that has 4"):
        ours.check(params(rows=4), "p.json")
    with pytest.raises(UserError, match="is of another checkpoint"):
        ours.check(params(seed=1), "p.json")


def test_digest_survives_half_precision():
    stored = {"performances": {"embedding": params()["performances"]["embedding"].astype(np.float16)}}
    assert table_digest(params()) == table_digest(stored)


@pytest.mark.parametrize("name", ["", "a:b", "a+b", "a,b", "a=b", " a"])
def test_names_that_the_command_line_could_not_say(name):
    with pytest.raises(UserError, match="cannot be the name"):
        Performance(name=name)


def test_damaged_files(tmp_path, known):
    path = tmp_path / "p.json"
    other_fields, no_default = ({"performances": [{field: "a"}], "default": "b"}
                                for field in ("nam", "name"))
    for text, message in (("{", "damaged"), ("[]", "damaged"), (json.dumps(other_fields), "damaged"),
                          (json.dumps(no_default), "no such performance")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_performances(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_performances(tmp_path / "none.json")
    with pytest.raises(UserError, match="two performances are named 'studio'"):
        dataclasses.replace(known, performances=known.performances * 2)


def test_some_of_several():
    whole = params() | {"timbre": params(seed=1)}
    for rows in ([1], [2, 0]):
        some = narrowed(whole, rows)
        for found, known in ((some, whole), (some["timbre"], whole["timbre"])):
            table = known["performances"]["embedding"]
            assert np.array_equal(found["performances"]["embedding"], table[rows])
            assert np.array_equal(found["other"]["kernel"], known["other"]["kernel"])


def test_the_table_is_the_models_own_and_not_that_of_its_notes():
    whole = {"timbre": params(seed=1), **params()}
    assert np.array_equal(table_of(whole), table_of(params()))
    assert table_digest(whole) == table_digest(params())
    assert np.array_equal(table_of({"timbre": params(seed=1)}), table_of(params(seed=1)))
