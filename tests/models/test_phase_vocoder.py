import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.phase import bin_advance
from music_diffusion.errors import UserError
from music_diffusion.models.phase_vocoder import PhaseVocoder, PhaseVocoderModel
from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.spectrum_net import SpectrumNetConfig

NETWORK = SpectrumNetConfig(trunk=ConvNeXtConfig(dim=16, hidden=24, blocks=1, kernel=5), features=8)
MODEL = PhaseVocoderModel(network=NETWORK)
CODEC = MODEL.codec


@pytest.fixture(scope="module")
def params():
    """Not what training would give, but unlike the start no output is constant."""
    params = compiled.init(MODEL)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + jnp.asarray(0.02 * rng.normal(size=p.shape), jnp.float32), params)


def music(seconds=2.0, seed=0):
    """A few decaying tones."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16000)) / 16000
    tones = [np.sin(2 * np.pi * f * time) * np.exp(-((time - at) % 1.3) * 4)
             for f, at in zip(rng.uniform(100, 2000, 5), rng.uniform(0, 1, 5), strict=True)]
    return 0.1 * np.sum(tones, axis=0)


def true_spectra(samples, frames, first):
    """Windows of MODEL from sample `first` on, by NumPy in float64: magnitudes and phases."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MODEL.window) / MODEL.window)
    windows = np.stack([samples[first + i * 160:first + i * 160 + MODEL.window] for i in range(frames)])
    return np.fft.rfft(windows * hann, MODEL.fft)


