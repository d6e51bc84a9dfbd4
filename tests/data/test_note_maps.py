import dataclasses

import jax
import numpy as np
import pytest
from layouts.memory import MemorySet, Samples, item
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.data import records
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.shards import read_facts, write_facts
from music_diffusion.errors import UserError
from music_diffusion.models.base import split_variables
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import FrameGrid
from music_diffusion.notes.notes import Notes

F = 8
MODEL = FrameDiffusionModel(config=ScoreDenoiserConfig(
    timbre=NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F)),
    unet=UNet1DConfig(widths=(8,), blocks=1, time_features=4, heads=1, head_dim=4, output=F)))


@pytest.fixture(scope="module")
def params():
    return split_variables(compiled.init(MODEL))[0]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in ("train-00000", "train-00001", "validation-00000"):
        records.write_shard(folder / f"{name}.array_record", (
            records.Record(mel=np.full((10, F), i), notes=Notes(
                [0.05], [0.1], [60 + i], [90], [i], [False])).to_bytes() for i in range(2)))
    records.write_manifest(folder, codec=MODEL.codec.to_dict(), seed=5)
    return folder


def read(folder):
    return {p.name: [records.Record.from_bytes(m) for m in records.read_shard(p)]
            for p in sorted(folder.glob("*.array_record"))}


