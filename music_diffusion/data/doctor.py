"""The doctor: reads every item of a data set and names what is wrong with it.

What may be wrong is listed in `checks.findings`; each check says in its file how it decides. They
are tuned to say nothing of sound data: what is named is nearly always a fault, and not all
faults are found.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.checks import across, files, fingerprints, fit, maps, programs, signals
from music_diffusion.data.checks.across import Portrait
from music_diffusion.data.checks.findings import (
    KINDS,
    MISALIGNED,
    MISPROGRAMMED,
    RATE,
    UNREADABLE,
    Finding,
)
from music_diffusion.data.checks.hearing import RATE as HEARD_RATE
from music_diffusion.data.checks.hearing import Hearing, hear, listen
from music_diffusion.data.checks.maps import Spectrum
from music_diffusion.data.checks.programs import Presence
from music_diffusion.data.items import DataSet, Item
from music_diffusion.data.parallel import Runner, run_tasks
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.types import StepProgress

LoadPresence = Callable[[], Presence]

COLUMNS = ("item", "fault", "what was measured", "what to do")
SOURCE_SECONDS = 0.25  # by which an item's source may be longer or shorter than its audio
STEM_SECONDS = 120.0  # longer stems are listened to in parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The findings in a data set."""

    items: int  # that were examined
    seconds: float  # of audio
    findings: tuple[Finding, ...]  # in the order of KINDS, then of the items
    unchecked: tuple[str, ...] = ()  # what was not looked for, and why

    def to_dict(self) -> dict:
        """Returns the diagnosis for JSON."""
        return {"items": self.items, "seconds": round(self.seconds, 3),
                "findings": [dataclasses.asdict(f) | {"others": [*f.others]} for f in self.findings],
                "unchecked": [*self.unchecked]}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Returns the findings as rows of a table under COLUMNS."""
        return [(f.item, f.kind, f.measured, f.advice) for f in self.findings]

    def summary(self) -> str:
        """Returns the diagnosis in one line."""
        counts = collections.Counter(f.kind for f in self.findings)
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        found = f"{len(self.findings)} findings ({kinds})" if counts else "nothing found"
        left = "".join(f"; not looked for: {text}" for text in self.unchecked)
        return f"{self.items} items, {self.seconds / 3600:.2f} h: {found}{left}"


def examine(data_set: DataSet, *, codec: MelCodec, presence: LoadPresence | None = None,
            workers: int = 1, progress: StepProgress = lambda done, total: None,
            run: Runner = run_tasks) -> Diagnosis:
    """Examines all items of a data set.

    Args:
      data_set: a reader; if its folder is one that `prepare` made, its manifest is compared, too.
      codec: of the spectrograms that it shall become.
      presence: loads the tagger that hears who plays (`models.tagger.Presence`); picklable and
        hashable, called once in every process. None: programs are not checked.
      workers: processes.
      progress: takes (examined items, items in all).
      run: see `data.parallel.run_tasks`.

    Raises:
      UserError: the reader finds no items; a worker was killed.
    """
    folder = getattr(data_set, "folder", None)
    findings = files.check_prepared(folder, codec) if isinstance(folder, str) else []
    try:
        listing = data_set.list()
    except UserError:
        if not findings:
            raise
        return Diagnosis(items=0, seconds=0.0, findings=tuple(findings))
    findings += [Finding(item=name, kind=UNREADABLE, measured=reason)
                 for name, reason in listing.skipped]
    task = functools.partial(examine_item, codec=codec, presence=presence)
    examined = run(task, listing.items, workers, progress)
    for found, _, _ in examined:
        findings += found
    compared = across.check_across([p for _, p, _ in examined if p is not None])
    odd = {f.item for f in findings if f.kind == RATE}
    findings += [f for f in compared if f.kind != RATE or f.item not in odd]
    place = {item.name: i for i, item in enumerate(listing.items)}
    findings.sort(key=lambda f: (KINDS.index(f.kind), place.get(f.item, -1), f.item))
    return Diagnosis(items=len(listing.items), seconds=sum(s for _, _, s in examined),
                     findings=tuple(findings), unchecked=_unchecked(listing.items, presence))


@functools.lru_cache(maxsize=1)
def _loaded(presence: LoadPresence) -> Presence:
    return presence()


def _unchecked(items: Iterable[Item], presence: LoadPresence | None) -> tuple[str, ...]:
    if presence is None and any(item.notes is not None or item.stems for item in items):
        return (f"{MISPROGRAMMED} items, because there is no tagger",)
    return ()


def examine_item(item: Item, *, codec: MelCodec, presence: LoadPresence | None = None
                 ) -> tuple[list[Finding], Portrait | None, float]:
    """Returns (findings, what is kept of it to compare it with others, its seconds) of one item."""
    findings = files.check_names(item)
    try:
        hearing = hear(item.audio)
        notes = item.notes() if item.notes is not None else None
        others = [*(stem.audio for stem in item.stems)]
        for sound in others:
            sound.facts()
        findings += _check_source(item, hearing)
    except UserError as error:
        return [*findings, files.unreadable(item, error)], None, 0.0
    empty = signals.check_empty(item.name, hearing, notes)
    if empty:
        return findings + empty, None, hearing.seconds
    spectra = maps.spectra(hearing.parts)
    findings += signals.check_clipped(item.name, hearing.signals)
    findings += signals.check_rate(item.name, hearing.signals, codec)
    if notes is not None and item.velocities:
        findings += signals.check_velocity(item.name, notes)
    apart = _check_time(item, hearing, notes, spectra)
    findings += apart
    # Half a spectrum does not show who plays, nor does another speed.
    if presence is not None and not apart and not any(f.kind == RATE for f in findings):
        try:
            findings += _check_programs(item, hearing, notes, _loaded(presence))
        except UserError as error:  # a stem is damaged further on
            findings.append(files.unreadable(item, error))
    return findings, _portrait(item, hearing, notes, spectra), hearing.seconds


def _check_source(item: Item, hearing: Hearing) -> list[Finding]:
    """Finds a second timbre that does not last as long: it is laid on the audio frame by frame."""
    if item.source is None:
        return []
    seconds = sum(len(block) for block in item.source.blocks(HEARD_RATE)) / HEARD_RATE
    if abs(seconds - hearing.seconds) <= SOURCE_SECONDS:
        return []
    return [Finding(item=item.name, kind=MISALIGNED,
                    measured=f"its source lasts {seconds:.2f} s, its audio {hearing.seconds:.2f} s",
                    advice="cut both to the same stretch of music")]


def _check_time(item: Item, hearing: Hearing, notes: Notes | None, spectra: Sequence[Spectrum]
                ) -> list[Finding]:
    """Checks whether notes are heard, and when they should be; returns at most one finding."""
    silent = signals.check_silent(item.name, hearing, notes)
    if notes is None or not spectra or silent and not hearing.audible:
        return silent
    apart = fit.compare(item.name, notes, spectra, hearing.facts.sample_rate)
    if silent and (not apart or apart[0].advice == fit.NOT_ITS_NOTES):
        return silent  # a shift may lay notes on silence, but what is not there fits nowhere
    return apart or signals.check_outside(item.name, hearing, notes)


def _check_programs(item: Item, hearing: Hearing, notes: Notes | None, presence: Presence
                    ) -> list[Finding]:
    if notes is not None and (found := programs.check_programs(item.name, hearing.parts, notes, presence)):
        return found
    for stem in item.stems:
        _, parts = listen(stem.audio, stem.audio.facts(), STEM_SECONDS)
        if found := programs.check_stem(item.name, stem.program, parts, presence):
            return found
    return []


def _portrait(item: Item, hearing: Hearing, notes: Notes | None, spectra: Sequence[Spectrum]
              ) -> Portrait:
    return Portrait(
        name=item.name, split=item.split, piece=item.piece, sample_rate=hearing.facts.sample_rate,
        audio=fingerprints.sketch_audio(spectra if hearing.audible else ()),
        digest=fingerprints.digest(hearing) if hearing.audible else None,
        notes=fingerprints.sketch_notes(Notes.empty() if notes is None else notes))
