"""One file in, files out: with a synthesizer that plays a known sound, and once with a model."""

import dataclasses
import os

import numpy as np
import pyloudnorm
import pytest
import soundfile
from reference.tiny_release import MODEL, tiny_params

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.conditions.opening import notes_source
from music_diffusion.diffusion.solvers import DDIM
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.speed import devices, peak_memory_mb, start_up_seconds
from music_diffusion.synthesis import render as module
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.render import check_outputs, render_file
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

SECONDS = 4


class Stub:
    """Plays noise of a given level, in four parts; fails after so many."""

    name, model, codec = "stub", MODEL, MelCodec()

    def __init__(self, level=0.02, fail_after=None, error=None):
        self.level, self.fail_after, self.error = level, fail_after, error
        self.compiled = False

    sampled_by = Synthesizer.sampled_by

    def source_of(self, given):
        return dataclasses.replace(notes_source(given, self.codec, 2.0), frames=SECONDS * 50)

    def compile(self, source, settings):
        self.compiled = True

    def performance_of(self, settings):
        return "studio"

    def joining_of(self, settings):
        return OverlapJoining()

    @property
    def parts(self):
        rng = np.random.default_rng(0)
        return [(self.level * rng.normal(size=16000)).astype(np.float32) for _ in range(SECONDS)]

    def stream(self, source, settings, *, progress=None, on_mel=None):
        assert self.compiled and len(source.notes) == 2
        for i, part in enumerate(self.parts):
            if i == self.fail_after:
                raise self.error
            if on_mel is not None:
                on_mel(np.zeros((50, 128)))
            yield part
            if progress is not None:
                progress((i + 1) / SECONDS)


