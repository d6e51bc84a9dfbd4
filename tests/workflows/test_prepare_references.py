"""Recordings of a data set to compare renderings with."""

import pytest
import soundfile
from layouts.common import scale, tones, write_wav

from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.workflows.prepare import prepare_references
from music_diffusion.workflows.requests import ReferencesRequest


def test_references_of_any_data_set(tmp_path):
    for split in ("train", "validation", "test"):
        folder = tmp_path / "source" / split
        folder.mkdir(parents=True)
        write_midi(scale(), folder / "a.mid")
        write_wav(folder / "a.wav", tones(scale(), 2.0, 16000), 16000)

    def run(**more):
        return prepare_references(ReferencesRequest(**(dict(
            source=str(tmp_path / "source"), destination=str(tmp_path / "out"), dataset="paired_folder",
            splits="train, test", minutes=0.02, rate=8000, workers=1) | more)))

    assert run() == {"train": 1, "test": 1}
    for split in ("train", "test"):
        audio, = (tmp_path / "out" / split).glob("*.flac")
        info = soundfile.info(audio)
        assert info.samplerate == 8000 and info.duration == pytest.approx(1.2)
        assert audio.with_suffix(".mid").is_file()
    for bad, word in ((dict(dataset="mastro"), "prepare mastro: unknown"),
                      (dict(splits="tests"), "'tests' is none of"), (dict(minutes=0.0), "above 0")):
        with pytest.raises(UserError, match=word):
            run(**bad)
