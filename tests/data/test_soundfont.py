"""The SoundFont renderer on a font of sines, written byte by byte (reference/soundfont_file.py)."""

import sys

import numpy as np
import pytest
from reference import needs
from reference.soundfont_file import expected_hertz, soundfont

from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

needs.module("fluidsynth")

RATE = 16000


def note(start, end, pitch=69, velocity=127, program=0, drum=False):
    return Notes([start], [end], [pitch], [velocity], [program], [drum])


def together(*notes):
    return Notes.concatenate(list(notes))


def spectrum(samples):
    """Frequencies and amplitudes; a full-scale sine has amplitude 1."""
    window = np.hanning(len(samples))
    return (np.fft.rfftfreq(8 * len(samples), 1 / RATE),
            2 * np.abs(np.fft.rfft(samples * window, 8 * len(samples))) / window.sum())


def pitch_of(samples):
    hertz, size = spectrum(samples)
    return hertz[np.argmax(size)]


def level(samples):
    return float(np.sqrt(np.mean(np.square(samples))))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("font") / "sines.sf2"
    path.write_bytes(soundfont())
    return str(path)


@pytest.fixture(scope="module")
def render(path):
    renderer = SoundFontRenderer(path=path, tail=0.5)
    return lambda *notes: renderer(together(*notes)).samples


@pytest.mark.parametrize("program, pitch, drum", [
    (0, 69, False), (40, 48, False), (63, 90, False), (64, 69, False), (127, 60, False),
    (0, 36, True), (0, 69, True)])
def test_frequency_is_that_of_program_and_key(render, program, pitch, drum):
    samples = render(note(0.1, 1.1, pitch, 127, program, drum))
    assert pitch_of(samples[3200:16000]) == pytest.approx(
        expected_hertz(program, pitch, drum), abs=0.5)


@pytest.mark.parametrize("tuning", [-50.0, 30.0])
def test_tuning_moves_all_but_drums(path, tuning):
    tuned = SoundFontRenderer(path=path, tuning=tuning)
    for drum, cents in ((False, tuning), (True, 0.0)):
        hertz = expected_hertz(0, 69, drum) * 2 ** (cents / 1200)
        samples = tuned(note(0.1, 1.1, drum=drum)).samples[3200:16000]
        assert pitch_of(samples) == pytest.approx(hertz, abs=0.5)


def test_notes_start_and_stop_on_time_and_the_tail_follows(render):
    samples = render(note(0.25, 0.75))
    loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
    # The synthesizer works in blocks of 2 ms, and its default release is about as long.
    assert loud[0] / RATE == pytest.approx(0.25, abs=0.002)
    assert loud[-1] / RATE == pytest.approx(0.75, abs=0.01)
    assert level(samples[:int(0.245 * RATE)]) < 1e-3 * level(samples[4500:11500])
    assert len(samples) / RATE == pytest.approx(0.75 + 0.5, abs=0.002)
    assert level(samples[-1000:]) < 1e-4


def test_many_onsets_keep_their_time(render):
    """No drift: the hundredth note is as punctual as the first."""
    starts = 0.1 + 0.1 * np.arange(100)
    samples = render(*(note(s, s + 0.05) for s in starts))
    for start in starts[[0, 49, 99]]:
        at = int(start * RATE)
        before, after = samples[at - 320:at - 32], samples[at + 32:at + 320]
        assert level(before) < 0.02 * level(after)


def test_more_programs_than_midi_channels_at_once(render):
    """40 programs, each for itself in time, sound as themselves."""
    programs = np.arange(44, 84)
    samples = render(*(note(0.3 * i, 0.3 * i + 0.25, 60 + i % 12, 100, int(p))
                       for i, p in enumerate(programs)))
    for i, p in enumerate(programs):
        at = int((0.3 * i + 0.05) * RATE)
        assert pitch_of(samples[at:at + 3000]) == pytest.approx(
            expected_hertz(p, 60 + i % 12, False), rel=0.005), p


def test_drums_do_not_disturb_the_program_of_the_same_number(render):
    samples = render(note(0.0, 1.0, 69, 100, 0), note(0.0, 1.0, 40, 100, 0, True))
    hertz, size = spectrum(samples[1600:14400])
    peaks = [size[np.abs(hertz - f) < 5].max() for f in (440.0, 2200.0)]
    assert min(peaks) > 100 * np.median(size) and min(peaks) > 0.2 * max(peaks)


def test_louder_velocities_are_louder(render):
    levels = [level(render(note(0.0, 0.5, velocity=v))[800:7000]) for v in (20, 60, 100, 127)]
    assert all(b > 1.5 * a for a, b in zip(levels, levels[1:], strict=False))


def test_a_key_held_twice_sounds_until_the_last_release(render):
    samples = render(note(0.0, 0.4), note(0.2, 0.8), note(0.5, 0.6))
    assert level(samples[int(0.65 * RATE):int(0.78 * RATE)]) > 0.01
    assert level(samples[int(0.85 * RATE):]) < 1e-4


def test_zero_length_notes_sound_for_a_block(render):
    samples = render(note(0.1, 0.1))
    assert np.abs(samples[1600:1700]).max() > 0.001
    assert level(samples[2400:]) < 1e-4


