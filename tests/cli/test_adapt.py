"""`music-diffusion adapt`: what is handed on and printed."""

import json

import pytest

from music_diffusion.workflows import adapt
from music_diffusion.workflows.adapt import AddedPerformance
from music_diffusion.workflows.requests import AdaptRequest

ADDED = AddedPerformance(model="out", performance="mine", seconds=61.5, nearest="studio", loss=(1.0, 0.5),
                         minutes=2.25)


@pytest.fixture
def seen(monkeypatch):
    seen = []

    def add_performance(request, monitor):
        seen.append(request)
        monitor.say("[1/3] working")
        return ADDED

    monkeypatch.setattr(adapt, "add_performance", add_performance)
    return seen


TAKE = ("adapt", "--audio", "a.wav", "--midi", "a.mid", "--name", "mine", "-o", "out")


def test_people_get_stages_and_the_next_command(program, seen):
    code, out, err = program(*TAKE)
    assert (code, out) == (0, "") and seen == [
        AdaptRequest(audio=("a.wav",), midi=("a.mid",), name="mine", output="out")]
    assert err.splitlines() == ["[1/3] working", "done in 2.2 minutes: music-diffusion synthesize song.mid "
                                "-o song.wav --model out --performance mine"]


def test_every_option_is_handed_on(program, seen):
    code, out, err = program(
        *TAKE, "--audio", "b.wav", "--midi", "b.mid", "--from", "base", "--room", "hall", "--steps", "7",
        "--binding", "A = 1", "--workers", "3", "--seed", "4", "--json")
    assert code == 0 and json.loads(out) == {
        "model": "out", "performance": "mine", "seconds": 61.5, "nearest": "studio", "loss": [1.0, 0.5],
        "minutes": 2.25}
    assert seen == [AdaptRequest(
        audio=("a.wav", "b.wav"), midi=("a.mid", "b.mid"), name="mine", output="out", base="base",
        room="hall", steps=7, bindings=("A = 1",), workers=3, seed=4)]


@pytest.mark.parametrize("lacking", ["--audio", "--midi", "--name", "-o"])
def test_what_is_required(program, seen, lacking):
    at = TAKE.index(lacking)
    code, out, err = program(*TAKE[:at], *TAKE[at + 2:])
    assert code == 2 and not out and lacking.lstrip("-") in err.lower() and not seen
