"""What training of some models needs beforehand, and releasing a run."""

import dataclasses

import jax
import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.performances import Performance, Performances, write_performances
from music_diffusion.data import note_maps, note_renders, records
from music_diffusion.data.note_renders import NoteRowPlan
from music_diffusion.data.patch_statistics import patch_statistics
from music_diffusion.data.records import Record, write_manifest
from music_diffusion.errors import UserError
from music_diffusion.models.note_timbre import NoteTimbreModel
from music_diffusion.models.weights import load_safetensors, save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.notes.notes import Notes
from music_diffusion.workflows import models
from music_diffusion.workflows.models import (
    draw_maps,
    estimate_statistics,
    release_run,
    render_note_rows,
)
from music_diffusion.workflows.requests import (
    NoteMapsRequest,
    NoteRowsRequest,
    ReleaseRequest,
    StatisticsRequest,
)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def mapped(source, tmp_path, monkeypatch):
    """(path of a note timbre network's weights, what `add_note_maps` is asked)."""
    def make(count: int | None, **more):
        config = NoteTimbreConfig(width=8, layers=2, performances=None if count is None else (
            PerformanceConfig(count=count, features=4)))
        params = NoteTimbreModel(config=config).init(jax.random.key(0), {})["params"]
        save_safetensors(tmp_path / "timbre.safetensors", {"timbre": params})
        draw_maps(NoteMapsRequest(data=str(source), output="out", **more,
                                  weights=str(tmp_path / "timbre.safetensors")))
        (data, out, *given), = seen
        assert (data, out) == (str(source), "out")
        return config, params, given

    seen: list = []
    monkeypatch.setattr(note_maps, "add_note_maps", lambda *args, progress, row_of=None: seen.append(
        (*args, row_of)))
    return make


def test_note_maps_use_the_given_weights(mapped):
    config, params, (its_config, timbre, row_of) = mapped(None)
    assert its_config == config and row_of is None
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(timbre), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2)


def test_note_maps_of_performances_are_found_by_name(mapped, tmp_path):
    names = tmp_path / "names.json"
    write_performances(names, Performances(default="b", performances=tuple(
        Performance(name=name) for name in "abc")))
    write_manifest(tmp_path / "source", codec=MelCodec().to_dict(), classes={"performance": ["c", "a"]})
    config, _, (its_config, _, row_of) = mapped(3, performances=str(names))
    assert its_config == config
    empty = Record(mel=np.zeros((1, 128)), notes=Notes.empty())
    rows = [row_of(dataclasses.replace(empty, labels=labels)) for labels in (
        {"performance": "c"}, {"performance": "a"}, {})]
    assert rows == [2, 0, None]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "classes", "reason"), [
    (3, ["c", "chello"], "chello: no such performance"), (2, ["c"], "names 3 performances"),
    (None, ["c"], "give their names by --performances")])
def test_note_maps_with_names_that_do_not_fit(mapped, tmp_path, count, classes, reason):
    names = tmp_path / "names.json"
    write_performances(names, Performances(default="b", performances=tuple(
        Performance(name=name) for name in "abc")))
    write_manifest(tmp_path / "source", codec=MelCodec().to_dict(), classes={"performance": classes})
    more = {} if count is None else {"performances": str(names)}
    with pytest.raises(UserError, match=reason) as error:
        mapped(count or 3, **more)
    assert "\n" not in str(error.value)


def test_release_hands_on_its_bindings(source, monkeypatch):
    seen = []
    monkeypatch.setattr(models, "release", lambda *args, **more: seen.append((args, more)))
    bindings = ("FrameDiffusionModel.num_steps = 8",)
    release_run(ReleaseRequest(run=str(source), output="out", bindings=bindings,
                               performances="names.json", dtype="int8", start="w.safetensors",
                               start_share=0.75))
    assert seen == [((str(source), "out"), {
        "bindings": bindings, "performances": "names.json", "step": None, "dtype": "int8",
        "start": "w.safetensors", "start_share": 0.75})]


