"""`music-diffusion dump`: examples of a task as pictures, sounds and notes. Without seqio."""

from __future__ import annotations

import collections
import json as json_module
import pathlib
from typing import Any

import numpy as np

from music_diffusion import paths
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.cli.progress import progress_bar
from music_diffusion.data import records
from music_diffusion.data.dump import example_notes
from music_diffusion.data.note_features import Example
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import PAD_ID
from music_diffusion.synthesis.hub import default_inverter, load_inverter
from music_diffusion.synthesis.plot import draw_mel, draw_roll, new_figure
from music_diffusion.tasks.catalogue import find_task
from music_diffusion.tasks.members import Holdings, check_split

# Spectrograms [T, F] of an example, and what people call them.
PANELS = {"targets": "targets", "maps": "map of the notes", "targets_context": "the segment before",
          "source": "source: the same notes in another timbre", "style": "style: another record of it"}
SOUNDS = {"targets": "", "source": "_source", "style": "_style"}  # suffixes of names of files
LABELS = {"performance": "performance", "style_label": "style"}  # feature → kind of label


def run(*, task: str, folder: str, output: str, count: int, split: str, inverter: str | None, seed: int,
        json: bool = False) -> None:
    """See `cli.main.dump`."""
    tasks, member = find_task(task)
    codec = MelCodec.from_dict(records.read_manifest(folder)["codec"])
    [member] = tasks.usable(folder, codec, [member.name])
    holdings = Holdings.of(folder, codec)
    check_split(folder, split, holdings.splits)
    if count < 1 or seed < 0:
        raise UserError(f"--count {count} must be at least 1 and --seed {seed} at least 0")
    loaded = default_inverter(codec) if inverter is None else load_inverter(inverter, codec)
    out = _folder(output)
    crops = member.examples(folder, split, codec).crops(seed)
    hop = codec.hop / codec.sample_rate
    facts: list[dict[str, Any]] = []
    examples: list[Example] = []
    with progress_bar(f"dumping {task}") as progress:
        for i in range(count):
            example = crops(i)
            examples.append(example)
            labels = {kind: holdings.classes[kind][int(example[name])]
                      for name, kind in LABELS.items() if name in example}
            notes = example_notes(example, member.features, hop)
            title = ", ".join([f"{task}, {split}, example {i}", *labels.values()])
            files = _write(out / f"{i:03d}", example, notes, codec, loaded, title)
            facts.append({"files": files, **labels} | ({} if notes is None else {"notes": len(notes)}))
            progress((i + 1) / count)
    features = {name: _summary([e[name] for e in examples]) for name in examples[0]}
    if json:
        print(json_module.dumps({"task": task, "folder": folder, "split": split, "seed": seed,
                                 "output": str(out), "features": features, "examples": facts}))
    else:
        _print_table(features, examples, facts)
        print(f"{out}: {count} examples as .png and .wav"
              + (", their notes as .mid" if "notes" in facts[0] else ""))


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
    """The notes over all spectrograms of an example, with one time axis."""
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
        figure.suptitle(paths.shown(title), parse_math=False)
        panels[-1].set_xlabel("time (s)")
        panels[-1].set_xlim(0, seconds)


def _summary(arrays: list[np.ndarray]) -> dict[str, Any]:
    """Shape, type and range of a feature over all examples."""
    return {"shape": list(arrays[0].shape), "dtype": str(arrays[0].dtype),
            "min": min(a.min().item() for a in arrays), "max": max(a.max().item() for a in arrays)}


def _print_table(features: dict[str, dict[str, Any]], examples: list[Example],
                 facts: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("feature", no_wrap=True), "shape", "type", "range", "", box=None)
    for name, its in features.items():
        shape = " × ".join(map(str, its["shape"])) or "one"
        low, high = (v if isinstance(v, int) else f"{v:.3g}" for v in (its["min"], its["max"]))
        table.add_row(name, shape, its["dtype"], f"{low} to {high}",
                      _remark(name, [e[name] for e in examples], facts))
    Console().print(table)


def _remark(name: str, arrays: list[np.ndarray], facts: list[dict[str, Any]]) -> str:
    """What people want to know of a feature."""
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
