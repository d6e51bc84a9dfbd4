"""Damaged audio is read or refused in one line; it neither hangs nor takes memory."""

import resource
import time
import warnings

import numpy as np
import pytest
from reference.damaged_audio import damaged_files

from music_diffusion.audio.io import AudioReader
from music_diffusion.errors import UserError
from music_diffusion.synthesis.reconstruct import resampled

RATE = 16000


def heard(path):
    """Samples at RATE after all that a command does with a file before its network."""
    with AudioReader(path) as reader:
        _ = reader.samples
        mono = (block[:, None] for block in reader.mono_blocks())
        parts = list(resampled(mono, reader.sample_rate, RATE))
        assert all(np.isfinite(block).all() for block in reader.blocks())
    return sum(map(len, parts))


@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, seed):
    read = refused = 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in damaged_files(52, seed):
        path = tmp_path / name
        path.write_bytes(content)
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                heard(path)
            read += 1
        except UserError as e:
            refused += 1
            assert str(path) in str(e) and len(str(e).splitlines()) == 1
        assert time.process_time() - began < 5, name
    assert read > 10 and refused > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB
