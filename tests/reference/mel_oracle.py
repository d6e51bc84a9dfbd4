"""The log-mel codec in float64, by slow loops, from the published definitions."""

import math

import numpy as np


def hertz_to_mel(hertz):
    """HTK mel scale, as in TensorFlow's `mel_ops`."""
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def mel_weight(bin_index, band, *, fft, mels, sample_rate, fmin, fmax):
    """One entry of `tf.signal.linear_to_mel_weight_matrix`."""
    if bin_index == 0:
        return 0.0
    low, high = hertz_to_mel(fmin), hertz_to_mel(fmax)
    lower, centre, upper = (low + (band + i) * (high - low) / (mels + 1) for i in range(3))
    mel = hertz_to_mel(bin_index * sample_rate / fft)
    return max(0.0, min((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)))


def mel_matrix(*, fft, mels, sample_rate, fmin, fmax):
    """[fft / 2 + 1, F]."""
    return np.array([[mel_weight(k, m, fft=fft, mels=mels, sample_rate=sample_rate,
                                 fmin=fmin, fmax=fmax) for m in range(mels)]
                     for k in range(fft // 2 + 1)])


def magnitudes(samples, frame, *, hop, window, fft):
    """|DFT| of one frame by its definition, [fft / 2 + 1]; zeros past the end."""
    total = np.zeros(fft // 2 + 1, complex)
    k = np.arange(fft // 2 + 1)
    for n in range(window):
        at = frame * hop + n
        if at < len(samples):
            hann = 0.5 - 0.5 * math.cos(2 * math.pi * n / window)
            total += float(samples[at]) * hann * np.exp(-2j * np.pi * ((k * n) % fft) / fft)
    return np.abs(total)


def encode(samples, *, sample_rate, hop, window, fft, mels, fmin, fmax, clip_min, clip_max):
    """[ceil(S / hop), F], nat."""
    matrix = mel_matrix(fft=fft, mels=mels, sample_rate=sample_rate, fmin=fmin, fmax=fmax)
    frames = math.ceil(len(samples) / hop)
    mel = np.array([magnitudes(samples, i, hop=hop, window=window, fft=fft) @ matrix
                    for i in range(frames)])
    return np.log(np.clip(mel, clip_min, clip_max))
