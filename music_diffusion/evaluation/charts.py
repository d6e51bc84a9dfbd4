"""Geometry of the report's pictures; the template draws them as SVG in the colours of the page.

Coordinates are in units of the picture, y downwards. No picture is an argument to
another: each holds all that is drawn.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.evaluation.transcription import DECIMALS, ONSET_TOLERANCE
from music_diffusion.notes.notes import Notes

WIDTH = 1000.0  # of every plot's inner area
MOST_POINTS = 400  # in a strip
HERTZ = (250, 500, 1000, 2000, 4000)
DRUM_GAP, DRUM_STEP = 10.0, 8.0  # between pitches and drums, and of a drum key
RANGE_NAT = 9.0  # of a spectrogram's colours, 78 dB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tick:
    at: float
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    x: float
    y: float
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strip:
    """Dots on a line, one for each file's score, with mean, floor and ceiling."""

    label: str
    better: str
    ticks: list[Tick]
    points: list[Point]
    mean: float  # x
    marks: list[Point]  # floors and ceilings
    left_out: int  # files that are not drawn, evenly over the ranks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    label: str
    note: str
    widths: list[float]  # of WIDTH, one a series
    texts: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A note."""

    x: float
    y: float
    width: float
    height: float
    kind: str  # hit, miss, extra
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roll:
    """Piano roll of the notes that were asked for against those heard."""

    height: float
    boxes: list[Box]
    pitch_ticks: list[Tick]
    time_ticks: list[Tick]
    drums_at: float | None  # y above which the drums begin
    counts: dict[str, int]  # by kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectrogram:
    label: str
    uri: str  # PNG
    frequency_ticks: list[Tick]  # share of the height, from the top
    time_ticks: list[Tick]


def number(value: float) -> str:
    """Returns a figure for people: about three digits; a dash where there is none."""
    if math.isnan(value):
        return "–"
    size = abs(value)
    if size and size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{digits}f}".replace("-", "−")


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round numbers in [low, high], at most `most` steps apart."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * m for m in (1, 2, 5, 10, 20) if span / (step * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def strip(label: str, better: str, files: Sequence[tuple[str, float]],
          marks: Sequence[tuple[str, float]]) -> Strip:
    """Returns the strip of (file, score) pairs without NaN, at least one; marks are (name, value) pairs."""
    ranked = sorted(files, key=lambda f: f[1])
    chosen = np.unique(np.linspace(0, len(ranked) - 1, min(len(ranked), MOST_POINTS)).round().astype(int))
    values = [v for _, v in ranked] + [v for _, v in marks]
    low, high = min(values), max(values)
    if better == "higher" and 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0:
        low = 0.0
    if high <= low:
        low, high = low - (low != 0) / 2, low + 1 - (low != 0) / 2
    pad = 0.02 * (high - low)

    def x(value: float) -> float:
        return round(WIDTH * (value - low + pad) / (high - low + 2 * pad), 1)

    rows = _spread([x(ranked[i][1]) for i in chosen])
    points = [Point(x=x(ranked[i][1]), y=y, title=f"{ranked[i][0]}: {number(ranked[i][1])}")
              for i, y in zip(chosen, rows, strict=True)]
    return Strip(label=label, better=better, points=points, left_out=len(ranked) - len(points),
                 mean=x(math.fsum(v for _, v in ranked) / len(ranked)),
                 ticks=[Tick(at=x(t), text=f"{t:g}".replace("-", "−")) for t in nice_ticks(low, high)],
                 marks=[Point(x=x(v), y=0, title=f"{name}: {number(v)}") for name, v in marks])


def _spread(xs: Sequence[float], gap: float = 9.0, rows: int = 5) -> list[float]:
    """Returns rows -1..1 for ascending xs, so that few dots cover each other."""
    order = sorted(range(rows), key=lambda r: abs(r - rows // 2))
    last = [-math.inf] * rows
    result = []
    for at in xs:
        row = next((r for r in order if at - last[r] >= gap), min(order, key=lambda r: last[r]))
        last[row] = at
        result.append((row - rows // 2) / (rows // 2))
    return result


def roll(asked: Notes, heard: Notes, start: float, seconds: float) -> Roll | None:
    """Returns an excerpt's roll; None without notes. A note is heard if its pitch begins within 50 ms."""
    hits, extra = match_for_display(asked, heard)
    rows = [(asked, np.where(hits, "hit", "miss")), (heard, np.where(extra, "extra", ""))]
    shown = [(n[i:i + 1], str(kind[i])) for n, kind in rows for i in range(len(n))
             if kind[i] and n.start[i] < start + seconds and n.end[i] > start]
    if not shown:
        return None
    melodic = [int(n.pitch[0]) for n, _ in shown if not n.is_drum[0]]
    drums = sorted({int(n.pitch[0]) for n, _ in shown if n.is_drum[0]}, reverse=True)
    lowest, highest = (min(melodic) - 1, max(melodic) + 1) if melodic else (0, -1)
    step = max(3.0, min(9.0, 260 / max(1, highest - lowest + 1)))
    split = step * (highest - lowest + 1)

    def box(note: Notes, kind: str) -> Box:
        pitch, onset = int(note.pitch[0]), float(note.start[0])
        left, right = max(0.0, onset - start), min(seconds, float(note.end[0]) - start)
        y, height = step * (highest - pitch), step
        if note.is_drum[0]:
            y, height = split + DRUM_GAP + DRUM_STEP * drums.index(pitch), DRUM_STEP
            right = min(right, left + 0.08)
        return Box(x=round(WIDTH * left / seconds, 1), y=round(y, 1), height=round(height - 1, 1),
                   width=round(max(2.0, WIDTH * (right - left) / seconds - 1), 1), kind=kind,
                   title=f"{kind}: {'drum key' if note.is_drum[0] else 'pitch'} {pitch} at {onset:.2f} s")

    return Roll(
        boxes=[box(note, kind) for note, kind in shown],
        height=split + (DRUM_GAP + DRUM_STEP * len(drums) if drums else 0),
        pitch_ticks=[Tick(at=round(step * (highest - p + 0.5), 1), text=f"C{p // 12 - 1}")
                     for p in range(lowest, highest + 1) if p % 12 == 0],
        time_ticks=time_ticks(start, seconds), drums_at=split + DRUM_GAP / 2 if drums else None,
        counts={kind: sum(k == kind for _, k in shown) for kind in ("hit", "miss", "extra")})


