"""What a call reads, against calls."""

import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.configuration.reads import build, check, reads, unread
from music_diffusion.errors import UserError
from music_diffusion.training.partitioning import MeshConfig


@pytest.fixture(autouse=True)
def clear():
    gin_setup.register_configurables()
    gin.clear_config()
    yield
    gin.clear_config()


def names(keys) -> set[str]:
    return {str(key) for key in keys}


def test_scopes_macros_and_containers_are_followed():
    gin.parse_config("""
    by_part.parts = {'a': @a/PartOptimizer(), 'b': [@b/PartOptimizer()]}
    PartOptimizer.optimizer = @adamw()
    PartOptimizer.every = %EVERY
    EVERY = %TWICE
    TWICE = 2
    adamw.b1 = 0.5
    a/adamw.b1 = 0.6
    b/adamw.b2 = 0.7
    c/adamw.b2 = 0.8
    warmup_cosine.peak = 1.0
    """)
    found = reads("by_part")
    assert names(found.bound) == {
        "by_part.parts", "PartOptimizer.optimizer", "PartOptimizer.every", "EVERY", "TWICE",
        "adamw.b1", "a/adamw.b1", "b/adamw.b2"}
    assert names(unread(found)) == {"c/adamw.b2", "warmup_cosine.peak"}
    # Bound in every scope where it is called, so that nobody looks further.
    gin.parse_config("b/adamw.b1 = 0.6")
    assert "adamw.b1" in names(unread(reads("by_part")))


def test_what_the_call_reads_is_what_gin_saw():
    gin.parse_config("""
    by_part.parts = {'a': @a/PartOptimizer(), 'b': @b/PartOptimizer()}
    PartOptimizer.optimizer = %OPTIMIZER
    OPTIMIZER = @adamw()
    OPTIMIZER/adamw.b2 = 0.7
    adamw.b1 = 0.5
    a/adamw.b1 = 0.6
    """)
    found = reads("by_part")
    assert gin_setup.unused_bindings() == sorted(names(found.bound) | names(unread(found)))
    gin.get_configurable("by_part")()
    # A macro's value is built in the scope of its name: a/adamw is nobody's.
    assert gin_setup.unused_bindings() == ["a/adamw.b1"] == sorted(names(unread(found)))


def test_functions_that_are_handed_over_will_be_called():
    gin.parse_config("""
    FrameDiffusionModel.distance = @squared
    squared.target = 1.0
    FrameDiffusionModel.schedule = @CosineSchedule
    """)
    found = reads("FrameDiffusionModel")
    assert "squared.target" in names(found.bound) and found.missing == ()
    assert "CosineSchedule.shift" in names(found.defaults)


def test_defaults_and_what_the_caller_gives():
    gin.parse_config("train.config = @TrainConfig()\nTrainConfig.total_steps = 3")
    found = reads("train", ("model_dir", "on_first_step"))
    assert not names(found.bound) & {"train.model_dir", "train.on_first_step"}
    by_name = {str(key): value for key, value in found.defaults.items()}
    assert by_name["TrainConfig.seed"] == 0 and by_name["train.mesh"] == MeshConfig()
    assert "TrainConfig.total_steps" not in by_name and "train.model_dir" not in by_name
    assert set(found.missing) == {
        "train.model", "train.data", "train.optimizer", "TrainConfig.batch_size"}


def test_build_gives_the_arguments():
    gin.parse_config("PartOptimizer.optimizer = @adamw()\nadamw.frozen = ('a',)\n"
                     "PartOptimizer.every = %N\nN = 3")
    arguments = build("PartOptimizer")
    assert arguments["optimizer"].frozen == ("a",) and arguments["every"] == 3


@pytest.mark.parametrize("text, message", [
    ("MeshConfig.data = %DEVICES", "no gin file binds DEVICES"),
    ("MeshConfig.data = %A\nA = @warmup_cosine()\nwarmup_cosine.peak = 1.0",
     "warmup_cosine.warmup_steps, A/warmup_cosine.total_steps"),
    ("MeshConfig.data = @DDPM()\nDDPM.log_variance = 2.0", "self.log_variance=2.0 must be"),
    ("MeshConfig.data = @EventConfig()\nEventConfig.velocity_bins = 0", "self.velocity_bins=0")])
def test_what_does_not_fit_is_one_line(text, message):
    gin.parse_config(text)
    with pytest.raises(UserError) as caught:
        build("MeshConfig")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_override_has_to_be_read():
    gin.parse_config("MeshConfig.data = 1\na/MeshConfig.data = 2\nX = 1")
    found = reads("MeshConfig")
    assert names(check(found, ["MeshConfig.data = 1"])) == {"a/MeshConfig.data", "X"}
    for override in ("a/MeshConfig.data = 2", "X=1", "partitioning.MeshConfig.fsdp = 1"):
        gin.parse_config(override)
        read = override.startswith("part")
        if read:
            check(reads("MeshConfig"), [override])
            continue
        with pytest.raises(UserError, match=f"--gin.{override.partition('=')[0].strip()}: nothing"):
            check(reads("MeshConfig"), [override])
