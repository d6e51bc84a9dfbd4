"""Every recipe is read to its last binding, and its model is what its header says."""

import inspect
import itertools
import math
import re

import pytest
from reference.commands import Checker, commands, header
from safetensors import safe_open

import gin
from music_diffusion import gin_setup
from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.configuration.origins import written
from music_diffusion.configuration.print_config import GIVEN, parameter_count
from music_diffusion.configuration.reads import build, reads, unread
from music_diffusion.data.sets.starnet import CONVERSIONS
from music_diffusion.diffusion.losses import DiscreteTimes, l1
from music_diffusion.diffusion.solvers import DDIM, DDPM
from music_diffusion.gin_setup import CONFIGURABLES, MACRO
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.synthesis.hub import weights_root
from music_diffusion.synthesis.release import released_config
from music_diffusion.workflows.tables import table_of

ROOT = gin_setup.gin_root()


def names(pattern: str) -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob(pattern))


TRAINED = names("recipes/*.gin")
# `music-diffusion adapt` gives the model and the data.
ADAPTED = ["recipes/fine_tune/adapt.gin", "recipes/fine_tune/adapt_notes.gin"]
# Read after the configuration of a released model.
FINE_TUNED = [n for n in names("recipes/fine_tune/*.gin") if n not in ADAPTED]
EVALUATED = [n for n in names("recipes/evaluation/*.gin") if n != "recipes/evaluation/table.gin"]
RECIPES = [*TRAINED, *FINE_TUNED, *EVALUATED]
DEFAULT = weights_root() / "default"
# What `runs/t5x*.gin` name is known to gin only in t5x's own programs: see tests/t5x.
PARTS = [n for folder in ("sizes", "codecs", "runs") for n in names(f"{folder}/*.gin")
         if not n.startswith("runs/t5x")]
# Files that no recipe includes, but people or `train --data` add to one; each is tested.
ADDED = ["codecs/24k.gin", "codecs/48k.gin", "runs/accelerator.gin", "runs/one_performance.gin"]


def t5_layout(*, embed, heads, head, mlp, layers, context, tokens=2048, frames=256, performances=0,
              features=0):
    """Parameters of the published checkpoints, by their layout: 1536 ids, 128 bins, no biases.

    With performances a table of them, whose features widen the decoder's FiLM, and two FiLM layers
    in every layer of the encoders.
    """
    attention, gated = 4 * embed * heads * head, 3 * embed * mlp
    encoder, decoder = layers
    encoded = encoder * (2 * embed + attention + gated + 2 * features * 2 * embed) + embed
    notes = 1536 * embed + tokens * embed + encoded
    before = 128 * embed + frames * embed + encoded if context else 0
    film = 2 * (4 * embed + features) * (2 * embed)
    block = 3 * embed + 2 * attention + film + gated
    time = embed * 4 * embed + 4 * embed * 4 * embed
    return (performances * features + notes + before + time + 128 * embed + frames * embed
            + decoder * block + embed + embed * 128)


def unet_layout(*, widths, heads, group=False, performances=0, features=0, tails=0, blocks=2, time=64,
                head=64, mels=128, roll=3 * 128 + 2 * 35):
    """Parameters of a U-Net, its FiLM of the map and its gains of tails, without the note timbre network.

    By `networks.unet1d`: a block has two norms, FiLM, two convolutions of 3 taps and, where the width
    changes, a shortcut; group norms have a bias beside their scale.
    """
    film, norm = 4 * time + features, 1 + group

    def block(before, width):
        return (norm * (before + width) + film * 2 * before + 3 * width * (before + width) + 2 * width
                + (before * width if before != width else 0))

    down = sum(block(widths[max(i - (j == 0), 0)], width)
               for i, width in enumerate(widths) for j in range(blocks))
    up = blocks * sum(block(width, width) for width in widths)
    up += sum(a * b for a, b in itertools.pairwise(widths))
    last = widths[-1]
    middle = norm * last + 4 * last * heads * head + (film * 2 * last if performances else 0)
    embedding = time * 4 * time + (4 * time) ** 2
    first = 3 * (mels + 2 * mels + roll + 1) * widths[0] + widths[0]
    output = norm * widths[0] + (widths[0] + 1) * mels
    table = performances * features + features * (2 + tails) * mels
    return table + embedding + first + down + middle + up + output


