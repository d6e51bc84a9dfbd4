"""Parts of a benchmark. Each runs alone, in a new process (`processes.run_part`).

To add a part: write a function from a `Measurement` to rows, and enter it in `PARTS`. Imports stand
inside the functions: a part has only its own memory.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.speed import Speed, measure
from music_diffusion.workflows.benchmark import processes
from music_diffusion.workflows.benchmark.measuring import Measurement, Row
from music_diffusion.workflows.requests import BenchmarkRequest

# What the part `start_up` runs in new interpreters.
START_UPS = {
    "python": "",  # without anything of ours
    "import music_diffusion": "import music_diffusion",
    "music-diffusion --help": """
sys.argv = ["music-diffusion", "--help"]
from music_diffusion.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""}
TELL_PEAK = """
from music_diffusion.speed import peak_memory_mb
print()
print(peak_memory_mb())
"""


def start_up(by: Measurement) -> list[Row]:
    """Measures processes from their start to their end."""
    rows: list[Row] = []
    for what, code in START_UPS.items():
        peak = processes.printed_by(code + TELL_PEAK).rstrip().rpartition("\n")[2]
        facts = by.repeated(functools.partial(_lifetime, code), len(rows), len(START_UPS)).facts()
        rows.append({"what": what, "peak_memory_mb": None if peak == "None" else round(float(peak), 1),
                     **{k: facts[k] for k in facts if k.startswith("wall_seconds") or k == "repeats"}})
    return rows


def _lifetime(code: str) -> Speed:
    return measure(lambda: processes.printed_by(code), audio_seconds=0.0)[1]


def synthesize(by: Measurement) -> list[Row]:
    """Measures a MIDI file of `seconds` to a WAV file, as `music-diffusion synthesize` does it."""
    from music_diffusion.notes.midi import write_midi
    from music_diffusion.synthesis.hub import load
    from music_diffusion.synthesis.render import render_file
    from music_diffusion.workflows.benchmark.piece import piece

    synthesizer = load(by.request.model, by.request.inverter)
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        midi, output = (os.path.join(folder, file) for file in ("piece.mid", "piece.wav"))
        write_midi(piece(by.request.seconds), midi)
        runs = by.repeated(lambda: render_file(synthesizer, midi, output))
    inverter = f", {by.request.inverter}" if by.request.inverter else ""
    return [{"what": f"synthesize {by.request.model}{inverter}"} | runs.facts()]


def reconstruct(by: Measurement) -> list[Row]:
    """Measures a mono WAV file of `seconds`, as `music-diffusion reconstruct` inverts it."""
    from music_diffusion.audio.io import AudioWriter
    from music_diffusion.synthesis.hub import DEFAULT_INVERTER, load_inverter
    from music_diffusion.synthesis.reconstruct import reconstruct_file
    from music_diffusion.workflows.benchmark.piece import loop_samples

    name = by.request.inverter or DEFAULT_INVERTER
    inverter = load_inverter(name)
    rate = inverter.codec.sample_rate
    loop = loop_samples(rate)  # takes 0.1 s, which counts as start-up
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        source, output = (os.path.join(folder, file) for file in ("in.wav", "out.wav"))
        with AudioWriter(source, rate) as writer:  # loop by loop: a long piece takes no more memory
            while (missing := round(by.request.seconds * rate) - writer.samples) > 0:
                writer.write(loop[:missing])
        del loop
        runs = by.repeated(lambda: reconstruct_file(inverter, source, output))
    return [{"what": f"reconstruct {name}"} | runs.facts()]


def render(by: Measurement) -> list[Row]:
    """Measures excerpts of a piece of `seconds` by a SoundFont, in rooms, to spectrograms."""
    from music_diffusion.audio.codec import MelCodec
    from music_diffusion.data.sets.soundfont_renders import SoundFontRenders, measure_rendering
    from music_diffusion.notes.midi import write_midi
    from music_diffusion.workflows.benchmark.piece import piece

    assert by.request.soundfont is not None
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        for i in range(3):
            write_midi(piece(by.request.seconds), os.path.join(folder, f"{i}.mid"))
        renders = SoundFontRenders(folder=folder, soundfonts=(by.request.soundfont,), room=1.0, shelf=0.5,
                                   train_hours=by.request.seconds / 3600, validation_hours=0.0)
        runs = by.repeated(lambda: measure_rendering(renders, MelCodec()))
    return [{"what": f"render {os.path.basename(by.request.soundfont)} in rooms"} | runs.facts()]


def input_pipeline(by: Measurement) -> list[Row]:
    """Measures examples of a data folder, in batches of 8, for the default model and for the T5."""
    from music_diffusion.audio.codec import MelCodec
    from music_diffusion.conditions.base import RecordConditions
    from music_diffusion.conditions.note_frames import NoteFrames
    from music_diffusion.conditions.note_tokens import NoteTokens
    from music_diffusion.data.pipeline import RecordSource
    from music_diffusion.data.records import read_manifest

    assert by.request.data is not None
    codec = MelCodec.from_dict(read_manifest(by.request.data)["codec"])
    kinds: dict[str, RecordConditions] = {
        "frames": NoteFrames(slots=0), "tokens, context": NoteTokens(context=True)}
    members = {what: RecordSource(folder=by.request.data, codec=codec, conditions=conditions)
               for what, conditions in kinds.items()}
    rows: list[Row] = []
    for what, source in members.items():
        iterator = source.train_iterator(BATCH, 0)

        def batches(iterator=iterator, seconds=BATCHES * BATCH * source.frames / codec.frame_rate) -> Speed:
            return measure(lambda: [next(iterator) for _ in range(BATCHES)], seconds)[1]

        runs = by.repeated(batches, len(rows), len(members)).facts()
        rows.append({"what": f"input, {what}", "examples_per_second": round(
            BATCHES * BATCH / max(runs["wall_seconds"], 1e-9), 1)} | runs)
    return rows


def train_step(by: Measurement) -> list[Row]:
    """Measures one training step of a recipe, on made-up batches."""
    from music_diffusion.workflows.benchmark import step

    return step.train_step(by)


PARTS: dict[str, Callable[[Measurement], list[Row]]] = {
    "start_up": start_up, "synthesize": synthesize, "reconstruct": reconstruct, "render": render,
    "input": input_pipeline, "train_step": train_step}
# Parts that run where this field of the request is given.
NEEDS = {"render": "soundfont", "input": "data", "train_step": "gin_files"}
BATCH, BATCHES = 8, 20  # of `input`


def work(name: str, fields: dict[str, Any], *, fits: bool = False) -> None:
    """Runs a part in this process; reports what happens in lines of JSON on stdout.

    `fields` are those of a `BenchmarkRequest`. The lines are
    {"share": 0.5} as it goes on, then {"rows": [...]} or {"error": "one line"}.
    """
    # What libraries print must not come between the lines, so their stdout becomes stderr.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def report(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        rows = PARTS[name](Measurement(request=BenchmarkRequest(**fields), fits=fits,
                                       progress=lambda share: report(share=share)))
    except (UserError, OSError) as e:
        report(error=" ".join(str(e).split()))
    else:
        report(rows=rows)
