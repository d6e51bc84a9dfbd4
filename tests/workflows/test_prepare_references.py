"""`music-diffusion prepare references`."""

import pytest
import soundfile
from layouts.common import scale, tones, write_wav

from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.workflows import prepare
from music_diffusion.workflows.prepare import Request


@pytest.fixture
def run(tmp_path):
    (tmp_path / "source").mkdir()
    return lambda kind, **more: prepare.run(Request(
        kind=kind, source=str(tmp_path / "source"), destination=str(tmp_path / "out"), **more))


def test_references_of_any_data_set(run, tmp_path, capsys):
    for split in ("train", "validation", "test"):
        folder = tmp_path / "source" / split
        folder.mkdir()
        write_midi(scale(), folder / "a.mid")
        write_wav(folder / "a.wav", tones(scale(), 2.0, 16000), 16000)
    options = (("dataset", "paired_folder"), ("splits", "train, test"), ("minutes", "0.02"))
    run("references", options=options, rate=8000, workers=1)
    assert "1 file for train, 1 file for test" in capsys.readouterr().out
    for split in ("train", "test"):
        audio, = (tmp_path / "out" / split).glob("*.flac")
        info = soundfile.info(audio)
        assert info.samplerate == 8000 and info.duration == pytest.approx(1.2)
        assert audio.with_suffix(".mid").is_file()
    for bad, word in (((), "dataset=NAME"), ((("dataset", "mastro"),), "mastro is none"),
                      (options[:2] + (("minutes", "x"),), "give a number")):
        with pytest.raises(UserError, match=word):
            run("references", options=bad)
