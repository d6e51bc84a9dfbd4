"""One more performance for a tiny model, from a recording with its notes."""

import dataclasses
import shutil

import numpy as np
import pytest
from layouts.common import scale, tones, write_wav
from reference.tiny_release import NAMES, write_release_with_performances

from music_diffusion.conditions.performances import FILE, read_performances, write_performances
from music_diffusion.errors import UserError
from music_diffusion.models.weights import WEIGHTS, load_safetensors
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.hub import load
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows.adapt import add_performance
from music_diffusion.workflows.requests import AdaptRequest

RATE, SECONDS = 16000, 32.0


@pytest.fixture(scope="module")
def take(tmp_path_factory):
    folder = tmp_path_factory.mktemp("take")
    # The same six notes over and over.
    parts = [scale(start=0.1 + 1.8 * i, count=6, step=0.3, program=40) for i in range(17)]
    notes = Notes.concatenate(parts)
    write_midi(notes, folder / "take.mid")
    write_wav(folder / "take.wav", tones(notes, SECONDS, RATE), RATE)
    write_wav(folder / "short.wav", tones(notes, 12.0, RATE), RATE)
    few = scale(count=6, step=0.3)
    write_midi(few, folder / "few.mid")
    write_wav(folder / "few.wav", tones(few, 3.0, RATE), RATE)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_release_with_performances(tmp_path_factory.mktemp("models") / "base")


def request(_take, _base, tmp_path, **more):
    return AdaptRequest(**dict(
        audio=(str(_take / "take.wav"),), midi=(str(_take / "take.mid"),), name="mine", base=str(_base),
        output=str(tmp_path / "model"), steps=4, workers=1, room="kitchen",
        bindings=("BATCH_SIZE = 2", "TrainConfig.eval_every = 2", "TrainConfig.checkpoint_every = 2"))
        | more)


@pytest.mark.slow
def test_the_model_knows_one_more_and_plays_the_others_as_before(take, base, tmp_path):
    added = add_performance(request(take, base, tmp_path))
    assert added.performance == "mine" and added.nearest in NAMES and added.seconds == SECONDS
    listed = read_performances(tmp_path / "model" / FILE)
    assert listed.names == (*NAMES, "mine") and listed.default == NAMES[0]
    mine = listed.performances[-1]
    assert (mine.source, mine.room, mine.instruments) == ("take.wav", "kitchen", ("Violin",))
    assert mine.minutes == pytest.approx(0.9 * SECONDS / 60, abs=0.05)
    before, after = (load(folder, "griffin_lim_hop") for folder in (base, tmp_path / "model"))
    notes = scale(count=4)
    for name in NAMES:
        np.testing.assert_allclose(mel(after, notes, name), mel(before, notes, name), atol=1e-4)
    # Whichever it began with, the new one has moved.
    assert np.abs(mel(after, notes, "mine") - mel(before, notes, added.nearest)).max() > 1e-3


def mel(synthesizer, notes, performance):
    return np.concatenate(list(synthesizer.stream_mel(notes, RenderSettings(performance=performance))))


@pytest.mark.slow
@pytest.mark.parametrize(("more", "reason"), [
    ({"name": "hall"}, "has a performance of this name"), ({"name": "a+b"}, "cannot be the name"),
    ({"audio": ("SHORT",)}, "cut both to the same length"),
    ({"audio": ("FEW",), "midi": ("FEWMID",)}, "too few"),
    ({"midi": ()}, "equally often"), ({"base": "inverter"}, "without performances"),
    ({"audio": ("/none.wav",)}, "/none.wav"), ({"bindings": ("STEP = 1",)}, "STEP")])
def test_bad_input_is_one_line_and_writes_no_model(take, base, tmp_path, more, reason):
    files = {"SHORT": "short.wav", "FEW": "few.wav", "FEWMID": "few.mid"}
    more = {k: tuple(str(take / files[x]) if x in files else x for x in v) if k in ("audio", "midi") else v
            for k, v in more.items()}
    with pytest.raises(UserError, match=reason) as error:
        add_performance(request(take, base, tmp_path, **more))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


def test_names_of_another_checkpoint(take, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    listed = read_performances(other / FILE)
    write_performances(other / FILE, dataclasses.replace(listed, table="0" * 16))
    with pytest.raises(UserError, match="is of another checkpoint"):
        add_performance(request(take, other, tmp_path))


def test_other_things_are_left_alone(take, base, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "diary.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other things"):
        add_performance(request(take, base, tmp_path))
    with pytest.raises(UserError, match="is the model to begin with"):
        add_performance(request(take, base, tmp_path, output=str(base)))
    assert (base / WEIGHTS).is_file() and load_safetensors(base / WEIGHTS)
