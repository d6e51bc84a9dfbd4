"""Pieces of audio on disk: ArrayRecord shards of safetensors messages, and their manifest."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Self

import numpy as np
from jaxtyping import Int16
from safetensors.numpy import load, save

from music_diffusion.data import records
from music_diffusion.errors import UserError

KIND = "audio"  # in the manifest, so that folders of other records are not taken for audio
FULL_SCALE = 32768.0  # the int16 value of amplitude 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioRecord:
    """One piece of audio as it is stored."""

    audio: Int16[np.ndarray, "S C"]  # C = 1 (mono) or 2 (left, right)

    def to_bytes(self) -> bytes:
        """Returns the record as a safetensors message."""
        return save({"audio": np.ascontiguousarray(self.audio, np.int16)})

    @classmethod
    def from_bytes(cls, message: bytes) -> Self:
        """Reads a message; the inverse of `to_bytes`."""
        return cls(audio=load(message)["audio"])


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Rounds amplitudes to int16; what lies beyond full scale is clipped."""
    return np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def read_audio_manifest(folder: str | os.PathLike, sample_rate: int | None = None) -> dict:
    """Reads the manifest of a folder of audio records.

    Raises:
      UserError: there is none, it is of other data, the folder is unfinished, or
        its audio has another rate than `sample_rate` (Hz).
    """
    path = pathlib.Path(folder) / records.MANIFEST
    make = "make it with `music-diffusion prepare audio_folder`"
    if not path.is_file():
        raise UserError(f"{folder}: no {records.MANIFEST} there; {make}")
    try:
        facts = json.loads(path.read_text())
        kind, complete = facts.get("kind"), facts.get("complete")
        its_rate = int(facts["options"]["sample_rate"]) if kind == KIND else 0
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(f"{path}: damaged; delete the folder and {make}") from e
    if kind != KIND:
        raise UserError(f"{folder}: holds other data than audio; {make}")
    if not complete:
        raise UserError(f"{folder}: unfinished; run `music-diffusion prepare audio_folder` again, "
                        "it keeps what is done")
    if sample_rate is not None and its_rate != sample_rate:
        raise UserError(f"{folder}: its audio has {its_rate} Hz and the codec {sample_rate} Hz; "
                        f"prepare it again with --rate {sample_rate}")
    return facts
