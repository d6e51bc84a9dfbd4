"""gin: root, registration, one-line errors, and what has been read."""

import dataclasses
import subprocess
import sys

import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.errors import UserError


@pytest.fixture(autouse=True)
def clear():
    yield
    gin.clear_config()


def test_root_holds_the_recipes():
    assert (gin_setup.gin_root() / "recipes" / "tiny.gin").is_file()


@pytest.mark.slow
def test_importing_registers_nothing():
    code = ("import music_diffusion.gin_setup, music_diffusion.training.loop, gin; "
            "assert not gin.config._REGISTRY.matching_selectors('TrainConfig'); "
            "music_diffusion.gin_setup.register_configurables(); "
            "music_diffusion.gin_setup.register_configurables(); "
            "assert gin.config._REGISTRY.matching_selectors('TrainConfig')")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_configured_objects_are_of_the_plain_class():
    from music_diffusion.training.partitioning import MeshConfig

    gin_setup.register_configurables()
    gin.clear_config()
    gin.parse_config("MeshConfig.model = 1\nx/MeshConfig.data = 1")
    made = gin.get_configurable("MeshConfig")()
    assert type(made) is MeshConfig and made == MeshConfig(model=1)


def test_ones_own_class_is_registered_and_stays_as_it_is():
    def of_width(default):
        @gin_setup.register
        @dataclasses.dataclass(frozen=True)
        class Own:
            width: int = default

        return Own

    gin_setup.register_configurables()
    for default in (2, 3):  # the second time as from a notebook's cell
        own = of_width(default)
        assert own() == own(default) and dataclasses.is_dataclass(own)
        gin.clear_config()
        assert gin.get_configurable("Own")() == own(default)
        gin.parse_config("Own.width = 8\nscope/Own.width = 9")
        made = gin.get_configurable("Own")()
        assert type(made) is own and made.width == 8 and own() == own(default)
        assert gin_setup.key_of("Own.width").selector.endswith(".Own")
    assert not gin.config._INTERACTIVE_MODE


def test_ones_own_class_may_not_take_a_name_of_the_package():
    class NoteFrames:
        pass

    with pytest.raises(UserError, match="NoteFrames: .* give yours another name"):
        gin_setup.register(NoteFrames)


@pytest.mark.parametrize("binding, message", [
    ("TOTAL_STEP = 3", "did you mean TOTAL_STEPS"),
    ("adafactor.learning = 3", "doesn't have a parameter named 'learning'"),
    ("adafacto.learning_rate = 3", "No configurable matching 'adafacto'"),
    ("TOTAL_STEPS = 3 4", "TOTAL_STEPS"),
    ("TOTAL_STEPS", "--gin.NAME=value")])
def test_bad_bindings(binding, message):
    with pytest.raises(UserError, match=message) as caught:
        gin_setup.parse(["recipes/tiny.gin"], [binding])
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="absent.gin: no such gin file"):
        gin_setup.parse(["absent.gin"])
    (tmp_path / "broken.gin").write_text("TrainConfig.seed = (1,\n")
    with pytest.raises(UserError, match="broken.gin"):
        gin_setup.parse([str(tmp_path / "broken.gin")])
    (tmp_path / "include.gin").write_text("include 'sizes/absent.gin'\n")
    with pytest.raises(UserError, match="sizes/absent.gin"):
        gin_setup.parse([str(tmp_path / "include.gin")])
    gin_setup.parse(["runs/train.gin"])
    with pytest.raises(UserError, match="train.model"):
        gin_setup.require("train.config", "train.model")


def test_includes_work_where_a_folder_has_the_same_name(tmp_path, monkeypatch):
    (tmp_path / "sizes").mkdir()  # a namespace package, on which gin 0.5.0 stumbles
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    gin_setup.parse(["recipes/tiny.gin"])
    assert gin.query_parameter("T5Config.embed_dim") == 32


def test_unused_bindings_know_scopes():
    gin_setup.register_configurables()
    gin.clear_config()
    gin.parse_config(["a/MeshConfig.data = 1", "b/MeshConfig.data = 1", "MeshConfig.model = 1",
                      "X = 1", "Y = 1", "MeshConfig.fsdp = %X"])
    with gin.config_scope("a"):
        gin.get_configurable("MeshConfig")()
    assert gin_setup.unused_bindings() == ["Y", "b/MeshConfig.data"]


def test_what_inner_scopes_bind_again_is_not_read():
    gin_setup.register_configurables()
    gin.clear_config()
    gin.parse_config(["MeshConfig.data = 1", "a/MeshConfig.data = 2", "a/b/MeshConfig.data = 3"])
    with gin.config_scope("a/b"):
        assert gin.get_configurable("MeshConfig")().data == 3
    assert gin_setup.unused_bindings() == ["MeshConfig.data", "a/MeshConfig.data"]
    with gin.config_scope("a/c"):
        assert gin.get_configurable("MeshConfig")().data == 2
    assert gin_setup.unused_bindings() == ["MeshConfig.data"]


@pytest.mark.parametrize("name, shown", [
    ("TOTAL_STEPS", "TOTAL_STEPS"), ("a/X", "a/X"), ("adamw.b1", "adamw.b1"),
    ("a/b/optimizers.adamw.b1", "a/b/adamw.b1")])
def test_names_of_bindings(name, shown):
    gin_setup.register_configurables()
    gin.clear_config()
    gin.parse_config(f"{name} = 1")
    assert list(gin_setup.bindings()) == [gin_setup.key_of(name)]
    assert str(gin_setup.key_of(name)) == shown


def test_values_are_objects_that_win_over_files_and_lose_to_bindings():
    marker = object()
    gin_setup.parse(["recipes/tiny.gin"], ["BATCH_SIZE = 5"], values={
        "BATCH_SIZE": 3, "TOTAL_STEPS": 7, "train.data": marker, "scope/adamw.b1": 0.25})
    config = gin.get_bindings("train")["config"]
    assert (config.batch_size, config.total_steps) == (5, 7)
    assert gin.query_parameter("train.data") is marker
    assert gin.query_parameter("scope/adamw.b1") == 0.25
    with pytest.raises(ValueError, match="no parameter|doesn't have a parameter|No parameter"):
        gin_setup.parse(["recipes/tiny.gin"], values={"adamw.b9": 1})
