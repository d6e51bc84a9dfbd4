"""Statistics of patches against NumPy's covariance of the data they were made of."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.data import records
from music_diffusion.data.patch_statistics import FLOOR, patch_statistics
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import CHANNELS, level
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(mels=3)
P = 2


@pytest.fixture
def folder(tmp_path):
    """Two training records of log-mel that moves together over bins, and over the frames of a patch."""
    rng = np.random.default_rng(0)
    for split, count, shift in (("train", 2, 0.0), ("validation", 1, 5.0)):
        records.write_shard(tmp_path / f"{split}-00000.array_record", (records.Record(
            mel=(rng.normal(size=(P * 128, 1)).repeat(3, 1) * [1, 2, 0] - 4 + shift).astype(np.float32),
            notes=Notes.empty()).to_bytes() for _ in range(count)))
    records.write_manifest(tmp_path, codec=CODEC.to_dict(), seed=0)
    return tmp_path


def patches(folder):
    read = [records.Record.from_bytes(m) for m in records.read_shard(folder / "train-00000.array_record")]
    rows = np.concatenate([np.asarray(CODEC.scale(r.mel.astype(np.float32)), np.float64) for r in read])
    return rows.reshape(-1, P * 3)


def test_mean_axes_and_deviations_are_those_of_the_training_data(folder):
    done = []
    found = patch_statistics(str(folder), CODEC, P, progress=lambda i, n: done.append((i, n)))["statistics"]
    assert done == [(1, 2), (2, 2)] and {v.dtype for v in found.values()} == {np.dtype(np.float32)}
    rows = patches(folder)
    np.testing.assert_allclose(found["mean"], rows.mean(0), atol=1e-6)
    axes = found["axes"].astype(np.float64)
    np.testing.assert_allclose(axes.T @ axes, np.eye(P * 3), atol=1e-6)
    np.testing.assert_allclose(axes * found["std"]**2 @ axes.T, np.cov(rows.T, bias=True), atol=2e-5)
    assert (np.diff(found["std"]) <= 0).all() and found["std"][0] > 10 * FLOOR
    assert found["std"][2:] == pytest.approx(FLOOR)  # two of six move; none is without a deviation


def test_statistics_of_what_maps_miss(folder):
    rng, missed = np.random.default_rng(3), []
    path = folder / "train-00000.array_record"
    mapped = []
    for record in [records.Record.from_bytes(m) for m in records.read_shard(path)]:
        scaled = CODEC.scale(record.mel.astype(np.float32))
        maps = (scaled[:, None] + rng.normal(0.1, 0.2, (len(scaled), 2, 3))).astype(np.float16)
        missed.append(scaled - maps[:, 0].astype(np.float32))
        mapped.append(dataclasses.replace(record, maps=maps).to_bytes())
    records.write_shard(path, mapped)
    found = patch_statistics(str(folder), CODEC, P, around_maps=True)["statistics"]
    rows = np.concatenate(missed).reshape(-1, P * 3)
    np.testing.assert_allclose(found["mean"], rows.mean(0), atol=1e-4)
    axes = found["axes"].astype(np.float64)
    np.testing.assert_allclose(axes * found["std"]**2 @ axes.T, np.cov(rows.T, bias=True), atol=1e-4)


def test_deviations_along_axes_of_another_network(folder):
    other = np.linalg.qr(np.random.default_rng(5).normal(size=(P * 3, P * 3)))[0]
    found = patch_statistics(str(folder), CODEC, P, axes=other)["statistics"]
    np.testing.assert_allclose(found["axes"], other, atol=1e-6)
    along = (patches(folder) - found["mean"]) @ other
    np.testing.assert_allclose(found["std"], np.maximum(along.std(0), FLOOR), rtol=1e-4)
    with pytest.raises(UserError, match="axes of 5 features: patches of 2 frames have 6"):
        patch_statistics(str(folder), CODEC, P, axes=np.eye(5))


def test_maps_of_what_was_heard_are_at_one_level(folder):
    """Statistics are of what the model sees; see `conditions.heard`."""
    rng, path = np.random.default_rng(6), folder / "train-00000.array_record"
    heard, missed = [], []
    for record in [records.Record.from_bytes(m) for m in records.read_shard(path)]:
        mel = record.mel.astype(np.float32)
        maps = CODEC.scale(mel[:, None] + rng.normal(2.0, 0.1, (len(mel), 2, 3))).astype(np.float16)
        example = dataclasses.replace(record, maps=maps, source=record.mel,
                                      heard=np.zeros((len(mel), CHANNELS), np.uint8))
        heard.append(example.to_bytes())
        drawn = CODEC.unscale(maps[:, 0].astype(np.float32))
        missed.append(CODEC.scale(mel) - CODEC.scale(drawn + LEVEL - level(drawn)))
    records.write_shard(path, heard)
    records.write_manifest(folder, codec=CODEC.to_dict(), seed=0, listener={})
    found = patch_statistics(str(folder), CODEC, P, around_maps=True)["statistics"]
    np.testing.assert_allclose(found["mean"], np.concatenate(missed).reshape(-1, P * 3).mean(0), atol=2e-3)


def test_a_patch_needs_enough_data(folder):
    with pytest.raises(UserError, match="too few for statistics of 384 features; add record"):
        patch_statistics(str(folder), CODEC, 128)


def test_statistics_of_latents(folder):
    """Statistics of a latent that is linear in the patch are those of the data, carried along."""
    mixing = np.random.default_rng(4).normal(size=(P * 3, 2))
    found = patch_statistics(str(folder), CODEC, P, encode=lambda mel: mel.reshape(-1, P * 3) @ mixing)
    latents, own = patches(folder) @ mixing, found["statistics"]
    np.testing.assert_allclose(own["mean"], latents.mean(0), atol=1e-5)
    np.testing.assert_allclose(own["axes"] * own["std"]**2 @ own["axes"].T, np.cov(latents.T, bias=True),
                               atol=1e-4)
