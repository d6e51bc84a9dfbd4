import numpy as np
import pytest
from reference import needs
from reference.mel_oracle import hertz_to_mel
from reference.soundfont_file import expected_hertz, soundfont

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.note_frames import frame_grid
from music_diffusion.data.note_renders import (
    ROW_DTYPE,
    NoteRowPlan,
    NoteSampling,
    note_rows,
    write_note_rows,
)
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import DRUMS, FrameGrid, note_states
from music_diffusion.notes.notes import Notes

CODEC = MelCodec()
GRID = FrameGrid(tail=0.3)
ALL = NoteSampling(steady_kept=1.0, silence_kept=1.0, longest=0.5)


def test_notes_are_drawn_one_after_another_with_room_for_their_tails():
    sampling = NoteSampling()
    notes = sampling.draw(np.random.default_rng(0), 40, 200, GRID.tail)
    assert (notes.start[1:] - notes.end[:-1] > GRID.tail + GRID.half_window).all()
    assert notes.start[0] >= 0.1 and set(notes.program.tolist()) == {40}
    assert set(notes.pitch.tolist()) == set(range(21, 109))
    length = notes.end - notes.start
    assert length.min() >= 0.05 and length.max() <= 5.0
    # Log-uniform: as many below the geometric mean as above.
    assert np.mean(length < np.sqrt(0.05 * 5.0)) == pytest.approx(0.5, abs=0.12)
    # Starts do not lie on the grid of frames.
    assert np.ptp(notes.start % 0.02) > 0.015
    drums = sampling.draw(np.random.default_rng(0), DRUMS, 100, GRID.tail)
    assert drums.is_drum.all() and not drums.program.any()
    assert (drums.pitch.min(), drums.pitch.max()) == (27, 87)


class Tracker:
    """A stand-in for a renderer: silence, whose notes it remembers."""

    def keys(self, program):
        return range(128)

    def __call__(self, notes, seconds=None):
        self.notes = notes
        return Waveform(np.zeros(int((notes.duration + 1) * 16000), np.float32), 16000)


@pytest.mark.parametrize("program", [0, DRUMS])
def test_with_all_frames_kept_the_rows_are_the_states_of_the_notes(program):
    tracker = Tracker()
    rows = note_rows(program, 5, 1, renderer=tracker, codec=CODEC, grid=GRID, sampling=ALL)
    frames = int((tracker.notes.duration + 1) * 50)
    want = note_states(tracker.notes, 0.0, frames, GRID)
    for field in ("program", "pitch", "velocity"):
        np.testing.assert_array_equal(rows[field], want[field])
    for field in ("age", "release"):
        np.testing.assert_allclose(rows[field], want[field], atol=1e-5)


def test_steady_and_silent_frames_are_thinned_out():
    def rows(**shares):
        sampling = NoteSampling(longest=2.0, **shares)
        return note_rows(0, 30, 1, renderer=Loud(), codec=CODEC, grid=FrameGrid(), sampling=sampling)

    class Loud(Tracker):  # noise, so no frame is silent
        def __call__(self, notes):
            wave = super().__call__(notes)
            noise = np.random.default_rng(0).normal(size=len(wave)).astype(np.float32)
            return Waveform(0.1 * noise, 16000)

    whole, thin = rows(steady_kept=1.0), rows(steady_kept=0.25)

    def changing(r):
        return (r["age"] < 0.1) | (np.abs(r["release"]) < 0.1)

    assert changing(whole).sum() == changing(thin).sum()
    assert (~changing(thin)).sum() / (~changing(whole)).sum() == pytest.approx(0.25, abs=0.05)
    silent = note_rows(0, 30, 1, renderer=Tracker(), codec=CODEC, grid=FrameGrid(),
                       sampling=NoteSampling(longest=2.0, silence_kept=0.1))
    assert len(silent) / len(whole) == pytest.approx(0.1, abs=0.03)