@pytest.fixture
def midi(tmp_path):
    write_midi(Notes([0.0, 0.5], [0.4, 1.5], [60, 38], [100, 90], [0, 0], [False, True]),
               tmp_path / "song.mid")
    return str(tmp_path / "song.mid")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    """A place for scratch files that must be empty afterwards."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield
    assert not list(scratch.iterdir())


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("level", [0.002, 0.02, 0.7])
def test_loudness_is_minus_14_lufs_and_the_peak_below_minus_1_db(midi, out, level):
    rendering = render_file(Stub(level), midi, str(out / "a.wav"))
    samples, rate = soundfile.read(out / "a.wav")
    assert rate == 16000 and len(samples) == SECONDS * rate
    loudness = pyloudnorm.Meter(rate).integrated_loudness(samples)
    assert loudness == pytest.approx(-14, abs=0.5)
    assert rendering.lufs == pytest.approx(loudness, abs=0.2)
    assert np.abs(samples).max() <= 10 ** (-1 / 20)


def test_without_normalising_the_levels_are_the_models_own(midi, out):
    stub = Stub(0.4)
    rendering = render_file(stub, midi, str(out / "a.wav"), normalize=False)
    samples, _ = soundfile.read(out / "a.wav")
    want = np.clip(np.concatenate(stub.parts), -1, 1)
    np.testing.assert_allclose(samples, want, atol=2 / 32768)
    assert rendering.lufs is None


def test_silence_stays_silent(midi, out):
    rendering = render_file(Stub(0.0), midi, str(out / "a.wav"))
    assert not soundfile.read(out / "a.wav")[0].any() and rendering.lufs is None


def test_the_report_tells_what_was_done(midi, out, monkeypatch):
    clock = iter(np.arange(100.0, 200.0, 0.5))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    settings = RenderSettings(steps=3, seed=9, guidance=2.0)
    done = dataclasses.asdict(render_file(Stub(), midi, str(out / "a.flac"), settings=settings))
    wall = done["wall_seconds"]
    assert wall > 0 and done.pop("lufs") == pytest.approx(-14, abs=0.2)
    of_the_process = [done.pop(k) for k in ("peak_memory_mb", "start_up_seconds", "devices")]
    assert of_the_process == [pytest.approx(peak_memory_mb(), rel=0.05),
                              pytest.approx(start_up_seconds(), abs=6e-4), devices()]
    assert done == {
        "output": str(out / "a.flac"), "plot": None, "plot_error": None, "model": "stub", "steps": 3,
        "solver": repr(DDIM(eta=0.0)), "guidance": 2.0, "seed": 9, "notes": 2,
        "performance": "studio", "joining": "overlap", "ignored": {}, "warnings": (),
        "audio_seconds": 4.0, "wall_seconds": wall,
        "realtime_factor": pytest.approx(4.0 / wall, rel=1e-3)}


def test_the_picture_is_no_part_of_the_wall_time(midi, out, monkeypatch):
    now = [0.0]  # a clock that only the test moves
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Slow(Stub):
        def compile(self, source, settings):
            super().compile(source, settings)
            now[0] += 1000

        def stream(self, *args, **more):
            for part in super().stream(*args, **more):
                now[0] += 0.5
                yield part

    def draw(path, *_):
        now[0] += 100
        (out.parent / "scratch" / path).write_bytes(b"png")

    monkeypatch.setattr(module, "plot_rendering", draw)
    done = render_file(Slow(), midi, str(out / "a.wav"), plot=str(out / "a.png"))
    assert (done.wall_seconds, done.audio_seconds, done.realtime_factor) == (2.0, 4.0, 2.0)


@pytest.mark.parametrize("name, kind", [("a.wav", "WAV"), ("a.flac", "FLAC"), ("a.MP3", "MP3")])
def test_formats_go_by_the_name(midi, out, name, kind):
    render_file(Stub(), midi, str(out / name))
    info = soundfile.info(out / name)
    assert info.format == kind and info.samplerate == 16000
    assert info.duration == pytest.approx(SECONDS, abs=0.2)
    assert names(out) == [name]


def test_progress_is_told(midi, out):
    done = []
    render_file(Stub(), midi, str(out / "a.wav"), progress=done.append)
    assert done == [0.25, 0.5, 0.75, 1.0]


def test_the_picture_comes_with_the_audio(midi, out):
    rendering = render_file(Stub(), midi, str(out / "a.wav"), plot=str(out / "b.png"))
    assert names(out) == ["a.wav", "b.png"] and rendering.plot == str(out / "b.png")
    assert (out / "b.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("error", [RuntimeError("device lost"), KeyboardInterrupt()], ids=repr)
def test_a_failure_midway_leaves_nothing_new_and_everything_old(midi, out, normalize, error):
    (out / "old.wav").write_text("old")
    stub = Stub(fail_after=2, error=error)
    for name in ("new.wav", "old.wav"):
        with pytest.raises(type(error)):
            render_file(stub, midi, str(out / name), plot=str(out / "p.png"), normalize=normalize)
    assert names(out) == ["old.wav"] and (out / "old.wav").read_text() == "old"


@pytest.mark.parametrize("normalize", [True, False])
def test_a_failing_picture_costs_no_audio(midi, out, normalize, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(module, "plot_rendering", fail)
    done = render_file(Stub(), midi, str(out / "a.wav"), plot=str(out / "a.png"), normalize=normalize)
    assert names(out) == ["a.wav"] and done.plot is None
    assert done.plot_error is not None and "no fonts" in done.plot_error


def test_a_failing_normalisation_leaves_no_picture(midi, out, monkeypatch):
    def fail(*_):
        raise UserError("disk full")

    monkeypatch.setattr(module, "normalize_file", fail)
    with pytest.raises(UserError, match="disk full"):
        render_file(Stub(), midi, str(out / "a.wav"), plot=str(out / "a.png"))
    assert names(out) == []


@pytest.mark.parametrize("output, plot, reason", [
    ("a.ogg", None, "extension"), ("a", None, "extension"), ("no/a.wav", None, "does not exist"),
    ("", None, "extension|folder"), ("a.wav", "a.jpg", "extension"), ("a.wav", "no/a.png", "exist"),
    (".", None, "folder")])
def test_outputs_that_cannot_be_written_are_found_before_the_work(midi, out, output, plot, reason):
    stub = Stub()
    output, plot = (None if p is None else os.path.join(out, p) for p in (output, plot))
    for call in (lambda: render_file(stub, midi, output, plot=plot),
                 lambda: check_outputs(output, plot)):
        with pytest.raises(UserError, match=reason):
            call()
    assert not stub.compiled and names(out) == []


def test_bad_midi_files_are_found_before_the_work(out, tmp_path):
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    stub = Stub()
    with pytest.raises(UserError, match="bad.mid"):
        render_file(stub, str(tmp_path / "bad.mid"), str(out / "a.wav"))
    assert not stub.compiled and names(out) == []


def test_a_model_renders_a_file(midi, out):
    synthesizer = Synthesizer(
        name="tiny", model=MODEL, params=tiny_params(), tail=0.5,
        inverter=GriffinLim(iterations=1, chunk_frames=32),
        joining=OverlapJoining(windows=Windows(frames=64, overlap=32, group=2)))
    rendering = render_file(synthesizer, midi, str(out / "a.wav"), plot=str(out / "a.png"))
    samples, rate = soundfile.read(out / "a.wav")
    assert rendering.audio_seconds == pytest.approx(2.0, abs=0.02) == len(samples) / rate
    assert pyloudnorm.Meter(rate).integrated_loudness(samples) == pytest.approx(-14, abs=0.5)
    assert rendering.steps == 2 and rendering.guidance == 1.0
