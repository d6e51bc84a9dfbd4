"""Findings of the doctor of data sets, and its advice."""

from __future__ import annotations

import dataclasses

MISALIGNED, SILENT, CLIPPED, MISPROGRAMMED, DUPLICATED, EMPTY, RATE, CODEC, VELOCITY, LEAK, UNREADABLE = (
    "misaligned", "silent", "clipped", "mis-programmed", "duplicated", "empty", "wrong rate",
    "wrong codec", "velocity-less", "leak", "unreadable")

# What to do about each kind. A finding may know better.
ADVICE = {
    MISALIGNED: "align the notes with the audio, or leave the item out",
    SILENT: "replace the audio by a recording that plays the notes, or leave the item out",
    CLIPPED: "record or render it again at a lower level; turning it down does not repair it",
    MISPROGRAMMED: "give its notes the program of the instrument that plays",
    DUPLICATED: "keep one of the two",
    EMPTY: "leave the item out, or give it what is missing",
    RATE: "get the original again at its own sample rate, and write that rate into the header",
    CODEC: "convert it to WAV or FLAC under a name that shows its format",
    VELOCITY: "tell the data set that it has no velocities (velocities=False), "
              "so that models do not learn this number",
    LEAK: "put both into one split, or leave one of them out",
    UNREADABLE: "repair it, fetch it again, or leave it out",
}
KINDS = tuple(ADVICE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A fault of an item."""

    item: str  # its name; of what could not become an item, the name that the reader gives
    kind: str  # of KINDS
    measured: str  # what was found, in words and numbers
    advice: str = ""  # what to do about it; by default what ADVICE says of the kind
    others: tuple[str, ...] = ()  # names of the items that it has to do with

    def __post_init__(self):
        if not self.advice:
            object.__setattr__(self, "advice", ADVICE[self.kind])


def seconds(value: float) -> str:
    """Returns a signed time for a sentence."""
    return f"{value:+.2f} s"


def clock(value: float) -> str:
    """Returns a place in a recording, as players show it."""
    return f"{int(value) // 60}:{int(value) % 60:02d}"


def percent(share: float) -> str:
    """Returns a share 0..1 in percent for a sentence, with two significant digits where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
