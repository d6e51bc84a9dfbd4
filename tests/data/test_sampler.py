"""Recorded notes as instruments, with recordings of known partials: where, how high, how loud, how long."""

import csv
import os
import pathlib
import pickle
import warnings

import numpy as np
import pytest
from reference import recorded_notes as made
from reference.recorded_notes import cents, hertz, measured_hertz

from music_diffusion.audio.waveform import Waveform
from music_diffusion.data import instruments
from music_diffusion.data.instruments import parse_programs, read_instruments
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.data.renderers import is_sampler, open_renderer, renderer_state
from music_diffusion.data.sampler import LEVEL, SamplerRenderer, released
from music_diffusion.data.samples import Vibrato
from music_diffusion.data.zones import DRUM, KINDS
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM
from music_diffusion.tables import read_table

RATE = 16000


def note(start, end, pitch=60, velocity=127, program=0, drum=False):
    return Notes([start], [end], [pitch], [velocity], [program], [drum])


def together(*notes):
    return Notes.concatenate(list(notes))


def level(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def decibel(a, b):
    return 20 * np.log10(level(a) / level(b))


def write_table(folder, *rows, head="instrument,programs,kind,layers,keys,release,cents,gain_db"):
    (folder / "instruments.csv").write_text("\n".join((head, *rows)) + "\n")
    return str(folder)


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    """A decaying, a sustained and a drum instrument in a folder."""
    folder = tmp_path_factory.mktemp("band")
    made.instrument(folder / "harp", range(48, 85, 6), (("soft", 0.1), ("loud", 0.5)), decay=2.0)
    made.instrument(folder / "reed", (57, 63, 69), seconds=0.8)
    kit = folder / "kit"
    kit.mkdir()
    rows = []
    for name, peaks in (("Kick", (0.8, 0.75, 0.3)), ("HatOpen", (0.4,)), ("HatClosed", (0.4,))):
        for i, peak in enumerate(peaks):
            pitch = {"Kick": 48, "HatOpen": 90, "HatClosed": 95}[name] + i
            made.write(kit / f"{name}{i}.wav", made.tone(pitch, 0.6, onset=0.0, peak=peak, decay=1.0))
            rows.append({"file": f"{name}{i}.wav", "layer": name, "peak": peak, "onset_seconds": 0})
    made.table(kit, rows)
    return write_table(
        folder, "harp,46 0-7,decaying,soft|loud,,,,", "reed,71,sustained,,,0.2,,",
        'kit,drums,drum,,"36=Kick 42,44=HatClosed 46=HatOpen",,,')


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("start", [0.0, 0.1, 0.123456])
def test_the_onset_lies_on_the_sample_of_the_notes_start(tmp_path, rate, start):
    """A click at the onset, at the file's pitch and 3 semitones off it: its peak is that sample."""
    click = np.zeros(24000, np.float32)
    click[5000] = 0.9
    made.write(tmp_path / "click.wav", click)
    made.table(tmp_path, [{"file": "click.wav", "midi": 60, "onset_seconds": 5000 / made.RATE,
                           "peak": 0.9}])
    sampler = SamplerRenderer(path=f"{tmp_path}@0", sample_rate=rate)
    for pitch in (60, 63, 57):
        samples = sampler(note(start, start + 0.3, pitch), 0.6).samples
        assert np.argmax(np.abs(samples)) == round(start * rate)
        assert len(samples) == round(0.6 * rate)


def test_an_onset_that_the_table_lacks_is_measured(tmp_path):
    made.write(tmp_path / "a.wav", made.tone(60, onset=0.2))
    made.table(tmp_path, [{"file": "a.wav", "midi": 60}], ("file", "midi"))
    samples = SamplerRenderer(path=f"{tmp_path}@0")(note(0.3, 0.6)).samples
    # 5 % of the peak is reached within a tenth of a period; before it there is nothing.
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    assert abs(loud[0] / RATE - 0.3) < 0.001


@pytest.mark.parametrize("off", [0.0, 30.0, -45.0])
def test_pitch_is_that_of_the_key_whatever_the_samples_are_tuned_to(tmp_path, off):
    """Measured: within 0.1 cents, up to 4 semitones away from a sample."""
    made.instrument(tmp_path, (60, 69), off=off)
    sampler = SamplerRenderer(path=f"{tmp_path}@0")
    assert list(sampler.keys(0)) == list(range(56, 74))
    for pitch in range(56, 74):
        samples = sampler(note(0.1, 0.9, pitch)).samples[round(0.2 * RATE):round(0.85 * RATE)]
        assert abs(cents(measured_hertz(samples, RATE, hertz(pitch)), hertz(pitch))) < 0.5


def test_tuning_moves_all_but_drums(band):
    for tuning in (-50.0, 35.0):
        tuned = SamplerRenderer(path=band, tuning=tuning)
        for notes, pitch, want in (
                (note(0, 0.6, 62), 62, tuning), (note(0, 0.6, 62, program=71), 62, tuning),
                (note(0, 0.6, 36, drum=True), 48, 0.0)):
            samples = tuned(notes).samples[800:8000]
            assert abs(cents(measured_hertz(samples, RATE, hertz(pitch)), hertz(pitch)) - want) < 1


def test_samples_with_a_wrong_pitch_are_left_out_and_said(tmp_path):
    made.instrument(tmp_path, (60, 62))
    lines = (tmp_path / "notes.csv").read_text().splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0] + ",-1200"
    (tmp_path / "notes.csv").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="1 of 2 samples are left out.*60 cents"):
        sampler = SamplerRenderer(path=f"{tmp_path}@0", most_shift=1)
    assert list(sampler.keys(0)) == [59, 60, 61]
    # Where the table says so they stay, with the pitch that it names.
    folder = write_table(tmp_path, ".,0,,,,,any,")
    everything = SamplerRenderer(path=folder, most_shift=0)
    samples = everything(note(0, 0.8, 62)).samples
    assert list(everything.keys(0)) == [60, 62]
    assert abs(cents(measured_hertz(samples[1000:12000], RATE, hertz(62)), hertz(62))) < 1


