"""Sound from noise and recordings: what stays is the recording's own, and what is made fits it."""

import dataclasses

import jax
import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Source
from music_diffusion.errors import UserError
from music_diffusion.models.unconditional import UnconditionalModel
from music_diffusion.networks.unconditional import UnconditionalConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.synthesis.edits import FADE, Stretch, parse_pair, spliced
from music_diffusion.synthesis.generate import (
    class_weights,
    continued,
    edited,
    free_source,
    looped,
    varied,
)
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

CODEC = MelCodec(mels=16)
RATE = CODEC.sample_rate
UNET = UNet1DConfig(widths=(12, 12), blocks=1, time_features=4, heads=1, head_dim=4, output=16)
MODEL = UnconditionalModel(
    config=UnconditionalConfig(unet=UNET, classes=2, class_features=4, regions=True), codec=CODEC,
    frames=64, context=32, classes=("calm", "loud"), num_steps=2)


def synthesizer_of(model):
    params = jax.tree.map(lambda v: v + 0.1 * np.random.default_rng(v.size).normal(size=v.shape),
                          model.init(jax.random.key(0), {})["params"])
    return Synthesizer(name="tiny", model=model, params=params,
                       inverter=GriffinLim(codec=CODEC, iterations=2))


@pytest.fixture(scope="module")
def tiny():
    return synthesizer_of(MODEL)


@pytest.fixture(scope="module")
def plain():
    """A model that saw neither regions nor classes."""
    return synthesizer_of(dataclasses.replace(MODEL, config=UnconditionalConfig(unet=UNET), context=0,
                                              classes=()))


