"""What seqio and t5x see of a task, the mixture, and every way in which registering goes wrong."""

import json

import numpy as np
import pytest
from reference import needs
from reference.tiny_records import CODEC, TinySet, write_records

seqio = needs.module("seqio")
tf = needs.module("tensorflow")

from music_diffusion.audio.codec import MelCodec  # noqa: E402
from music_diffusion.data import records  # noqa: E402
from music_diffusion.errors import UserError  # noqa: E402
from music_diffusion.tasks import gtzan, maestro, mega, recording_list, starnet, urmp  # noqa: E402

NAME = "recording_list_performance"


def test_tasks_are_what_a_feature_converter_needs(folder):
    names = recording_list.register(folder, codec=CODEC)
    assert names == [n for n in recording_list.TASKS.task_names] == list(seqio.TaskRegistry.names())
    features = seqio.TaskRegistry.get(NAME).output_features
    assert {k: (f.dtype, f.rank) for k, f in features.items()} == {
        "inputs": (tf.int32, 1), "targets": (tf.float32, 2), "performance": (tf.int32, 0)}
    assert features["inputs"].vocabulary.vocab_size == 1491  # MT3's, with one velocity bin
    assert not any(f.add_eos for f in features.values())  # token sequences end with it already
    dataset = seqio.get_dataset(
        NAME, {"inputs": 2048, "targets": 256}, dataset_split="validation", shuffle=False,
        feature_converter=seqio.PassThroughFeatureConverter())
    assert {k: tuple(s.shape) for k, s in dataset.element_spec.items()} == {
        "inputs": (2048,), "targets": (256, CODEC.mels), "performance": ()}
    example = next(dataset.as_numpy_iterator())
    assert example["inputs"].max() < 1491 and (example["inputs"] == 1).sum() == 1  # one EOS


def test_nothing_is_cut(folder):
    recording_list.register(folder, codec=CODEC)
    task = seqio.TaskRegistry.get(NAME)
    for lengths in ({"inputs": 1024}, {"inputs": 2048, "targets": 128}, {"targets": 512},
                    {"targets": (256, 8)}):
        with pytest.raises(UserError, match=f"{NAME}: .* has shape"):
            task.get_dataset(lengths, shuffle=False)
    task.get_dataset({"inputs": None, "targets": (256, CODEC.mels), "others": 3}, shuffle=False)