def style_layout(values: int, *, width=448, style=256, content=177, frame=256, vector=128) -> int:
    """Parameters of `networks.style_denoiser` over positions of 4 frames with so many values.

    A U-Net of two levels that sees 4 frames of content, FiLM of the vector and whether there is one in
    every block, and four times attention to a map: of queries and output by the width, of keys and values
    by the map's. The style: a linear layer, two maps of two blocks and a norm each, and the vector.
    Colours: of 88 keys with 320 features, two blocks, and two frames of harmonics and noise with a
    strength each.
    """
    unet = unet_layout(widths=(width, width), heads=7, performances=1, features=vector + 1, mels=values,
                       roll=4 * frame - 2 * values - 1) - (vector + 1) * (1 + 2 * values)
    return (values**2 + 2 * values + (content + 1 + 128) * frame + style_encoder(style, vector) + unet
            + 4 * style_memory(width, style) + pitch_colours(vector))


def style_encoder(style: int, vector: int) -> int:
    block = 2 * style + 2 * (3 * style**2 + style)
    return (512 + 1) * style + 2 * (2 * block + style) + 2 * style * vector


def style_memory(width: int, style: int) -> int:
    return width + 2 * width * 7 * 64 + 2 * style * 7 * 64


def pitch_colours(vector: int) -> int:
    return (vector + 2 + 88 + 1) * 320 + 2 * (320 + 2 * (320**2 + 320)) + 321 * 2 * 257


def shipped(name: str) -> int:
    """Parameters in the weights that come with the package; scales of 8-bit ones are none."""
    with safe_open(weights_root() / name / "weights.safetensors", "numpy") as file:
        return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys()
                   if not key.endswith("//scale"))


def note_timbre(width=320, states=8 + 28 + 24, programs=129, keys=256, mels=128, performances=0,
                features=0) -> int:
    """An input layer, four tables, three residual blocks and an output layer.

    With performances a table of them, shifts of programs and keys, and FiLM in each block.
    """
    block = width + 2 * (width * width + width)
    tables = 2 * (programs + keys) * width
    own = performances * features + features * width * (programs + keys + 3 * 2)
    return (states * width + width) + tables + 3 * block + (width + 1) * 2 * mels + own


def frame_autoencoder(*, width, latent, blocks=3, patch=512) -> int:
    """Each way two linear layers, a norm and residual blocks; and the statistics of the latent."""
    block = 2 * width + 2 * (3 * width**2 + width)
    way = [(before + 1) * width + blocks * block + width + (width + 1) * after
           for before, after in ((patch, 2 * latent), (latent, patch))]
    return sum(way) + 2 * latent


# As the default's, and what sees evidence and a reference.
TRANSFER = (note_timbre() + unet_layout(
    widths=(448, 448), heads=7, performances=1, features=64, mels=512, roll=4 * 256 - 2 * 512 - 1)
    - 64 * (1 + 2 * 512) + 512**2 + 2 * 512 + 64 * 2 * 128 + 128 * 128 + 128 * 64
    + 256 * (3 * 128 + 2 * 35 + 2 * 128 + 2 * 88 + 2 * 128 + 1))


def styled(width=448, style=256, vector=128, blocks=8) -> int:
    """Parameters of what hears a style beside a transfer's network: see `style_layout`.

    The vector, and whether there is one, are further rows of FiLM in every block, in the attention and on
    the map.
    """
    film = (vector + 1) * 2 * ((blocks + 1) * width + 128)
    heard = style_encoder(style, vector) + 4 * style_memory(width, style) + pitch_colours(vector)
    return heard + 128 * 256 + film


