"""The piece to measure with."""

import numpy as np
import pytest

from music_diffusion.workflows.benchmark.piece import loop_samples, piece


@pytest.mark.parametrize("seconds", [1.0, 2.25, 8.0, 61.3])
def test_the_piece_sounds_from_start_to_end_with_all_its_instruments(seconds):
    notes = piece(seconds)
    assert notes.start.min() == 0 and notes.duration == seconds
    assert (notes.end > notes.start).all()
    grid = np.arange(0, seconds, 0.05)
    assert all(len(notes.between(t, t + 0.01)) for t in grid)
    assert {(p, d) for p, d in zip(notes.program.tolist(), notes.is_drum.tolist(), strict=True)} == {
        (0, False), (32, False), (48, False), (73, False), (0, True)}
    longer = piece(seconds + 8)
    np.testing.assert_array_equal(longer[longer.start < seconds].pitch, notes.pitch)


def test_the_sound_is_full_but_not_over_full_scale():
    for rate in (8000, 44100):
        samples = loop_samples(rate)
        assert samples.shape == (8 * rate,) and samples.dtype == np.float32
        assert np.abs(samples).max() == pytest.approx(0.5)
        np.testing.assert_array_equal(samples, loop_samples(rate))
