"""Do notes and audio belong together, and where? Correlates what the notes promise with what is heard.

Audio is cut into segments. Each is compared with the notes around it at every lag, a positive
one where the audio comes later than the notes. The sum over segments, over the energies of
both, is a correlation coefficient: 0.3 to 0.8 where a recording plays the notes, and nearly
always below 0.1 where it plays something else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float

from music_diffusion.data.checks import maps
from music_diffusion.data.checks.maps import HOP
from music_diffusion.notes.notes import Notes

REACH = 10.0  # seconds that notes and audio may be shifted
NEAR = 0.15  # seconds that count as aligned: slow attacks sound that late
# Programs that do not sound at the pitch of their notes: guitar harmonics, orchestra hit, and from
# 112 on percussion and effects.
PITCHLESS = frozenset({31, 55, *range(112, 128)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation:
    """Correlation of notes with sound, of W segments at lags -R … R frames."""

    centre: Float[np.ndarray, " W"]  # seconds of the sound
    product: Float[np.ndarray, "W lags"]
    heard: float  # energy of what is heard
    frames: int  # of all segments
    promised: Float[np.ndarray, " lags"]  # energy of the notes that each lag compares it with
    hop: float = HOP  # seconds from lag to lag

    @property
    def reach(self) -> int:
        return self.product.shape[1] // 2

    @functools.cached_property
    def norm(self) -> Float[np.ndarray, " lags"]:
        """Returns the divisor of products; where few notes are left, as if half of them were."""
        return np.sqrt(self.heard * np.maximum(self.promised, 0.5 * self.promised.max())) + 1e-9

    @functools.cached_property
    def coefficient(self) -> Float[np.ndarray, " lags"]:
        return self.product.sum(axis=0) / self.norm

    @property
    def here(self) -> float:
        """Returns the highest coefficient within NEAR of lag 0: of notes and audio as they are."""
        near = round(NEAR / self.hop)
        return float(self.coefficient[self.reach - near:self.reach + near + 1].max())

    @property
    def best(self) -> tuple[float, float]:
        """Returns (coefficient, lag in seconds) of the best lag."""
        at = int(self.coefficient.argmax())
        return float(self.coefficient[at]), (at - self.reach) * self.hop

    def prominence(self) -> float:
        """Returns how far the best lag stands out, in standard deviations of all lags (if normal)."""
        middle = np.median(self.coefficient)
        spread = 1.4826 * np.median(np.abs(self.coefficient - middle))
        return float((self.coefficient.max() - middle) / (spread + 1e-9))


def segments(start: float, heard: Float[np.ndarray, "T X"], hop: float = HOP
             ) -> list[tuple[float, np.ndarray]]:
    """Cuts a map, begun at `start` seconds, into about six segments of 5 to 30 s."""
    length = len(heard) * hop
    count = max(1, round(length / np.clip(length / 6, 5.0, 30.0)))
    edges = np.linspace(0, len(heard), count + 1).astype(int)
    return [(start + a * hop, heard[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]


def correlate_pitches(heard: Sequence[tuple[float, np.ndarray]], notes: Notes,
                      reach: float = REACH, hop: float = HOP) -> Correlation:
    """Correlates whitened maps [T, pitches], each with the seconds where it begins, with melodic notes."""
    return _correlate(heard, functools.partial(maps.promised_map, notes, hop=hop), reach, hop)


def correlate_onsets(heard: Sequence[tuple[float, np.ndarray]], notes: Notes,
                     reach: float = REACH) -> Correlation:
    """Correlates curves [T, 1] that rise where notes begin with the onsets of notes, drums included."""
    return _correlate(heard, lambda *a: maps.onset_curve(notes, *a)[:, None], reach, HOP)


def _correlate(heard: Sequence[tuple[float, np.ndarray]],
               promise: Callable[[float, int], np.ndarray], reach: float, hop: float
               ) -> Correlation:
    lags = round(reach / hop)
    products, energies = [], np.zeros(2 * lags + 1)
    for start, segment in heard:
        frames = len(segment)
        # Beyond the reach as far as the running mean looks.
        margin = maps.margin(hop)
        wide = promise(start - (lags + margin) * hop, frames + 2 * (lags + margin))
        wide = wide[margin:margin + frames + 2 * lags]
        size = scipy.fft.next_fast_len(len(wide), real=True)
        a = scipy.fft.rfft(np.ascontiguousarray(segment.T), size)
        b = scipy.fft.rfft(np.ascontiguousarray(wide.T), size)
        # At index j the segment is laid on the notes j frames after the first: a lag of -j.
        product = scipy.fft.irfft((np.conj(a) * b).sum(axis=0), size)[:2 * lags + 1]
        products.append(product[::-1])
        total = np.concatenate([[0.0], np.cumsum(np.square(wide).sum(axis=1, dtype=np.float64))])
        energies += (total[frames:] - total[:-frames])[::-1]
    return Correlation(
        hop=hop, centre=np.array([start + len(segment) * hop / 2 for start, segment in heard]),
        frames=sum(len(segment) for _, segment in heard),
        heard=float(sum(np.square(segment, dtype=np.float64).sum() for _, segment in heard)),
        product=np.array(products), promised=energies)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """A lag that changes over the sound."""

    coefficient: float
    first: float  # seconds, lag at the first segment's centre
    last: float  # seconds, lag at the last segment's centre
    jump: float | None = None  # seconds of the sound where it jumps from first to last


def drifting(c: Correlation, fastest: float = 0.03) -> Path:
    """Finds the best lag that grows evenly over time, by at most `fastest` seconds a second."""
    span = c.centre - c.centre.mean()
    length = float(np.ptp(span))
    steps = int(min(fastest * length, REACH) / (2 * HOP))
    best = Path(coefficient=-1.0, first=0.0, last=0.0)
    for step in range(-steps, steps + 1):
        slope = step * 2 * HOP / max(length, 1e-9)
        offset = np.round(slope * span / HOP).astype(int)
        total = sum((_moved(p, o) for p, o in zip(c.product, offset, strict=True)),
                    np.zeros(c.product.shape[1])) / c.norm
        at = int(total.argmax())
        if total[at] > best.coefficient:
            lag = (at - c.reach) * HOP
            best = Path(coefficient=float(total[at]), first=lag + slope * span[0],
                        last=lag + slope * span[-1])
    return best


def _moved(product: np.ndarray, frames: int) -> np.ndarray:
    """Returns product[i + frames], 0 beyond its ends."""
    result = np.zeros_like(product)
    if frames >= 0:
        result[:len(product) - frames] = product[frames:]
    else:
        result[-frames:] = product[:frames]
    return result


def jumping(c: Correlation) -> Path:
    """Finds the best pair of lags, one up to some place and another one from there."""
    before = np.cumsum(c.product, axis=0)
    after = before[-1] - before
    norm = c.norm.max()
    best = Path(coefficient=-1.0, first=0.0, last=0.0)
    for k in range(len(before) - 1):
        a, b = int(before[k].argmax()), int(after[k].argmax())
        total = float(before[k][a] + after[k][b]) / norm
        if total > best.coefficient:
            best = Path(coefficient=total, first=(a - c.reach) * HOP, last=(b - c.reach) * HOP,
                        jump=float(c.centre[k:k + 2].mean()))
    return best
