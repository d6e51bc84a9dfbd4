"""The model with performances that comes with the package: rooms, microphones, instruments."""

import re

import numpy as np
import pytest
from reference.mel_oracle import hertz_to_mel
from safetensors import safe_open

from music_diffusion.models.weights import weight_files
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.settings import RenderSettings

pytestmark = pytest.mark.optimized
FOLDER = hub.weights_root() / "performances"
FONTS = {"fluid": ("studio", "chamber", "church", "gramophone"),
         "musescore": ("studio", "hall", "bright", "muffled"),
         "opl": ("direct", "arcade"), "gmbank": ("studio", "hall")}
START = 0.1 + 0.4 * np.arange(8)


@pytest.fixture(scope="module")
def synthesizer():
    return hub.load("performances")


@pytest.fixture(scope="module")
def melody(synthesizer):
    """Log-mel [T, F] of a melody on one instrument, then a second of rest, by performance."""
    made = {}

    def mel(performance, program=0, seed=0):
        key = (performance, program, seed)
        if key not in made:
            notes = Notes(START, START + 0.35, [60, 64, 67, 72, 71, 67, 65, 62], np.full(8, 90),
                          np.full(8, program), np.zeros(8))
            settings = RenderSettings(seed=seed, performance=performance)
            made[key] = np.concatenate(list(synthesizer.stream_mel(notes, settings)))
        return made[key]

    return mel


def colour(mel):
    """Mean spectrum while it plays, its level removed."""
    mean = mel[10:160].mean(0)
    return mean - mean.mean()


def bin_of(hertz):
    return round(hertz_to_mel(hertz) / (hertz_to_mel(8000.0) / 129) - 1)


def test_it_comes_with_names_a_card_and_small_weights(synthesizer):
    names = [f"{font}_{room}" for font, rooms in FONTS.items() for room in rooms] + ["garner", "kim"]
    assert sorted(synthesizer.performances.names) == sorted(names)
    assert synthesizer.performances.default == "fluid_studio"
    assert all(p.source and p.room and p.instruments and p.minutes > 1
               for p in synthesizer.performances.performances)
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 30e6
    for file in weight_files(FOLDER / "weights.safetensors"):
        assert file.stat().st_size <= 24e6
        with safe_open(file, "numpy") as weights:
            assert {str(weights.get_tensor(k).dtype) for k in weights.keys()} == {"float16"}
    card = (FOLDER / "README.md").read_text()
    for section in ("data", "figures", "limits", "licen[cs]e"):
        assert re.search(rf"^#+ [^\n]*{section}[^\n]*\n+[^#\s]", card, re.I | re.M), section
    assert re.search(r"^\|.*\d\.\d.*\|$", card, re.M), "a table with figures"


@pytest.mark.slow
def test_a_church_rings_after_the_last_note_and_a_studio_does_not(melody):
    """Energy 0.5 s after the last release, against that of the notes."""
    last = round(50 * (START[-1] + 0.35))

    def ring(performance):
        mel = melody(performance, 40)
        return mel[last + 25:last + 30].mean() - mel[10:last].mean()

    studio, chamber, church = (ring(f"fluid_{room}") for room in ("studio", "chamber", "church"))
    assert church > studio + 2 and chamber > studio + 0.3


@pytest.mark.slow
def test_microphones_have_their_tone(melody):
    """What lies above 3 kHz, against what lies below 700 Hz."""
    def tilt(performance):
        mel = melody(performance)[10:160].mean(0)
        return mel[bin_of(3000):].mean() - mel[:bin_of(700)].mean()

    # The tables' shelves are 11 to 14 dB apart from dry, and 1 nat is 8.7 dB.
    assert tilt("musescore_bright") > tilt("musescore_studio") + 0.5
    assert tilt("musescore_muffled") < tilt("musescore_studio") - 0.5
    assert tilt("fluid_gramophone") > tilt("fluid_studio") + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("program", [0, 40, 71])
def test_instruments_are_those_of_the_recording(melody, program):
    """They differ by far more than two takes; MuseScore's strings are descendants of FluidR3's."""
    dry = {font: colour(melody(f"{font}_{rooms[0]}", program)) for font, rooms in FONTS.items()}
    takes = np.abs(colour(melody("fluid_studio", program, seed=1)) - dry["fluid"]).mean()
    for a, b in (("fluid", "musescore"), ("fluid", "opl"), ("musescore", "gmbank"), ("opl", "gmbank")):
        between = np.abs(dry[a] - dry[b]).mean()
        assert between > 0.08 and between > 5 * takes, (a, b, between, takes)


@pytest.mark.slow
def test_violinists_play_differently_from_each_other_and_from_soundfonts(melody):
    garner, kim, font = (colour(melody(name, 40)) for name in ("garner", "kim", "fluid_studio"))
    for a, b in ((garner, kim), (garner, font), (kim, font)):
        assert np.abs(a - b).mean() > 0.3


@pytest.mark.slow
def test_a_mixture_lies_between(melody):
    ends = [melody(name)[10:160] for name in ("opl_direct", "fluid_church")]
    half = melody("opl_direct+fluid_church")[10:160]
    apart = np.abs(ends[0] - ends[1]).mean()
    assert all(np.abs(half - end).mean() < 0.9 * apart for end in ends)
