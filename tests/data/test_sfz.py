"""SFZ files → zones and sound: inheritance, opcodes, and that what is left out is said."""

import pathlib
import time

import numpy as np
import pytest
from reference import recorded_notes as made
from reference.recorded_notes import cents, hertz, measured_hertz

from music_diffusion.data.instruments import read_instruments
from music_diffusion.data.sampler import SamplerRenderer
from music_diffusion.data.sfz import read_sfz
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

RATE = 16000


def note(start, end, pitch=60, velocity=127, program=0, drum=False):
    return Notes([start], [end], [pitch], [velocity], [program], [drum])


@pytest.fixture
def write(tmp_path):
    """Writes an .sfz file beside samples a.wav (60) and b b.wav (72)."""
    (tmp_path / "samples").mkdir()
    made.write(tmp_path / "samples" / "a.wav", made.tone(60, 0.6, onset=0.0))
    made.write(tmp_path / "samples" / "b b.wav", made.tone(72, 0.6, onset=0.0, peak=0.25))

    def of(text, name="x.sfz"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)
    return of


def pitch_of(samples, near):
    return near + cents(measured_hertz(samples[400:4000], RATE, hertz(near)), hertz(near)) / 100


def test_headers_inherit_and_regions_overrule(write):
    zones = read_sfz(write("""
        // a comment
        <control> default_path=samples/  /* over
        lines */ note_offset=0
        <global> ampeg_release=0.3 volume=-6
        <group> lovel=1 hivel=64 <region> key=c4 sample=a.wav
        <region> sample=b b.wav lokey=70 hikey=74 pitch_keycenter=c5 volume=0 tune=-20
        <group> lovel=65
        <region> key=60 sample=a.wav transpose=12 seq_length=2 seq_position=2 lorand=0.25 hirand=0.5"""))
    a, b, c = zones
    assert (a.pitch, a.keys, a.velocities, a.release) == (60, (60, 60), (1, 64), 0.3)
    assert a.gain == pytest.approx(10 ** -0.3)
    assert (b.keys, b.gain, b.pitch) == ((70, 74), 1.0, pytest.approx(72.2))
    assert b.sample.path.endswith("samples/b b.wav")
    assert (c.velocities, c.pitch, c.turn, c.chance) == ((65, 127), 48, (1, 2), (0.25, 0.5))


def test_defines_and_includes(write):
    write("<region> sample=samples/a.wav key=$KEY hivel=$KEYLOUD\n", "part.sfz")
    zones = read_sfz(write('#define $KEY 60\n#define $KEYLOUD 90\n#include "part.sfz"\n'))
    assert [(z.keys, z.velocities) for z in zones] == [((60, 60), (1, 90))]
    with pytest.raises(UserError, match="does one include itself"):
        read_sfz(write('#include "x.sfz"\n'))


@pytest.mark.parametrize(("name", "key"), [("c4", 60), ("C#3", 49), ("eb5", 75), ("a-1", 9), ("127", 127)])
def test_keys_by_name(write, name, key):
    assert read_sfz(write(f"<region> sample=samples/a.wav key={name}"))[0].keys == (key, key)


def test_sound_has_the_pitch_level_and_length_of_its_opcodes(write):
    path = write("<region> sample=samples/a.wav lokey=58 hikey=63 pitch_keycenter=60 ampeg_release=0.1\n"
                 "<region> sample=samples/a.wav lokey=64 hikey=64 pitch_keycenter=60 tune=30 volume=-12\n"
                 "<region> sample=samples/a.wav lokey=70 hikey=75 pitch_keytrack=0 amp_veltrack=0\n")
    sampler = SamplerRenderer(path=f"{path}@0")
    assert list(sampler.keys(0)) == [*range(58, 65), *range(70, 76)]
    for key, want in ((58, 58), (63, 63), (64, 64.3), (72, 60)):
        assert pitch_of(sampler(note(0, 0.5, key)).samples, want) == pytest.approx(want, abs=0.01)
    loud, quiet = (np.abs(sampler(note(0, 0.5, k)).samples[:6000]).max() for k in (60, 64))
    assert 20 * np.log10(quiet / loud) == pytest.approx(-12, abs=0.4)
    levels = [np.abs(sampler(note(0, 0.5, k, 64)).samples[:6000]).max() / loud for k in (60, 70)]
    assert levels == pytest.approx([(64 / 127) ** 2, 1.0], rel=0.03)
    ended = sampler(note(0, 0.2)).samples
    assert ended[round(0.25 * RATE):round(0.28 * RATE)].any() and not ended[round(0.301 * RATE):].any()


