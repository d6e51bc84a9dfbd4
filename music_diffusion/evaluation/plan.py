"""Settings of an evaluation in one place, so that gin can bind them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from music_diffusion.errors import UserError

# How recordings are put into other timbres: by the model; by the model that gets a recording alone to
# sound like, and no instrument; not at all; by the difference of mean spectra; by playing what the
# transcriber hears; by the model without its evidence, from the noised recording.
METHODS = ("model", "liked", "nothing", "recoloured", "played", "noised")
WITHOUT_MODEL = ("nothing", "recoloured")
FOLDERS = "folders"  # in place of a table of groups: that of a file is the folder in which it lies


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Plan of an evaluation: what is compared with what, by which tools.

    Files belong together by name (see `evaluation.pairing`). Without names in
    common only the set metrics are computed.
    """

    reference: str  # folder of recordings (or one file)
    generated: str | None = None  # folder of what a model made; None: `model` renders `notes`
    notes: str | None = None  # folder of MIDI files, the notes that should be heard
    groups: str | None = None  # CSV with a column `file` and `group_column`; FOLDERS: each file's folder
    group_column: str = "group"
    embeddings: tuple[str, ...] = ("tagger",)  # names for `workflows.embedders.load_embedder`
    transcriber: str | None = "transcriber"  # name or folder; None: no transcription
    inverter: str | None = None  # name or folder; the reference goes through it: a ceiling
    model: str | None = None  # name or folder; renders `notes` where `generated` is None
    # Timbre transfer: the recordings that were changed, or are, by `model` or a baseline of
    # `workflows.transfer_sources`, where `generated` is None.
    sources: str | None = None
    conversions: str | None = None  # CSV with columns file, source, target: who plays in them, and should
    method: str = "model"  # how they are changed, of METHODS
    # Folder of recordings: each file should sound as that of the next file with the same target does, which
    # a model that restyles is given, and `liked`; None: `reference`, and how near they are is not scored.
    styles: str | None = None
    strength: float | None = None  # of the change, as of `transfer --strength`; None: the model's
    parts: str | None = None  # folder of their instruments, NAME.1.flac …, each changed alone, and mixed
    # How many performances are drawn to play each piece (Maman et al. 2024, section 4.1), with the
    # condition or without it; None: the model plays each piece once, as it is.
    performances: int | None = None
    condition: bool = True
    performances_of: str | None = None  # the model among whose performances is drawn; None: `model`
    steps: int | None = None  # sampling steps of that model; None: its own
    max_minutes: float = 10.0  # of the start of every file that count (paper 001)
    min_seconds: float = 0.5  # a shorter file is not scored
    draws: int = 200  # bootstrap resamples of an interval
    level: float = 0.95  # of the intervals
    splits: int = 5  # random halves of the reference whose distance is the floor
    examples: int = 3  # files shown with spectrograms and players
    workers: int = 2  # processes
    seed: int = 0  # of resamples, splits and of the model's sampling

    def __post_init__(self):
        object.__setattr__(self, "embeddings", tuple(dict.fromkeys(self.embeddings)))
        if not self.reference:
            raise UserError("no reference: give the folder of recordings to compare with")
        if self.generated is None and self.model is None and self.sources is None:
            raise UserError("nothing to evaluate: give a folder as generated, or a model to render "
                            "the notes")
        if self.sources is not None:
            self._check_transfer()
        elif self.model is not None and self.notes is None:
            raise UserError("a model renders notes: give the folder of MIDI files as notes")
        if self.model is not None and self.performances is not None and self.groups is None:
            raise UserError("no groups: give the table of the reference's performances, such as "
                            "performances.csv of `prepare references`")
        if not self.embeddings:
            raise UserError("embeddings is empty; give at least one, e.g. tagger")
        for name, low, high in (
                ("max_minutes", 1 / 60, math.inf), ("min_seconds", 0.01, math.inf),
                ("level", 0.5, 0.999), ("draws", 0, 100_000), ("splits", 1, 1000),
                ("examples", 0, 10), ("performances", 1, 1000), ("workers", 1, 1024)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} = {value} must be in {low:.3g} .. {high:.6g}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps = {self.steps} must be at least 1")
        if self.min_seconds >= 60 * self.max_minutes:
            raise UserError(f"min_seconds = {self.min_seconds} leaves nothing of files cut to "
                            f"{self.max_minutes} minutes")

    def _check_transfer(self) -> None:
        if self.conversions is None:
            raise UserError("sources need conversions: give the table of who plays, and who should "
                            "(conversions.csv of `prepare conversions`)")
        if self.method not in METHODS:
            raise UserError(f"method {self.method!r}: unknown; choose {', '.join(METHODS)}")
        if self.generated is None and self.model is None and self.method not in WITHOUT_MODEL:
            raise UserError(f"method {self.method!r} needs a model")


def row_if_given(*, plan: Callable[..., EvaluationPlan], generated: str | None = None,
                 model: str | None = None) -> EvaluationPlan | None:
    """Returns a row that a table has only where its audio or its model is given; audio goes first."""
    if generated is None and model is None:
        return None
    return plan(generated=generated, model=model if generated is None else None)
