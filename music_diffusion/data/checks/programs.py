"""Check of programs: do the instruments that the notes name sound like those that a tagger hears?

A tagger errs, and some programs sound otherwise in every SoundFont. So whole families are compared,
programs without a sound of their own are passed over, and only a large margin counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.data.checks.findings import MISPROGRAMMED, Finding, percent
from music_diffusion.data.checks.hearing import RATE, Stretch
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import (
    DRUM_CLASS,
    PROGRAM_NAMES,
    SLAKH_CLASS_OF_PROGRAM,
    SLAKH_CLASSES,
)

# Samples at hearing.RATE → probability of each of the 34 classes and the drums, in patches that
# follow each other, [n, 35] (`models.tagger.Presence`).
Presence = Callable[[Float[np.ndarray, " S"]], Float[np.ndarray, "n K"]]

PATCH_SECONDS = 0.96
FAMILIES = {
    "piano": ("Acoustic Piano", "Electric Piano"),
    "mallets": ("Chromatic Percussion",),
    "guitar": ("Acoustic Guitar", "Clean Electric Guitar"),
    "bass": ("Acoustic Bass", "Electric Bass"),
    "strings": ("Violin", "Viola", "Cello", "Contrabass", "String Ensemble", "Synth Strings"),
    "brass": ("Trumpet", "Trombone", "Tuba", "French Horn", "Brass Section"),
    "reeds": ("Soprano/Alto Sax", "Tenor Sax", "Baritone Sax", "Oboe", "English Horn", "Bassoon",
              "Clarinet"),
    "flutes": ("Pipe",),
    "drums": (),
}
# A distorted guitar may be heard in anything harsh, but notes that name one belong to the family.
NAMED_ONLY = {"Distorted Electric Guitar": "guitar"}
# Programs of these families that sound like others, or otherwise in every SoundFont: harpsichord,
# clavinet, music box, tremolo and pizzicato strings, synth strings, muted trumpet, synth brass,
# the lesser flutes.
VAGUE = frozenset({6, 7, 10, 44, 45, 50, 51, 59, 62, 63, 75, 76, 77, 78, 79})
MARGIN = 3.5  # nat, of the mean log probability
HEARD = -1.6  # nat, at least, of the family that is heard (0.2)
FAINT = 1e-4  # least probability that counts
LEADS = 0.25  # share of the sounding notes that an instrument must have in a patch
LOUD = 1e-3  # of the loudest patch's power
FEWEST_PATCHES = 5
LONGEST = 120  # patches that are tagged


def _class_families() -> list[str | None]:
    """Returns the family of each class, None where it is in none."""
    names = [c.name for c in SLAKH_CLASSES]
    result: list[str | None] = [None] * (DRUM_CLASS + 1)
    for family, members in FAMILIES.items():
        for member in members:
            result[names.index(member)] = family
    result[DRUM_CLASS] = "drums"
    return result


CLASS_FAMILY = _class_families()


def family_of(program: int) -> str | None:
    """Returns the family of a program 0..127 or DRUM_PROGRAM; None if it says too little of the sound."""
    if program == DRUM_PROGRAM:
        return "drums"
    if program >= 96 or program in VAGUE:
        return None
    kind = int(SLAKH_CLASS_OF_PROGRAM[program])
    return CLASS_FAMILY[kind] or NAMED_ONLY.get(SLAKH_CLASSES[kind].name)


def check_programs(item: str, parts: Sequence[Stretch], notes: Notes, presence: Presence
                   ) -> list[Finding]:
    """Finds the first instrument that is not heard where it leads, while another family is."""
    program = np.where(notes.is_drum, DRUM_PROGRAM, notes.program)
    programs = np.unique(program).tolist()
    # What is named in any way may be heard, also by a program that is not judged.
    named = {f for p in programs if (f := _any_family(p)) is not None}
    judged = [p for p in programs if family_of(p) is not None]
    tagged, activity, power = _patches(parts, notes, program, programs, presence)
    if not judged or not len(tagged):
        return []
    total = activity.sum(axis=0)
    for p in judged:
        mine = activity[programs.index(p)]
        leads = (mine > 0.1 * PATCH_SECONDS) & (mine > LEADS * total) & (power > LOUD * power.max())
        if leads.sum() < FEWEST_PATCHES:
            continue
        own, other, heard = _scores(tagged[leads], str(family_of(p)), named)
        if other >= HEARD and other - own >= MARGIN:
            return [_finding(item, p, own, other, heard, int(leads.sum()))]
    return []


def check_stem(item: str, program: int, parts: Sequence[Stretch], presence: Presence) -> list[Finding]:
    """Checks the audio of one instrument alone; see `check_programs`."""
    samples = np.concatenate([np.zeros(0, np.float32), *(p.samples for p in parts)])
    length = len(samples) / RATE
    one = np.ones(1)
    notes = Notes(0 * one, length * one, 60 * one, 64 * one, program % DRUM_PROGRAM * one,
                  one * (program == DRUM_PROGRAM))
    return check_programs(item, [Stretch(start=0.0, samples=samples)], notes, presence)


def _any_family(program: int) -> str | None:
    if program == DRUM_PROGRAM:
        return "drums"
    kind = int(SLAKH_CLASS_OF_PROGRAM[program])
    return CLASS_FAMILY[kind] or NAMED_ONLY.get(SLAKH_CLASSES[kind].name)


def _patches(parts: Sequence[Stretch], notes: Notes, program: np.ndarray, programs: list[int],
             presence: Presence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (probabilities [n, 35], seconds of notes by program [P, n], power [n]) of LONGEST patches."""
    size = round(PATCH_SECONDS * RATE)
    budget = max(1, LONGEST // max(1, len(parts)))
    tagged, activity, power = [], [], []
    for part in parts:
        count = min(budget, len(part.samples) // size)
        if not count:
            continue
        # From the middle: pieces begin and end with silence.
        first = (len(part.samples) // size - count) // 2 * size
        samples = part.samples[first:first + count * size]
        tagged.append(np.asarray(presence(samples))[:count])
        edges = part.start + first / RATE + PATCH_SECONDS * np.arange(count + 1)
        near = (notes.start < edges[-1]) & (notes.end > edges[0])
        activity.append(_activity(notes[near], program[near], programs, edges))
        power.append(np.square(samples).reshape(count, size).mean(axis=1))
    if not tagged:
        return np.zeros((0, DRUM_CLASS + 1)), np.zeros((len(programs), 0)), np.zeros(0)
    return np.concatenate(tagged), np.concatenate(activity, axis=1), np.concatenate(power)


def _activity(notes: Notes, program: np.ndarray, programs: list[int], edges: np.ndarray
              ) -> np.ndarray:
    """Returns the seconds that notes of each program sound between edges, [P, len(edges) - 1]."""
    overlap = np.maximum(0.0, np.minimum(notes.end[:, None], edges[1:])
                         - np.maximum(notes.start[:, None], edges[:-1]))
    return np.stack([overlap[program == p].sum(axis=0) for p in programs])


def _scores(tagged: np.ndarray, family: str, named: set[str]) -> tuple[float, float, str]:
    """Returns mean log probabilities of the family and of the likeliest one not named, and the latter."""
    mean = np.log(np.clip(tagged, FAINT, 1)).mean(axis=0)
    by_family = {f: max(float(m) for m, of in zip(mean, CLASS_FAMILY, strict=True) if of == f)
                 for f in FAMILIES}
    if family == "guitar":
        distorted = [c.name for c in SLAKH_CLASSES].index("Distorted Electric Guitar")
        by_family["guitar"] = max(by_family["guitar"], float(mean[distorted]))
    others = {f: v for f, v in by_family.items() if f not in named}
    if not others:
        return by_family[family], -np.inf, ""
    heard = max(others, key=lambda f: others[f])
    return by_family[family], others[heard], heard


def _finding(item: str, program: int, own: float, other: float, heard: str, patches: int) -> Finding:
    name = "drums" if program == DRUM_PROGRAM else f"program {program} ({PROGRAM_NAMES[program]})"
    return Finding(
        item=item, kind=MISPROGRAMMED,
        measured=f"its notes name {name}, but what is heard is {heard}: with a probability of "
                 f"{percent(float(np.exp(other)))} against {percent(float(np.exp(own)))}, over "
                 f"{patches * PATCH_SECONDS:.0f} s",
        advice=f"listen, and give the notes the program of what plays; leave {name} if the tagger errs")
