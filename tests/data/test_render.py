"""Scores → data folder, with a SoundFont of sines so that the spectrograms are known."""

import numpy as np
import pytest
from reference.mel_oracle import hertz_to_mel
from reference.soundfont_file import expected_hertz, soundfont

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.data.augment import Augmentation
from music_diffusion.data.note_renders import NoteSampling
from music_diffusion.data.render import RenderPlan, render
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

try:
    import fluidsynth  # noqa: F401
except ImportError:
    pytest.skip("needs FluidSynth (libfluidsynth) and pyfluidsynth", allow_module_level=True)

CODEC = MelCodec()


def test_a_data_folder_has_records_that_are_their_notes_in_time_and_rows(tmp_path):
    (tmp_path / "font.sf2").write_bytes(soundfont())
    start = 0.1 + 0.2 * np.arange(40)
    table = ["path,source,split"]
    for split, program in (("train", 1), ("validation", 70)):
        write_midi(Notes(start, start + 0.16, 60 + np.arange(40) % 12, np.full(40, 100),
                         np.full(40, program), np.zeros(40)), tmp_path / f"{split}.mid")
        table.append(f"{split}.mid,a,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(table) + "\n")
    plan = RenderPlan(
        scores=str(tmp_path), soundfont=str(tmp_path / "font.sf2"), frames=100, workers=1, seed=3,
        train_hours=3 * 2.0 / 3600, validation_hours=2 * 2.0 / 3600, notes_per_program=1,
        sampling=NoteSampling(longest=0.06),
        augmentation=Augmentation(reorchestrate=0.0, transpose=0, stretch=0.0))
    out = tmp_path / "out"
    render(plan, str(out))
    assert records.read_manifest(out, CODEC)["records"] == {"train": 3, "validation": 2, "test": 0}
    assert set(np.load(out / "note_rows.npy")["program"].tolist()) == set(range(129))
    width = hertz_to_mel(8000.0) / (CODEC.mels + 1)
    for split, program in (("train", 1), ("validation", 70)):
        messages = [m for p in records.shard_paths(out, split) for m in records.read_shard(p)]
        for record in map(records.Record.from_bytes, messages):
            assert record.mel.shape == (100, CODEC.mels) and set(record.notes.program) == {program}
            mel, heard = record.mel.astype(np.float32), 0
            for begin, end, pitch in zip(record.notes.start, record.notes.end, record.notes.pitch,
                                         strict=True):
                frame = int(0.5 * (begin + end) * 50) - 1  # centred on the middle of the note
                if end - begin < 0.12 or frame >= 99:
                    continue
                bin_ = hertz_to_mel(expected_hertz(program, pitch, False)) / width - 1
                assert abs(int(mel[frame].argmax()) - bin_) <= 1.0
                heard += 1
            assert heard >= 6
