"""Bytes read as a MIDI file."""

import warnings

import pytest

from music_diffusion.notes.midi import read_midi, read_midi_file


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a MIDI file that has no faults."""
    def read(data):
        path = tmp_path / "piece.mid"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return read_midi(path)

    return read


@pytest.fixture
def report(tmp_path):
    """Reads bytes as a MIDI file and returns all that is said about it."""
    def report(data):
        path = tmp_path / "piece.mid"
        path.write_bytes(data)
        return read_midi_file(path)

    return report
