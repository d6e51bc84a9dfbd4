"""Examples that the zoo's members learn from: their features, and which data sets have them.

Nothing here needs seqio: `music_diffusion.tasks.registering` makes tasks of these descriptions,
`music-diffusion dump` shows their examples.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import HEARD, MAPS, NOTES, SOURCE, STYLE, RecordConditions
from music_diffusion.conditions.heard import HeardFrames
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.regions import ClassAndRegion
from music_diffusion.conditions.spectrograms import Nothing, SourceSpectrogram, StyleSpectrogram
from music_diffusion.conditions.style import ContentAndStyle
from music_diffusion.data import records
from music_diffusion.data.examples import Examples
from music_diffusion.data.items import SPLITS
from music_diffusion.errors import UserError

CODEC = MelCodec()  # of records, unless another one is named

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holdings:
    """Contents of a folder of records: splits, features and classes."""

    splits: tuple[str, ...]  # with records, in the order of SPLITS
    notes: bool
    maps: bool  # note maps of the default model
    source: bool  # the same notes in a second timbre
    heard: bool  # whose notes are those that are heard in it
    classes: Mapping[str, Sequence[str]]  # names of performances and styles, by kind of label

    @classmethod
    def of(cls, folder: str, codec: MelCodec) -> Self:
        """Reads the manifest and the first record.

        Raises UserError: the folder is missing, unfinished, damaged, empty or of another codec.
        """
        manifest = records.read_manifest(folder, codec)
        shards = {split: records.find_shards(folder, split) for split in SPLITS}
        paths = [path for found in shards.values() for path in found]
        if not paths:
            raise UserError(f"{folder}: has no records; run the same `music-diffusion prepare` again")
        try:
            first = records.Record.from_bytes(next(iter(records.read_shard(paths[0]))), paths[0].suffix)
        except (ValueError, KeyError, StopIteration) as e:
            raise UserError(f"{paths[0]}: damaged or of other data; delete the shard and run "
                            "`music-diffusion prepare` again") from e
        # Folders that the data sets' builder did not make do not count their notes: they have some.
        return cls(splits=tuple(split for split in SPLITS if shards[split]),
                   notes=any(manifest.get("notes", {"": 1}).values()), maps=first.maps is not None,
                   source=first.source is not None, heard=first.heard is not None,
                   classes=manifest.get("classes", {}))


def check_split(what: str, split: str, there: Sequence[str]) -> None:
    """Raises UserError unless a task or folder has the split."""
    if split not in there:
        raise UserError(f"{what}: has no split {split!r}, but {', '.join(there)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """The examples that a zoo member is trained on, of whatever data."""

    name: str  # its tasks are called DATASET_name
    frames: int = 256  # T, of a segment; 20 ms each with the codecs in gin/codecs
    conditions: RecordConditions = Nothing()
    of_classes: bool = False  # whether the folder's styles are its classes, in the order of their names

    def lacking(self, holdings: Holdings) -> str | None:
        """Returns what a folder needs and has not; None where it can serve."""
        there = {NOTES: holdings.notes, MAPS: holdings.maps, SOURCE: holdings.source,
                 HEARD: holdings.heard}
        words = {SOURCE: "second timbre", MAPS: "note maps",
                 HEARD: "second timbre that was heard (--heard)"}
        needs = (*self.conditions.needs, *([STYLE] if self.of_classes else ()))
        return next((words.get(need, need) for need in needs
                     if not there.get(need, holdings.classes.get(need))), None)

    def fitted(self, holdings: Holdings) -> Member:
        """Returns the member for a folder: with its classes, and without slots where there are maps."""
        if self.of_classes:
            names = tuple(sorted(holdings.classes[STYLE]))
            return dataclasses.replace(self, conditions=ClassAndRegion(classes=names))
        return dataclasses.replace(self, conditions=self.conditions.mapped()) if holdings.maps else self

    def examples(self, folder: str, split: str, codec: MelCodec) -> Examples:
        """Opens its examples, at random access; see `Examples` for errors."""
        return Examples(folder=folder, split=split, codec=codec, frames=self.frames,
                        conditions=self.conditions)

    def blank(self, folder: str, split: str, codec: MelCodec) -> dict[str, np.ndarray]:
        """Returns arrays of the shapes and types of its examples, for the price of one record.

        Raises UserError where the folder cannot give them.
        """
        examples = self.examples(folder, split, codec)
        return self.conditions.of_record(examples.blank()) | {
            "targets": np.zeros((self.frames, codec.mels), np.float32)}


# Spectrogram diffusion (arXiv 2206.05408): 256 frames, 2048 tokens; its autoregressive baseline too.
SPECTROGRAM_DIFFUSION = Member(name="spectrogram_diffusion", conditions=NoteTokens())
SPECTROGRAM_DIFFUSION_CONTEXT = Member(
    name="spectrogram_diffusion_context", conditions=NoteTokens(context=True))
# The default model.
FRAME_DIFFUSION = Member(name="frame_diffusion", conditions=NoteFrames())
# Performance conditioning (Maman et al. 2024), by the T5 and by the U-Net.
PERFORMANCE = Member(name="performance", conditions=NoteTokens(performance=PerformanceNumbers()))
PERFORMANCE_FRAMES = Member(name="performance_frames",
                            conditions=NoteFrames(slots=0, performance=PerformanceNumbers()))
# DiffTransfer (Comanducci et al. 2023, section 4.3).
TIMBRE_TRANSFER = Member(name="timbre_transfer", frames=128, conditions=SourceSpectrogram())
# … and from anything to anything, of pairs that were heard.
TRANSFER = Member(name="transfer", conditions=HeardFrames(slots=0, wanted=8))
# Unconditional diffusion of 5.12 s and of 10.24 s.
UNCONDITIONAL = Member(name="unconditional")
UNCONDITIONAL_LONG = Member(name="unconditional_long", frames=512)
# … and of classes.
CLASSES = Member(name="classes", frames=512, of_classes=True)
# Style transfer (Prioteasa and Stempel-Hauburger 2025): pictures of 128 frames.
STYLE_TRANSFER = Member(name="style_transfer", frames=128, conditions=StyleSpectrogram())
# … of what is heard in one timbre, in the sound of another; in a latent, and in spectrograms.
RESTYLE_LATENT = Member(name="restyle_latent", conditions=ContentAndStyle())
RESTYLE = Member(name="restyle", conditions=HeardFrames(slots=0, wanted=8, style_frames=256))

FROM_NOTES = (SPECTROGRAM_DIFFUSION, SPECTROGRAM_DIFFUSION_CONTEXT, FRAME_DIFFUSION)
OF_PERFORMERS = (PERFORMANCE, PERFORMANCE_FRAMES)
OF_PAIRS = (TIMBRE_TRANSFER, TRANSFER, RESTYLE, RESTYLE_LATENT)
FROM_NOISE = (UNCONDITIONAL, UNCONDITIONAL_LONG)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSetTasks:
    """The tasks of one data set: those of the members that make sense for it."""

    data_set: str  # name of `music-diffusion prepare`
    members: tuple[Member, ...]

    def task_name(self, member: Member) -> str:
        """Returns the name of a member's task."""
        return f"{self.data_set}_{member.name}"

    @property
    def task_names(self) -> list[str]:
        """Returns the names of the tasks of all members."""
        return [self.task_name(member) for member in self.members]

    def usable(self, folder: str, codec: MelCodec, names: Sequence[str] | None = None) -> list[Member]:
        """Returns the members that a folder can serve, fitted to it.

        Args:
          folder: of records.
          codec: of its spectrograms.
          names: of members, all of which it must serve; None: as many as it can.

        Raises:
          UserError: a bad folder (see `Holdings.of`), an unknown name, or the
            folder lacks what the members need.
        """
        known = {member.name: member for member in self.members}
        for name in names or ():
            if name not in known:
                raise UserError(f"{self.data_set}: has no tasks of {name!r}, but of {', '.join(known)}")
        wanted = self.members if names is None else [known[name] for name in names]
        holdings = Holdings.of(folder, codec)
        missing = {m.name: what for m in wanted if (what := m.lacking(holdings)) is not None}
        for name, what in missing.items():
            task = self.task_name(known[name])
            if names is not None or len(missing) == len(wanted):
                raise UserError(f"{folder}: its records have no {what}, which {task} needs; prepare "
                                "data that has it")
            log.info("%s: no task %s, for lack of a %s", folder, task, what)
        return [member.fitted(holdings) for member in wanted if member.name not in missing]

    def register(self, folder: str, *, codec: MelCodec = CODEC,
                 members: Sequence[str] | None = None, splits: Sequence[str] | None = None
                 ) -> list[str]:
        """Registers the tasks with seqio and returns their names.

        Needs seqio (`pip install 'music-diffusion[t5x]'`). Registering the same again changes nothing.

        Args:
          folder: of records, made by `music-diffusion prepare`.
          codec: of its spectrograms.
          members: names of those whose tasks are wanted, which the folder must
            serve; None: all that it can serve.
          splits: of items.SPLITS; None: those that the folder has.

        Raises:
          UserError: a bad folder, an unknown member or split, the folder lacks
            what a member needs, or one of the names stands for other data;
            seqio is not installed.
        """
        try:
            from music_diffusion.tasks.registering import register_tasks
        except ModuleNotFoundError as e:
            if e.name not in ("seqio", "tensorflow"):
                raise
            raise UserError("seqio tasks need seqio and TensorFlow: pip install "
                            "'music-diffusion[t5x]'") from e
        return register_tasks(self, folder, codec=codec, members=members, splits=splits)