def test_offset_and_end_cut_the_sample(write):
    samples = np.zeros(20000, np.float32)
    samples[[3000, 9000, 15000]] = 0.5, 0.4, 0.3
    made.write(pathlib.Path(write("")).parent / "clicks.wav", samples)
    path = write("<region> sample=clicks.wav key=60 offset=6000 end=12000 loop_mode=one_shot")
    heard = SamplerRenderer(path=f"{path}@0", sample_rate=48000)(note(0.1, 0.11)).samples
    assert np.argmax(np.abs(heard)) == 4800 and np.sum(np.abs(heard) > 0.05) < 10
    assert not np.abs(heard[4900:]).max() > 0.01


def test_rounds_and_layers(write):
    """Two regions take turns; a third sounds with both."""
    path = write("<group> seq_length=2 key=60 <region> sample=samples/a.wav seq_position=1\n"
                 "<region> sample=samples/b b.wav seq_position=2 pitch_keycenter=60\n"
                 "<region> sample=samples/b b.wav pitch_keycenter=60 seq_length=1 volume=-20")
    sampler = SamplerRenderer(path=f"{path}@0")
    whole = sampler(Notes.concatenate([note(0.0, 0.4), note(0.6, 1.0), note(1.2, 1.6)]), 1.8).samples
    first, second, third = whole.reshape(3, -1)
    np.testing.assert_allclose(first[:9400], third[:9400], atol=1e-6)  # then the next one's resampling
    assert pitch_of(first, 60) == pytest.approx(60, abs=0.02)
    assert pitch_of(second, 72) == pytest.approx(72, abs=0.02)
    octave = np.abs(np.fft.rfft(first[400:4000] * np.hanning(3600)))
    assert octave[round(hertz(72) * 3600 / RATE)] > 0.02 * octave.max()  # the third


def test_loops_go_on_until_the_note_ends(write):
    period = 480
    path = write("<region> sample=samples/p.wav key=69 loop_mode=loop_continuous "
                 f"loop_start={10 * period} loop_end={20 * period - 1} ampeg_release=0.1")
    made.write(pathlib.Path(path).parent / "samples" / "p.wav",
               made.tone(69 + 12 * np.log2(500 / 440), 0.3, onset=0.0))
    samples = SamplerRenderer(path=f"{path}@0")(note(0, 2.0, 69)).samples
    assert cents(measured_hertz(samples[RATE:2 * RATE], RATE, 500), 500) == pytest.approx(0, abs=1)
    levels = np.sqrt(np.mean(np.square(samples[1600:round(1.9 * RATE)].reshape(-1, 160)), 1))
    assert np.ptp(levels) < 0.02 * levels.mean()
    assert not samples[round(2.11 * RATE):].any()


def test_loops_beyond_the_file_are_said(write, tmp_path):
    path = write("<region> sample=samples/a.wav key=60 loop_mode=loop_continuous loop_end=99999")
    with pytest.warns(UserWarning, match="a loop that the file does not hold"):
        assert read_sfz(path)[0].sample.loop is None
    made.write(tmp_path / "c.wav", made.tone(60, 0.2), loop=(5, 20000))
    with pytest.warns(UserWarning, match="c.wav: its loop from 5 to 20000 is not within"):
        assert read_sfz(write("<region> sample=c.wav key=60"))[0].sample.loop is None


def test_what_is_not_played_is_counted_in_one_warning(write):
    path = write("<control> default_path=samples/\n<curve> x=1\n"
                 "<region> sample=a.wav key=60 fil_type=lpf_2p cutoff=500 pan=20\n"
                 "<region> sample=a.wav key=60 trigger=release\n"
                 "<region> sample=a.wav key=61 trigger=release\n"
                 "<region> sample=*sine key=62\n<region> sample=a.wav key=63 locc64=64\n"
                 "<region> sample=a.wav key=64 sw_last=20\n<region> sample=a.wav cutoff=9\n")
    with pytest.warns(UserWarning) as said:
        zones = read_sfz(path)
    assert len(zones) == 2 and len(said) == 1
    text = str(said[0].message)
    for part in ("2 regions with trigger=release", "1 region with generated sound", "another controller",
                 "another key switch", "cutoff (2 times)", "fil_type (1 times)", "<curve> (1 times)"):
        assert part in text
    assert "pan" not in text and "\n" not in text