PARAMETERS = {
    # As published.
    "spectrogram_diffusion_small.gin": 84_956_160,
    "spectrogram_diffusion_small_context.gin": 104_035_840,
    "spectrogram_diffusion_base_context.gin": 411_665_664,
    "tiny.gin": t5_layout(embed=32, heads=2, head=16, mlp=64, layers=(1, 2), context=False,
                          tokens=64, frames=32),
    # As the weights that were trained with them.
    "default.gin": shipped("default"),
    "performance_unet_small.gin": note_timbre() + unet_layout(
        widths=(320, 320, 320), heads=5, performances=12, features=64, tails=3),
    "performance_unet.gin": note_timbre() + unet_layout(
        widths=(512, 512, 512, 512), heads=8, group=True, performances=197, features=64),
    "performances.gin": note_timbre(performances=14, features=16) + unet_layout(
        widths=(320, 320, 320), heads=5, performances=14, features=16, tails=3),
    "note_timbre_performances.gin": note_timbre(performances=12, features=16),
    "performance_t5.gin": t5_layout(embed=512, heads=6, head=64, mlp=1024, layers=(8, 8), context=False,
                                    performances=197, features=64),
    "performance_t5_small.gin": t5_layout(embed=192, heads=3, head=64, mlp=512, layers=(4, 4),
                                          context=False, tokens=512, performances=12, features=64),
    "fine_tune/frame_diffusion.gin": shipped("default"),
    "inverter.gin": shipped("inverter"),
    "transcriber.gin": shipped("transcriber"),
    "tagger.gin": shipped("tagger"),
    # Generator and discriminators, by the headers.
    "inverter_paper.gin": 3_743_745 + 22_460_100,
    "inverter_small.gin": 986_113 + 2_043_173,
    "inverter_istft.gin": 7_964_292 + 2_043_173,
    "inverter_istft_44k.gin": 3_601_414 + 2_043_813,
    "inverter_44k.gin": 7_958_404,
    "note_timbre.gin": note_timbre(),
    "restyle.gin": TRANSFER + styled(),
    "restyle_latent.gin": style_layout(64) + frame_autoencoder(width=384, latent=64),
    # Table 2 of the paper, its attention without biases; the autoencoder and VGGish.
    "style_transfer_paper.gin": 2_729_984 + 8_155_296 - 8 * (512 + 256) + 224_417 + 72_141_184,
    "transfer.gin": TRANSFER,
    # As tests/networks/test_unet2d.py counts the layers.
    **{f"difftransfer_{name}.gin": 21_565_441 for name in CONVERSIONS},
    # Patches of 512 features beside 256 of what is known, and their statistics.
    "unconditional.gin": 512**2 + 2 * 512 + 2 * 512 * 256 + unet_layout(
        widths=(448, 448), heads=7, performances=4, features=64, mels=512, roll=256 - 2 * 512 - 1)
        - 64 * 2 * 512,
    # The autoencoder, its judge, and the tagger without its heads or the published VGGish.
    "autoencoder.gin": frame_autoencoder(width=384, latent=64) + 162_481 + shipped("tagger") - 129 * 44,
    "autoencoder_paper.gin": 224_417 + 72_141_184,
    **{f"unconditional_{name}.gin": 4_209_889 for name in (
        "gtzan_10", "gtzan_10_long", "gtzan_50", "gtzan_100", "carnatic_50", "carnatic_159", "guitarset",
        "maestro")},
}
INVERTERS = [r for r in PARAMETERS if re.match("inverter_(paper|small|istft)", r)]  # by a generator


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def figures(file: str) -> list[int]:
    """Numbers such as 7,964,292 in the header of a gin file."""
    found = re.findall(r"\d{1,3}(?:,\d{3})+", " ".join(header((ROOT / file).read_text())))
    return [int(number.replace(",", "")) for number in found]


class Stopped(BaseException):
    """Training would begin now. No Exception, lest anything on the way take it for a failure."""


