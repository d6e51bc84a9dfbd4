"""Spectral losses against float64 NumPy written from the papers' equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.audio.spectral_loss import LinearSpectralLoss, MelSpectralLoss, magnitudes
from music_diffusion.errors import UserError

RATE = 16000
MEL = MelSpectralLoss(windows=(64, 256), mels=20, log_weight=0.3)
LINEAR = LinearSpectralLoss(windows=(64, 256), log_weight=0.3)
BOTH = pytest.mark.parametrize("loss", [MEL, LINEAR])


def noise(seed, level=0.1, samples=1000):
    return (level * np.random.default_rng(seed).standard_normal((2, samples))).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_grad(loss, real, fake):
    return jax.value_and_grad(lambda y: loss(real, y, sample_rate=RATE))(fake)


def value(loss, real, fake):
    return float(value_and_grad(loss, real, fake)[0])


def oracle_magnitudes(x, window, floor):
    """[B, T, K], frame after frame."""
    hann = np.sin(np.pi * np.arange(window) / window) ** 2
    starts = range(0, x.shape[1] - window + 1, window // 4)
    spectra = np.stack([np.fft.rfft(x[:, s:s + window].astype(np.float64) * hann) for s in starts], 1)
    return np.hypot(np.abs(spectra), floor)


def oracle_mel(window, mels, rate):
    """Triangles between neighbouring centres, linear on the HTK mel scale; no DC."""
    mel = 2595 * np.log10(1 + np.arange(window // 2 + 1) * rate / window / 700)
    centres = np.linspace(0, mel[-1], mels + 2)
    matrix = np.maximum(0, 1 - np.abs(mel[:, None] - centres[None, 1:-1]) / centres[1])
    matrix[0] = 0
    return matrix


def oracle_mel_loss(loss, x, y):
    total = 0
    for s in loss.windows:
        matrix = oracle_mel(s, loss.mels, RATE)
        a, b = (oracle_magnitudes(v, s, loss.floor) @ matrix for v in (x, y))
        met = matrix.any(0)  # by a bin; other filters give 0
        log = np.log(a[..., met]) - np.log(b[..., met])
        frames = np.abs(a - b).sum(-1) + loss.log_weight * np.sqrt(s / 2) * np.sqrt((log**2).sum(-1))
        total += frames.mean()
    return total


def oracle_linear_loss(loss, x, y):
    terms = []
    for s in loss.windows:
        peak = np.sum(np.sin(np.pi * np.arange(s) / s) ** 2) / 2  # of a sine of amplitude 1
        a, b = (oracle_magnitudes(v, s, loss.floor * peak) / peak for v in (x, y))
        for p, q in zip(a, b, strict=True):
            terms.append(np.abs(p - q).mean() / max(p.mean(), loss.quiet)
                         + loss.log_weight * np.abs(np.log(p / q)).mean())
    return np.mean(terms)


PAIRS = pytest.mark.parametrize("loss, oracle", [(MEL, oracle_mel_loss), (LINEAR, oracle_linear_loss)])


@PAIRS
def test_losses_are_their_formulas(loss, oracle):
    x, y = noise(0), noise(1, level=0.02)
    assert value(loss, x, y) == pytest.approx(oracle(loss, x, y), rel=1e-5)  # measured 1e-6
    x[1] = 0  # below `quiet`
    assert value(loss, x, y) == pytest.approx(oracle(loss, x, y), rel=1e-5)


@PAIRS
def test_gradients_are_those_of_the_formulas(loss, oracle):
    x, y = noise(7), noise(8)
    direction, step = noise(9, level=1.0).astype(np.float64), 1e-7
    ahead, behind = (oracle(loss, x, y + sign * step * direction) for sign in (1, -1))
    grad = np.asarray(value_and_grad(loss, x, y)[1], np.float64)
    assert np.sum(grad * direction) == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)


def test_the_papers_setting_is_the_default():
    loss = MelSpectralLoss()
    assert loss.windows == tuple(2**i for i in range(6, 12)) and loss.mels == 64
    x, y = noise(2, samples=2100), noise(3, samples=2100)
    assert value(loss, x, y) == pytest.approx(oracle_mel_loss(loss, x, y), rel=1e-5)


def test_a_sine_has_its_amplitude():
    x = 0.25 * np.sin(2 * np.pi * 8 / 64 * np.arange(640))[None]
    m = np.asarray(magnitudes(jnp.asarray(x, jnp.float32), 64, floor=1e-9)) / 16
    np.testing.assert_allclose(m[:, :, 8], 0.25, rtol=1e-5)
    assert m.argmax(-1).min() == m.argmax(-1).max() == 8


@BOTH
@pytest.mark.parametrize("real, fake", [(0, 0), (0.1, 0), (0, 0.1), (0, 1e-12), (1e-30, 1e-25)])
def test_gradients_are_finite_in_silence(loss, real, fake):
    x, y = noise(5, level=real), noise(6, level=fake)
    x[1], y[1] = 0, 0
    its, grad = value_and_grad(loss, x, y)
    assert np.isfinite(its) and np.isfinite(grad).all()


@BOTH
def test_phase_is_not_heard_but_level_is(loss):
    x = noise(10)
    assert value(loss, x, x) == value(loss, x, -x) == 0
    assert 0 < value(loss, x, 0.5 * x) < value(loss, x, 0 * x)


def test_the_linear_loss_is_the_same_at_any_level():
    x, y = noise(11), noise(12)
    loud, quiet = (value(LINEAR, np.float32(g) * x, np.float32(g) * y) for g in (1.0, 0.05))
    assert quiet == pytest.approx(loud, rel=0.02)  # the floor moves it a little


@BOTH
def test_bad_input_is_an_error(loss):
    with pytest.raises(UserError, match="255 samples are shorter than .* 256"):
        loss(noise(0, samples=255), noise(1, samples=255), sample_rate=RATE)
    for fields in ({"windows": ()}, {"windows": (66,)}, {"floor": 0.0}):
        with pytest.raises(UserError):
            type(loss)(**fields)
    with pytest.raises(UserError, match="mels=0"):
        MelSpectralLoss(mels=0)
    with pytest.raises(UserError, match="quiet=0"):
        LinearSpectralLoss(quiet=0)
