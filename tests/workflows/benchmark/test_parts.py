"""What a benchmark measures. How fast it all is, is never asserted."""

import jax
import numpy as np
import pytest
from flax.core import unfreeze
from reference import needs, tiny_inverter, tiny_release
from reference.soundfont_file import soundfont
from reference.tiny_inverter import write_inverter
from reference.tiny_release import write_release

from music_diffusion import speed
from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.speed import Speed
from music_diffusion.workflows.benchmark import processes
from music_diffusion.workflows.benchmark.measuring import Measurement
from music_diffusion.workflows.benchmark.parts import PARTS, START_UPS
from music_diffusion.workflows.benchmark.piece import LOOP, loop_samples
from music_diffusion.workflows.requests import BenchmarkRequest

MEASURED = {"what", "audio_seconds", "wall_seconds", "realtime_factor", "peak_memory_mb",
            "start_up_seconds", "devices", "wall_seconds_min", "wall_seconds_max", "compile_seconds",
            "repeats"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_release(root / "tiny", any_params(tiny_release.MODEL))
    write_inverter(root / "tiny_inverter", any_params(tiny_inverter.MODEL))
    return root


def any_params(model):
    """Small random numbers of the right shapes; initialising truly would have to be compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))["params"]
    return jax.tree.map(lambda s: 0.02 * rng.normal(size=s.shape).astype(np.float32), unfreeze(shapes))


def row(**more):
    return {"what": "x", "audio_seconds": 62.0, "wall_seconds": 8.0, "wall_seconds_min": 7.0,
            "wall_seconds_max": 9.0, "realtime_factor": 7.75, "peak_memory_mb": 801.4,
            "start_up_seconds": 11.0, "compile_seconds": 6.0, "devices": "cpu x 1", "repeats": 3} | more


@pytest.mark.slow
def test_synthesize_measures_render_file(weights):
    """In this process; every run makes the whole piece and its tail of 2 s."""
    shares = []
    made, = PARTS["synthesize"](Measurement(request=BenchmarkRequest(
        model=str(weights / "tiny"), inverter="griffin_lim", seconds=1.5, repeats=1),
                                                 progress=shares.append))
    assert set(made) == MEASURED and made["what"] == f"synthesize {weights / 'tiny'}, griffin_lim"
    assert made["audio_seconds"] == pytest.approx(3.5, abs=0.021) and made["repeats"] == 1
    assert shares == [0.5, 1.0] and made["devices"].startswith("cpu x ")
    assert made["peak_memory_mb"] == pytest.approx(speed.peak_memory_mb(), rel=0.05)


def test_reconstruct_reads_a_file_of_the_length_asked_for(weights, monkeypatch):
    seen = []

    def reconstruct_file(inverter, source, output):
        import soundfile

        seen.append(soundfile.read(source))
        return Speed(**{k: row()[k] for k in Speed.__dataclass_fields__})

    monkeypatch.setattr("music_diffusion.synthesis.reconstruct.reconstruct_file", reconstruct_file)
    made, = PARTS["reconstruct"](Measurement(request=BenchmarkRequest(
        model="none such", inverter=str(weights / "tiny_inverter"), seconds=20.25, repeats=3)))
    assert len(seen) == 1 + 3 and made["realtime_factor"] == 7.75
    samples, rate = seen[0]
    assert rate == 8000 and len(samples) == 162000
    loop = round(LOOP * rate)
    np.testing.assert_allclose(samples[:loop], loop_samples(rate), atol=2 / 32768)
    np.testing.assert_array_equal(samples[loop:2 * loop], samples[:loop])
    assert np.abs(samples).reshape(81, -1).max(axis=1).min() > 0.01  # never silent


def test_start_up_runs_the_command_line_in_new_processes(monkeypatch):
    started, shares = [], []
    true = processes.printed_by
    monkeypatch.setattr(processes, "printed_by", lambda code: started.append(code) or true(code))
    rows = PARTS["start_up"](Measurement(request=BenchmarkRequest(repeats=1), progress=shares.append))
    assert [r["what"] for r in rows] == list(START_UPS)
    assert len(started) == 3 * (1 + 2)  # each once for its memory
    assert "synthesize" in true(START_UPS["music-diffusion --help"])
    assert all(set(r) == {"what", "wall_seconds", "wall_seconds_min", "wall_seconds_max",
                          "peak_memory_mb", "repeats"} for r in rows)
    # Each does more than the one before, and memory counts the pages of that process alone.
    python, package, command = (r["peak_memory_mb"] for r in rows)
    assert 1 < python < command < 150 and package < command
    np.testing.assert_allclose(shares, np.arange(1, 7) / 6)


def test_a_start_up_that_fails_is_an_error(monkeypatch):
    monkeypatch.setitem(START_UPS, "python", "import a_module_that_is_not_there")
    with pytest.raises(UserError, match="^ModuleNotFoundError: .*a_module_that_is_not_there"):
        PARTS["start_up"](Measurement(request=BenchmarkRequest(repeats=1)))


def test_the_input_pipeline_is_measured_by_its_examples(tmp_path):
    rng = np.random.default_rng(0)
    notes = Notes([0.1, 2.0], [0.5, 3.0], [60, 64], [90, 80], [0, 40], [False, False])
    for split in ("train", "validation"):
        records.write_shard(tmp_path / f"{split}-00000.array_record", [records.Record(
            mel=rng.normal(size=(600, 128)), notes=notes).to_bytes()])
    records.write_manifest(tmp_path, codec=MelCodec().to_dict())
    rows = PARTS["input"](Measurement(request=BenchmarkRequest(repeats=1, data=str(tmp_path))))
    assert [r["what"] for r in rows] == ["input, frames", "input, tokens, context"]
    for made in rows:
        assert made["examples_per_second"] > 0
        assert made["audio_seconds"] == 20 * 8 * 256 * 0.02  # batches, examples, frames


def test_rendering_is_measured_in_rooms(tmp_path):
    needs.module("fluidsynth")
    (tmp_path / "sine.sf2").write_bytes(soundfont())
    made, = PARTS["render"](Measurement(request=BenchmarkRequest(
        seconds=3, repeats=1, soundfont=str(tmp_path / "sine.sf2"))))
    assert made["what"] == "render sine.sf2 in rooms" and made["audio_seconds"] > 0