def recording(seconds, rate=RATE, channels=1, seed=0):
    """Noise and tones, not silent anywhere."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    samples = 0.1 * np.sin(2 * np.pi * 440 * time)[:, None] + 0.05 * rng.normal(size=(len(time), channels))
    return Waveform((samples if channels > 1 else samples[:, 0]).astype(np.float32), rate)


@pytest.mark.parametrize("begin, end", [(0.0, 0.21), (0.5, 0.9), (1.301, 1.335), (1.9, 2.0)])
def test_cells_of_a_stretch_are_the_frames_that_hear_it(begin, end):
    wave = recording(2.0).samples
    other = wave.copy()
    first, last = round(begin * RATE), round(end * RATE)
    other[first:last] += np.random.default_rng(9).normal(size=last - first).astype(np.float32)
    changed = (CODEC.encode(wave) != CODEC.encode(other)).any(axis=1)
    cells = Stretch(begin=begin, end=end).cells(len(changed), CODEC)
    assert cells.all(axis=1)[changed].all()
    # The window is 0 at its ends, so that a frame at either edge may hear nothing.
    assert cells.any(axis=1).sum() - changed.sum() <= 2


def test_cells_of_a_band_are_the_bins_that_hear_it():
    codec = MelCodec()
    cells = Stretch(begin=0, end=1, low=500, high=1500).cells(50, codec)
    assert (cells == cells[:1]).all()
    heard = cells[0]
    hertz = np.linspace(0, RATE / 2, codec.mel_matrix.shape[0])
    for tone, inside in ((480.0, None), (520.0, True), (1000.0, True), (1480.0, True), (300.0, False),
                         (1700.0, False)):
        bins = codec.mel_matrix[np.abs(hertz - tone).argmin()] > 0
        assert inside is None or heard[bins].any() == inside


@pytest.mark.parametrize("rate, channels", [(RATE, 1), (44100, 2)])
@pytest.mark.parametrize("maker", ["tiny", "plain"])
def test_only_the_stretch_is_made_anew(request, maker, rate, channels):
    synthesizer, wave = request.getfixturevalue(maker), recording(4.0, rate, channels)
    made = edited(synthesizer, wave, Stretch(begin=1.5, end=2.25))
    assert made.sample_rate == rate and made.samples.shape == wave.samples.shape
    time = np.arange(len(wave)) / rate
    outside = (time < 1.5 - FADE / 2 - 1e-6) | (time > 2.25 + FADE / 2 + 1e-6)
    np.testing.assert_array_equal(made.samples[outside], wave.samples[outside])
    inside = (time > 1.5 + FADE) & (time < 2.25 - FADE)
    assert np.abs(made.samples - wave.samples)[inside].mean() > 1e-3
    other = edited(synthesizer, wave, Stretch(begin=1.5, end=2.25), settings=RenderSettings(seed=1))
    assert np.abs(made.samples - other.samples)[inside].mean() > 1e-4


@pytest.mark.parametrize("maker", ["tiny", "plain"])
def test_what_stays_of_the_spectrogram_is_untouched(request, maker):
    synthesizer = request.getfixturevalue(maker)
    mel = CODEC.encode(0.1 * recording(4.0).samples)  # within the range of the codec
    region = ~Stretch(begin=1.0, end=3.0, low=200, high=2000).cells(len(mel), CODEC)
    source = Source(codec=CODEC, frames=len(mel), mel=mel, region=region)
    made = np.concatenate(list(synthesizer.stream_mel(source)))
    assert np.abs(made - mel)[region].max() < 1e-5 < 0.1 < np.abs(made - mel)[~region].mean()


def test_band_outside_stays(tiny):
    wave = recording(4.0)
    made = edited(tiny, wave, Stretch(begin=1.0, end=3.0, low=0, high=1500))
    change = np.abs(np.fft.rfft(made.samples - wave.samples)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    assert change[hertz > 1500 * 1.1].sum() < 1e-4 * change[hertz < 1500].sum() > 0
    own = RATE - round(FADE * RATE)
    np.testing.assert_array_equal(made.samples[:own], wave.samples[:own])


def test_recording_goes_on(tiny):
    wave = recording(2.0, 22050)
    made = continued(tiny, wave, 3.0, classes="calm")
    assert made.duration == pytest.approx(5.0, abs=1e-3)
    own = len(wave) - round(FADE * 22050)
    np.testing.assert_array_equal(made.samples[:own], wave.samples[:own])
    new = made.samples[len(wave) + 441:]
    assert np.abs(new).min() < np.abs(new).max() < 10


def test_recording_is_led_to_another(tiny):
    wave, goal = recording(2.0, seed=1), recording(1.5, 2 * RATE, 2, seed=2)
    made = continued(tiny, wave, 1.0, until=goal)
    assert made.sample_rate == RATE and made.channels == 1 and made.duration == pytest.approx(4.5, abs=1e-3)
    fade = round(FADE * RATE)
    end = goal.mono().resample(RATE).samples
    np.testing.assert_array_equal(made.samples[3 * RATE + fade:], end[fade:])


def test_what_goes_on_hears_the_recording(tiny):
    new = [continued(tiny, recording(2.0, seed=seed), 1.0).samples[-RATE // 2:] for seed in (1, 2)]
    assert np.abs(new[0] - new[1]).mean() > 2e-3 * np.abs(new[0]).mean() > 0


def test_level_is_the_recording_s(tiny):
    wave = recording(3.0)
    soft = Waveform(0.05 * wave.samples, RATE)
    loud = Waveform(2.0 * wave.samples, RATE)
    made = [edited(tiny, w, Stretch(begin=1.0, end=2.0)).samples[RATE + 800:2 * RATE - 800]
            for w in (soft, loud)]
    assert np.sqrt(np.mean(made[1]**2) / np.mean(made[0]**2)) == pytest.approx(40, rel=0.1)


def test_loop_s_end_leads_to_its_beginning(tiny, monkeypatch):
    seen = []
    inverter = tiny.inverter

    class Watching:
        codec = CODEC

        def invert(self, mel):
            seen.append((mel, inverter.invert(mel)))
            return seen[-1][1]

    loop = looped(dataclasses.replace(tiny, inverter=Watching()), 4.0)
    (mel, samples), = seen
    lead = MODEL.context
    assert loop.duration == 4.0
    begin = lead * CODEC.hop
    # What is heard before the first sample is the end; the last sample is the one before the first.
    np.testing.assert_array_equal(mel[:lead], mel[-2 * lead:-lead])
    np.testing.assert_array_equal(mel[-lead:], mel[lead:2 * lead])
    np.testing.assert_array_equal(loop.samples[:1000], samples[begin:begin + 1000])
    assert loop.samples[-1] == samples[begin - 1]


def test_variation(tiny):
    wave = recording(3.0)
    near, far = (varied(tiny, wave, settings=RenderSettings(strength=s)) for s in (0.01, 0.9))
    assert len(near) == len(far) == len(wave)
    mel = [CODEC.encode(w.samples) for w in (wave, near, far)]
    assert np.abs(mel[1] - mel[0]).mean() < 0.5 * np.abs(mel[2] - mel[0]).mean()


def test_free_sound_of_any_length_goes_on_from_segment_to_segment(tiny):
    long = np.concatenate(list(tiny.stream_mel(free_source(tiny, 5.0))))
    short = np.concatenate(list(tiny.stream_mel(free_source(tiny, 2.0))))
    assert len(long) == 250 and len(short) == 100
    np.testing.assert_array_equal(long[:96], short[:96])  # the first segment, and the half of the next
    calm, loud = (np.concatenate(list(tiny.stream_mel(free_source(tiny, 2.0, name))))
                  for name in MODEL.classes)
    assert np.abs(calm - loud).max() > 1e-3


def test_later_segments_hear_the_one_before(tiny):
    """The second half of a segment is the context of the next, which begins with it."""
    source = free_source(tiny, 5.0)
    piece = MODEL.conditions.of_piece(source, tiny.params)
    seen = []

    class Spy:
        frames = piece.frames

        def windows(self, firsts, size, before=None):
            seen.append((firsts, before))
            return piece.windows(firsts, size, before)

    parts = list(tiny.joining_of().stream(MODEL, tiny.params, Spy(), 0))
    assert [firsts for firsts, _ in seen] == [[32 * k] for k in range(len(parts))]
    np.testing.assert_array_equal(seen[2][1][0, 32:], parts[1])


def test_classes_and_their_mixtures(tiny, plain):
    np.testing.assert_allclose(class_weights(tiny, "loud"), [0, 1])
    np.testing.assert_allclose(class_weights(tiny, "calm:3+loud:1"), [0.75, 0.25])
    assert class_weights(tiny, None) is None
    for text, words in (("clam", "choose calm"), ("calm:x", "no weight"), ("calm:0", "weights are 0"),
                        ("calm:-1+loud", "no weight")):
        with pytest.raises(UserError, match=words):
            class_weights(tiny, text)
    with pytest.raises(UserError, match="no classes"):
        class_weights(plain, "calm")


def test_bad_input(tiny):
    wave, silent = recording(2.0), Waveform(np.zeros(2 * RATE, np.float32), RATE)
    for make, words in (
            (lambda: free_source(tiny, 0.1), "--seconds 0.1"),
            (lambda: free_source(tiny, 1e9), "--seconds"),
            (lambda: continued(tiny, recording(0.3), 2.0), "goes on from 0.64 s"),
            (lambda: continued(tiny, wave, 2.0, until=recording(0.3)), "goes on from 0.64 s"),
            (lambda: edited(tiny, wave, Stretch(begin=1.0, end=2.5)), "ends behind the recording"),
            (lambda: edited(tiny, wave, Stretch(begin=1.0, end=1.5, low=9000)), "up to 8000 Hz"),
            (lambda: edited(tiny, silent, Stretch(begin=1.0, end=1.5)), "silent"),
            (lambda: varied(tiny, silent), "silent"), (lambda: Stretch(begin=2.0, end=1.0), "too short"),
            (lambda: Stretch(begin=0.0, end=1.0, low=5.0, high=5.0), "none"),
            (lambda: looped(tiny, 1.0), "--loop --seconds 1"),
            (lambda: parse_pair("3-5", "--inpaint", "seconds"), "--inpaint 3-5"),
            (lambda: parse_pair("5:3", "--band", "Hz"), "the lower first")):
        with pytest.raises(UserError, match=words):
            make()
    assert parse_pair("3.0:5.5", "--inpaint", "seconds") == (3.0, 5.5)


def test_splice_fades_between_both():
    rate = 1000
    wave, made = Waveform(np.ones(1000, np.float32), rate), Waveform(np.full(400, 3.0, np.float32), rate)
    result = spliced(wave, made, 0.3, Stretch(begin=0.4, end=0.6)).samples
    assert (result[:390] == 1).all() and (result[611:] == 1).all() and (result[411:590] == 3).all()
    fade = result[390:411]
    assert (np.diff(fade) >= 0).all() and result[400] == pytest.approx(2.0)
    long = Waveform(np.full(700, 3.0, np.float32), rate)
    to_the_end = spliced(wave, long, 0.3, Stretch(begin=0.4, end=1.0))
    assert (to_the_end.samples[411:] == 3).all()