def test_rows_are_a_function_of_seed_and_program():
    def ages(program, seed):
        return note_rows(program, 4, seed, renderer=Tracker(), codec=CODEC, grid=GRID,
                         sampling=ALL)["age"].tolist()

    assert ages(3, 1) == ages(3, 1)
    assert ages(3, 1) != ages(3, 2) and ages(3, 1) != ages(4, 1)


def test_a_font_of_sines_gives_rows_that_peak_at_the_notes_pitch(tmp_path):
    needs.module("fluidsynth")
    (tmp_path / "sines.sf2").write_bytes(soundfont())
    renderer = SoundFontRenderer(path=str(tmp_path / "sines.sf2"))
    rows = note_rows(5, 12, 0, renderer=renderer, codec=CODEC, grid=GRID,
                     sampling=NoteSampling(low=48, high=90, steady_kept=1.0, silence_kept=1.0,
                                           longest=0.5))
    width = hertz_to_mel(8000.0) / (CODEC.mels + 1)
    sounding = (rows["age"] > 0.03) & (rows["release"] < -0.03)
    assert sounding.sum() > 50
    for row in rows[sounding]:
        bin_ = hertz_to_mel(expected_hertz(5, row["pitch"], False)) / width - 1
        assert abs(int(row["mel"].argmax()) - bin_) <= 1.0
    # Time is right to a frame: nothing before the onset's window, silence soon after the release.
    loud = rows["mel"].astype(np.float32).max(1)
    assert loud[rows["release"] > 0.04].max() < -8
    assert loud[(rows["age"] > 0.01) & (rows["release"] < -0.01)].min() > -3


def test_notes_struct_is_sorted_so_rows_follow_time():
    tracker = Tracker()
    note_rows(0, 20, 7, renderer=tracker, codec=CODEC, grid=GRID, sampling=ALL)
    assert isinstance(tracker.notes, Notes) and (np.diff(tracker.notes.start) > 0).all()


def test_rows_of_all_programs_are_one_file_and_finished_programs_are_kept(tmp_path):
    needs.module("fluidsynth")
    (tmp_path / "sines.sf2").write_bytes(soundfont())
    plan = NoteRowPlan(soundfont=str(tmp_path / "sines.sf2"), notes_per_program=1, workers=1, seed=3,
                       sampling=NoteSampling(longest=0.06))
    out, done = tmp_path / "out", []
    write_note_rows(plan, str(out), lambda i, n: done.append((i, n)))
    assert [p.name for p in out.iterdir()] == ["note_rows.npy"]
    assert done == [(i + 1, 129) for i in range(129)]
    rows = np.load(out / "note_rows.npy")
    assert rows.dtype == ROW_DTYPE and (np.diff(rows["program"].astype(int)) >= 0).all()
    assert set(rows["program"].tolist()) == set(range(129))
    one = note_rows(40, 1, 3, renderer=plan.renderer, codec=plan.codec,
                    grid=frame_grid(plan.codec, plan.ring), sampling=plan.sampling)
    np.testing.assert_array_equal(rows[rows["program"] == 40], one)

    # An interrupted run: a part that is there is not rendered again, and the others are.
    (out / "note_rows.npy").unlink()
    kept = np.zeros(3, ROW_DTYPE)
    kept["program"], kept["velocity"] = 7, 99
    np.save(out / "rows-007.npy", kept)
    write_note_rows(plan, str(out))
    again = np.load(out / "note_rows.npy")
    np.testing.assert_array_equal(again[again["program"] == 7], kept)
    np.testing.assert_array_equal(again[again["program"] != 7], rows[rows["program"] != 7])
    written = (out / "note_rows.npy").stat().st_mtime_ns
    write_note_rows(plan, str(out), lambda i, n: pytest.fail("nothing is left to do"))
    assert (out / "note_rows.npy").stat().st_mtime_ns == written


def test_rows_of_a_missing_font_are_an_error_before_anything_is_written(tmp_path):
    needs.module("fluidsynth")
    with pytest.raises(UserError, match="nowhere.sf2"):
        write_note_rows(NoteRowPlan(soundfont="nowhere.sf2"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