def match_for_display(asked: Notes, heard: Notes) -> tuple[np.ndarray, np.ndarray]:
    """Returns which notes asked for are heard, and which heard ones are extra; both bool.

    As in the scores, unisons are one note. Among notes of one pitch in order of
    onset, matching the earliest first finds as many pairs as there can be.
    """
    hits, extra = np.zeros(len(asked), bool), np.ones(len(heard), bool)
    for drum in (False, True):
        for pitch in np.unique(asked.pitch[asked.is_drum == drum]):
            mine, theirs = (
                _unisons(notes, np.flatnonzero((notes.pitch == pitch) & (notes.is_drum == drum)))
                for notes in (asked, heard))
            i = j = 0
            while i < len(mine) and j < len(theirs):
                late = round(heard.start[theirs[j][0]] - asked.start[mine[i][0]], DECIMALS)
                if abs(late) <= ONSET_TOLERANCE:
                    hits[mine[i]], extra[theirs[j]] = True, False
                i, j = i + (late >= -ONSET_TOLERANCE), j + (late <= ONSET_TOLERANCE)
    return hits, extra


def _unisons(notes: Notes, at: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of notes of one pitch, in order, by the note that they merge into."""
    groups: list[list[int]] = []
    for i in at.tolist():
        if groups and round(notes.start[i] - notes.start[groups[-1][0]], DECIMALS) <= ONSET_TOLERANCE:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [np.array(group) for group in groups]


def time_ticks(start: float, seconds: float) -> list[Tick]:
    """Returns places on the x axis for round seconds of the file."""
    return [Tick(at=round(WIDTH * (t - start) / seconds, 1), text=f"{t:g} s")
            for t in nice_ticks(start, start + seconds, 10)]


def spectrograms(sounds: Sequence[tuple[str, np.ndarray]], codec: MelCodec, start: float
                 ) -> list[Spectrogram]:
    """Returns log-mel pictures of excerpts [S] with one scale of colours and one of time."""
    mels = [codec.encode(samples) for _, samples in sounds]
    frames = max(len(mel) for mel in mels)
    top = max(float(np.quantile(mel, 0.999)) for mel in mels)
    pictures = []
    for (label, _), mel in zip(sounds, mels, strict=True):
        mel = np.pad(mel, ((0, frames - len(mel)), (0, 0)), constant_values=codec.log_min)
        mel = mel[:len(mel) // 2 * 2].reshape(-1, 2, codec.mels).mean(axis=1)  # 40 ms a column
        level = ((mel - top) / RANGE_NAT + 1).clip(0, 1)
        pictures.append(Spectrogram(
            label=label, uri=png_uri((255 * level.T[::-1]).round().astype(np.uint8)),
            frequency_ticks=_frequency_ticks(codec),
            time_ticks=time_ticks(start, frames / codec.frame_rate)))
    return pictures


def _frequency_ticks(codec: MelCodec) -> list[Tick]:
    low, high = (1127 * math.log1p(f / 700) for f in (codec.fmin, codec.fmax))
    # The filter of row m, drawn from m to m + 1, peaks at (m + 1) / (F + 1) of the mel range.
    rows = [((1127 * math.log1p(h / 700) - low) / (high - low) * (codec.mels + 1) - 0.5, h)
            for h in HERTZ if codec.fmin < h < codec.fmax]
    return [Tick(at=round(1 - row / codec.mels, 4), text=f"{h / 1000:g} kHz" if h >= 1000 else f"{h} Hz")
            for row, h in rows]


def png_uri(pixels: np.ndarray) -> str:
    """Returns [H, W] uint8 in the colours of matplotlib's magma, as a data URI of an indexed PNG."""
    from matplotlib import colormaps

    palette = (255 * colormaps["magma"](np.arange(256))[:, :3]).round().astype(np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # filter type 0 before every row
    content = (b"\x89PNG\r\n\x1a\n"
               + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
               + chunk(b"PLTE", palette.tobytes())
               + chunk(b"IDAT", zlib.compress(rows.astype(np.uint8).tobytes(), 9)) + chunk(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(content).decode()
