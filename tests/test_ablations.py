"""docs/ablations.md: every command parses, is read, builds, and changes what it says it changes."""

import pathlib
import re
import subprocess

import pytest
from reference.commands import Checker, commands

import gin
from music_diffusion import gin_setup
from music_diffusion.configuration.print_config import GIVEN
from music_diffusion.configuration.reads import build

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "ablations.md").read_text()
BUILT, WAITING = PAGE.split("## What waits for models")
BLOCKS = re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def checker():
    checker = Checker()
    for block in BLOCKS:
        for words in commands(block.splitlines()):
            checker.check(words)
    gin.clear_config()
    return checker


def test_blocks_hold_commands_that_a_shell_takes():
    assert len(BLOCKS) > 20 and "```" not in WAITING
    for block in BLOCKS:
        lines = block.replace("\\\n", " ").splitlines()
        assert len(list(commands(block.splitlines()))) == len(lines), block
        assert subprocess.run(["bash", "-n"], input=block, text=True).returncode == 0, block


def test_every_command_parses_is_read_and_builds(checker):
    assert len(checker.trained) > 20 and len(checker.released) > 5


def described(parts: dict) -> tuple:
    """What would be trained, as far as it shows in text."""
    return (*(repr(parts[name]) for name in ("model", "data", "config", "mesh")),
            parts["optimizer"].transform.init.__qualname__, float(parts["optimizer"].learning_rate(1)))


def test_no_two_commands_train_the_same(checker):
    seen = {}
    for folder, parts in checker.trained.items():
        key = described(parts)
        assert seen.setdefault(key, folder) == folder
    base = [checker.trained[f"runs/{name}"] for name in ("small_context", "inverter_paper")]
    assert all("context=True" in repr(parts["model"]) or "SEANet" in repr(parts["model"])
               for parts in base)


def test_released_ones_differ_in_their_sampling_alone(checker):
    base = checker.trained["runs/small_context"]["model"]
    models = [model for name, model in checker.released.items()
              if name.startswith("small_") and name != "small_context"]
    assert len(models) > 5 and len({repr(m) for m in models}) == len(models)
    for model in models:
        assert model != base and model.config == base.config and model.events == base.events


def test_released_models_with_performances_differ_in_their_sampling_alone(checker):
    base = checker.trained["runs/performance_t5"]["model"]
    models = [m for name, m in checker.released.items() if name.startswith("performance_")]
    assert len(models) == len({repr(m) for m in models}) == 4
    assert all(m != base and m.config == base.config for m in models)


@pytest.mark.parametrize("folder, sees", [
    ("runs/base", lambda m: not m.config.context and m.config.embed_dim == 768),
    ("runs/short_segments", lambda m: m.config.frames == m.config.context_frames == 128),
    ("runs/velocities", lambda m: m.events.velocity_bins == 127 and m.config.vocab_size == 1664),
    ("runs/slakh_classes", lambda m: m.events.granularity == "slakh"),
    ("runs/squared", lambda m: m.distance(3.0, 1.0) == 4.0),
    ("runs/more_noise", lambda m: m.schedule.logsnr(0.5) < -1.9),
    ("runs/no_condition_dropout", lambda m: m.condition_dropout == 0 and m.guidance_weight == 1),
    ("runs/no_performance_t5", lambda m: m.config.performances is None),
    ("runs/no_performance_unet", lambda m: m.config.performances is None),
    ("runs/decoder_film", lambda m: m.config.performances and not m.config.encoder_film),
    ("runs/rms_norm", lambda m: m.config.unet.norm == "rms"),
    ("runs/performance_context", lambda m: m.config.context and m.config.performances),
    ("runs/44k", lambda m: m.codec.sample_rate == 44100),
    ("runs/spectral_loss_only", lambda m: m.discriminators is None),
    ("runs/stft_discriminator", lambda m: m.discriminators.wave is None)])
def test_models_are_what_the_page_says(folder, sees, checker):
    assert sees(checker.trained[folder]["model"])


def test_the_trial_on_a_laptop():
    files = ["recipes/spectrogram_diffusion_small_context.gin", "sizes/t5_tiny.gin"]
    assert all(f"--gin_file={files[1]}" in PAGE for _ in files)
    gin_setup.parse(files, ["BATCH_SIZE = 8", "TOTAL_STEPS = 2000"])
    parts = build("train", GIVEN)
    assert parts["model"].config.embed_dim == 32 and parts["config"].batch_size == 8
