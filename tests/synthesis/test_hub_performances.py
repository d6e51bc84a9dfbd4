"""Names of performances beside the weights, and what a release makes of them."""

import dataclasses

import pytest
from reference import tiny_release
from reference.tiny_performances import GIN, MODEL, PERFORMANCES, tiny_params, write_release

from music_diffusion.conditions.performances import (
    FILE,
    read_performances,
    table_digest,
    write_performances,
)
from music_diffusion.errors import UserError
from music_diffusion.models.weights import WEIGHTS, load_safetensors
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.release import release
from music_diffusion.synthesis.synthesizer import Synthesizer

TRAINING = GIN.replace("released.model", "train.model") + "RecordSource.folder = 'data'\n"


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture(scope="module")
def of_another(params):
    """The names as those of another checkpoint."""
    table = params["performances"]["embedding"] + 0.5
    return PERFORMANCES.with_table({**params, "performances": {"embedding": table}})


@pytest.fixture
def no_inverter(monkeypatch):
    monkeypatch.setattr(hub, "default_inverter", lambda codec: hub.GriffinLim(codec=codec))


def test_a_model_is_loaded_with_its_names(tmp_path, params, no_inverter):
    folder = write_release(tmp_path / "tiny", params)
    synthesizer = hub.load(folder, overlap=1.28)
    assert synthesizer.model == MODEL and synthesizer.performances.names == ("studio", "church", "kim")
    assert synthesizer.joining.windows.overlap == 64
    assert hub.load_performances(folder) == synthesizer.performances == PERFORMANCES.with_table(params)
    with pytest.raises(UserError, match="reads no context"):
        hub.load(folder, joining="context")


def test_a_model_without_performances_has_no_names(tmp_path):
    assert hub.load_performances(
        tiny_release.write_release(tmp_path / "plain", tiny_release.tiny_params())) is None


def test_names_that_are_missing_or_of_another_checkpoint_are_errors(tmp_path, params, of_another):
    folder = write_release(tmp_path / "tiny", params, None)
    with pytest.raises(UserError, match=f"has no {FILE}, the names of its 3 performances"):
        hub.load(folder)
    write_performances(folder / FILE, of_another)
    with pytest.raises(UserError, match=f"{FILE}: is of another checkpoint"):
        hub.load(folder)
    write_performances(folder / FILE, dataclasses.replace(
        PERFORMANCES, performances=PERFORMANCES.performances[:2]))
    with pytest.raises(UserError, match="names 2 performances of a model that has 3"):
        hub.load(folder)


def test_a_training_run_has_the_names_in_its_folder_or_numbers(tmp_path, params, no_inverter, monkeypatch):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(hub, "trained_model", lambda folder: (MODEL, params, 5, ""))
    synthesizer = hub.load(tmp_path / "run")
    assert isinstance(synthesizer, Synthesizer) and synthesizer.performances.names == ("0", "1", "2")
    assert synthesizer.performances.default == "0"
    write_performances(tmp_path / "run" / FILE, PERFORMANCES)
    assert hub.load(tmp_path / "run").performances == PERFORMANCES


@pytest.fixture
def run(tmp_path, monkeypatch, params):
    """A training run, given its configuration and parameters."""
    def run(config=TRAINING, params=params):
        monkeypatch.setattr("music_diffusion.training.checkpoints.read_params",
                            lambda model_dir, step: (params, 7, config))
        (tmp_path / "run").mkdir(exist_ok=True)
        return str(tmp_path / "run")

    return run


def test_a_release_has_the_names_with_the_digest_of_its_table(tmp_path, run):
    write_performances(tmp_path / "names.json", PERFORMANCES)
    release(run(), str(tmp_path / "out"), performances=tmp_path / "names.json")
    kept = load_safetensors(tmp_path / "out" / WEIGHTS)
    names = read_performances(tmp_path / "out" / FILE)
    assert names.table == table_digest(kept) and dataclasses.replace(names, table=None) == PERFORMANCES
    assert hub.load_performances(tmp_path / "out") == names


@pytest.mark.parametrize("binding", [
    "RecordSource.performance = {!r}", "NAMES = {!r}\nRecordSource.performance = %NAMES",
    "NAMES = {!r}\nMORE = %NAMES\nvalidation/RecordSource.performance = %MORE"])
def test_by_default_the_names_are_those_of_the_training_data(tmp_path, run, binding):
    write_performances(tmp_path / "names.json", PERFORMANCES)
    folder = run(TRAINING + binding.format(str(tmp_path / "names.json")))
    release(folder, str(tmp_path / "out"))
    assert read_performances(tmp_path / "out" / FILE).names == PERFORMANCES.names


def test_names_in_the_runs_folder_come_first(tmp_path, run):
    write_performances(tmp_path / "names.json", PERFORMANCES)
    folder = run(TRAINING + f"RecordSource.performance = {str(tmp_path / 'names.json')!r}")
    write_performances(tmp_path / "run" / FILE, dataclasses.replace(PERFORMANCES, default="kim"))
    release(folder, str(tmp_path / "out"))
    assert read_performances(tmp_path / "out" / FILE).default == "kim"


@pytest.mark.parametrize("bindings", ["", "RecordSource.performance = True\n",
                                      "RecordSource.performance = 'gone/names.json'\n"])
def test_a_model_with_performances_is_not_released_without_names(tmp_path, run, bindings):
    with pytest.raises(UserError, match="give their names by --performances"):
        release(run(TRAINING + bindings), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_names_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, run, of_another):
    few = dataclasses.replace(PERFORMANCES, performances=PERFORMANCES.performances[:2])
    for names, reason in ((few, "names 2 performances"), (of_another, "another checkpoint")):
        write_performances(tmp_path / "names.json", names)
        with pytest.raises(UserError, match=reason):
            release(run(), str(tmp_path / "out"), performances=tmp_path / "names.json")
    plain = tiny_release.GIN.replace("released.model", "train.model")
    with pytest.raises(UserError, match="knows no performances; leave it out"):
        release(run(plain, tiny_release.tiny_params()), str(tmp_path / "out"),
                performances=tmp_path / "names.json")
    assert not (tmp_path / "out").exists()
