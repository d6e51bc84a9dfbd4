"""Recorded rooms: impulse responses from files, used as `data.rooms.Room` is.

    FOLDER/impulse_responses.csv    file, licence (others are for people); without it all audio there
    FOLDER/church.flac

A response begins with its direct sound, at sample 0, whose energy is 1. Of several channels the mean is
taken.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import soxr
from jaxtyping import Float

from music_diffusion.audio.io import read_audio
from music_diffusion.data.rooms import convolve
from music_diffusion.errors import UserError
from music_diffusion.tables import read_table

TABLE = "impulse_responses.csv"
AUDIO = (".wav", ".flac", ".aiff", ".ogg", ".opus", ".mp3")
DIRECT = 0.0025  # seconds after the direct sound's peak that belong to it: before floor or desk reflect
FIRST = 0.5  # of the largest amplitude: the first sample above is the direct sound's rise
RISE = 0.001  # seconds from there within which it has its peak
FALL = (-5.0, -25.0)  # dB of Schroeder's integral between which the decay is measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedRoom:
    """A room by its recorded impulse response."""

    path: str  # audio file
    licence: str = ""
    rt60: float  # seconds, as measured; for people
    wet_db: float  # energy of all but the direct sound, relative to it

    @property
    def name(self) -> str:
        return pathlib.Path(self.path).stem

    def impulse_response(self, sample_rate: int) -> Float[np.ndarray, "N"]:
        """Returns the response from the direct sound's peak at sample 0, positive, to its end; float32.

        The direct sound has energy 1, and the rest has `wet_db`. Raises UserError: a bad file.
        """
        return _response(self.path, self.wet_db, sample_rate)

    def __call__(self, samples: Float[np.ndarray, "S"], sample_rate: int) -> Float[np.ndarray, "S"]:
        """Returns the samples as heard in the room."""
        return convolve(samples, self.impulse_response(sample_rate))


def measure_room(path: str, licence: str = "") -> RecordedRoom:
    """Returns a room as it was recorded. Raises UserError: a bad file, or one without reverberation."""
    wave = read_audio(path).mono()
    whole = _from_direct(wave.samples.astype(np.float64), wave.sample_rate, path)
    direct = round(DIRECT * wave.sample_rate)
    wet, dry = (float(np.sum(np.square(x))) for x in (whole[direct:], whole[:direct]))
    if wet <= 0:
        raise UserError(f"{path}: nothing follows the direct sound; give an impulse response of a room")
    return RecordedRoom(path=path, licence=licence, rt60=_decay_time(whole, wave.sample_rate),
                        wet_db=10 * float(np.log10(wet / dry)))


@functools.lru_cache(maxsize=16)
def read_rooms(folder: str, licences: tuple[str, ...] = ()) -> tuple[RecordedRoom, ...]:
    """Reads the rooms of a folder, in the order of its table or of their names.

    Args:
      folder: of audio files, with impulse_responses.csv or without.
      licences: that are allowed, as the table writes them but for capitals; (): all.

    Raises UserError: no such folder, no response, a licence that none has, or a bad file.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; give one of impulse responses")
    listed = _listed(folder)
    if not listed:
        raise UserError(f"{folder}: no audio there; give a folder of impulse responses")
    there = {licence.lower(): licence for _, licence in listed}
    for licence in licences:
        if licence.strip().lower() not in there:
            known = ", ".join(sorted(filter(None, there.values()))) or f"none (there is no {TABLE})"
            raise UserError(f"{folder}: no response has the licence {licence.strip()!r}; there are {known}")
    allowed = {licence.strip().lower() for licence in licences} or set(there)
    return tuple(measure_room(os.path.join(folder, file), licence) for file, licence in listed
                 if licence.lower() in allowed)


def find_room(rooms: Sequence[RecordedRoom], name: str) -> RecordedRoom:
    """Returns the room of a file name, with its extension or without. Raises UserError."""
    for room in rooms:
        if name in (room.name, os.path.basename(room.path)):
            return room
    known = ", ".join(room.name for room in rooms) or "none; give a folder by room_responses"
    raise UserError(f"{name!r} is no impulse response that may be used; there are {known}")


def _listed(folder: str) -> list[tuple[str, str]]:
    """Returns files below the folder with their licences."""
    table = os.path.join(folder, TABLE)
    if not os.path.isfile(table):
        return [(name, "") for name in sorted(os.listdir(folder)) if name.lower().endswith(AUDIO)]
    rows = read_table(table, ("file", "licence"), advice="it needs the columns file and licence")
    return [(row["file"].strip(), row["licence"].strip()) for row in rows if row["file"].strip()]


def _from_direct(samples: np.ndarray, rate: int, path: str) -> np.ndarray:
    """Returns the samples from the peak of the direct sound on, which is made positive."""
    size = np.abs(samples)
    if not size.max(initial=0.0) > 0:
        raise UserError(f"{path}: is silent; give an impulse response")
    first = int(np.argmax(size >= FIRST * size.max()))
    peak = first + int(np.argmax(size[first:first + max(1, round(RISE * rate))]))
    return samples[peak:] * np.sign(samples[peak])


@functools.lru_cache(maxsize=64)
def _response(path: str, wet_db: float, sample_rate: int) -> np.ndarray:
    wave = read_audio(path).mono()
    resampled = soxr.resample(wave.samples.astype(np.float64), wave.sample_rate, sample_rate, quality="HQ")
    whole = _from_direct(resampled, sample_rate, path)
    direct = max(1, round(DIRECT * sample_rate))
    whole[:direct] /= np.sqrt(np.sum(np.square(whole[:direct])))
    wet = whole[direct:]
    wet *= 10 ** (wet_db / 20) / max(np.sqrt(np.sum(np.square(wet))), 1e-12)
    response = whole.astype(np.float32)
    response.setflags(write=False)
    return response


def _decay_time(samples: np.ndarray, rate: int) -> float:
    """Returns seconds for 60 dB, by the slope of Schroeder's backward integral (1965)."""
    decay = np.cumsum(np.square(samples)[::-1])[::-1]
    decibel = 10 * np.log10(decay / decay[0] + 1e-30)
    first, last = (int(np.argmax(decibel < level)) for level in FALL)
    if last - first < 2:
        return 0.0
    slope = np.polyfit(np.arange(first, last) / rate, decibel[first:last], 1)[0]
    return float(-60 / slope)
