"""Every recipe is read, and its model is what its header says."""

import math

import jax
import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.audio.codec import MelCodec

RECIPES = sorted(p.name for p in (gin_setup.gin_root() / "recipes").glob("*.gin"))
PARAMETERS = {  # by the layout of the published checkpoints, and by the model card
    "spectrogram_diffusion_small_context.gin": 104_035_840,
    "spectrogram_diffusion_base_context.gin": 411_665_664,
    "default.gin": 11_863_424,
    "inverter_paper.gin": 3_743_745 + 22_460_100,  # generator and discriminators, by the headers
    "inverter_small.gin": 986_113 + 2_043_173,
    "inverter_istft.gin": 7_964_292 + 2_043_173,
    "inverter_istft_44k.gin": 3_601_414 + 2_043_813,
}
INVERTERS = [r for r in PARAMETERS if r.startswith("inverter_")]  # by a generator
PARAMETERS |= {"inverter.gin": 6_578_052, "inverter_44k.gin": 7_958_404,
               "transcriber.gin": 7_263_560, "tagger.gin": 1_434_987}


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_builds_its_parts(recipe):
    gin_setup.parse([f"recipes/{recipe}"])
    gin_setup.require("train.model", "train.data", "train.optimizer", "train.config")
    parts = {name: gin.query_parameter(f"train.{name}").scoped_configurable_fn()
             for name in ("model", "data", "optimizer", "config")}
    assert parts["config"].batch_size >= 1 and parts["optimizer"].learning_rate(0) >= 0
    if recipe in PARAMETERS:
        model = parts["model"]
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))
        assert sum(x.size for x in jax.tree.leaves(variables["params"])) == PARAMETERS[recipe]
    model_bindings = [u for u in gin_setup.unused_bindings() if not u.startswith(
        ("mesh", "MICROBATCHES"))]
    assert not [u for u in model_bindings if "Config" in u or "Model" in u], model_bindings


@pytest.mark.parametrize("recipe", INVERTERS)
def test_inverters_compare_a_second(recipe):
    gin_setup.parse([f"recipes/{recipe}"])
    model, data = (gin.query_parameter(f"train.{name}").scoped_configurable_fn()
                   for name in ("model", "data"))
    assert data.codec == model.codec
    frames = (data.samples - model.codec.window) / model.codec.hop + 1 - 2 * model.trim
    assert frames == model.codec.frame_rate == 50


@pytest.mark.parametrize("name", ["24k", "44k", "48k"])
def test_codecs_are_a_file(name):
    gin_setup.parse(["recipes/inverter_istft_44k.gin", f"codecs/{name}.gin"])
    model = gin.query_parameter("train.model").scoped_configurable_fn()
    codec = model.codec
    assert codec.sample_rate // 1000 == int(name[:2]) and codec.frame_rate == 50
    assert codec.mel_matrix.any(axis=0).all()  # no bin is empty
    assert codec.log_max == pytest.approx(4.0 + math.log(codec.window / 640), abs=0.05)


def test_the_16k_file_is_the_default_codec():
    gin_setup.parse(["recipes/inverter_istft.gin"])
    assert gin.query_parameter("train.model").scoped_configurable_fn().codec == MelCodec()