@pytest.mark.parametrize(("text", "message"), [
    ("<region> sample=none.wav key=60", "sample none.wav is not there"), ("hello", "has no region"),
    ("<region> sample=samples/a.wav key=h4", "'h4' is no key"),
    ("<region> sample=samples/a.wav key=60 tune=high", "tune=high is no number"),
    ("#include\n", "#include names no file"), ('#include "/dev/zero"', "is no file"),
    ("<region> sample=samples/a.wav key=--6", "'--6' is no key"),
    ("<region> sample=samples/a.wav key=c" + "9" * 5000, "more than 4096 characters"),
    *((f"<region> sample=samples/a.wav key=60 {name}={value}", f"{name}={value} is ")
      for name in ("end", "tune", "offset", "note_offset", "seq_length", "volume", "lovel")
      for value in ("nan", "inf", "1e400", "1e308")),
    ("<region> sample=samples/a.wav key=60 volume=7000", "volume of 7000 dB"),
    ("<region> sample=samples/a.wav key=60 amplitude=1e10", "within ±144 dB"),
    ("\n".join(f"#define ${'a' * i} {('$' + 'a' * (i - 1)) * 9}" for i in range(40, 1, -1))
     + f"\n${'a' * 40}", "more than 4096 characters")])
def test_files_that_cannot_be_played_are_one_line_errors(write, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_sfz(write(text))
    assert "\n" not in str(error.value)


def test_text_without_opcodes_is_read_in_linear_time(write):
    begin = time.process_time()
    for text in ("x" * 4000 + "\n", " " * 4000 + "\n", "/* "):
        with pytest.raises(UserError, match="has no region"):
            read_sfz(write(text * (400000 // len(text))))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("key", [75, 78, 81])
def test_a_loop_that_begins_before_the_onset_sounds_the_whole_note(write, key):
    """A single cycle of 64 samples, whose onset is found after its first sample."""
    cycle = 0.5 * np.sin(2 * np.pi * np.arange(64) / 64)
    made.write(pathlib.Path(write("")).parent / "cycle.wav", cycle.astype(np.float32))
    own = 69 + 12 * np.log2(made.RATE / 64 / 440)
    path = write(f"<region> sample=cycle.wav lokey=70 hikey=85 pitch_keycenter=78 tune={100 * (78 - own)} "
                 "loop_mode=loop_continuous loop_start=0 loop_end=63")
    heard = SamplerRenderer(path=f"{path}@0")(note(0, 0.4, key)).samples[:round(0.4 * RATE)]
    level = np.sqrt(np.mean(np.square(heard.reshape(16, -1)), axis=1))
    assert level.min() > 0.9 * level.max()
    assert pitch_of(heard, key) == pytest.approx(key, abs=0.01)


def test_a_loop_outside_of_the_file_is_said(write):
    path = write("<region> sample=samples/a.wav key=60 loop_mode=loop_continuous loop_start=-9 loop_end=99")
    with pytest.warns(UserWarning, match="a loop that the file does not hold"):
        assert read_sfz(path)[0].sample.loop is None


def test_an_sfz_may_be_a_row_of_the_table(write, tmp_path):
    write("<region> sample=samples/a.wav lokey=0 hikey=127 pitch_keycenter=60 ampeg_release=0.01")
    (tmp_path / "instruments.csv").write_text(
        "instrument,programs,kind,release,gain_db\nx.sfz,40,sustained,0.3,-6\n")
    (instrument,) = read_instruments(str(tmp_path))
    assert (instrument.programs, instrument.release, instrument.zones[0].release) == ((40,), 0.3, None)
    samples = SamplerRenderer(path=str(tmp_path))(note(0, 3, 62, program=40)).samples
    assert np.abs(samples[round(2.5 * RATE):round(2.9 * RATE)]).max() > 0.3 * np.abs(samples).max()
    with pytest.raises(UserError, match="which programs"):
        read_instruments(str(tmp_path / "x.sfz"))
