"""Small recordings of notes, made of partials whose pitch, onset and decay are known."""

from __future__ import annotations

import csv
import pathlib
import struct

import numpy as np
import soundfile

RATE = 48000  # Hz, of the files
COLUMNS = ("file", "midi", "layer", "seconds", "onset_seconds", "peak", "f0_hz_measured", "cents_off")


def hertz(pitch: float) -> float:
    """Returns the frequency of a MIDI pitch; cents are its fraction."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def tone(pitch: float, seconds: float = 1.0, *, onset: float = 0.05, peak: float = 0.5, decay: float = 0.0,
         overtones: int = 3, rate: int = RATE) -> np.ndarray:
    """Returns silence until the onset, then partials that fall by `decay` nat a second."""
    time = np.arange(round(seconds * rate)) / rate - onset
    wave = sum(np.sin(2 * np.pi * k * hertz(pitch) * time) / k for k in range(1, overtones + 1))
    wave = np.where(time >= 0, wave * np.exp(-decay * np.maximum(time, 0)), 0.0)
    return (peak * wave / np.abs(wave).max()).astype(np.float32)


def write(path: pathlib.Path, samples: np.ndarray, rate: int = RATE, loop: tuple[int, int] | None = None):
    """Writes a WAV in 24 bits, with a chunk smpl if it has a loop."""
    soundfile.write(path, samples, rate, subtype="PCM_24")
    if loop is not None:
        data = struct.pack("<9I", 0, 0, 0, 60, 0, 0, 0, 1, 0) + struct.pack("<6I", 0, 0, *loop, 0, 0)
        content = path.read_bytes() + b"smpl" + struct.pack("<I", len(data)) + data
        path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])


def table(folder: pathlib.Path, rows: list[dict], columns: tuple[str, ...] = COLUMNS) -> None:
    """Writes notes.csv."""
    with (folder / "notes.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def instrument(folder: pathlib.Path, pitches, layers=(("", 0.5),), *, seconds: float = 1.0,
               onset: float = 0.05, decay: float = 0.0, off: float = 0.0, takes: int = 1) -> pathlib.Path:
    """Makes a folder of tones: one for each pitch, layer (name, peak) and take; `off` cents too high.

    The k-th layer has k + 1 partials, by which it is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for pitch in pitches:
        for number, (layer, peak) in enumerate(layers):
            for take in range(takes):
                name = f"{pitch}_{layer}_{take}.wav"
                at = onset + 0.01 * take
                write(folder / name, tone(pitch + off / 100, seconds, onset=at, peak=peak, decay=decay,
                                          overtones=number + 1))
                rows.append({"file": name, "midi": pitch, "layer": layer, "seconds": seconds,
                             "onset_seconds": at, "peak": peak, "cents_off": off})
    table(folder, rows)
    return folder


def measured_hertz(samples: np.ndarray, rate: int, near: float) -> float:
    """Returns the frequency of the strongest partial within a third of `near`, by a parabola over bins."""
    count = 8 * len(samples)
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), count)) + 1e-12)
    bins = np.arange(len(spectrum)) * rate / count
    spectrum[(bins < near / 1.33) | (bins > near * 1.33)] = -np.inf
    k = int(np.argmax(spectrum))
    a, b, c = spectrum[k - 1:k + 2]
    return (k + 0.5 * (a - c) / (a - 2 * b + c)) * rate / count


def cents(found: float, wanted: float) -> float:
    """Returns how much higher a frequency is."""
    return 1200 * np.log2(found / wanted)
