"""The same shards through Apache Beam's DirectRunner as without it."""

import builtins
import functools
import hashlib
import os
import pickle
import subprocess
import sys

import pytest
from layouts.memory import Failing, Formula, MemorySet, item, sine
from reference import needs

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import beam as beam_module
from music_diffusion.data.beam import beam_runner
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.errors import UserError

CODEC = MelCodec(sample_rate=1000, hop=20, window=40, fft=64, mels=4, fmax=500.0)


def items(count=5):
    return tuple(item(f"{split}/{i}", tone(50.0 * (i + 1)), split=split)
                 for split in ("train", "validation") for i in range(count))


def tone(hertz):
    return Formula(wave=functools.partial(sine, hertz=hertz), seconds=1.0)


def plan(**more):
    return BuildPlan(**dict(codec=CODEC, frames=10, shards=3, workers=1) | more)


def files(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


class Leftover:
    """A task that tells of itself as `WriteShard` does: its files are the results."""

    def __init__(self, folder, visible=True):
        self.folder, self.visible = str(folder), visible

    def __call__(self, name):
        if name == "bad":
            raise UserError("bad: of no use; leave it “out”\\n")
        if name == "bug":
            raise KeyError(name)
        with open(os.path.join(self.folder, name), "a") as f:
            f.write("x")

    def finished(self, name):
        path = os.path.join(self.folder, name)
        return os.path.getsize(path) if self.visible and os.path.exists(path) else None


def run(task, names, runner="DirectRunner", options=()):
    told = []
    return beam_runner(runner, options)(task, names, 2, lambda i, n: told.append((i, n))), told


def test_without_beam_the_error_says_what_to_install(monkeypatch, tmp_path):
    def absent(name, *rest, **more):
        if name.startswith("apache_beam"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    imported = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"pip install 'music-diffusion\[beam\]'"):
        run(Leftover(tmp_path), ["a"])


def test_what_is_finished_needs_no_pipeline(monkeypatch, tmp_path):
    monkeypatch.setattr(beam_module, "_pipeline", lambda *_: pytest.fail("a pipeline"))
    for name in "ab":
        (tmp_path / name).write_text("xx")
    assert run(Leftover(tmp_path), ["a", "b"]) == ([2, 2], [(2, 2)])
    assert run(Leftover(tmp_path), []) == ([], [(0, 0)])


def test_a_task_that_tells_nothing_afterwards_is_refused():
    with pytest.raises(TypeError, match="results"):
        run(abs, [1])


def test_the_runner_is_picklable():
    assert pickle.loads(pickle.dumps(beam_runner("DirectRunner", ("--x=1",)))).args == (
        "DirectRunner", ("--x=1",))


def test_importing_needs_no_beam():
    code = "import sys; import music_diffusion.data.beam; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def beam():
    return needs.module("apache_beam")


def test_shards_and_manifest_are_those_of_a_run_here(beam, tmp_path):
    told = []
    build(MemorySet(items=items()), "memory", plan(), str(tmp_path / "here"))
    manifest = build(MemorySet(items=items()), "memory", plan(), str(tmp_path / "beam"),
                     run=beam_runner("DirectRunner"), progress=lambda i, n: told.append((i, n)))
    assert files(tmp_path / "here") == files(tmp_path / "beam")
    shards = len(manifest["checksums"])
    assert told[-1] == (shards, shards) and shards > 3


def test_results_are_in_order_and_only_what_is_left_is_done(beam, tmp_path):
    (tmp_path / "b").write_text("xxx")
    assert run(Leftover(tmp_path), ["c", "b", "a"]) == ([1, 3, 1], [(3, 3)])


def test_an_error_of_a_task_is_its_one_line(beam, tmp_path):
    with pytest.raises(UserError) as error:
        run(Leftover(tmp_path), ["bad"])
    assert str(error.value) == "bad: of no use; leave it “out”\\n"


def test_an_item_that_is_refused_is_named(beam, tmp_path):
    broken = item("odd", Failing(sound=tone(50.0), error=UserError("odd: damaged")))
    with pytest.raises(UserError, match="^odd: .*damaged"):
        build(MemorySet(items=(*items(1), broken)), "memory", plan(refuse=True), str(tmp_path / "out"),
              run=beam_runner("DirectRunner"))
    assert '"complete": false' in (tmp_path / "out" / "manifest.json").read_text()


def test_a_bug_of_a_task_is_told_by_its_class(beam, tmp_path):
    with pytest.raises(UserError, match="DirectRunner: the pipeline failed: .*bug") as error:
        run(Leftover(tmp_path), ["bug"])
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_shared_is_an_error(beam, tmp_path):
    with pytest.raises(UserError, match="2 of 2 shards are not there.*share"):
        run(Leftover(tmp_path, visible=False), ["a", "b"])


def test_an_unknown_runner_is_an_error(beam, tmp_path):
    with pytest.raises(UserError, match="--runner Fooner"):
        run(Leftover(tmp_path), ["a"], runner="Fooner")
    with pytest.raises(UserError, match="--runner DirectRunner --direct_num_workers=many: .*invalid"):
        run(Leftover(tmp_path), ["a"], options=("--direct_num_workers=many",))


def test_large_listings_fit_into_a_pipelines_description(beam, tmp_path):
    # 8000 items of a hundred bytes of paths each: Dataflow takes 10 MB.
    names = [f"{'recordings/of/a/data/set/' * 4}{i}.flac" for i in range(8000)]
    tasks = [names[i::32] for i in range(32)]
    pipeline = beam.Pipeline()
    packed = beam_module._packed(tasks)
    _ = pipeline | beam.Create(packed)
    assert len(pipeline.to_runner_api().SerializeToString()) < 1 << 20
    assert [beam_module._unpacked(p) for p in packed] == tasks