def test_every_record_gets_the_maps_of_its_notes_and_keeps_the_rest(folder, params, tmp_path):
    out, done = tmp_path / "mapped", []
    add_note_maps(str(folder), str(out), MODEL.config.timbre, params["timbre"],
                  progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert records.read_manifest(out) == records.read_manifest(folder)
    before, after = read(folder), read(out)
    assert before.keys() == after.keys()
    for name in before:
        for a, b in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(a.mel, b.mel)
            np.testing.assert_array_equal(a.notes.pitch, b.notes.pitch)
            want = draw_note_maps(MODEL.config.timbre, params["timbre"], a.notes, 0.0, 10,
                                  FrameGrid())
            assert b.maps.shape == (10, 2, F)
            np.testing.assert_allclose(b.maps, want, atol=1e-3)


def test_maps_lie_on_the_codecs_frames_and_hear_notes_as_long_as_asked(params, tmp_path):
    codec = MelCodec(mels=F, hop=160, window=480)  # 10 ms
    folder, notes = tmp_path / "plain", Notes([0.012], [0.033], [60], [90], [0], [False])
    folder.mkdir()
    records.write_shard(folder / "train-00000.array_record",
                        [records.Record(mel=np.zeros((10, F)), notes=notes).to_bytes()])
    records.write_manifest(folder, codec=codec.to_dict())
    config = dataclasses.replace(MODEL.config.timbre, codec=codec)
    found = {}
    for ring in (0.03, 2.0):
        out = tmp_path / f"mapped {ring}"
        add_note_maps(str(folder), str(out), config, params["timbre"], ring=ring)
        (record,) = read(out)["train-00000.array_record"]
        grid = FrameGrid(hop=0.01, half_window=0.015, tail=ring)
        want = draw_note_maps(config, params["timbre"], notes, 0.0, 10, grid)
        np.testing.assert_allclose(record.maps, want, atol=1e-3)
        found[ring] = np.flatnonzero((record.maps[:, 0] > -1).any(1)).tolist()
    # Centres are at 10, 20 … ms; the note is heard from 15 ms before its start on.
    assert found == {0.03: [0, 1, 2, 3, 4, 5], 2.0: list(range(10))}


def test_an_interrupted_run_goes_on_and_the_manifest_comes_last(folder, params, tmp_path):
    out = tmp_path / "mapped"

    def stop(i, n):
        if i == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_note_maps(str(folder), str(out), MODEL.config.timbre, params["timbre"], progress=stop)
    with pytest.raises(UserError, match="manifest"):
        records.read_manifest(out)
    made = {p.name: p.stat().st_mtime_ns for p in out.glob("*.array_record")}
    assert len(made) == 2
    add_note_maps(str(folder), str(out), MODEL.config.timbre, params["timbre"])
    assert len(read(out)) == 3
    assert {n: (out / n).stat().st_mtime_ns for n in made} == made


def test_data_of_another_codec_are_refused(folder, params, tmp_path):
    records.write_manifest(folder, codec=MelCodec(mels=F, hop=160).to_dict())
    with pytest.raises(UserError, match="hop"):
        add_note_maps(str(folder), str(tmp_path / "out"), MODEL.config.timbre, params["timbre"])


def test_a_folder_is_not_mapped_onto_itself(folder, params):
    with pytest.raises(UserError, match="plain"):
        add_note_maps(str(folder), str(folder), MODEL.config.timbre, params["timbre"])


def test_shards_that_changed_are_mapped_anew_and_those_that_are_gone_go(params, tmp_path):
    def built(numbers):
        items = tuple(item(str(n), Samples(samples=np.full(3200, 0.01 * (n + 1)), sample_rate=16000),
                           Notes([0.02], [0.1], [60 + n], [90], [0], [False]),
                           split="validation" if n == 9 else "train", shard=n) for n in numbers)
        build(MemorySet(items=items), "memory", BuildPlan(codec=MODEL.codec, workers=1),
              str(tmp_path / "plain"))
        add_note_maps(str(tmp_path / "plain"), str(tmp_path / "mapped"), MODEL.config.timbre,
                      params["timbre"])
        return {name: [r.notes.pitch.tolist() for r in found]
                for name, found in read(tmp_path / "mapped").items()}

    assert built([0, 1, 9]) == {f"{s}.array_record": [[60 + n]] for s, n in (
        ("train-00000", 0), ("train-00001", 1), ("validation-00009", 9))}
    kept = (tmp_path / "mapped" / "train-00000.array_record").stat().st_mtime_ns
    assert set(built([0, 2, 9])) == {"train-00000.array_record", "train-00002.array_record",
                                     "validation-00009.array_record"}
    assert (tmp_path / "mapped" / "train-00000.array_record").stat().st_mtime_ns == kept
    # Another item in a shard of the same name.
    records.write_shard(tmp_path / "plain" / "train-00002.array_record", [records.Record(
        mel=np.zeros((10, F)), notes=Notes([0.02], [0.1], [99], [90], [0], [False])).to_bytes()])
    shard = tmp_path / "plain" / "train-00002.array_record"
    write_facts(shard, dataclasses.replace(read_facts(shard), checksum="other"))
    add_note_maps(str(tmp_path / "plain"), str(tmp_path / "mapped"), MODEL.config.timbre, params["timbre"])
    (again,) = read(tmp_path / "mapped")["train-00002.array_record"]
    assert again.notes.pitch.tolist() == [99]


@pytest.mark.slow
def test_maps_of_a_records_performance_and_behind_them_those_without(folder, tmp_path):
    config = dataclasses.replace(MODEL.config.timbre, performances=PerformanceConfig(count=3, features=4))
    ids, seconds = np.zeros((1, 1), np.int32), np.zeros((1, 1))
    fresh = NoteTimbre(config).init(jax.random.key(0), ids, ids, ids, seconds, seconds, np.eye(3)[:1])
    rng = np.random.default_rng(0)
    timbre = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), fresh["params"])
    out = tmp_path / "mapped"
    add_note_maps(str(folder), str(out), config, timbre,
                  row_of=lambda r: None if r.notes.pitch[0] == 60 else 2)
    for before, after in zip(read(folder).values(), read(out).values(), strict=True):
        for a, b in zip(before, after, strict=True):
            base, own = (draw_note_maps(config, timbre, a.notes, 0.0, 10, FrameGrid(), weights)
                         for weights in (None, np.array([0, 0, 1.0])))
            assert np.abs(own - base).max() > 0.02
            own = base if a.notes.pitch[0] == 60 else own
            np.testing.assert_allclose(b.maps, np.concatenate([own, base], 1), atol=1e-3)
