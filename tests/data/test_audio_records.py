import json

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.data.audio_records import AudioRecord, read_audio_manifest, to_int16
from music_diffusion.errors import UserError


@pytest.mark.parametrize("channels", [1, 2])
def test_a_record_comes_back_as_it_was(channels):
    audio = np.random.default_rng(0).integers(-32768, 32768, (1000, channels)).astype(np.int16)
    for given in (audio, np.asfortranarray(audio)):
        got = AudioRecord.from_bytes(AudioRecord(audio=given).to_bytes()).audio
        assert got.dtype == np.int16
        np.testing.assert_array_equal(got, audio)


def test_16_bit_amplitudes_are_exact_and_louder_ones_clip():
    values = np.arange(-32768, 32768)
    np.testing.assert_array_equal(to_int16(values / 32768), values)
    np.testing.assert_array_equal(to_int16(np.array([-3.0, 1.0, 7.0])), [-32768, 32767, 32767])
    half = np.array([0.4, 0.6, -0.4, -0.6]) / 32768
    np.testing.assert_array_equal(to_int16(half), [0, 1, 0, -1])


def write(folder, **changes):
    facts = {"kind": "audio", "complete": True, "options": {"sample_rate": 16000}} | changes
    (folder / "manifest.json").write_text(json.dumps(facts))


def test_a_manifest_is_read_and_its_rate_checked(tmp_path):
    write(tmp_path, note=3)
    assert read_audio_manifest(tmp_path)["note"] == read_audio_manifest(tmp_path, 16000)["note"] == 3
    with pytest.raises(UserError, match="16000 Hz and the codec 44100 Hz.*--rate 44100"):
        read_audio_manifest(tmp_path, 44100)


def test_folders_that_are_not_finished_audio_are_one_line_errors(tmp_path):
    with pytest.raises(UserError, match="no manifest.json.*prepare audio_folder"):
        read_audio_manifest(tmp_path)
    write(tmp_path, complete=False)
    with pytest.raises(UserError, match="unfinished"):
        read_audio_manifest(tmp_path)
    records.write_manifest(tmp_path, codec=MelCodec().to_dict())  # of spectrograms
    with pytest.raises(UserError, match="other data than audio"):
        read_audio_manifest(tmp_path)
    for text in ("", "[]", "{", '{"kind": "audio", "complete": true}',
                 '{"kind": "audio", "options": {"sample_rate": null}}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match="manifest.json: damaged"):
            read_audio_manifest(tmp_path)