def test_levels_follow_the_square_of_velocity_over_the_layers(band):
    """Layers are 14 dB apart in the files, which the levels do not show."""
    sampler = SamplerRenderer(path=band)
    reference = sampler(note(0, 0.8)).samples[:8000]
    assert np.abs(reference).max() == pytest.approx(LEVEL, rel=0.1)
    for velocity in (20, 50, 63, 64, 90, 126):
        peak = np.abs(sampler(note(0, 0.8, velocity=velocity)).samples).max()
        assert peak / np.abs(reference).max() == pytest.approx((velocity / 127) ** 2, rel=0.1)


def test_velocity_chooses_the_layer(band):
    """Its second partial gives the loud layer away."""
    sampler = SamplerRenderer(path=band)

    def second(velocity):
        samples = sampler(note(0, 0.8, velocity=velocity)).samples[800:9000]
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        first, octave = (int(round(k * hertz(60) * len(samples) / RATE)) for k in (1, 2))
        return spectrum[octave - 2:octave + 3].max() / spectrum[first - 2:first + 3].max()

    assert max(second(v) for v in (5, 40, 64)) < 0.01
    assert min(second(v) for v in (65, 100, 127)) > 0.3


def test_layers_are_ordered_by_peaks_and_may_end_where_one_says(tmp_path):
    made.instrument(tmp_path / "a", (60,), (("x", 0.8), ("y", 0.2), ("z", 0.4)))
    for layers, want in (("", [("y", 1, 42), ("z", 43, 85), ("x", 86, 127)]),
                         ("x|y", [("x", 1, 64), ("y", 65, 127)]),
                         ("y@20|*_z_*@100|x", [("y", 1, 20), ("z", 21, 100), ("x", 101, 127)])):
        folder = write_table(tmp_path, f"a,0,,{layers},,,,")
        instruments.read_instruments.cache_clear()
        instruments._read.cache_clear()
        zones = instruments.read_instruments(folder)[0].zones
        assert [(z.sample.path[-7], *z.velocities) for z in zones] == want


def test_where_the_layer_lacks_a_pitch_the_nearest_layer_sounds(tmp_path):
    rows = []
    for pitch, layer, peak in ((60, "soft", 0.1), (72, "soft", 0.1), (60, "loud", 0.5)):
        made.write(tmp_path / f"{pitch}{layer}.wav", made.tone(pitch, peak=peak))
        rows.append({"file": f"{pitch}{layer}.wav", "midi": pitch, "layer": layer, "peak": peak,
                     "onset_seconds": 0.05})
    made.table(tmp_path, rows)
    sampler = SamplerRenderer(path=f"{tmp_path}@0")
    samples = sampler(note(0, 0.8, 71)).samples
    assert abs(cents(measured_hertz(samples[800:12000], RATE, hertz(71)), hertz(71))) < 1


