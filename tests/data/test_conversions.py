"""Pairs to judge timbre transfer by: the same notes in both timbres, mixtures as the sum of their parts."""

import csv

import numpy as np
import pytest

from music_diffusion.audio.io import read_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data import conversions as module
from music_diffusion.data.conversions import ENOUGH_NOTES, ConversionPlan, write_conversions
from music_diffusion.errors import UserError
from music_diffusion.notes.conversions import Conversion
from music_diffusion.notes.midi import read_midi, write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import program_range

RATE = 4000
SECONDS = 4.0


def part(program, low, count=40, drum=False, seed=0):
    start = np.arange(count) * 0.25
    pitch = np.random.default_rng(seed).integers(low, low + 20, count)
    return Notes(start, start + 0.2, pitch, np.full(count, 90), np.full(count, program),
                 np.full(count, drum))


@pytest.fixture
def scores(tmp_path):
    folder = tmp_path / "scores"
    folder.mkdir()
    rows = [("path", "source", "split")]
    for i in range(2):
        write_midi(Notes.concatenate([part(0, 20, seed=i), part(40, 90, seed=i + 5), part(0, 36, drum=True),
                                      part(73, 70, count=2)]), str(folder / f"{i}.mid"))
        rows.append((f"{i}.mid", "made", "test"))
    with (folder / "manifest.csv").open("w", newline="") as f:
        csv.writer(f).writerows(rows)
    return folder


@pytest.fixture(autouse=True)
def sines(monkeypatch):
    """Every program plays sines, at a level of its own."""
    def renderer(path, sample_rate):
        assert path == "font.sf2"

        def play(notes, seconds):
            time = np.arange(round(seconds * sample_rate)) / sample_rate
            samples = np.zeros(len(time), np.float32)
            for start, end, pitch, program in zip(notes.start, notes.end, notes.pitch, notes.program,
                                                  strict=True):
                on = (time >= start) & (time < end)
                hertz = 440 * 2 ** ((pitch - 69) / 12)
                samples[on] += 1e-4 * (program + 1) * np.sin(2 * np.pi * hertz * time[on])
            return Waveform(samples, sample_rate)
        return play

    monkeypatch.setattr(module, "open_renderer", renderer)
    monkeypatch.setattr(module, "check_renderer", lambda path: None)


def write(scores, out, **more):
    return write_conversions(ConversionPlan(**{
        "scores": str(scores), "soundfont": "font.sf2", "pieces": 2, "seconds": SECONDS,
        "sample_rate": RATE,
        "workers": 1, "conversions": ("clarinet=strings", "harp=violin,piano=flute")} | more), str(out))


def rows(path):
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def test_both_timbres_play_the_notes_that_are_written(scores, tmp_path):
    assert write(scores, tmp_path / "out") == {"single": 2, "mixture": 2}
    for task, programs in (("single", {71: 48}), ("mixture", {46: 40, 0: 73})):
        folder = tmp_path / "out" / task
        for row in rows(folder / "conversions.csv"):
            notes = read_midi(str(folder / "notes" / f"{row['file']}.mid"))
            assert set(notes.program.tolist()) == set(programs.values()) and not notes.is_drum.any()
            for source, target in programs.items():
                mine = notes[notes.program == target]
                assert len(mine) >= ENOUGH_NOTES
                for program in (source, target):
                    low, high = program_range(program)
                    assert ((mine.pitch >= low) & (mine.pitch <= high)).all()
            source, target = (read_audio(folder / side / f"{row['file']}.flac")
                              for side in ("source", "target"))
            assert len(source) == len(target) == SECONDS * RATE
            if task == "single":  # the level of a program is its number plus 1
                np.testing.assert_allclose(source.samples / 72, target.samples / 49, atol=1e-7)


def test_a_mixture_is_the_sum_of_its_parts_in_the_order_of_the_table(scores, tmp_path):
    write(scores, tmp_path / "out")
    folder = tmp_path / "out" / "mixture"
    for row in rows(folder / "conversions.csv"):
        assert row["source"] == "harp+piano" and row["target"] == "violin+flute"
        parts = [read_audio(folder / "parts" / f"{row['file']}.{i}.flac").samples for i in (1, 2)]
        whole = read_audio(folder / "source" / f"{row['file']}.flac").samples
        np.testing.assert_allclose(sum(parts), whole, atol=3e-7)
        assert np.abs(parts[0]).max() > 10 * np.abs(parts[1]).max()  # 47 against 1


def test_a_piece_depends_on_its_conversion_number_and_seed_alone(scores, tmp_path):
    write(scores, tmp_path / "a")
    write(scores, tmp_path / "b", pieces=1, conversions=("clarinet=strings",))
    write(scores, tmp_path / "c", seed=1)
    name = "single/source/clarinet_to_strings_00.flac"
    first, again, other = (read_audio(tmp_path / x / name).samples for x in "abc")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("more", "what"), [
    ({"conversions": ("clarinet",)}, "SOURCE=TARGET"),
    ({"conversions": ("clarinet=",)}, "SOURCE=TARGET"),
    ({"conversions": ("clarinet=vilin",)}, "did you mean violin"),
    ({"conversions": ("piano=flute,piano=violin",)}, "named twice"),
    ({"conversions": ("piano=flute,harp=flute",)}, "named twice"),
    ({"conversions": ()}, "clarinet=strings"),
    ({"split": "validation"}, "no scores of split validation"), ({"pieces": 0}, "1 piece"),
    ({"conversions": ("piano=flute,harp=violin,organ=tuba",)}, "3 parts"),
])
def test_what_cannot_be_made_is_said_in_a_line(scores, tmp_path, more, what):
    with pytest.raises(UserError, match=what) as error:
        write(scores, tmp_path / "out", **more)
    assert "\n" not in str(error.value)


def test_names_of_files_say_who_plays():
    conversion = Conversion.parse("clarinet = strings, electric guitar (jazz)=piano")
    assert conversion.name == "clarinet-electric_guitar_(jazz)_to_strings-piano"
    assert conversion.task == "mixture"
