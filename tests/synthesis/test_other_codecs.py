"""A frame model of another sample rate and hop: its features, and what is rendered from them."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.core import unfreeze

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.data.synthetic import SyntheticSource
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.synthesizer import Synthesizer

RATE, HOP, WINDOW = 24000, 300, 600  # 80 frames a second
CODEC = MelCodec(sample_rate=RATE, hop=HOP, window=WINDOW, fft=1024, mels=16, fmax=12000.0)
MODEL = FrameDiffusionModel(
    config=ScoreDenoiserConfig(
        timbre=NoteTimbreConfig(width=8, layers=1, codec=CODEC),
        unet=UNet1DConfig(widths=(8,), blocks=1, time_features=4, heads=1, head_dim=4, output=16)),
    num_steps=2, ring=0.1, temperature=0.0)
START, END = 1.0, 1.7
NOTES = Notes([0.0, START], [0.01, END], [40, 60], [90, 90], [0, 0], [False, False])


@pytest.fixture(scope="module")
def synthesizer():
    """A fresh U-Net adds nothing to the map, in which every note is as loud as can be."""
    params = unfreeze(MODEL.init(jax.random.key(0), {})["params"])
    params["timbre"]["output"] = {"kernel": 0 * params["timbre"]["output"]["kernel"],
                                  "bias": 0 * params["timbre"]["output"]["bias"] + 2.0}
    return Synthesizer(
        name="other", model=MODEL, params=params, tail=0.5,
        inverter=GriffinLim(codec=CODEC, iterations=2, chunk_frames=32),
        joining=OverlapJoining(windows=Windows(frames=64, overlap=32, group=2)))  # two groups


@pytest.mark.slow
def test_training_features_have_the_notes_where_the_spectrogram_has_their_sound():
    source = SyntheticSource(codec=CODEC, frames=96, notes=1, conditions=NoteFrames(slots=2, ring=0.0))
    for i in range(6):
        example = source.segment(i)
        assert example["targets"].shape == (96, 16)
        loud = np.flatnonzero((example["targets"] > -0.95).any(1))
        listed = np.flatnonzero((example["slot_program"] >= 0).any(1))
        # A frame's window begins half a window before its middle, where the spectrogram is made.
        assert abs(loud[0] - listed[0]) <= 1 and abs(loud[-1] - listed[-1]) <= 1
        assert 0 < example["roll"].any(1).sum() < 96
    batch = next(source.eval_batches(2))
    params = MODEL.init(jax.random.key(0), {})["params"]
    assert np.isfinite(float(MODEL.loss_fn(params, batch, jax.random.key(1))[0]))


def test_notes_sound_in_the_frames_that_hear_them(synthesizer):
    mel = np.concatenate(list(synthesizer.stream_mel(NOTES)))
    assert len(mel) == np.ceil((END + 0.5) * 80)
    loud = np.flatnonzero(mel.max(1) > CODEC.log_min + 2)
    loud = loud[loud > 40]  # of the second note
    first = np.arange(len(mel)) * HOP  # samples of the frames' windows
    heard = (first + WINDOW > START * RATE) & (first + WINDOW / 2 < (END + 0.1) * RATE)
    np.testing.assert_array_equal(loud, np.flatnonzero(heard & (first > 0.5 * RATE)))


def test_audio_is_as_long_as_its_frames_and_sounds_where_the_notes_are(synthesizer):
    wave = synthesizer.synthesize(NOTES, normalized=False)
    assert wave.sample_rate == RATE
    assert len(wave) == HOP * synthesizer.frames_of(NOTES) == HOP * np.ceil((END + 0.5) * 80)
    level = np.abs(wave.samples)
    inside = level[int(1.1 * RATE):int(1.6 * RATE)].max()
    assert inside > 1e-3
    # Half a window lies between a note and the first sound of it.
    assert level[int(0.3 * RATE):int(START * RATE) - WINDOW].max() < 0.01 * inside
    assert level[int((END + 0.1) * RATE) + 2 * WINDOW:].max() < 0.01 * inside


def test_maps_of_another_codec_are_refused():
    with pytest.raises(ValueError, match="self.unet.output=16 must be"):
        dataclasses.replace(MODEL.config, timbre=NoteTimbreConfig(codec=dataclasses.replace(CODEC, mels=8)))
