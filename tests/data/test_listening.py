"""Pairs as they are heard: level, instruments of the target, records that training reads."""

import dataclasses

import numpy as np
import pytest
from reference.knowing_listener import Knowing
from reference.tiny_records import CODEC, Samples, TinySet, made_notes, tones, write_records

from music_diffusion.conditions.heard import LEVEL, HeardFrames
from music_diffusion.conditions.style import ContentAndStyle
from music_diffusion.data.examples import Examples
from music_diffusion.data.items import Item
from music_diffusion.data.listening import hear
from music_diffusion.data.records import Record, read_shard, shard_paths
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import CHANNELS, level

SECONDS = 6.0
LISTENER = Knowing(name="piece", seconds=SECONDS)


def item(source=0.5, target=0.01, **more):
    notes = made_notes("piece", SECONDS)
    both = [Samples(samples=gain * tones(notes, SECONDS, harmonic).astype(np.float32))
            for gain, harmonic in ((target, 1), (source, 3))]
    return Item(name="piece", split="train", audio=both[0], source=both[1], **more)


def test_both_are_brought_to_one_level():
    heard = hear(LISTENER, item(), CODEC)
    for sound, gain in ((item().source, heard.source_gain), (item().audio, heard.target_gain)):
        samples = np.concatenate(list(sound.blocks(CODEC.sample_rate)))
        assert level(CODEC.encode(gain * samples)) == pytest.approx(LEVEL, abs=1e-3)
    again = hear(LISTENER, item(source=0.05, target=0.2), CODEC)
    assert again.source_gain == pytest.approx(10 * heard.source_gain, rel=1e-3)
    assert again.gains(3) == [again.target_gain, again.target_gain, again.source_gain]
    np.testing.assert_allclose(again.likes, heard.likes, rtol=2e-3)


def test_notes_are_on_the_instruments_of_the_target():
    anyone = hear(LISTENER, item(), CODEC).notes
    assert set(anyone.program[~anyone.is_drum]) == {68}
    piano = hear(LISTENER, item(casting=lambda: {0: 11, 40: 73}), CODEC).notes
    # Of what plays in the source the piano is the likelier, whatever else is heard.
    assert set(piano.program[~piano.is_drum]) == {11}
    violin = hear(LISTENER, item(casting=lambda: {40: 73}), CODEC).notes
    assert set(violin.program[~violin.is_drum]) == {73}
    want = made_notes("piece", SECONDS)
    assert abs(len(violin) / len(want) - 1) < 0.2


def test_parts_of_it_lie_where_the_records_do():
    heard = hear(LISTENER, item(), CODEC)
    frames = CODEC.frames_of(round(SECONDS * CODEC.sample_rate))
    assert heard.frames.shape == (frames, CHANNELS) and heard.frames.any()
    first, second = heard.part(0, 200), heard.part(200, frames - 200)
    np.testing.assert_array_equal(np.concatenate([first["heard"], second["heard"]]), heard.frames)
    np.testing.assert_array_equal(np.concatenate([first["likes"], second["likes"]]), heard.likes)
    beyond = heard.part(frames - 3, 10)["heard"]
    np.testing.assert_array_equal(beyond[:3], heard.frames[-3:])
    assert beyond.shape == (10, CHANNELS) and not beyond[3:].any()


def test_a_recording_alone_is_heard_itself(tmp_path):
    alone = dataclasses.replace(item(), source=None)
    heard = hear(LISTENER, alone, CODEC)
    assert heard.gains(1) == [heard.source_gain] == [heard.target_gain]
    assert heard.target_gain == hear(LISTENER, item(), CODEC).target_gain
    assert heard.frames.any() and len(heard.notes)
    own = TinySet(labels=False, second_timbre=False, seconds={"train": (6.0,), "validation": (6.0,)})
    folder = write_records(tmp_path / "data", own, listener=Knowing(name="train/0", seconds=6.0))
    example = Examples(folder=folder, split="train", codec=CODEC, frames=32,
                       conditions=ContentAndStyle(style_frames=64)).segment(0, 64)
    level_of = 0.5 * np.log(np.exp(2 * CODEC.unscale(example["targets"])).mean(axis=-1))
    np.testing.assert_allclose(CODEC.unscale(example["content"][:, -1]), level_of, atol=0.02)


def test_silence_cannot_be_heard():
    with pytest.raises(UserError, match="silent"):
        hear(LISTENER, item(source=0.0), CODEC)


def test_records_are_built_and_read(tmp_path):
    small = {"train": (6.0,), "validation": (6.0,)}
    listener = Knowing(name="train/0", seconds=6.0)
    folder = write_records(tmp_path / "data", TinySet(labels=False, seconds=small), listener=listener)
    message = next(iter(read_shard(shard_paths(folder, "train")[0])))
    record = Record.from_bytes(message)
    assert record.heard.shape == (len(record.mel), CHANNELS) and record.heard.dtype == np.uint8
    assert record.likes.dtype == np.float16 and record.likes.shape[1] == 128
    for mel in (record.mel, record.source):
        assert level(mel.astype(np.float32)) == pytest.approx(LEVEL, abs=0.02)
    want = listener.notes(listener.activations(np.zeros(6 * CODEC.sample_rate)), {})
    assert abs(len(record.notes) - len(want)) <= 2
    with pytest.raises(UserError, match="note maps"):
        Examples(folder=folder, split="train", codec=CODEC, frames=32,
                 conditions=HeardFrames(slots=0)).segment(0, 0)
    # Another listener makes other records.
    with pytest.raises(UserError, match="listener"):
        write_records(tmp_path / "data", TinySet(labels=False, seconds=small),
                      listener=Knowing(name="other", seconds=6.0))
