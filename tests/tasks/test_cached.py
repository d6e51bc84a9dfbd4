"""seqio's own cache script on our tasks, registered as it wants it: by importing a module."""

import importlib
import json
import sys

import numpy as np
import pytest
from reference import needs
from reference.tiny_records import CODEC, TinySet, write_records

seqio = needs.module("seqio")
needs.module("apache_beam")

from absl import flags  # noqa: E402
from seqio.scripts import cache_tasks_main  # noqa: E402

from music_diffusion.errors import UserError  # noqa: E402
from music_diffusion.tasks import registering  # noqa: E402

MODULE = "music_diffusion.tasks.from_environment"


@pytest.fixture
def variable(tmp_path, monkeypatch):
    """Sets the variable, for records of the tiny codec; the module will be imported anew."""
    gin = tmp_path / "tiny.gin"
    gin.write_text("".join(f"MelCodec.{k} = {v}\n" for k, v in CODEC.to_dict().items()))

    def set_to(value):
        monkeypatch.setenv("MUSIC_DIFFUSION_TASKS", value.replace("CODEC", str(gin)))
        sys.modules.pop(MODULE, None)

    yield set_to
    sys.modules.pop(MODULE, None)


def cache(monkeypatch, **options):
    """Runs the script in this process, which has TensorFlow already."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["seqio_cache_tasks"])
    for option, value in options.items():
        monkeypatch.setattr(flags.FLAGS, option, value)
    cache_tasks_main.main([])


def by_targets(examples):
    return sorted(examples, key=lambda e: e["targets"].tobytes())


@pytest.mark.slow
def test_a_cached_task_gives_the_arrays_of_the_uncached_one(tmp_path, folder, monkeypatch, variable):
    name = "urmp_performance"  # features of ranks 0 to 2, integers and floats
    variable(f"urmp={folder},codec=CODEC")
    monkeypatch.setattr(registering, "CACHING_SHARDS", 2)
    cache(monkeypatch, tasks=[name], module_import=[MODULE], min_shards=2,
          output_cache_dir=str(tmp_path / "cache"))
    task = seqio.get_mixture_or_task(name)
    for split in ("train", "validation"):
        want = list(task.get_dataset(split=split, shuffle=False).as_numpy_iterator())
        given = task.get_dataset(split=split, shuffle=False, use_cached=True)
        assert all(s.shape.is_fully_defined() for s in given.element_spec.values())
        got = list(given.as_numpy_iterator())
        assert task.get_cached_stats(split)["examples"] == len(got) == len(want)
        for a, b in zip(by_targets(got), by_targets(want), strict=True):
            assert a.keys() == b.keys()
            for feature in b:
                np.testing.assert_array_equal(a[feature], b[feature])
                assert np.asarray(a[feature]).dtype == np.asarray(b[feature]).dtype
    # In training they come in another order for another seed.
    orders = [[e["targets"].tobytes() for e in task.get_dataset(use_cached=True, seed=seed)
               .as_numpy_iterator()] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])


def test_importing_registers_what_the_variable_names(tmp_path, folder, variable):
    other = write_records(tmp_path / "other", TinySet(labels=False))
    variable(f"urmp={folder}, maestro={other},starnet={folder},codec=CODEC")
    importlib.import_module(MODULE)
    tasks, mixtures = set(seqio.TaskRegistry.names()), set(seqio.MixtureRegistry.names())
    assert {"urmp_performance", "maestro_frame_diffusion", "starnet_timbre_transfer"} < tasks
    assert "maestro_performance" not in tasks  # has no labels
    assert mixtures == {"mega_spectrogram_diffusion", "mega_spectrogram_diffusion_context",
                        "mega_frame_diffusion"}


def test_importing_registers_what_a_table_names(tmp_path, folder, variable):
    table = {"starnet": folder, "codec": str(tmp_path / "tiny.gin")}
    (tmp_path / "folders.json").write_text(json.dumps(table))
    variable(str(tmp_path / "folders.json"))
    importlib.import_module(MODULE)
    assert list(seqio.TaskRegistry.names()) == ["starnet_timbre_transfer"]
    assert not seqio.MixtureRegistry.names()


@pytest.mark.parametrize("value, message", [
    ("", "MUSIC_DIFFUSION_TASKS names no data"),
    ("maestro", "'maestro' is no NAME=FOLDER"),
    ("maestri=/data", "maestri: no such data set; did you mean maestro"),
    ("maestro=/none", "/none: no manifest.json"),
    ("maestro=/none,codec=17k", "codec 17k: no such gin file"),
    ("/none/folders.json", "cannot be read"),
])
def test_a_bad_variable_is_a_one_line_error(variable, value, message):
    variable(value)
    with pytest.raises(UserError, match=message) as error:
        importlib.import_module(MODULE)
    assert "\n" not in str(error.value)


def test_records_of_another_codec_and_a_table_of_other_things_are_refused(tmp_path, folder, variable):
    variable(f"urmp={folder}")
    with pytest.raises(UserError, match="codecs differ"):
        importlib.import_module(MODULE)
    (tmp_path / "a.json").write_text('["maestro"]')
    variable(str(tmp_path / "a.json"))
    with pytest.raises(UserError, match="write it as"):
        importlib.import_module(MODULE)
