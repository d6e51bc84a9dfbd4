import json

import numpy as np
import pytest
import soundfile

from music_diffusion.errors import UserError
from music_diffusion.evaluation import ears
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.workflows import check_ears as workflow
from music_diffusion.workflows.check_ears import RATE, check_ears, copies
from music_diffusion.workflows.monitor import Monitor
from music_diffusion.workflows.requests import EarsRequest

SECONDS = 12


def organ(seed, rate=RATE):
    """Steady tones with all partials."""
    rng = np.random.default_rng(seed)
    time = np.arange(SECONDS * rate) / rate
    pitch = np.repeat(rng.integers(48, 72, 2 * SECONDS), rate // 2)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / rate
    return sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.1 + 0 * time)


def drum(seed, rate=RATE):
    """Dying bursts of noise, ten a second."""
    noise = np.random.default_rng(seed).normal(size=SECONDS * rate)
    return 0.2 * noise * np.exp(-40 * (np.arange(SECONDS * rate) / rate % 0.1))


@pytest.fixture
def recordings(tmp_path):
    """Two of each of two instruments, at another rate; the table says which."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = ["file,group"]
    for make in (organ, drum):
        for seed in range(2):
            soundfile.write(folder / f"{make.__name__}{seed}.wav", make(seed, 22050), 22050)
            rows.append(f"{make.__name__}{seed}.wav,{make.__name__}")
    (tmp_path / "groups.csv").write_text("\n".join(rows) + "\n")
    return EarsRequest(reference=str(folder), groups=str(tmp_path / "groups.csv"), embeddings=("mfcc",))


class Deaf:
    """Embeds everything as noise of its own."""

    name, sample_rate, dim = "deaf", RATE, 4

    def __init__(self):
        self._rng = np.random.default_rng(0)

    def __call__(self, samples):
        return self._rng.normal(size=(8, 4))


def test_a_hearing_embedding_is_mostly_right_and_a_deaf_one_half(recordings, monkeypatch, tmp_path):
    heard = check_ears(recordings, str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "ears.json").read_text()) == json.loads(json.dumps(heard))
    mfcc = heard["embeddings"]["mfcc"]
    assert heard["recordings"] == mfcc["recordings"] == 4 and mfcc["share"] > 0.85
    assert mfcc["by_order"]["other half < others' recordings"] == (1.0, 8)
    assert mfcc["by_order"]["own other recordings < others' recordings"] == (1.0, 8)
    assert not any("synthesizer" in order for order in mfcc["by_order"])
    monkeypatch.setattr(workflow, "load_embedder", lambda name: Deaf())
    assert check_ears(recordings)["embeddings"]["mfcc"]["share"] == pytest.approx(0.5, abs=0.15)


def test_copies_are_as_they_are_called():
    samples = (organ(0) + 0.3 * drum(0)).astype(np.float32)
    made = copies(samples, seed=1)
    assert set(made) == {name for order in ears.ORDERS for name in order} - {
        ears.FRIEND, ears.SYNTHESIZER, ears.OTHERS}
    assert all(x.shape == samples.shape and x.dtype == np.float32 for x in made.values())
    np.testing.assert_array_equal(made[ears.SAME], samples)
    np.testing.assert_allclose(made[ears.LEVEL], samples * 10 ** (-6 / 20), rtol=1e-5)

    def power(x):
        return float(np.square(x, dtype=np.float64).mean())

    for name, decibel in ((ears.NOISE_40, 40), (ears.NOISE_20, 20), (ears.NOISE_0, 0)):
        ratio = power(samples) / power(made[name] - samples)
        assert 10 * np.log10(ratio) == pytest.approx(decibel, abs=0.5)
    for name, hertz in ((ears.LOW_6K, 6000), (ears.LOW_2K, 2000), (ears.LOW_1K, 1000)):
        spectrum, before = (np.abs(np.fft.rfft(x)) for x in (made[name], samples))
        bins = np.fft.rfftfreq(len(samples), 1 / RATE)
        high, low = bins > 1.3 * hertz, bins < 0.7 * hertz
        assert power(spectrum[high]) < 1e-3 * power(before[high])
        assert power(spectrum[low]) == pytest.approx(power(before[low]), rel=0.02)
    assert power(made[ears.CODEC] - samples) < 0.05 * power(samples)


def test_a_synthesizer_plays_the_notes_of_the_half_that_is_copied(recordings, monkeypatch, tmp_path):
    start = np.arange(12.0)
    notes = Notes(start, start + 0.5, 60 + np.arange(12), *np.array([100, 0, 0])[:, None].repeat(12, 1))
    for name in ("organ0", "organ1", "drum0"):
        write_midi(notes, tmp_path / "recordings" / f"{name}.mid")
    seen = []

    class Player:
        def __call__(self, notes, seconds):
            seen.append((notes, seconds))
            return type("W", (), {"samples": organ(5)[:round(seconds * RATE)]})

    monkeypatch.setattr(workflow, "open_renderer", lambda path, rate: Player())
    monkeypatch.setattr(workflow, "check_renderer", lambda path: None)
    facts = check_ears(EarsRequest(reference=recordings.reference, groups=recordings.groups,
                                   notes=recordings.reference, soundfont="a.sf2", embeddings=("mfcc",)))
    assert len(seen) == 3 and {seconds for _, seconds in seen} == {6.0}
    np.testing.assert_array_equal(seen[0][0].pitch, 66 + np.arange(6))
    np.testing.assert_allclose(seen[0][0].start, np.arange(6), atol=1e-3)
    assert facts["embeddings"]["mfcc"]["by_order"]["other half < synthesizer"][1] == 3


def test_bad_input_is_one_line(recordings, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    soundfile.write(folder / "a.wav", organ(0)[:RATE], RATE)
    with pytest.raises(UserError, match="no recording of 8 s or more"):
        check_ears(EarsRequest(reference=str(folder)))
    with pytest.raises(UserError, match="go together"):
        check_ears(EarsRequest(reference=recordings.reference, soundfont="a.sf2"))
    (tmp_path / "other.csv").write_text("file,group\nzz.wav,a\n")
    with pytest.raises(UserError, match="no row fits the recordings"):
        check_ears(EarsRequest(reference=recordings.reference, groups=str(tmp_path / "other.csv")))
    with pytest.raises(UserError, match="nope.sf2"):
        check_ears(EarsRequest(reference=recordings.reference, notes=recordings.reference,
                               soundfont=str(tmp_path / "nope.sf2")))


def test_recordings_without_a_group_are_named(recordings, tmp_path):
    (tmp_path / "some.csv").write_text("file,group\norgan0.wav,organ\ndrum0.wav,drum\ndrum1.wav,drum\n")
    said = []

    check_ears(EarsRequest(reference=recordings.reference, groups=str(tmp_path / "some.csv"),
                           embeddings=("mfcc",)), monitor=Monitor(say=said.append))
    assert [line for line in said if "organ1.wav: is in no row of" in line]
    assert any("not compared with others" in line for line in said)
