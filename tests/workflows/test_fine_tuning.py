"""Training as a step of a workflow: objects go into the recipe, a person's overrides win."""

import signal
import types

import pytest

import gin
from music_diffusion.errors import StoppedError, UserError
from music_diffusion.workflows.fine_tuning import fine_tune, shorter, validation_losses

RECIPE = ["recipes/fine_tune/adapt.gin"]


class Source:
    """No string could say what it is."""


@pytest.fixture
def trained(monkeypatch):
    """What `train` was called with; it ends as the test says."""
    calls = []
    ending = types.SimpleNamespace(reason="finished", step=7, signal=None)

    def configurable(name):
        assert name == "train"

        def train(**given):
            calls.append(given | {"config": gin.get_bindings("train")["config"]})
            return ending
        return train

    monkeypatch.setattr(gin, "get_configurable", configurable)
    return calls, ending


def test_objects_and_values_reach_the_training(trained):
    source = Source()
    fine_tune(RECIPE, {"BATCH_SIZE": 3, "TrainConfig.keep": 9, "SEED": 4} | shorter(50, warmup=20), (),
              model_dir="run", data=source, init_from=None)
    (given,), _ = trained
    assert given["data"] is source and given["model_dir"] == "run" and given["init_from"] is None
    config = given["config"]
    assert (config.batch_size, config.keep, config.seed, config.total_steps) == (3, 9, 4, 50)


def test_overrides_win(trained):
    fine_tune(RECIPE, {"BATCH_SIZE": 3}, ("BATCH_SIZE = 5", "TrainConfig.keep = 2"), model_dir="run")
    assert (trained[0][0]["config"].batch_size, trained[0][0]["config"].keep) == (5, 2)


def test_the_caller_s_configuration_is_left_alone(trained):
    gin.clear_config()
    fine_tune(RECIPE, {"BATCH_SIZE": 3}, (), model_dir="run")
    assert gin.config_str() == ""


@pytest.mark.parametrize("number, kind", [(signal.SIGTERM, StoppedError), (None, UserError)])
def test_what_did_not_finish_says_how_to_go_on(trained, number, kind):
    trained[1].reason, trained[1].signal = "stopped", number
    with pytest.raises(UserError, match="training stopped at step 7; run the same command again") as error:
        fine_tune(RECIPE, {}, (), model_dir="run")
    assert type(error.value) is kind
    assert error.value.exit_code == (2 if number is None else 128 + number)


def test_a_binding_that_does_not_fit_is_one_line(trained):
    with pytest.raises(UserError, match="STEP") as error:
        fine_tune(RECIPE, {}, ("STEP = 1",), model_dir="run")
    assert "\n" not in str(error.value) and not trained[0]


def test_an_error_of_the_training_is_one_line(tmp_path):
    with pytest.raises(UserError, match="mount the bucket") as error:
        fine_tune(RECIPE, {}, (), model_dir="gs://bucket/run", model=None, data=None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("steps, warmup, want", [
    (None, 20, {}), (1000, 20, {"TOTAL_STEPS": 1000, "warmup_cosine.warmup_steps": 20}),
    (50, 20, {"TOTAL_STEPS": 50, "warmup_cosine.warmup_steps": 5})])
def test_short_runs_warm_up_shorter(steps, warmup, want):
    assert shorter(steps, warmup) == want


def test_losses_by_step(tmp_path):
    (tmp_path / "eval.csv").write_text("step,loss,other\n10,0.5,1\n20,0.25,1\n")
    assert validation_losses(str(tmp_path)) == {10: 0.5, 20: 0.25}
