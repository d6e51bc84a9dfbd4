import json

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.records import (
    Record,
    read_manifest,
    read_shard,
    shard_paths,
    write_manifest,
    write_shard,
)
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

NOTES = Notes([0.1, 0.25], [0.5, 1 / 3], [60, 38], [100, 1], [71, 0], [False, True])


@pytest.mark.parametrize("notes", [NOTES, Notes.empty()], ids=["notes", "none"])
@pytest.mark.parametrize("with_maps", [False, True])
def test_a_record_comes_back_as_it_was(notes, with_maps):
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(5, 4)).astype(np.float16)
    maps = rng.normal(size=(5, 2, 4)).astype(np.float16) if with_maps else None
    got = Record.from_bytes(Record(mel=mel, notes=notes, maps=maps).to_bytes())
    np.testing.assert_array_equal(got.mel, mel)
    assert got.mel.dtype == np.float16
    if with_maps:
        np.testing.assert_array_equal(got.maps, maps)
    else:
        assert got.maps is None
    for field in ("start", "end", "pitch", "velocity", "program", "is_drum"):
        a, b = getattr(got.notes, field), getattr(notes, field)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_half_precision_keeps_the_codecs_range_to_a_two_hundredth():
    mel = np.linspace(np.log(1e-5), 6, 1000, dtype=np.float32)[:, None]
    got = Record.from_bytes(Record(mel=mel, notes=NOTES).to_bytes()).mel
    np.testing.assert_allclose(got.astype(np.float32), mel, atol=0.005)


def test_shards_hold_their_messages_in_order(tmp_path):
    messages = [b"a", b"", b"ccc" * 1000]
    assert write_shard(tmp_path / "train-00000.array_record", iter(messages)) == 3
    assert list(read_shard(tmp_path / "train-00000.array_record")) == messages
    assert [p.name for p in tmp_path.iterdir()] == ["train-00000.array_record"]


def test_a_shard_appears_only_when_it_is_whole(tmp_path):
    def messages():
        yield b"a"
        raise RuntimeError("the renderer died")

    with pytest.raises(RuntimeError, match="died"):
        write_shard(tmp_path / "train-00000.array_record", messages())
    assert not list(tmp_path.glob("*.array_record"))


def test_manifest_round_trip_and_its_codec(tmp_path):
    codec = MelCodec()
    write_manifest(tmp_path, codec=codec.to_dict(), seed=3)
    assert read_manifest(tmp_path, codec)["seed"] == 3
    assert json.loads((tmp_path / "manifest.json").read_text())["codec"]["hop"] == 320
    with pytest.raises(UserError, match="hop"):
        read_manifest(tmp_path, MelCodec(hop=160))
    with pytest.raises(UserError, match="prepare"):
        read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": 1}'])
def test_broken_manifests_are_one_line_errors(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json"):
        read_manifest(tmp_path, MelCodec())


def test_shards_are_found_by_split_in_order(tmp_path):
    for name in ("train-00001", "train-00000", "validation-00000"):
        (tmp_path / f"{name}.array_record").touch()
    (tmp_path / "train-00002.array_record.part").touch()
    assert [p.rsplit("/", 1)[1] for p in shard_paths(tmp_path, "train")] == [
        "train-00000.array_record", "train-00001.array_record"]
    with pytest.raises(UserError, match="test-"):
        shard_paths(tmp_path, "test")