def test_nothing_above_half_the_rate_folds_down(render):
    """12544 Hz would come out at 3456 Hz if the synthesizer ran at 16 kHz."""
    high = level(render(note(0.1, 0.6, 127))[2400:8000])
    assert high < 1e-3 * level(render(note(0.1, 0.6, 69))[2400:8000])


def test_renders_repeat_each_other_whatever_was_played_before(render):
    piece = (note(0.0, 0.5, 60, 90, 5), note(0.1, 0.4, 64, 80, 70), note(0.2, 0.3, 38, drum=True))
    first = render(*piece)
    render(*(note(0.01 * i, 3.0, 40 + i, 127, 100) for i in range(40)))  # ends after the piece
    np.testing.assert_array_equal(render(*piece), first)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_given_length_is_the_beginning_of_the_whole(path, rate):
    renderer = SoundFontRenderer(path=path, sample_rate=rate, tail=0.5)
    notes = together(note(0.0, 0.5, 60), note(0.4, 1.3, 64, program=70), note(1.25, 2.0, 67))
    for seconds in (0.7, 1.0, 2.2):
        part = renderer(notes, seconds).samples
        assert len(part) == round(seconds * rate)
        # The resampler counts from elsewhere: the last bit of a sample.
        np.testing.assert_allclose(part, renderer(notes).samples[:len(part)], atol=1e-6)
    longer = renderer(notes, 4.0).samples
    assert len(longer) == 4 * rate and level(longer[3 * rate:]) < 1e-4


def test_low_rates_do_not_fold_what_the_font_holds(path):
    """12544 Hz, below the 22 kHz of fonts, would come out at 3456 Hz from 16 kHz."""
    renderer = SoundFontRenderer(path=path, sample_rate=8000, tail=0.0)
    assert renderer.rate == 32000
    high = level(renderer(note(0.1, 0.6, 127)).samples[1200:4000])
    assert high < 1e-3 * level(renderer(note(0.1, 0.6, 69)).samples[1200:4000])


@pytest.mark.parametrize("rate, inside", [(8000, 32000), (16000, 32000), (22050, 44100),
                                          (44100, 88200), (48000, 96000), (96000, 96000)])
def test_the_synthesizers_rate_is_one_that_it_has(path, rate, inside):
    renderer = SoundFontRenderer(path=path, sample_rate=rate, tail=0.0)
    assert renderer.rate == inside
    samples = renderer(note(0.0, 0.5)).samples
    assert abs(len(samples) / rate - 0.5) < 0.003 and level(samples) > 0.01


@pytest.mark.parametrize("rate", [0, 96001])
def test_rates_beyond_the_synthesizers_are_refused(path, rate):
    with pytest.raises(UserError, match=f"{rate} Hz"):
        SoundFontRenderer(path=path, sample_rate=rate)


def test_more_fonts_than_are_kept_are_loaded_again(path, tmp_path):
    paths = [path]
    for name in ("b.sf2", "c.sf2"):
        (tmp_path / name).write_bytes(soundfont())
        paths.append(str(tmp_path / name))
    first = [SoundFontRenderer(path=p)(note(0.0, 0.2)).samples for p in paths]
    again = [SoundFontRenderer(path=p)(note(0.0, 0.2)).samples for p in paths]
    np.testing.assert_array_equal(first, again)
    assert np.ptp(first, axis=0).max() == 0


def test_playing_says_nothing(render, capfd):
    render(note(0.0, 0.2), note(0.0, 0.2, 40, drum=True))
    assert capfd.readouterr() == ("", "")


def test_without_notes_there_is_the_tails_silence(path):
    samples = SoundFontRenderer(path=path, tail=0.25)(Notes.empty()).samples
    assert len(samples) == 4000 and not samples.any()


def test_no_tail_may_end_inside_a_block(path):
    samples = SoundFontRenderer(path=path, tail=0.0)(note(0.05, 0.05)).samples
    assert len(samples) / RATE == pytest.approx(0.05, abs=0.005)


def test_programs_that_the_font_lacks_are_named(tmp_path):
    (tmp_path / "few.sf2").write_bytes(soundfont(programs=[0, 40]))
    renderer = SoundFontRenderer(path=str(tmp_path / "few.sf2"))
    assert level(renderer(note(0, 0.2, program=40)).samples) > 0
    with pytest.raises(UserError, match="few.sf2.*program 41"):
        renderer(note(0, 0.2, program=41))


def test_files_that_are_no_soundfonts_are_refused(tmp_path, path):
    with pytest.raises(UserError, match="nowhere.sf2"):
        SoundFontRenderer(path="nowhere.sf2")
    (tmp_path / "bad.sf2").write_bytes(b"RIFF no font at all")
    with pytest.raises(UserError, match="bad.sf2"):
        SoundFontRenderer(path=str(tmp_path / "bad.sf2"))(note(0, 1))


def test_without_fluidsynth_the_error_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(UserError, match="soundfont.*libfluidsynth"):
        SoundFontRenderer(path=path, gain=0.25)(note(0, 1))
