"""Scores → data folder, with a SoundFont of sines so that the spectrograms are known."""

import dataclasses

import numpy as np
import pytest
from reference.mel_oracle import hertz_to_mel
from reference.soundfont_file import expected_hertz, soundfont

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.data.augment import Augmentation
from music_diffusion.data.note_renders import ROW_DTYPE, NoteSampling
from music_diffusion.data.render import (
    RenderPlan,
    draw_excerpt,
    render,
    render_excerpt,
    scores_by_source,
)
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

try:
    import fluidsynth  # noqa: F401
except ImportError:
    pytest.skip("needs FluidSynth (libfluidsynth) and pyfluidsynth", allow_module_level=True)

CODEC = MelCodec()


def piece(program, count=40, gap=0.2):
    start = 0.1 + gap * np.arange(count)
    return Notes(start, start + 0.8 * gap, 60 + np.arange(count) % 12, np.full(count, 100),
                 np.full(count, program), np.zeros(count))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    (folder / "font.sf2").write_bytes(soundfont())
    table = ["path,source,split"]
    # Source a has three pieces for training, source b one; programs tell them apart.
    for name, source, split, program in [
            ("a1", "a", "train", 1), ("a2", "a", "train", 2), ("a3", "a", "train", 3),
            ("b1", "b", "train", 70), ("v", "a", "validation", 10), ("t", "b", "test", 20)]:
        write_midi(piece(program), folder / f"{name}.mid")
        table.append(f"{name}.mid,{source},{split}")
    (folder / "manifest.csv").write_text("\n".join(table) + "\n")
    return RenderPlan(
        scores=str(folder), soundfont=str(folder / "font.sf2"), frames=100, shards=2, workers=1,
        train_hours=4 * 2.0 / 3600, validation_hours=2 * 2.0 / 3600, notes_per_program=1, seed=3,
        sampling=NoteSampling(longest=0.06), augmentation=Augmentation(reorchestrate=0.0))


def test_scores_are_grouped_by_source_within_their_split(plan):
    train = scores_by_source(plan, "train")
    assert {k: [p.rsplit("/", 1)[1] for p in v] for k, v in train.items()} == {
        "a": ["a1.mid", "a2.mid", "a3.mid"], "b": ["b1.mid"]}
    assert list(scores_by_source(plan, "validation")) == ["a"]
    with pytest.raises(UserError, match="manifest.csv.*nothing"):
        scores_by_source(plan, "nothing")


def test_sources_are_drawn_evenly_whatever_their_size(plan):
    rng = np.random.default_rng(0)
    scores = scores_by_source(plan, "train")
    programs = [int(draw_excerpt(plan, scores, rng, vary=False).program[0]) for _ in range(300)]
    share = np.mean(np.array(programs) == 70)
    assert share == pytest.approx(0.5, abs=0.12)  # binomial: ± 0.029
    assert set(programs) == {1, 2, 3, 70}


def test_excerpts_begin_at_zero_anywhere_in_the_piece_and_may_be_varied(plan):
    rng = np.random.default_rng(1)
    scores = {"b": scores_by_source(plan, "train")["b"]}
    firsts, lengths = set(), set()
    for _ in range(40):
        plain = draw_excerpt(plan, scores, rng, vary=False)
        assert len(plain) > 10 and plain.start.min() >= 0 and plain.start.min() < 0.2
        assert plain.duration <= 1.3 * plan.seconds + 0.2
        assert set(np.round(np.diff(plain.start[1:]), 3)) == {0.2}  # as written
        firsts.add(int(plain.pitch[0]))
        varied = draw_excerpt(plan, scores, rng, vary=True)
        lengths.add(round(float(np.median(np.diff(varied.start))), 2))
    assert len(firsts) > 6 and len(lengths) > 3


