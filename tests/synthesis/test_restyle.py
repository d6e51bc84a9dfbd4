"""Restyling, end to end, with a model that says what it was shown."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from reference.toy_generator import ToyGenerator

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.io import read_audio
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.conditions.spectrograms import SourceSpectrogram
from music_diffusion.conditions.style import ContentAndStyle
from music_diffusion.errors import UserError
from music_diffusion.models.spaces import MelSpace
from music_diffusion.notes.heard import level
from music_diffusion.synthesis import hearing as hearing_module
from music_diffusion.synthesis.generate import class_weights, free_source
from music_diffusion.synthesis.hearing import (
    Hearing,
    open_hearing,
    open_style,
    style_of,
    style_settings,
)
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.synthesis.transfer import transfer_file

CODEC = MelCodec(sample_rate=8000, hop=160, window=320, fft=512, mels=32, fmax=4000.0)
RATE, STYLE_FRAMES = 8000, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror(ToyGenerator):
    """The mean spectrum of the style, as loud as the content is."""

    conditions = ContentAndStyle(style_frames=STYLE_FRAMES)
    hears = True
    restyles = True

    @property
    def space(self):
        return MelSpace(codec=CODEC)

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        style = CODEC.unscale(batch["style"]).mean(axis=1, keepdims=True)
        style = style - 0.5 * jnp.log(jnp.mean(jnp.exp(2 * style), axis=-1, keepdims=True))
        loud = CODEC.unscale(batch["content"][..., -1:]) if "content" in batch else jnp.zeros((1, 1, 1))
        made = jnp.broadcast_to(CODEC.scale(jnp.maximum(style + loud, CODEC.log_min)), z_T.shape)
        return made if x0_hook is None else x0_hook(made)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(ToyGenerator):
    """A model that takes no style."""

    conditions = SourceSpectrogram()

    @property
    def space(self):
        return MelSpace(codec=CODEC)


class Deaf:
    """A transcriber that hears nothing."""

    sample_rate = RATE

    class model:
        from music_diffusion.notes.decoding import DecodeConfig
        decode = DecodeConfig()

        class spectrum:
            frame_seconds = 0.02

    def activations(self, blocks):
        for _ in blocks:
            pass
        return iter(())


@pytest.fixture
def mirror():
    return Synthesizer(name="mirror", model=Mirror(), params={},
                       inverter=GriffinLim(codec=CODEC, iterations=2, upsample=1))


@pytest.fixture
def plain():
    return Synthesizer(name="plain", model=Plain(), params={},
                       inverter=GriffinLim(codec=CODEC, iterations=2, upsample=1))


@pytest.fixture
def write(tmp_path):
    def write(samples, name):
        soundfile.write(tmp_path / name, samples, RATE, subtype="FLOAT")
        return str(tmp_path / name)
    return write


def tone(seconds, hertz, gain=0.2):
    return gain * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def band(samples, low, high):
    power = np.abs(np.fft.rfft(samples))**2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return power[(hertz >= low) & (hertz < high)].sum() / power.sum()


def test_a_style_is_at_the_level_of_everything_whatever_its_file(write):
    loud, quiet = (style_of(write(tone(2.0, 500, gain), "style.wav"), CODEC) for gain in (0.5, 0.01))
    assert level(loud) == pytest.approx(LEVEL, abs=0.02) == level(quiet)
    assert np.abs(loud - quiet)[:, 4:12].max() < 0.1


@pytest.mark.filterwarnings("ignore:.*no notes are heard")
def test_the_content_s_course_in_the_style_s_sound(mirror, write, tmp_path):
    content = np.concatenate([tone(1.0, 300), np.zeros(RATE), tone(1.0, 300)])
    style = write(tone(2.0, 2500), "style.wav")
    ears = Hearing(transcriber=Deaf(), style=style_of(style, CODEC))
    done = transfer_file(mirror, write(content, "content.wav"), str(tmp_path / "out.wav"), hearing=ears)
    made = read_audio(tmp_path / "out.wav").samples.reshape(-1)
    assert len(made) == len(content) and done.model == "mirror"
    assert band(made, 2200, 2800) > 0.8 and band(made, 200, 400) < 0.05
    energy = [np.square(part).mean() for part in np.split(made, 3)]
    assert energy[1] < 0.5 * min(energy[0], energy[2])  # the gate lets sound ring on for a while


def test_styles_that_cannot_be_used(mirror, plain, write, tmp_path):
    with pytest.raises(UserError, match="lasts 0.50 s"):
        style_of(write(tone(0.5, 300), "short.wav"), CODEC)
    with pytest.raises(UserError, match="is silent"):
        style_of(write(np.zeros(2 * RATE), "silent.wav"), CODEC)
    with pytest.raises(UserError, match="missing.wav"):
        style_of(str(tmp_path / "missing.wav"), CODEC)
    good = write(tone(2.0, 300), "good.wav")
    settings = RenderSettings(guidance=2.0)
    assert style_settings(mirror, settings) == settings
    told = style_settings(plain, settings)  # of a model that is told an embedding alone
    assert (told.guidance, told.performance_guidance) == (None, 2.0)
    with pytest.raises(UserError, match="plain: takes no style's recording"):
        open_style(plain, good)
    with pytest.raises(UserError, match="mirror: takes a style's recording; use restyle"):
        open_hearing(mirror, "piano")


def test_from_memory(mirror, write, monkeypatch):
    monkeypatch.setattr(hearing_module, "load_transcriber", Deaf)
    style = write(tone(2.0, 2500), "style.wav")
    with pytest.warns(UserWarning, match="no notes are heard"):
        made = mirror.restyle(write(tone(1.0, 300), "content.wav"), style)
    assert made.duration == pytest.approx(1.0) and band(made.samples.reshape(-1), 2200, 2800) > 0.8


def test_from_nothing_in_a_style(mirror, plain, write):
    style = write(tone(2.0, 2500), "style.wav")
    source = free_source(mirror, 2.0, style=style)
    made = np.concatenate(list(mirror.stream_mel(source)))
    assert len(made) == 100
    spectrum = source.style.mean(axis=0)
    assert np.abs((made - made.mean()) - (spectrum - spectrum.mean())).max() < 0.2
    assert class_weights(mirror, None) is None
    for synthesizer, given, message in ((mirror, None, "say what it should sound like: --style"),
                                        (plain, style, "leave --style out")):
        with pytest.raises(UserError, match=message):
            free_source(synthesizer, 2.0, style=given)
    with pytest.raises(UserError, match="makes nothing from noise alone"):
        class_weights(mirror, "calm")