def test_labels_are_numbers_of_the_manifests_classes(folder):
    recording_list.register(folder, codec=CODEC, members=["performance"])
    assert list(seqio.TaskRegistry.names()) == [NAME]
    task = seqio.TaskRegistry.get(NAME)
    # Three segments of item 0, a quartet, one of item 1, a trio, and so on; shards hold them by hash.
    assert task.output_features["performance"].vocabulary.vocab_size == 2
    got = [int(e["performance"]) for e in task.get_dataset(shuffle=False).as_numpy_iterator()]
    want = []
    for path in records.shard_paths(folder, "train"):
        for message in records.read_shard(path):
            record = records.Record.from_bytes(message)
            number = ["quartet", "trio"].index(record.labels["performance"])
            want += [number] * -(-len(record.mel) // 256)
    assert got == want and set(want) == {0, 1}


def test_a_folder_serves_what_its_records_hold(tmp_path, folder):
    plain = write_records(tmp_path / "plain", TinySet(labels=False, second_timbre=False, notes=False))
    assert recording_list.register(plain, codec=CODEC) == [
        "recording_list_unconditional", "recording_list_unconditional_long"]
    with pytest.raises(UserError, match="no notes, which recording_list_frame_diffusion needs"):
        recording_list.register(plain, codec=CODEC, members=["frame_diffusion"])
    with pytest.raises(UserError, match="no second timbre, which starnet_timbre_transfer needs"):
        starnet.register(plain, codec=CODEC)
    with pytest.raises(UserError, match="no style, which gtzan_style_transfer"):
        gtzan.register(plain, codec=CODEC, members=["unconditional", "style_transfer"])
    assert not any(name.startswith("gtzan") for name in seqio.TaskRegistry.names())


def test_records_with_note_maps_need_no_slots(tmp_path, folder):
    mapped = tmp_path / "mapped"
    mapped.mkdir()
    for path in records.find_shards(folder):
        made = []
        for message in records.read_shard(path):
            arrays = records.Record.from_bytes(message).arrays()
            maps = np.repeat(arrays["mel"][:, None], 2, 1)
            made.append(records.Record.from_arrays(arrays | {"maps": maps}).to_bytes())
        records.write_shard(mapped / path.name, made)
    records.write_manifest(mapped, codec=CODEC.to_dict())
    maestro.register(str(mapped), codec=CODEC, members=["frame_diffusion"])
    task = seqio.TaskRegistry.get("maestro_frame_diffusion")
    assert {k: f.rank for k, f in task.output_features.items()} == {"maps": 3, "roll": 2, "targets": 2}
    example = next(task.get_dataset(seed=0).as_numpy_iterator())
    np.testing.assert_array_equal(CODEC.scale(example["maps"][:, 1]), example["targets"])
    urmp.register(folder, codec=CODEC)
    with pytest.raises(UserError, match="have different features"):
        mega.register({"maestro": str(mapped), "urmp": folder}, codec=CODEC)


def test_registering_again_changes_nothing_and_other_data_is_refused(tmp_path, folder):
    names = maestro.register(folder, codec=CODEC)
    task = seqio.TaskRegistry.get(names[0])
    assert maestro.register(folder, codec=CODEC) == names
    assert seqio.TaskRegistry.get(names[0]) is task
    other = write_records(tmp_path / "other", TinySet(labels=False))
    with pytest.raises(UserError, match=f"{names[0]}: is registered already, with {folder}"):
        maestro.register(other, codec=CODEC)


def test_splits_are_those_of_the_folder(folder):
    maestro.register(folder, codec=CODEC, members=["unconditional"])
    task = seqio.TaskRegistry.get("maestro_unconditional")
    assert task.splits == ("train", "validation")
    for split in ("test", "holdout"):
        with pytest.raises(UserError, match=f"no split '{split}', but train, validation"):
            task.get_dataset(split=split)
        with pytest.raises(UserError, match=f"no split '{split}', but train, validation"):
            maestro.register(folder, codec=CODEC, splits=["train", split])
    seqio.TaskRegistry.reset()
    maestro.register(folder, codec=CODEC, members=["unconditional"], splits=["validation"])
    assert seqio.TaskRegistry.get("maestro_unconditional").splits == ("validation",)


def test_bad_folders_and_names_are_one_line_errors(tmp_path, folder):
    with pytest.raises(UserError, match=r"none: no manifest.json there; .*prepare"):
        maestro.register(str(tmp_path / "none"))
    with pytest.raises(UserError, match="codecs differ .*sample_rate"):
        maestro.register(folder)
    with pytest.raises(UserError, match="codecs differ .*sample_rate"):
        maestro.register(folder, codec=MelCodec())
    with pytest.raises(UserError, match="has no tasks of 'inverter', but of spectrogram_diffusion"):
        maestro.register(folder, codec=CODEC, members=["inverter"])
    manifest = json.loads((tmp_path.joinpath(folder) / "manifest.json").read_text())
    records.write_manifest(tmp_path, **manifest)
    with pytest.raises(UserError, match="has no records"):
        maestro.register(str(tmp_path), codec=CODEC)
    (tmp_path / "train-00000.array_record").write_bytes(b"no records")
    with pytest.raises(UserError, match="train-00000.array_record: damaged"):
        maestro.register(str(tmp_path), codec=CODEC)
    records.write_manifest(tmp_path, **manifest | {"complete": False})
    with pytest.raises(UserError, match="unfinished"):
        maestro.register(str(tmp_path), codec=CODEC)
    maestro.register(folder, codec=CODEC, members=["unconditional"])
    with pytest.raises(UserError, match="seed -1"):
        seqio.TaskRegistry.get("maestro_unconditional").get_dataset(seed=-1)
    assert list(seqio.TaskRegistry.names()) == ["maestro_unconditional"]


def test_mega_mixes_by_the_tenth_root_of_sizes_cubed(tmp_path, folder):
    small = write_records(tmp_path / "small", TinySet(seconds={"train": (12.0,), "validation": (6.0,)}))
    names = mega.register({"urmp": small, "maestro": folder}, codec=CODEC)
    assert names == ["mega_spectrogram_diffusion", "mega_spectrogram_diffusion_context",
                     "mega_frame_diffusion"]
    mixture = seqio.MixtureRegistry.get(names[0])
    assert [t.name for t in mixture.tasks] == [
        "maestro_spectrogram_diffusion", "urmp_spectrogram_diffusion"]
    sizes = [t.num_input_examples("train") for t in mixture.tasks]
    assert [mixture.get_rate(t) for t in mixture.tasks] == pytest.approx([n ** 0.3 for n in sizes])
    assert mega.register({"urmp": small, "maestro": folder}, codec=CODEC) == names
    with pytest.raises(UserError, match="mega_spectrogram_diffusion: is registered already, with maestro"):
        mega.register({"urmp": small}, codec=CODEC)
    with pytest.raises(UserError, match="gtzan: not in the mixture"):
        mega.register({"gtzan": folder}, codec=CODEC)
    with pytest.raises(UserError, match="at least one of maestro"):
        mega.register({}, codec=CODEC)


def test_what_mega_gives_is_what_its_tasks_give(tmp_path, folder):
    other = write_records(tmp_path / "other", seed=1)
    name, *_ = mega.register({"slakh": other, "musicnet": folder}, codec=CODEC)
    lengths = {"inputs": 2048, "targets": 256}
    given = seqio.get_mixture_or_task(name).get_dataset(lengths, split="train", seed=2)
    mixed = [e["targets"] for e in given.take(12).as_numpy_iterator()]
    streams = [seqio.TaskRegistry.get(f"{data_set}_spectrogram_diffusion").get_dataset(
        lengths, seed=2, num_epochs=None).as_numpy_iterator() for data_set in ("slakh", "musicnet")]
    heads = [next(s)["targets"] for s in streams]
    taken = [0, 0]
    for targets in mixed:
        which = [i for i in range(2) if np.array_equal(targets, heads[i])]
        assert which
        heads[which[0]] = next(streams[which[0]])["targets"]
        taken[which[0]] += 1
    assert min(taken) > 0