@pytest.fixture
def call_train(monkeypatch, tmp_path):
    """Calls `train` with gin's bindings, up to its first look at the data."""
    import importlib

    def stop(*_, **__):
        raise Stopped

    for module, classes in CONFIGURABLES.items():
        for name in classes if module.startswith("music_diffusion.data.") else ():
            source = getattr(importlib.import_module(module), name)
            if hasattr(source, "train_iterator"):
                monkeypatch.setattr(source, "train_iterator", stop)

    def call():
        with pytest.raises(Stopped):
            gin.get_configurable("train")(model_dir=str(tmp_path / "run"))

    return call


def files_of(recipe: str) -> list[str]:
    return [str(DEFAULT / "config.gin"), recipe] if recipe in FINE_TUNED else [recipe]


def test_every_recipe_is_of_a_kind_that_is_tested():
    assert sorted([*RECIPES, *ADAPTED, "recipes/evaluation/table.gin"]) == names("recipes/**/*.gin")
    assert {f"recipes/{name}" for name in PARAMETERS} == {*TRAINED, *FINE_TUNED}


def test_every_part_is_in_a_recipe_or_tested_alone():
    def included(file: str) -> set[str]:
        found = set(re.findall(r"^include '(.*)'", (ROOT / file).read_text(), re.MULTILINE))
        return found.union(*map(included, found))

    used = set().union(*map(included, RECIPES))
    assert set(PARTS) - used == set(ADDED)
    assert "recipes/evaluation/table.gin" in used


@pytest.mark.parametrize("recipe", [*TRAINED, *FINE_TUNED])
def test_training_reads_all_that_a_recipe_binds(recipe, call_train):
    files = files_of(recipe)
    gin_setup.parse(files)
    call_train()
    last = {str(w.key): w.origin for w in written(files)}
    unused = gin_setup.unused_bindings()
    # Of a released model only its own line is not for training.
    assert unused == (["released.model"] if recipe in FINE_TUNED else []), [
        f"{name} ({last[name]})" for name in unused]


@pytest.mark.parametrize("recipe", [*TRAINED, *FINE_TUNED])
def test_what_is_read_is_known_before_training(recipe, call_train):
    gin_setup.parse(files_of(recipe))
    found = reads("train", GIVEN)
    call_train()
    bound, defaults = set(), set()
    every = gin_setup.bindings()
    for (scope, selector), parameters in gin.config._OPERATIVE_CONFIG.items():
        for name in parameters:
            key = gin_setup.Key(scope, selector, name)
            bound.add(key.bound_among(every))
            if key.bound_among(every) is None:
                defaults.add(key._replace(scope=""))
    assert set(found.bound) == bound - {None}
    # gin takes no note of the defaults that it could not write.
    assert defaults <= set(found.defaults)
    assert all(gin.config._format_value(value) is None
               for key, value in found.defaults.items() if key not in defaults)
    assert found.missing == ()


@pytest.mark.parametrize("recipe", [*TRAINED, *FINE_TUNED])
def test_a_recipe_builds_its_parts(recipe):
    gin_setup.parse(files_of(recipe))
    parts = build("train", GIVEN)
    assert parts["config"].batch_size >= 1 and parts["optimizer"].learning_rate(0) >= 0
    assert callable(parts["data"].train_iterator) and parts["mesh"].make_mesh().size >= 1
    model = parts["model"]
    count = parameter_count(model)
    assert count == PARAMETERS[recipe.removeprefix("recipes/")]
    if hasattr(model, "codec") and hasattr(parts["data"], "codec"):
        assert parts["data"].codec == model.codec
    # The header's figures are those of the model, or of what is left of it without its judges.
    stated = figures(recipe)
    assert not stated or stated[0] in (count, _kept(model))


def _kept(model) -> int:
    import jax

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))
    kept = model.released_params(shapes["params"])
    return sum(math.prod(x.shape) for x in jax.tree.leaves(kept))


@pytest.mark.parametrize("size, layers, embed, heads, mlp", [
    ("small", (8, 8), 512, 6, 1024), ("base", (12, 12), 768, 12, 2048)])
