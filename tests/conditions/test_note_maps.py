import numpy as np
import pytest
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions import note_maps
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.models.base import split_variables
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.score_denoiser import SLOT_FIELDS, ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import FrameGrid, slot_features
from music_diffusion.notes.notes import Notes

T, F = 24, 16
GRID = FrameGrid(tail=0.1)
CONFIG = NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F))
MODEL = FrameDiffusionModel(config=ScoreDenoiserConfig(timbre=CONFIG, unet=UNet1DConfig(
    widths=(8,), blocks=1, time_features=4, heads=1, head_dim=4, output=F)))


@pytest.fixture(scope="module")
def params():
    return split_variables(compiled.init(MODEL))[0]


@pytest.fixture(scope="module")
def piece():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 1.0, 20)
    drum = rng.uniform(size=20) < 0.3
    return Notes(start, start + rng.uniform(0.0, 0.3, 20), rng.integers(30, 90, 20),
                 rng.integers(1, 128, 20), np.where(drum, 0, rng.integers(0, 128, 20)), drum)


def from_slots(params, notes, start):
    slots = slot_features(notes, start, T, GRID)
    batch = {f"slot_{f}": slots[f][None] for f in SLOT_FIELDS}
    return np.asarray(MODEL.note_maps(params, batch))[0]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2048, 7])
@pytest.mark.parametrize("start", [0.0, 0.64])
def test_maps_are_those_of_the_model_from_slots(params, piece, start, rows, monkeypatch):
    monkeypatch.setattr(note_maps, "ROWS", rows)  # 7: many blocks, cut inside of frames
    got = draw_note_maps(CONFIG, params["timbre"], piece, start, T, GRID)
    assert got.shape == (T, 2, F) and got.dtype == np.float32
    assert np.ptp(got[:, 0]) > 0.1 and np.ptp(got[:, 1]) > 0.1
    np.testing.assert_allclose(got, from_slots(params, piece, start), atol=2e-5)


def test_segments_of_a_piece_join(params, piece):
    whole = draw_note_maps(CONFIG, params["timbre"], piece, 0.0, 2 * T, GRID)
    second = draw_note_maps(CONFIG, params["timbre"], piece, T * 0.02, T, GRID)
    np.testing.assert_allclose(second, whole[T:], atol=1e-4)


def test_without_notes_the_maps_are_the_codecs_floor(params):
    np.testing.assert_array_equal(
        draw_note_maps(CONFIG, params["timbre"], Notes.empty(), 0.0, T, GRID), -1)


def test_a_note_shows_only_while_it_sounds_or_rings_and_as_new_for_three_frames(params):
    note = Notes([0.2], [0.3], [60], [100], [0], [False])
    got = draw_note_maps(CONFIG, params["timbre"], note, 0.0, T, GRID) > -1
    # Centres at 0.02 (i + 1); heard from half a window before 0.2 to a tail of 0.1 after 0.3.
    centres = 0.02 * (np.arange(T) + 1)
    heard = (centres > 0.2 - 0.02 + 1e-9) & (centres < 0.4 - 1e-9)
    np.testing.assert_array_equal(got[:, 0].any(1), heard)
    assert set(np.flatnonzero(got[:, 1].any(1))) <= set(np.flatnonzero(heard & (centres < 0.26)))
    assert got[:, 1].any(1).sum() in (3, 4)


def test_notes_add_their_power(params):
    a, b = (Notes([0.05], [0.4], [p], [90], [40], [False]) for p in (50, 63))
    codec = CONFIG.codec

    def power(*notes):
        maps = draw_note_maps(CONFIG, params["timbre"], Notes.concatenate(list(notes)), 0.0, T, GRID)
        return np.exp(2 * codec.unscale(maps.astype(np.float64)))

    np.testing.assert_allclose(power(a, b) + codec.clip_min**2, power(a) + power(b), rtol=1e-3)
