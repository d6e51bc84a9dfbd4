"""Tools that listen to recordings: embedding networks, a transcriber, an inverter. All are handed in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import digest
from music_diffusion.evaluation.embeddings import Embedder
from music_diffusion.notes.notes import Notes

PROBE_SECONDS = 2.0
# In `fingerprints`, beside the embedders.
TRANSCRIBER, INVERTER, NAMING = "transcriber", "inverter", "naming"


class Heard(Protocol):
    """The notes that a transcriber hears, and its activations."""

    @property
    def notes(self) -> Notes: ...

    @property
    def frames(self) -> np.ndarray:
        """Returns [T, 88] float32, frame activations 0..1 of pitches 21..108."""
        ...

    @property
    def frame_seconds(self) -> float: ...


class Transcriber(Protocol):
    """Audio → notes."""

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate that it wants, Hz."""
        ...

    def transcribe(self, samples: np.ndarray) -> Heard:
        """Returns what is heard in mono samples [S]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resynthesis:
    """Audio → spectrogram → inverter → audio."""

    name: str  # of the inverter
    sample_rate: int  # Hz, of both sides
    run: Callable[[np.ndarray], np.ndarray]  # [S] → [S]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
    """A network that names instruments."""

    name: str
    sample_rate: int  # Hz
    # [S] samples → [n, C]: how surely each class is heard in each patch, the melodic ones first.
    presence: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tools:
    """Tools that listen to the recordings."""

    embedders: tuple[Embedder, ...]
    transcriber: Transcriber | None = None
    transcriber_name: str = "transcriber"
    transcriber_stand_in: bool = True  # the project's own network
    resynthesis: Resynthesis | None = None
    naming: Naming | None = None  # hears instruments, where transfers are scored

    def __post_init__(self):
        names = [e.name for e in self.embedders]
        if len(names) != len(set(names)):
            raise UserError(f"two embeddings are called alike ({', '.join(names)}); give one at a time")


ToolLoader = Callable[[], Tools]  # hashable and picklable; equal ones load the same tools


@functools.lru_cache(maxsize=1)
def tools_of(loader: ToolLoader) -> Tools:
    """Loads tools once a process."""
    return loader()


def fingerprints(tools: Tools) -> dict[str, str]:
    """Returns what each tool differs by from others: its settings, and what it does to a fixed sound.

    Embedders say in their settings which weights they have.
    """
    found = {e.name: digest(e.name, e.settings, e.sample_rate) for e in tools.embedders}
    if tools.transcriber is not None:
        rate = tools.transcriber.sample_rate
        heard = tools.transcriber.transcribe(_probe(rate))
        found[TRANSCRIBER] = digest(tools.transcriber_name, rate, heard.frame_seconds,
                                    len(heard.notes), _described(heard.frames))
    if tools.resynthesis is not None:
        rate = tools.resynthesis.sample_rate
        found[INVERTER] = digest(tools.resynthesis.name, rate,
                                 _described(tools.resynthesis.run(_probe(rate))))
    if tools.naming is not None:
        rate = tools.naming.sample_rate
        found[NAMING] = digest(tools.naming.name, rate, _described(tools.naming.presence(_probe(rate))))
    return found


def _probe(rate: int) -> np.ndarray:
    """Returns the fixed sound: a chord, and noise in its first half, [S] float32."""
    time = np.arange(round(PROBE_SECONDS * rate)) / rate
    noise = np.random.default_rng(0).normal(size=len(time))
    tones = np.sin(2 * np.pi * np.array([220.0, 329.6, 523.3])[:, np.newaxis] * time).sum(axis=0)
    return (0.05 * noise * (time < PROBE_SECONDS / 2) + 0.1 * tones).astype(np.float32)


def _described(values: np.ndarray) -> str:
    """Describes values by few rounded figures, so that the order of summation does not matter."""
    return f"{values.mean(dtype=np.float64):.3g} {values.std(dtype=np.float64):.3g}"
