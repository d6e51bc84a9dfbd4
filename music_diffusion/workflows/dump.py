"""Examples of a task as pictures, sounds and notes: what a model learns from. Without seqio."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Example
from music_diffusion.data import records
from music_diffusion.data.dump import example_notes
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import PAD_ID
from music_diffusion.paths import shown as readable
from music_diffusion.synthesis.hub import default_inverter, load_inverter
from music_diffusion.synthesis.plot import draw_mel, draw_roll, new_figure
from music_diffusion.tasks.catalogue import find_task
from music_diffusion.tasks.members import Holdings, check_split
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import DumpRequest

# Spectrograms [T, F] of an example, and what people call them.
PANELS = {"targets": "targets", "maps": "map of the notes", "targets_context": "the segment before",
          "source": "source: the same notes in another timbre", "style": "style: another record of it"}
SOUNDS = {"targets": "", "source": "_source", "style": "_style"}  # suffixes of names of files
LABELS = {"performance": "performance", "style_label": "style"}  # feature → kind of label


@dataclasses.dataclass(frozen=True, kw_only=True)
class DumpedExamples:
    """Pictures, sounds and notes that were written."""

    facts: dict[str, Any]  # for machines: features with shape, type and range, and the examples' files
    remarks: dict[str, str]  # for people, on each feature


def dump_examples(request: DumpRequest, monitor: Monitor = SILENT) -> DumpedExamples:
    """Writes examples of a task as pictures, sounds and notes.

    Raises UserError: no such task, split or inverter, records that cannot serve the task, or an output
    that is a file.
    """
    tasks, member = find_task(request.task)
    codec = MelCodec.from_dict(records.read_manifest(request.folder)["codec"])
    [member] = tasks.usable(request.folder, codec, [member.name])
    holdings = Holdings.of(request.folder, codec)
    check_split(request.folder, request.split, holdings.splits)
    inverter = (default_inverter(codec) if request.inverter is None
                else load_inverter(request.inverter, codec))
    out = _folder(request.output)
    crops = member.examples(request.folder, request.split, codec).crops(request.seed)
    hop = codec.hop / codec.sample_rate
    facts: list[dict[str, Any]] = []
    examples: list[Example] = []
    with monitor.bar(f"dumping {request.task}") as progress:
        for i in range(request.count):
            example = crops(i)
            examples.append(example)
            labels = {kind: holdings.classes[kind][int(example[name])]
                      for name, kind in LABELS.items() if name in example}
            notes = example_notes(example, member.conditions.events, hop)
            title = ", ".join([f"{request.task}, {request.split}, example {i}", *labels.values()])
            files = _write(out / f"{i:03d}", example, notes, codec, inverter, title)
            facts.append({"files": files, **labels} | ({} if notes is None else {"notes": len(notes)}))
            progress((i + 1) / request.count)
    arrays = {name: [e[name] for e in examples] for name in examples[0]}
    shared = {name: getattr(request, name) for name in ("task", "folder", "split", "seed")}
    return DumpedExamples(
        facts=shared | {"output": str(out), "features": {n: _summary(a) for n, a in arrays.items()},
                        "examples": facts},
        remarks={name: _remark(name, its, facts) for name, its in arrays.items()})


def _folder(output: str) -> pathlib.Path:
    out = pathlib.Path(output)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _write(stem: pathlib.Path, example: Example, notes: Notes | None, codec: MelCodec,
           inverter: Inverter, title: str) -> list[str]:
    """Writes stem.png, stem.wav … and returns their names; a file appears only when it is complete."""
    files = [f"{stem.name}.png"]
    _plot(stem.with_name(files[0]), example, notes, codec, title)
    for feature, suffix in SOUNDS.items():
        if feature in example:
            samples = inverter.invert(codec.unscale(example[feature]))
            files.append(f"{stem.name}{suffix}.wav")
            write_audio(stem.with_name(files[-1]), Waveform(samples, inverter.codec.sample_rate))
    if notes is not None:
        files.append(f"{stem.name}.mid")
        with atomic_write(stem.with_name(files[-1])) as part:
            write_midi(notes, part)
    return files


def _plot(path: pathlib.Path, example: Example, notes: Notes | None, codec: MelCodec, title: str
          ) -> None:
    """Draws the notes over all spectrograms of an example, with one time axis."""
    shown = [name for name in PANELS if name in example]
    rows = len(shown) + (notes is not None)
    seconds = len(example["targets"]) / codec.frame_rate
    with new_figure(path, dpi=100, nrows=rows, figsize=(12, 1 + 2.6 * rows), sharex=True, squeeze=False
                    ) as (figure, axes):
        panels = list(axes[:, 0])
        if notes is not None:
            draw_roll(panels[0], notes)
            low, high = panels[0].get_ylim()
            panels[0].set_ylim(low, high + 0.3 * (high - low))  # for the legend
            panels[0].set_title(f"notes: {len(notes)}", loc="left")
        for panel, name in zip(panels[-len(shown):], shown, strict=True):
            mel = example[name] if name != "maps" else example[name][:, 0]
            draw_mel(panel, codec.unscale(mel), codec, seconds)
            missing = name == "targets_context" and not example["targets_context_mask"].any()
            panel.set_title(PANELS[name] + (": none" if missing else ""), loc="left")
        figure.suptitle(readable(title), parse_math=False)
        panels[-1].set_xlabel("time (s)")
        panels[-1].set_xlim(0, seconds)


def _summary(arrays: list[np.ndarray]) -> dict[str, Any]:
    """Returns shape, type and range of a feature over all examples."""
    return {"shape": list(arrays[0].shape), "dtype": str(arrays[0].dtype),
            "min": min(a.min().item() for a in arrays), "max": max(a.max().item() for a in arrays)}


def _remark(name: str, arrays: list[np.ndarray], facts: list[dict[str, Any]]) -> str:
    """Returns what people want to know of a feature."""
    if name in LABELS:
        counts = collections.Counter(fact[LABELS[name]] for fact in facts)
        return ", ".join(f"{label} ({n})" for label, n in counts.most_common())
    if name == "inputs":
        lengths = [int((a != PAD_ID).sum()) for a in arrays]
        return f"{min(lengths)} to {max(lengths)} tokens"
    if name == "targets_context_mask":
        return f"{sum(bool(a.any()) for a in arrays)} of {len(arrays)} have a segment before"
    if name == "slot_program":
        return f"{max(int((a >= 0).sum(axis=1).max()) for a in arrays)} slots used"
    return ""