def test_a_checkpoint_can_be_chosen(source, monkeypatch):
    seen = []
    monkeypatch.setattr(models, "release", lambda *_, step, **more: seen.append(step))
    for step in (10, 20, 30):
        (source / "checkpoints" / str(step)).mkdir(parents=True)
    (source / "eval.csv").write_text("step,loss\n10,0.5\n20,0.25\n25,0.1\n30,0.3\n")
    for asked in ("30", "best"):
        release_run(ReleaseRequest(run=str(source), output="out", step=asked))
    assert seen == [30, 20]  # of step 25 there is no checkpoint
    for asked, word in (("last", "or best"), ("-1", "or best")):
        with pytest.raises(UserError, match=word):
            release_run(ReleaseRequest(run=str(source), output="out", step=asked))
    (source / "eval.csv").unlink()
    with pytest.raises(UserError, match="validation loss"):
        release_run(ReleaseRequest(run=str(source), output="out", step="best"))
    with pytest.raises(UserError, match="released model"):
        release_run(ReleaseRequest(run="default", output="out", step="best"))


def test_released_models_are_copied(source, monkeypatch):
    seen = []
    monkeypatch.setattr(models, "release_copy", lambda *args, **more: seen.append((args, more)))
    save_safetensors(source / "weights.safetensors", {"a": np.zeros(1)})
    release_run(ReleaseRequest(run=str(source), output="out", bindings=("A = 1",), dtype="int8"))
    release_run(ReleaseRequest(run="default", output="out", start="w.safetensors", start_share=0.25))
    plain = {"start": None, "start_share": 0.5}
    assert seen == [((str(source), "out"), {"bindings": ("A = 1",), "dtype": "int8"} | plain),
                    (("default", "out"), {"bindings": (), "dtype": "float16", "start": "w.safetensors",
                                          "start_share": 0.25})]
    with pytest.raises(UserError, match="names.json: .*keeps its names"):
        release_run(ReleaseRequest(run="default", output="out", performances="names.json"))


def test_note_rows_are_those_asked_for(source, monkeypatch):
    seen = []
    monkeypatch.setattr(note_renders, "write_note_rows", lambda plan, folder, progress: seen.append(
        (plan, folder)) or progress(1, 4))
    shares = []
    render_note_rows(NoteRowsRequest(soundfont=str(source), output="out", notes_per_program=7, workers=3,
                                     seed=9), shares.append)
    assert seen == [(NoteRowPlan(soundfont=str(source), notes_per_program=7, workers=3, seed=9), "out")]
    assert shares == [0.25]


@pytest.mark.parametrize(("workflow", "request_"), [
    (release_run, ReleaseRequest(run="/none", output="out")),
    (render_note_rows, NoteRowsRequest(soundfont="/none", output="out")),
    (draw_maps, NoteMapsRequest(data="/none", output="out", weights="w"))], ids=lambda x: type(x).__name__)
def test_sources_that_are_not_there(workflow, request_):
    with pytest.raises(UserError, match="/none: no such folder or file"):
        workflow(request_)


def test_weights_that_are_not_there(source):
    with pytest.raises(UserError, match="nowhere.safetensors"):
        draw_maps(NoteMapsRequest(data=str(source), output="out", weights="nowhere.safetensors"))


def test_statistics_are_written_as_a_model_takes_them(tmp_path):
    codec = MelCodec(mels=3)
    rng = np.random.default_rng(0)
    records.write_shard(tmp_path / "train-00000.array_record", [records.Record(
        mel=rng.normal(-4, 1, (256, 3)).astype(np.float32), notes=Notes.empty()).to_bytes()])
    records.write_manifest(tmp_path, codec=codec.to_dict(), seed=0)
    out = tmp_path / "statistics.safetensors"
    estimate_statistics(StatisticsRequest(data=str(tmp_path), output=str(out), patch=2))
    want = patch_statistics(str(tmp_path), codec, 2)["statistics"]
    stored = load_safetensors(out)["statistics"]
    assert set(stored) == set(want) == {"mean", "axes", "std"}
    for name, value in want.items():
        np.testing.assert_array_equal(stored[name], value)
    other = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    weights = tmp_path / "weights.safetensors"  # of a network that works along other axes
    save_safetensors(weights, {"statistics": {"axes": other, "mean": np.zeros(6), "std": np.ones(6)}},
                     dtype="float16")
    estimate_statistics(StatisticsRequest(data=str(tmp_path), output=str(out), patch=2, axes=str(weights)))
    along = load_safetensors(out)["statistics"]["axes"].astype(np.float64)
    np.testing.assert_allclose(along, other, atol=2e-3)
    np.testing.assert_allclose(along.T @ along, np.eye(6), atol=1e-6)
    save_safetensors(weights, {"unet": {"kernel": np.zeros(3)}}, dtype="float16")
    with pytest.raises(UserError, match="weights.safetensors: has no axes"):
        estimate_statistics(StatisticsRequest(data=str(tmp_path), output=str(out), patch=2,
                                              axes=str(weights)))