def test_repeated_notes_take_turns(tmp_path):
    """Three recordings differ in their level; a render repeats itself."""
    rows = []
    for i, peak in enumerate((0.5, 0.4, 0.3)):
        made.write(tmp_path / f"{i}.wav", made.tone(60, 0.5, peak=peak, decay=3.0))
        rows.append({"file": f"{i}.wav", "midi": 60, "peak": peak, "onset_seconds": 0.05})
    made.table(tmp_path, rows)
    sampler = SamplerRenderer(path=f"{tmp_path}@0")
    notes = together(*(note(0.6 * i, 0.6 * i + 0.4) for i in range(5)))
    samples = sampler(notes, 3.0).samples
    peaks = [np.abs(x).max() for x in samples.reshape(5, -1)]
    # Of the layer's usual level, 0.4.
    np.testing.assert_allclose(peaks, LEVEL * np.array([0.5, 0.4, 0.3, 0.5, 0.4]) / 0.4, rtol=0.03)
    np.testing.assert_array_equal(sampler(notes, 3.0).samples, samples)
    again = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(again(notes, 3.0).samples, samples)


@pytest.mark.parametrize("release", [0.1, 0.4])
def test_a_note_loses_60_db_in_the_time_of_its_release(tmp_path, release):
    made.instrument(tmp_path / "a", (60,), seconds=2.0)
    folder = write_table(tmp_path, f"a,0,,,,{release},,")
    samples = SamplerRenderer(path=folder)(note(0.1, 0.7)).samples
    window = round(0.01 * RATE)
    at = [round((0.7 + share * release) * RATE) for share in (0.25, 0.75)]
    fall = decibel(samples[at[1]:at[1] + window], samples[at[0]:at[0] + window])
    # The decay ends in 0 rather than at -60 dB, which makes it 1.7 dB steeper there.
    assert fall == pytest.approx(-31.7, abs=1)
    end = round((0.7 + release) * RATE)
    assert not samples[end + 1:].any() and samples[end - 100:end].any()
    before = samples[round(0.6 * RATE):round(0.7 * RATE)]
    assert np.abs(np.diff(samples[end - 8000:])).max() <= np.abs(np.diff(before)).max() * 1.001  # no click


def test_released_is_continuous_and_ends_in_silence():
    out = released(np.ones(1000, np.float32), 500, 400)
    assert len(out) == 900 and out[499] == out[500] == 1 and abs(out[-1]) < 1e-4
    assert out[700] == pytest.approx(10 ** (-30 / 20), rel=0.1)
    assert len(released(np.ones(1000, np.float32), 900, 400)) == 1000


def test_what_rings_rings_on_and_drums_do(band, tmp_path):
    made.instrument(tmp_path / "bell", (60,), seconds=1.5, decay=1.0)
    folder = write_table(tmp_path, "bell,9,,,,ring,,")
    short, long = (SamplerRenderer(path=folder)(note(0, end, program=9), 1.6).samples for end in (0.1, 1.4))
    np.testing.assert_array_equal(short, long)
    drum = SamplerRenderer(path=band)
    np.testing.assert_array_equal(*(drum(note(0, end, 36, drum=True), 1.0).samples for end in (0.01, 0.5)))


def test_a_closed_hi_hat_ends_an_open_one(band):
    sampler = SamplerRenderer(path=band)
    alone = sampler(note(0, 0.1, 46, drum=True), 0.6).samples
    closed = sampler(note(0.2, 0.3, 42, drum=True), 0.6).samples
    both = sampler(together(note(0, 0.1, 46, drum=True), note(0.2, 0.3, 42, drum=True)), 0.6).samples
    rest = both - closed
    np.testing.assert_allclose(rest[:3100], alone[:3100], atol=1e-6)
    assert level(rest[round(0.26 * RATE):]) < 1e-4 and level(alone[round(0.26 * RATE):]) > 0.02