def test_sizes_state_their_parameters(size, layers, embed, heads, mlp):
    assert figures(f"sizes/t5_{size}.gin") == [
        t5_layout(embed=embed, heads=heads, head=64, mlp=mlp, layers=layers, context=context)
        for context in (True, False)]


@pytest.mark.parametrize("recipe", EVALUATED)
def test_evaluation_reads_all_that_a_recipe_binds(recipe):
    open_macros = [str(w.key) for w in written_after_parse([recipe])
                   if w.key.selector == MACRO and w.value is None]
    table = table_of(recipe, [f"{name} = 'x'" for name in open_macros])
    assert open_macros and table.rows
    assert not unread(reads("evaluated"))


def written_after_parse(files: list[str]):
    gin_setup.parse(files, training=False)
    return written(files)


@pytest.mark.parametrize("file", [*RECIPES, *PARTS])
def test_a_header_says_what_it_is_and_its_commands_are_right(file):
    lines = header((ROOT / file).read_text())
    assert lines, "a gin file opens with what it is; a recipe with its command and what to expect"
    shown = list(commands(lines))
    if file in TRAINED:
        assert any(f"--gin_file={file}" in words for words in shown)
    if file in EVALUATED:
        assert any(file in words for words in shown)
    checker = Checker()
    for words in shown:
        checker.check(words)


@pytest.mark.parametrize("recipe", INVERTERS)
def test_inverters_compare_a_second(recipe):
    gin_setup.parse([f"recipes/{recipe}"])
    parts = build("train", GIVEN)
    model, data = parts["model"], parts["data"]
    frames = (data.samples - model.codec.window) / model.codec.hop + 1 - 2 * model.trim
    assert frames == model.codec.frame_rate == 50


@pytest.mark.parametrize("name", ["24k", "44k", "48k"])
@pytest.mark.parametrize("recipe", ["inverter_istft_44k.gin", "spectrogram_diffusion_small.gin",
                                    "default.gin"])
def test_codecs_are_a_file(recipe, name):
    gin_setup.parse([f"recipes/{recipe}", f"codecs/{name}.gin"])
    parts = build("train", GIVEN)
    codec = parts["model"].codec
    assert parts["data"].codec == codec
    assert codec.sample_rate // 1000 == int(name[:2]) and codec.frame_rate == 50
    assert codec.mel_matrix.any(axis=0).all()  # no bin is empty
    assert codec.log_max == pytest.approx(4.0 + math.log(codec.window / 640), abs=0.05)
    assert not [key for key in unread(reads("train", GIVEN)) if "MelCodec" in key.selector]


def test_the_16k_file_is_the_default_codec():
    gin_setup.parse(["recipes/inverter_istft.gin"])
    assert build("train", GIVEN)["model"].codec == MelCodec()


@pytest.mark.parametrize("recipe", ["spectrogram_diffusion_small.gin", "default.gin"])
def test_an_accelerator_computes_in_bfloat16_and_anew(recipe):
    gin_setup.parse([f"recipes/{recipe}", "runs/accelerator.gin"],
                    ["MICROBATCHES = 2", "FSDP = 4", "MODEL_PARALLEL = 2"])
    parts = build("train", GIVEN)
    model = parts["model"].config
    network = getattr(model, "unet", model)
    assert (network.dtype, network.remat) == ("bfloat16", "dots")
    assert parts["config"].microbatches == 2
    assert (parts["mesh"].fsdp, parts["mesh"].model) == (4, 2)
    assert parameter_count(parts["model"]) == PARAMETERS[recipe]
    assert not unread(reads("train", GIVEN))
    # As the file says, a model for CPUs.
    released = released_config(gin.config_str(), ["DTYPE = 'float32'"])
    assert "DTYPE = 'float32'" in released and "bfloat16" not in released