def test_a_record_is_the_render_of_its_notes_in_time(plan):
    notes = piece(64, count=20).between(0, plan.seconds)
    record = records.Record.from_bytes(render_excerpt(plan, piece(64, count=20)))
    np.testing.assert_array_equal(record.notes.start, notes.start)
    mel = record.mel.astype(np.float32)
    assert mel.shape == (plan.frames, CODEC.mels)
    width = hertz_to_mel(8000.0) / (CODEC.mels + 1)
    for i, (start, end) in enumerate(zip(notes.start, notes.end, strict=True)):
        frame = int(0.5 * (start + end) * 50) - 1  # centred on the middle of the note
        gap = int((end + 0.02) * 50) - 1
        if gap >= plan.frames:
            continue
        bin_ = hertz_to_mel(expected_hertz(64, 60 + i % 12, False)) / width - 1
        assert abs(int(mel[frame].argmax()) - bin_) <= 1.0
        # Between the notes, 40 ms of nothing: the frame there is quieter.
        assert mel[gap].max() < mel[frame].max() - 1
    # Before the first note at 0.1 s there is silence: frame 2 ends at 0.08 s.
    assert mel[:3].max() < mel[6].max() - 8


def test_short_and_silent_excerpts_fill_their_frames(plan):
    short = records.Record.from_bytes(render_excerpt(plan, piece(0, count=2)))
    assert len(short.mel) == plan.frames
    none = records.Record.from_bytes(render_excerpt(plan, Notes.empty()))
    assert len(none.mel) == plan.frames and len(none.notes) == 0
    np.testing.assert_allclose(none.mel, CODEC.log_min, atol=0.01)


def test_a_data_folder_has_shards_rows_and_manifest_and_finished_parts_are_kept(plan, tmp_path):
    out = tmp_path / "data"
    done = []
    render(plan, str(out), lambda i, n: done.append((i, n)))
    names = {p.name for p in out.iterdir()}
    assert names == {"train-00000.array_record", "train-00001.array_record", "manifest.json",
                     "validation-00000.array_record", "note_rows.npy"}
    assert done == [(i + 1, 129 + 3) for i in range(132)]
    facts = records.read_manifest(out, CODEC)
    assert facts["excerpts"] == {"train": 4, "validation": 2} and facts["soundfont"] == "font.sf2"
    train = [records.Record.from_bytes(m) for p in records.shard_paths(out, "train")
             for m in records.read_shard(p)]
    assert len(train) == 4 and all(r.mel.shape == (100, 128) for r in train)
    assert len({r.mel.tobytes() for r in train}) == 4
    held = [records.Record.from_bytes(m) for m in records.read_shard(
        records.shard_paths(out, "validation")[0])]
    assert {int(p) for r in held for p in r.notes.program} == {10}
    rows = np.load(out / "note_rows.npy")
    assert rows.dtype == ROW_DTYPE and set(rows["program"].tolist()) == set(range(129))

    kept = {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.name != "manifest.json"}
    (out / "train-00001.array_record").unlink()
    done.clear()
    render(plan, str(out), lambda i, n: done.append((i, n)))
    assert len(done) == 3  # no isolated note is rendered again
    del kept["train-00001.array_record"]
    assert {n: (out / n).stat().st_mtime_ns for n in kept} == kept
    again = [records.Record.from_bytes(m) for m in records.read_shard(
        out / "train-00001.array_record")]
    for a, b in zip(again, train[2:], strict=True):  # the shard is a function of seed and number
        np.testing.assert_array_equal(a.notes.start, b.notes.start)
        np.testing.assert_array_equal(a.notes.pitch, b.notes.pitch)


def test_bad_score_folders_are_one_line_errors(plan, tmp_path):
    bad = dataclasses.replace(plan, scores=str(tmp_path))
    with pytest.raises(UserError, match="no manifest.csv"):
        scores_by_source(bad, "train")
    (tmp_path / "manifest.csv").write_text("file,split\nx.mid,train\n")
    with pytest.raises(UserError, match="columns path, source, split"):
        scores_by_source(bad, "train")
    write_midi(piece(0, count=5), tmp_path / "x.mid")
    (tmp_path / "manifest.csv").write_text("path,source,split\nx.mid,s,train\n")
    with pytest.raises(UserError, match="more than ten notes"):
        draw_excerpt(bad, scores_by_source(bad, "train"), np.random.default_rng(0), vary=False)