def test_drums_have_hits_for_velocities_with_levels_of_their_velocity(band):
    """0.8 and 0.75 take turns; at 0.3 there is another one, for a velocity of 127 sqrt(0.3 / 0.8)."""
    sampler = SamplerRenderer(path=band)
    pitches = {}
    for velocity in (127, 110, 70, 30):
        samples = sampler(note(0, 0.1, 36, velocity, drum=True)).samples[:8000]
        pitches[velocity] = 12 * np.log2(measured_hertz(samples, RATE, hertz(49)) / hertz(48))
        assert np.abs(samples).max() == pytest.approx(LEVEL * (velocity / 127) ** 2, rel=0.1)
    assert pitches[127] == pytest.approx(0, abs=0.1) and pitches[110] == pytest.approx(0, abs=0.1)
    assert pitches[70] == pytest.approx(2, abs=0.1) and pitches[30] == pytest.approx(2, abs=0.1)
    two = sampler(together(note(0, 0.1, 36, drum=True), note(1.0, 1.1, 36, drum=True)), 2.0).samples
    found = 12 * np.log2(measured_hertz(two[RATE:RATE + 8000], RATE, hertz(49)) / hertz(48))
    assert found == pytest.approx(1, abs=0.1)


def seamless(samples, hertz_, within_db=0.5):
    """Checks that a stretch of a sine-like tone has an even level, no jump, and one pitch."""
    frame = round(0.05 * RATE)
    levels = np.array([level(x) for x in samples[:len(samples) // frame * frame].reshape(-1, frame)])
    assert np.ptp(20 * np.log10(levels)) < within_db
    steps = np.abs(np.diff(samples, 2))  # a click is a corner
    assert steps.max() < 1.3 * np.sort(steps)[int(0.9 * len(steps))]
    assert abs(cents(measured_hertz(samples, RATE, hertz_), hertz_)) < 3


@pytest.mark.parametrize("pitch", [57, 60, 65, 71])
def test_a_sustained_note_outlasts_its_sample_without_a_seam(band, pitch):
    """0.8 s of sample, 6 s of note: level within 0.5 dB, no corner, pitch within 3 cents."""
    samples = SamplerRenderer(path=band)(note(0.0, 6.0, pitch, program=71)).samples
    seamless(samples[round(0.05 * RATE):round(5.95 * RATE)], hertz(pitch))
    assert not samples[round(6.21 * RATE):].any()


def test_a_sustained_note_that_fades_in_the_file_keeps_its_level(tmp_path):
    made.instrument(tmp_path / "a", (64,), seconds=1.5, decay=0.7)
    samples = SamplerRenderer(path=write_table(tmp_path, "a,40,,,,,,"))(note(0, 8, 64, program=40)).samples
    start, later = samples[round(0.4 * RATE):round(0.8 * RATE)], samples[round(4 * RATE):round(7.9 * RATE)]
    assert abs(decibel(later, start)) < 4  # the file loses 9 dB from 0 to 1.5 s, and would be silent then
    steps = np.abs(np.diff(later, 2))
    assert steps.max() < 1.6 * np.sort(steps)[int(0.9 * len(steps))]


def test_loops_of_files_are_repeated(tmp_path):
    """A loop of whole periods in the chunk smpl: the tone goes on as if it had been recorded longer."""
    period, pitch = 100, 69 + 12 * np.log2(480 / 440)  # within 60 cents of 71: corrected, and so 71
    samples = made.tone(pitch, 0.5, onset=0.0)
    (tmp_path / "a").mkdir()
    made.write(tmp_path / "a" / "a.wav", samples, loop=(50 * period, 150 * period - 1))
    made.table(tmp_path / "a", [{"file": "a.wav", "midi": 71, "onset_seconds": 0, "peak": 0.5,
                                 "cents_off": 100 * (pitch - 71)}])
    folder = write_table(tmp_path, "a,0,,,,,any,")
    with_loop = SamplerRenderer(path=folder)(note(0, 3, 71)).samples
    seamless(with_loop[800:round(2.9 * RATE)], hertz(71), 0.1)


def test_a_loop_of_a_wav_that_begins_before_the_onset_sounds_the_whole_note(tmp_path):
    period = 64
    own = 69 + 12 * np.log2(made.RATE / period / 440)
    cycle = 0.5 * np.sin(2 * np.pi * np.arange(period) / period)
    made.write(tmp_path / "cycle.wav", cycle.astype(np.float32), loop=(0, period - 1))
    made.table(tmp_path, [{"file": "cycle.wav", "midi": round(own), "cents_off": 100 * (own - round(own)),
                           "onset_seconds": 20.5 / made.RATE}])
    heard = SamplerRenderer(path=f"{tmp_path}@16")(note(0, 0.4, round(own), program=16)).samples
    heard = heard[:round(0.4 * RATE)]
    parts = np.array([level(part) for part in np.split(heard, 16)])
    assert parts.min() > 0.9 * parts.max()
    assert cents(measured_hertz(heard, RATE, hertz(own)), hertz(round(own))) == pytest.approx(0, abs=1)


def test_vibrato_swings_around_the_pitch(band):
    still, moved = (SamplerRenderer(path=band, vibrato=v)(note(0, 4, 63, program=71)).samples
                    for v in (None, Vibrato(cents=30, hertz=5.0, delay=0.2)))
    frame = round(0.05 * RATE)
    track = np.array([cents(measured_hertz(moved[i:i + 2 * frame], RATE, hertz(63)), hertz(63))
                      for i in range(round(0.6 * RATE), round(3.8 * RATE), frame // 4)])
    assert abs(track.mean()) < 3 and 15 < track.max() < 31 and -31 < track.min() < -15
    spectrum = np.abs(np.fft.rfft(track - track.mean()))
    rate = np.argmax(spectrum) * (4 * RATE / frame) / len(track)
    assert rate == pytest.approx(5.0, abs=0.4)
    np.testing.assert_allclose(moved[:2000], still[:2000], atol=0.01)


def test_what_no_sample_is_for_goes_to_the_fallback_or_is_an_error(band):
    class Other:
        def __call__(self, notes, seconds):
            self.notes = notes
            return Waveform(np.full(round(seconds * RATE), 0.01, np.float32), RATE)

    sampler, other = SamplerRenderer(path=band), Other()
    for notes, message in ((note(0, 1, program=40), "no instrument plays program 40"),
                           (note(0, 1, 20), "within 4 semitones of key 20 of program 0"),
                           (note(0, 1, 50, drum=True), "drum key 50")):
        with pytest.raises(UserError, match=message) as error:
            sampler(notes)
        assert "\n" not in str(error.value)
        both = together(notes, note(0, 1, 60))
        helped = SamplerRenderer(path=band, fallback=other)(both, 1.5).samples
        np.testing.assert_allclose(helped, sampler(note(0, 1, 60), 1.5).samples + 0.01, atol=1e-6)
        assert len(other.notes) == 1 and other.notes.pitch[0] == notes.pitch[0]
    far = SamplerRenderer(path=band, most_shift=40)
    assert level(far(note(0, 0.5, 20)).samples) > 0


def test_of_several_instruments_of_a_program_one_plays_all_of_a_render(tmp_path):
    made.instrument(tmp_path / "a", (60,))
    made.instrument(tmp_path / "b", (72,))
    folder = write_table(tmp_path, "a,0,,,,,,", "b,0 5,,,,,,")
    keys = [list(SamplerRenderer(path=folder, take=t).keys(0))[4] for t in range(3)]
    assert keys == [60, 72, 60]
    assert list(SamplerRenderer(path=folder).keys(5))[4] == 72
    assert not SamplerRenderer(path=folder).keys(1) and not SamplerRenderer(path=folder).keys(DRUM_PROGRAM)


def test_parts_sum_to_the_whole_and_a_given_length_is_its_beginning(band):
    sampler = SamplerRenderer(path=band)
    parts = [note(0.1, 0.5), note(0.2, 1.5, 63, program=71), note(0.3, 0.4, 36, drum=True)]
    whole = sampler(together(*parts), 2.0).samples
    np.testing.assert_allclose(sum(sampler(p, 2.0).samples for p in parts), whole, atol=1e-6)
    np.testing.assert_allclose(sampler(together(*parts), 0.7).samples, whole[:round(0.7 * RATE)], atol=1e-5)
    assert sampler(together(*parts)).duration == pytest.approx(1.5 + 2.0, abs=1e-3)
    assert not SamplerRenderer(path=band, tail=0.25)(Notes.empty()).samples.any()


@pytest.mark.parametrize(("row", "message"), [
    ("nowhere,0,,,,,,", "cannot be read"), ("a,0-200,,,,,,", "'0-200' are no programs"),
    ("a,,,,,,,", "no programs"), ("a,0,loud,,,,,", "kind 'loud'"), ("a,0,drum,,,,,", "drums are `drums`"),
    ("a,drums,,,,,,", "drums need keys"), ("a,drums,,,36,,,", "'36' is no drum key"),
    ("a,drums,,,36=Kick,,,", "no file of layer 'Kick'"), ("a,0,,q|x,,,,", "no file of layer 'q'"),
    ("a,0,,x@90|y@80|x,,,,", "let them rise"), ("a,0,,,40,,,", "keys '40'"),
    ("a,0,,,,soon,,", "release 'soon'"), ("a,0,,,,-1,,", "line 2: release -1: give one from 0"),
    ("a,0,,,,,,3000", "line 2: gain_db 3000: give one from -60 to 60"), ("a,0,,,,,,1e9", "gain_db 1e9"),
    ("a,0,,,76-40,,,", "keys '76-40'"), ("a,0,,,40-128,,,", "keys '40-128'"), ("a,0,,,,,-5,", "cents -5"),
    ("a,drums,,,36=x 36=y,,,", "drum key 36 is given twice"), ("a,drums,,,128=x,,,", "no drum key"),
    ("a,0,,x@loud|y,,,,", "after @ write a velocity"), (f"a,{'9' * 5000},,,,,,", "are no programs")])
def test_tables_that_do_not_fit_are_one_line_errors(tmp_path, row, message):
    made.instrument(tmp_path / "a", (60,), (("x", 0.5), ("y", 0.2)))
    with pytest.raises(UserError, match=message) as error:
        SamplerRenderer(path=write_table(tmp_path, row))
    assert "\n" not in str(error.value)


def test_paths_that_are_no_instruments(tmp_path):
    with pytest.raises(UserError, match="no samples; give a folder"):
        SamplerRenderer(path=str(tmp_path))
    made.instrument(tmp_path / "a", (60,))
    with pytest.raises(UserError, match="which programs does it play"):
        SamplerRenderer(path=str(tmp_path / "a"))
    with pytest.raises(UserError, match="tuning"):
        SamplerRenderer(path=f"{tmp_path}/a@0", tuning=300)
    (tmp_path / "a" / "60__0.wav").unlink()
    with pytest.raises(UserError, match="60__0.wav' is not there"):
        SamplerRenderer(path=f"{tmp_path}/a@5")


@pytest.mark.parametrize(("cells", "message"), [
    ({"midi": 128}, "midi 128: give one from 0 to 127"), ({"midi": -1}, "midi -1"),
    ({"midi": 60.5}, "midi 60.5 is no whole number"), ({"onset_seconds": -0.1}, "onset_seconds -0.1"),
    ({"onset_seconds": 1.0}, "onset_seconds 1 lies after the end of 60__0.wav"),
    ({"onset_seconds": "nan"}, "onset_seconds 'nan' is no number"), ({"peak": 0}, "peak 0: give one from"),
    ({"peak": "nan"}, "peak 'nan' is no number"), ({"cents_off": "inf"}, "cents_off 'inf'")])
def test_rows_of_notes_that_cannot_be_are_one_line_errors(tmp_path, cells, message):
    made.instrument(tmp_path / "a", (60,))
    made.table(tmp_path / "a", [{"file": "60__0.wav", "midi": 60} | cells])
    with pytest.raises(UserError, match=f"notes.csv, line 2: {message}") as error:
        SamplerRenderer(path=f"{tmp_path}/a@0")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("column", "meant"), [
    ("onset", "onset_seconds"), ("cents", "cents_off"), ("Layer", "layer"), ("about", None),
    ("seconds", None)])
def test_a_misspelt_column_is_said_and_those_for_people_are_not(tmp_path, column, meant):
    made.instrument(tmp_path / "a", (60,))
    made.table(tmp_path / "a", [{"file": "60__0.wav", "midi": 60, column: ""}], ("file", "midi", column))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SamplerRenderer(path=f"{tmp_path}/a@0")
    text = [str(w.message) for w in said if "is not read" in str(w.message)]
    assert len(text) == (meant is not None)
    assert all(f"column {column!r} is not read; is {meant!r} meant?" in t for t in text)


def test_the_example_is_such_a_table():
    """Its files are elsewhere; programs, kinds, drum keys and numbers are checked."""
    path = pathlib.Path(__file__).parents[2] / "examples" / "instruments.csv"
    keys = []
    for row in read_table(path, ("instrument", "programs", "kind", "layers", "keys", "release", "cents")):
        programs = instruments.parse_programs(row["programs"], "")
        assert row["kind"] in KINDS and (programs == (DRUM_PROGRAM,)) == (row["kind"] == DRUM)
        assert row["release"] in ("", "ring") or float(row["release"]) > 0
        assert row["cents"] in ("", "any") and abs(float(row["gain_db"])) < 10
        for part in row["keys"].split():
            numbers, _, layers = part.partition("=")
            keys += [int(n) for n in numbers.split(",")]
            assert layers
    assert len(keys) == len(set(keys)) and {35, 36, 38, 42, 46, 49, 51} <= set(keys)


def test_paths_say_what_plays(band):
    assert is_sampler(band) and is_sampler(f"{band}/harp@0-7") and is_sampler("a.sfz")
    assert not is_sampler("a.sf2") and not is_sampler("nowhere.sf3")
    assert isinstance(open_renderer(band, 8000, tuning=10.0), SamplerRenderer)


def test_what_cannot_be_opened_is_said_at_once(band, tmp_path):
    with pytest.raises(UserError, match="notes: no such file or folder; .*recorded notes"):
        open_renderer(str(tmp_path / "notes"))
    with pytest.raises(UserError, match="notes: no such folder or file; give a folder with"):
        open_renderer(f"{tmp_path}/notes@0-7")
    with pytest.raises(UserError, match="tuning=nan"):
        open_renderer(band, tuning=float("nan"))
    (tmp_path / "x.sf2").write_bytes(b"")
    with pytest.raises(UserError, match="tuning=nan"):
        open_renderer(str(tmp_path / "x.sf2"), tuning=float("nan"))


def test_the_state_changes_with_every_file_that_sounds(tmp_path):
    made.instrument(tmp_path / "a", (60, 64))
    (tmp_path / "b.SFZ").write_text('#include "part.sfz"\n')
    (tmp_path / "part.sfz").write_text("<region> sample=a/64__0.wav key=64\n")
    folder = write_table(tmp_path, "a,0,,,,,,", "b.SFZ,1,,,,,,")
    states = [renderer_state(folder)]
    assert renderer_state(folder) == states[0]
    for name in ("instruments.csv", "a/notes.csv", "b.SFZ", "part.sfz", "a/60__0.wav", "a/64__0.wav"):
        path = tmp_path / name
        if path.suffix == ".wav":  # of the same size and a later time
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 10 ** 9))
        else:
            path.write_bytes(path.read_bytes() + b"\n")
        states.append(renderer_state(folder))
    assert len(set(states)) == len(states)
    tmp_path.rename(tmp_path.with_name("moved"))
    instruments.read_instruments.cache_clear()
    assert renderer_state(str(tmp_path.with_name("moved"))) == states[-1]


@pytest.mark.parametrize("programs, names", [
    ("0-1 3", None), ("0-7", "Acoustic Piano and Electric Piano"),
    ("33-36", "Acoustic Bass and Electric Bass"), ("46", None)])
def test_an_instrument_that_is_labelled_as_several_is_warned_of(tmp_path, programs, names):
    made.write(tmp_path / "a.wav", made.tone(60, 0.6))
    made.table(tmp_path, [{"file": "a.wav", "midi": 60}])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_instruments(f"{tmp_path}@{programs}")
    told = [str(w.message) for w in caught if "several instruments" in str(w.message)]
    assert [names in text for text in told] == ([] if names is None else [True])


def test_no_instrument_of_the_example_is_labelled_as_several():
    table = pathlib.Path(__file__).parents[2] / "examples" / "instruments.csv"
    for row in csv.DictReader(table.open()):
        programs = parse_programs(row["programs"], "here")
        kinds = {int(SLAKH_CLASS_OF_PROGRAM[p]) for p in programs if p != DRUM_PROGRAM}
        assert len(kinds) == (row["programs"] != "drums"), row