def test_one_setting_of_the_notes_reaches_tokens_network_and_rendering():
    gin_setup.parse(["recipes/spectrogram_diffusion_small.gin"],
                    ["VELOCITY_BINS = 127", "GRANULARITY = 'slakh'", "TOKENS = 1024"])
    parts = build("train", GIVEN)
    model, conditions = parts["model"], parts["data"].conditions
    assert model.events == conditions.events
    assert (model.events.velocity_bins, model.events.granularity) == (127, "slakh")
    assert conditions.tokens == model.config.max_tokens == 1024
    # 3 special ids, 1001 shifts, 128 pitches, velocities 0..127, tie, 128 programs, 128 drums, 100.
    assert model.config.vocab_size == 1664 == 128 * math.ceil(
        (3 + 1001 + 128 + 128 + 1 + 128 + 128 + 100) / 128)


def test_layouts_written_out_by_hand_are_those_of_the_shipped_weights():
    # Patches of four frames, of whose conditions the U-Net sees 256 features each, and their statistics.
    conditions = (2 * 128 + 3 * 128 + 2 * 35 + 1) * 256
    assert 512**2 + 2 * 512 + conditions + note_timbre() + unet_layout(
        widths=(448, 448), heads=7, mels=512, roll=4 * 256 - 2 * 512 - 1) == shipped("default")


@pytest.mark.parametrize("recipe, steps", [
    ("performance_t5.gin", 250), ("performance_unet.gin", 250), ("performance_t5_small.gin", 50)])
def test_performance_conditioning_is_set_as_in_the_paper(recipe, steps):
    gin_setup.parse([f"recipes/{recipe}"])
    parts = build("train", GIVEN)
    model = parts["model"]
    assert (model.guidance_weight, model.performance_guidance) == (1.25, 1.25)
    assert (model.condition_dropout, model.performance_dropout) == (0.1, 0.1)
    assert model.num_steps == steps and parts["data"].frames * 0.02 == pytest.approx(5.12)
    if steps == 250:
        assert model.training_times == DiscreteTimes(steps=1000) and model.solver == DDPM()
        assert model.config.performances == PerformanceConfig(count=197, features=64)
    if hasattr(model.config, "unet"):
        assert model.config.unet.norm == "group" and len(set(model.config.unet.widths)) == 1
    else:
        assert not model.config.context and model.config.encoder_film


@pytest.mark.parametrize("recipe", ["performance_t5.gin", "performance_t5_small.gin",
                                    "performance_unet.gin", "performance_unet_small.gin"])
def test_performances_of_a_recipe_are_three_macros(recipe):
    gin_setup.parse([f"recipes/{recipe}"], ["PERFORMANCES = 'names.json'", "NUM_PERFORMANCES = 7",
                                            "PERFORMANCE_FEATURES = 9", "DATA = 'data'"])
    parts = build("train", GIVEN)
    assert parts["model"].config.performances == PerformanceConfig(count=7, features=9)
    assert parts["data"].folder == "data"
    assert parts["data"].conditions.performance == PerformanceNumbers(file="names.json", count=7)


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_difftransfer_is_set_as_in_the_paper(conversion):
    gin_setup.parse([f"recipes/difftransfer_{conversion}.gin"])
    parts = build("train", GIVEN)
    model, config = parts["model"], parts["config"]
    assert (config.batch_size, config.ema_decay, model.num_steps) == (16, 0.999, 20)
    assert parts["optimizer"].learning_rate(0) == 2e-5 and inspect.unwrap(model.distance) is l1
    assert model.solver == DDIM(eta=0.0) and model.segment.same_noise and model.slices_scaled
    assert parts["data"].frames == model.frames == 128
    assert (model.config.widths, model.config.middle, model.config.blocks) == ((64, 128, 256), 512, 4)
    text = (ROOT / f"recipes/difftransfer_{conversion}.gin").read_text()
    assert f"--option conversion={conversion}" in text
    gin_setup.parse([f"recipes/difftransfer_{conversion}.gin"], ["NORM = 'group'"])
    assert build("train", GIVEN)["model"].config.norm == "group"
