"""Test of seams: does one hear where the segments of a long piece meet?

A piece is made of segments that overlap by O frames (Maman et al. 2024, section 3.3). At the joins two
things could give them away: the spectrogram changes more from frame to frame than it does elsewhere,

    change[t] = mean over bins of |m[t + 1] - m[t]|, in nat,                      (1)

and the level steps,

    step = |L(after) - L(before)|, L = 10 lg (mean over frames of Σ_f exp(2 m[t, f])), in dB.      (2)

The middles of the segments of the same piece show what is usual elsewhere. Notes that begin
change the spectrogram anyway, so each join is compared with places in which about as many begin. A
random place for each join, of all pieces together, is one draw of a mean; `p` is the share of draws
whose mean is at least that at the joins (with the joins themselves as one of the draws).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from music_diffusion.errors import UserError

LEVEL_FRAMES = 8  # on either side, whose levels are compared
CHOICES = 20  # places at least that a join is compared with, where the piece has so many
ONSET_REACH = 2  # frames before and after its own in which an onset changes the spectrogram

# Of a curve over frames, at a first frame and for so many frames that are overlapped.
Score = Callable[[Float[np.ndarray, " T"], int, int], float]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A piece and where its segments meet."""

    mel: Float[np.ndarray, "T F"]  # nat
    joins: Int[np.ndarray, " J"]  # first frame of every segment but the first
    overlap: int  # O, frames from there on that belong to both segments; 0 is a cut
    onsets: Int[np.ndarray, " N"]  # frames in which notes begin

    def __post_init__(self):
        if self.mel.ndim != 2 or not np.isfinite(self.mel).all():
            raise UserError(f"a spectrogram of shape {list(self.mel.shape)}; give finite values [T, F]")
        if self.overlap < 0:
            raise UserError(f"{self.overlap=} must be at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeamTest:
    """A statistic at the joins, beside the same in the middles of segments."""

    joins: int  # that were tested
    at_joins: float  # mean
    elsewhere: float  # mean of the draws
    low: float  # 2.5 and 97.5 percentile of the draws' means
    high: float
    percentile: float  # of the mean at the joins among the draws, 0..100; small: blurred
    p: float  # that so large a mean, or a larger one, comes by chance

    @property
    def ratio(self) -> float:
        """Returns the mean at the joins over that elsewhere; 1 is no seam."""
        return self.at_joins / self.elsewhere if self.elsewhere else np.inf * np.sign(self.at_joins)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seams:
    """Both statistics of the pieces of one model."""

    change: SeamTest  # (1), nat
    level: SeamTest  # (2), dB


def mel_change(mel: Float[np.ndarray, "T F"]) -> Float[np.ndarray, " T-1"]:
    """Returns equation (1), the change from each frame to the next, nat."""
    return np.abs(np.diff(np.asarray(mel, np.float64), axis=0)).mean(axis=1)


def level_db(mel: Float[np.ndarray, "T F"]) -> float:
    """Returns the level of some frames together: RMS over time of the magnitudes' sum of squares, dB."""
    return float(10 * np.log10(np.exp(2 * np.asarray(mel, np.float64)).sum(axis=1).mean()))


def seams(pieces: Sequence[Piece], *, along: bool = True, draws: int = 2000, seed: int = 0) -> Seams:
    """Tests the joins of all pieces together.

    Args:
      pieces: of one model, made in one way.
      along: test the whole overlap; otherwise only the frame with which a segment begins, as where
        the segments do not overlap. The level is compared across what is tested.
      draws: random choices of places.
      seed: of the draws.

    Raises:
      UserError: no piece has a join, or none is long enough to have a place to compare it with.
    """
    if draws < 1:
        raise UserError(f"{draws=} must be at least 1")
    return Seams(change=_test(pieces, along, 1, _change, draws, seed),
                 level=_test(pieces, along, LEVEL_FRAMES, _step, draws, seed + 1))


def _change(change: Float[np.ndarray, " T-1"], first: int, length: int) -> float:
    """Returns the mean change from the frame before `first` to the one after the overlap."""
    return float(change[first - 1:first + length].mean())


def _step(energy: Float[np.ndarray, " T"], first: int, length: int) -> float:
    """Returns equation (2) of the energies of frames, from before `first` to after the overlap."""
    last = first + length
    before, after = energy[first - LEVEL_FRAMES:first], energy[last:last + LEVEL_FRAMES]
    return float(abs(10 * np.log10(after.mean() / before.mean())))


def _test(pieces: Sequence[Piece], along: bool, reach: int, score: Score, draws: int, seed: int
          ) -> SeamTest:
    """Compares joins with places; a join needs `reach` frames on either side."""
    rng = np.random.default_rng(seed)
    total, values = np.zeros(draws), []
    for piece in pieces:
        frames, length = len(piece.mel), piece.overlap if along else 0
        curve = (mel_change(piece.mel) if score is _change else
                 np.exp(2 * np.asarray(piece.mel, np.float64)).sum(axis=1))
        joins = np.asarray([j for j in piece.joins if reach <= j <= frames - reach - length], int)
        places = _places(piece, length, reach)
        if not len(joins) or not len(places):
            continue
        count = functools.partial(_onsets, np.sort(piece.onsets), length)
        elsewhere = np.array([score(curve, at, length) for at in places])
        distance = np.abs(count(places)[np.newaxis] - count(joins)[:, np.newaxis])  # [J, places]
        for join, far in zip(joins, distance, strict=True):
            nearest = np.sort(far)[min(CHOICES, len(far)) - 1]
            total += rng.choice(elsewhere[far <= nearest], draws)
            values.append(score(curve, join, length))
    if not values:
        raise UserError("no segments meet, or none has a middle to compare with; give longer pieces")
    found, usual = float(np.mean(values)), total / len(values)
    low, high = np.percentile(usual, (2.5, 97.5))
    above = int((usual >= found).sum())
    return SeamTest(joins=len(values), at_joins=found, elsewhere=float(usual.mean()), low=float(low),
                    high=float(high), percentile=100 * float((usual < found).mean()),
                    p=(1 + above) / (1 + draws))


def _places(piece: Piece, length: int, reach: int) -> Int[np.ndarray, " P"]:
    """Returns where a join of that length could be without touching a real one."""
    at = np.arange(reach, len(piece.mel) - reach - length + 1)
    free = np.ones(len(at), bool)
    for join in piece.joins:  # [at - reach, at + length + reach) and the overlap lie apart
        free &= (at + length + reach <= join - 1) | (at - reach >= join + piece.overlap + 1)
    return at[free]


def _onsets(onsets: Int[np.ndarray, " N"], length: int, at: Int[np.ndarray, " P"]
            ) -> Int[np.ndarray, " P"]:
    """Returns how many notes begin where they matter for a join at each place."""
    first = np.searchsorted(onsets, at - 1 - ONSET_REACH)
    return np.searchsorted(onsets, at + length + ONSET_REACH, side="right") - first
