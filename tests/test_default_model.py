"""The model that comes with the package: its size, its card, and what a person would hear first."""

import re

import numpy as np
import pytest
from reference.mel_oracle import hertz_to_mel
from safetensors import safe_open

from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.settings import RenderSettings

pytestmark = pytest.mark.optimized
FOLDER = hub.weights_root() / "default"

C4 = 440.0 * 2 ** ((60 - 69) / 12)
MELODY = [60, 64, 67, 72, 71, 67, 65, 62, 60]
INSTRUMENTS = {"piano": 0, "clarinet": 71, "violin": 40}


@pytest.fixture(scope="module")
def synthesizer():
    return hub.load("default")


@pytest.fixture(scope="module")
def card():
    return (FOLDER / "README.md").read_text()


def mel_of(synthesizer, notes, seed=0):
    """[T, F] nat."""
    return np.concatenate(list(synthesizer.stream_mel(notes, RenderSettings(seed=seed))))


@pytest.fixture(scope="module")
def middle_c(synthesizer):
    """Half a second of silence, then a piano's C4 of two and a half seconds, then the tail."""
    return mel_of(synthesizer, Notes([0.5], [3.0], [60], [90], [0], [False]))


def bin_of(hertz):
    """Where a frequency lies among the 128 mel bins, as a fractional index (HTK mel)."""
    return hertz_to_mel(hertz) / (hertz_to_mel(8000.0) / 129) - 1


def frame_of(seconds):
    return int(seconds * 50)


def test_it_is_small_enough_to_come_with_the_package():
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) <= 24e6
    with safe_open(FOLDER / "weights.safetensors", "numpy") as weights:
        assert {str(weights.get_tensor(k).dtype) for k in weights.keys()} == {
            "int8", "float16", "float32"}  # the statistics of patches and the scales keep more
    assert {p.name for p in FOLDER.iterdir()} >= {"weights.safetensors", "config.gin", "README.md"}


@pytest.mark.parametrize("section", ["data", "licen[cs]e", "figures|measured|results"])
def test_the_card_has_its_sections(card, section):
    headings = re.findall(r"^#+ +(.*)$", card, re.M)
    assert any(re.search(section, h, re.I) for h in headings), headings
    # Not an empty promise: text follows the heading.
    assert re.search(rf"^#+ [^\n]*(?:{section})[^\n]*\n+[^#\s]", card, re.I | re.M)


def test_the_cards_figures_are_numbers(card):
    assert re.search(r"^\|.*\d\.\d.*\|$", card, re.M), "a table with figures"


def test_silence_is_quiet_before_and_after_the_note(middle_c):
    loudest = middle_c.max()
    assert loudest > -3  # a note at velocity 90 is well above the codec's floor of -11.5
    before = middle_c[:frame_of(0.5) - 4]
    after = middle_c[frame_of(4.6):]
    assert before.max() < loudest - 5 and after.max() < loudest - 4
    # On average they are far lower still.
    assert before.mean() < loudest - 8 and after.mean() < loudest - 7


def test_energy_peaks_at_the_harmonics_of_c4(middle_c):
    frame = middle_c[frame_of(0.6):frame_of(1.6)].mean(0)
    harmonics = [round(bin_of(k * C4)) for k in (1, 2, 3)]
    assert min(abs(int(frame.argmax()) - h) for h in harmonics) <= 1
    for k, h in zip((1, 2, 3), harmonics, strict=True):
        valleys = [frame[round(bin_of((k + half) * C4))] for half in (-0.5, 0.5)]
        assert frame[h - 1:h + 2].max() > max(valleys) + 1.0, k


@pytest.mark.slow
def test_the_audio_sounds_c4(synthesizer):
    wave = synthesizer.synthesize(Notes([0.2], [2.0], [60], [90], [0], [False]))
    samples = wave.samples[4000:20000]
    size = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    hertz = np.fft.rfftfreq(8 * len(samples), 1 / wave.sample_rate)
    # Harmonic sums over half-tones: the best candidate is C4, or its octaves' twin C3.
    def strength(f0):
        return sum(size[np.abs(hertz - k * f0) < 4].max() for k in (1, 2, 3, 4))

    best = max(range(48, 84), key=lambda p: strength(440.0 * 2 ** ((p - 69) / 12)))
    assert best in (48, 60)


def test_a_louder_note_is_louder(synthesizer):
    soft, loud = (mel_of(synthesizer, Notes([0.1], [1.0], [60], [v], [0], [False]))
                  for v in (30, 120))
    assert loud[5:40].max(1).mean() > soft[5:40].max(1).mean() + 0.5


@pytest.mark.slow
def test_instruments_differ_more_than_takes(synthesizer):
    start = 0.1 + 0.3 * np.arange(len(MELODY))

    def colour(program, seed=0):
        """Mean spectrum with its level removed."""
        notes = Notes(start, start + 0.28, MELODY, np.full(9, 90), np.full(9, program), np.zeros(9))
        mean = mel_of(synthesizer, notes, seed)[frame_of(0.1):frame_of(2.8)].mean(0)
        return mean - mean.mean()

    colours = {name: colour(program) for name, program in INSTRUMENTS.items()}
    takes = max(np.abs(colour(program, seed=1) - colours[name]).mean()
                for name, program in INSTRUMENTS.items())
    for a, b in (("piano", "clarinet"), ("piano", "violin"), ("clarinet", "violin")):
        between = np.abs(colours[a] - colours[b]).mean()
        assert between > 0.25 and between > 2 * takes, (a, b, between, takes)