@pytest.mark.slow
def test_frames_are_compared_with_their_own_time(params):
    audio = music(1.5)
    log, deviation, magnitude, true_deviation = MODEL._compared(
        params, {"audio": jnp.asarray(audio[None], jnp.float32)})
    trim = NETWORK.context_frames
    count = log.shape[1]
    assert count == 2 * ((len(audio) - 640) // 320 + 1 - 2 * trim)
    # The centre of codec frame t is at t * 320 + 320; the window of 1024 samples begins 512 before.
    spectra = true_spectra(audio, count + 1, trim * 320 + 320 - 512 - 160)
    np.testing.assert_allclose(magnitude[0], np.abs(spectra[1:]), atol=2e-3)
    turn = np.angle(spectra[1:] / spectra[:-1]) - bin_advance(hop=160, fft=2048)
    loud = np.abs(spectra[1:]) * np.abs(spectra[:-1]) > 1.0
    assert loud.sum() > 1000
    np.testing.assert_allclose(np.exp(1j * np.asarray(true_deviation[0]))[loud], np.exp(1j * turn)[loud],
                               atol=5e-3)
    assert log.shape == deviation.shape == magnitude.shape


@pytest.mark.slow
def test_the_estimate_of_an_untrained_network_is_the_spectrogram_s(params):
    """Its magnitudes are those of a longer window: of a steady tone by the windows' ratio larger."""
    tone = 0.2 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    fresh = compiled.init(MODEL)["params"]
    log, _ = MODEL.estimates(fresh, jnp.asarray(CODEC.encode(tone))[None])
    peak = np.asarray(log)[0, 40:50, 118:138].max(axis=1)
    np.testing.assert_allclose(peak, np.log(0.2 * 1024 / 4), atol=0.35)


@pytest.mark.slow
def test_a_tone_with_the_right_magnitudes_and_advance_stays_a_tone():
    hertz = 440.3
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(32000) / 16000)
    lead, frames = MODEL.lead, 160
    magnitude = np.abs(true_spectra(np.pad(samples, (lead, 2048)), frames, 0))
    bins = hertz * MODEL.fft / 16000 - np.arange(MODEL.fft // 2 + 1)
    deviation = np.broadcast_to(bins * 2 * np.pi * 160 / MODEL.fft, magnitude.shape)
    spectra, _ = MODEL.spectra(jnp.log(jnp.asarray(magnitude[None], jnp.float32) + 1e-6),
                               jnp.asarray(deviation[None], jnp.float32),
                               jnp.zeros((1, MODEL.fft // 2 + 1)))
    out = np.asarray(MODEL.samples(spectra[0], jnp.asarray(CODEC.encode(samples)[:frames // 2])))
    part = out[3200:-3200]
    time = np.arange(len(part)) / 16000
    basis = np.stack([np.cos(2 * np.pi * hertz * time), np.sin(2 * np.pi * hertz * time)], axis=1)
    fit, *_ = np.linalg.lstsq(basis, part, rcond=None)
    assert np.hypot(*fit) == pytest.approx(0.3, rel=0.02)
    assert np.mean((part - basis @ fit) ** 2) < 1e-3 * np.mean(part**2)  # one sinusoid throughout


@pytest.mark.slow
def test_gradients_are_finite_in_silence(params):
    audio = np.pad(music(0.7), (0, 8000))
    batch = {"audio": jnp.asarray(np.stack([audio, 0 * audio]), jnp.float32)}
    (loss, metrics), grads = jax.value_and_grad(MODEL.loss_fn, has_aux=True)(
        params, batch, jax.random.key(0))
    assert np.isfinite(loss) and all(np.isfinite(v) for v in metrics.values())
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


@pytest.mark.slow
def test_a_few_steps_of_descent_lower_the_loss():
    batch = {"audio": jnp.asarray(np.stack([music(1.0, s) for s in range(4)]), jnp.float32)}
    params = compiled.init(MODEL)["params"]
    step = jax.jit(jax.value_and_grad(MODEL.loss_fn, has_aux=True))
    (first, _), grads = step(params, batch, jax.random.key(0))
    for _ in range(30):
        params = jax.tree.map(lambda p, g: p - 0.03 * jnp.clip(g, -0.3, 0.3), params, grads)
        (last, _), grads = step(params, batch, jax.random.key(0))
    assert last < 0.95 * first


@pytest.fixture(scope="module")
def inverter(params):
    return PhaseVocoder(model=MODEL, params=params, chunk_frames=32)


@pytest.fixture(scope="module")
def mel():
    return CODEC.encode(music())


@pytest.mark.slow
@pytest.mark.parametrize("pushes", [1, 7, 33])
def test_pushes_of_any_size_give_the_same_samples(inverter, mel, pushes):
    whole = inverter.invert(mel)
    assert len(whole) == len(mel) * 320 and whole.dtype == np.float32
    stream = inverter.stream()
    parts = [stream.push(mel[i:i + pushes]) for i in range(0, len(mel), pushes)] + [stream.finish()]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_frames", [5, 50, 256])
def test_the_size_of_chunks_does_not_matter(inverter, mel, chunk_frames):
    whole = inverter.invert(mel)
    other = dataclasses.replace(inverter, chunk_frames=chunk_frames).invert(mel)
    np.testing.assert_allclose(other, whole, atol=1e-4 * np.abs(whole).max())


@pytest.mark.slow
def test_it_is_what_the_model_predicts_at_once(inverter, params, mel):
    """Silence before and after, as in the stream, and the same first phases."""
    edge = 40
    silence = np.full((edge, 128), np.log(CODEC.clip_min), np.float32)
    padded = jnp.asarray(np.concatenate([silence, mel, silence]))[None]
    out = MODEL.predict_batch(params, {"mel": padded}, jax.random.key(3))
    assert out.shape == (1, padded.shape[1] * 320)
    level = np.sqrt(np.mean(np.square(inverter.invert(mel))))
    assert np.sqrt(np.mean(np.square(np.asarray(out)[0, edge * 320:-edge * 320]))) == pytest.approx(
        level, rel=0.05)


@pytest.mark.slow
def test_the_spectrogram_comes_back(inverter, mel):
    """Even with weights from nowhere: the last step corrects towards it."""
    again = CODEC.encode(inverter.invert(mel))
    loud = mel > mel.max() - 5
    assert np.abs(again - mel)[loud].mean() < 0.35


def test_silence_is_silent_and_full_scale_is_not_clipped(inverter):
    silence = CODEC.encode(np.zeros(16000))
    assert np.abs(inverter.invert(silence)).max() < 1e-4  # -80 dBFS
    loud = CODEC.encode(np.sin(2 * np.pi * 500 * np.arange(16000) / 16000))
    assert np.abs(inverter.invert(loud)[4800:-4800]).max() > 0.85


def test_bad_spectrograms_are_refused(inverter, mel):
    with pytest.raises(UserError, match="NaN or infinite"):
        inverter.invert(np.where(np.arange(len(mel))[:, None] == 3, np.nan, mel))
    with pytest.raises(UserError, match=r"shape \(3, 64\)"):
        inverter.invert(np.zeros((3, 64), np.float32))
    assert len(inverter.invert(mel[:0])) == 0


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="bins=1025 must be 513"):
        PhaseVocoderModel(fft=1024)
    with pytest.raises(UserError, match="multiple of the codec's"):
        PhaseVocoderModel(codec=MelCodec(fft=1536), network=NETWORK)
    with pytest.raises(UserError, match="window=600"):
        PhaseVocoderModel(window=600, network=NETWORK)
    with pytest.raises(UserError, match="use longer segments"):
        MODEL.loss_fn(None, {"audio": jnp.zeros((1, 3000))}, None)


@pytest.mark.slow
def test_another_codec_has_its_own_sizes(params):
    codec = MelCodec(sample_rate=44100, hop=882, window=1764, fft=2048, fmax=20000.0)
    network = dataclasses.replace(NETWORK, bins=2049)
    model = PhaseVocoderModel(codec=codec, network=network, window=2822, fft=4096)
    fresh = compiled.init(model)["params"]
    tone = 0.2 * np.sin(2 * np.pi * 900 * np.arange(44100 // 2) / 44100)
    out = PhaseVocoder(model=model, params=fresh, chunk_frames=16).invert(codec.encode(tone))
    assert len(out) == 25 * 882
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert spectrum.argmax() * 44100 / len(out) == pytest.approx(900, abs=6)
