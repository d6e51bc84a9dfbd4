import functools

import numpy as np
import pytest
from layouts.common import scale
from layouts.memory import Formula, Samples

from music_diffusion.audio.io import read_audio
from music_diffusion.data.items import Item
from music_diffusion.data.pairs import write_pairs
from music_diffusion.notes.midi import read_midi

RATE = 8000


def wave(time):
    return 0.5 * np.sin(2 * np.pi * 300 * time)


def test_items_become_files_of_the_same_name_up_to_a_length(tmp_path):
    notes = functools.partial(scale, count=8, step=0.5)  # onsets from 0.1 to 3.6 s
    items = [Item(name="a/b", split="test", audio=Formula(wave=wave, seconds=5.0), notes=notes),
             Item(name="c", split="test", audio=Samples(samples=np.full(4000, 0.25), sample_rate=RATE),
                  notes=notes)]
    done = []
    names = write_pairs(items, str(tmp_path / "audio"), str(tmp_path / "notes"), RATE, 2.0,
                        lambda i, n: done.append((i, n)))
    assert names == ["a_b", "c"] and done == [(1, 2), (2, 2)]
    long, short = (read_audio(tmp_path / "audio" / f"{n}.flac") for n in names)
    assert (long.sample_rate, len(long)) == (RATE, 2 * RATE) and len(short) == 4000
    np.testing.assert_allclose(long.samples, wave(np.arange(2 * RATE) / RATE), atol=1e-4)
    got = read_midi(tmp_path / "notes" / "a_b.mid")
    want = notes()
    np.testing.assert_allclose(got.start, want.start[want.start < 2.0], atol=2e-3)
    assert got.start.max() == pytest.approx(1.6, abs=2e-3)  # the next one begins at 2.1 s


def test_audio_that_is_there_is_kept(tmp_path):
    item = Item(name="a", split="test", audio=Formula(wave=wave, seconds=1.0), notes=scale)
    for _ in range(2):
        write_pairs([item], str(tmp_path), str(tmp_path), RATE, 9.0)
        stamp = (tmp_path / "a.flac").stat().st_mtime_ns
    write_pairs([item], str(tmp_path), str(tmp_path), RATE, 9.0)
    assert (tmp_path / "a.flac").stat().st_mtime_ns == stamp
