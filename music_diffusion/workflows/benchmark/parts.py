"""What `music-diffusion benchmark` measures. Each part runs alone, in a new process.

To add a part: write a function from a `Request` to rows, and enter it in `PARTS`.
A row is a dict with `what` and `Repeated.facts()`, or those keys of it that have a
meaning there. Imports stand inside the functions: a part has only its own memory.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.speed import Repeated, Speed, measure, measure_repeated

Row = dict[str, Any]
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for."""

    model: str  # name or folder
    inverter: str | None  # None: the one that the command takes by default
    seconds: float  # of music
    repeats: int  # runs that count, after one that does not
    soundfont: str | None = None  # for `render`
    data: str | None = None  # folder of records, for `input`
    gin_file: Sequence[str] | None = None  # of a recipe, for `train_step`; with `binding`s
    binding: Sequence[str] = ()
    batch: int | None = None  # examples of a training step; None: the smallest
    memory: float | None = None  # GB (1e9 bytes) that a device has; None: what it tells itself
    fits: bool = False  # whether `train_step` is to find out if its batch fits into the memory
    told: Callable[[float], None] = lambda share: None  # takes the share of the part that is done

    def repeated(self, run: Callable[[], Speed], row: int = 0, rows: int = 1) -> Repeated:
        """Measures what becomes row `row` of `rows`."""
        done = 0

        def counted() -> Speed:
            nonlocal done
            speed = run()
            done += 1
            self.told((row + done / (1 + self.repeats)) / rows)
            return speed

        return measure_repeated(counted, repeats=self.repeats, warm_up=1)


def start_up(request: Request) -> list[Row]:
    """From the start of a process to its end."""
    rows: list[Row] = []
    for what, code in START_UPS.items():
        peak = _python(code + TELL_PEAK).rstrip().rpartition("\n")[2]
        facts = request.repeated(functools.partial(_lifetime, code), len(rows), len(START_UPS)).facts()
        rows.append({"what": what, "peak_memory_mb": None if peak == "None" else round(float(peak), 1),
                     **{k: facts[k] for k in facts if k.startswith("wall_seconds") or k == "repeats"}})
    return rows


def _lifetime(code: str) -> Speed:
    return measure(lambda: _python(code), audio_seconds=0.0)[1]


def _python(code: str) -> str:
    """What a new interpreter prints. Raises UserError if it fails."""
    done = subprocess.run(interpreter(code), capture_output=True, text=True)
    if done.returncode:
        raise UserError(how_it_ended(done.returncode, done.stderr))
    return done.stdout


def synthesize(request: Request) -> list[Row]:
    """A MIDI file of `seconds` to a WAV file, as `music-diffusion synthesize` does it."""
    from music_diffusion.notes.midi import write_midi
    from music_diffusion.synthesis.hub import load
    from music_diffusion.synthesis.render import render_file
    from music_diffusion.workflows.benchmark.piece import piece

    synthesizer = load(request.model, request.inverter)
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        midi, output = (os.path.join(folder, file) for file in ("piece.mid", "piece.wav"))
        write_midi(piece(request.seconds), midi)
        runs = request.repeated(lambda: render_file(synthesizer, midi, output))
    inverter = f", {request.inverter}" if request.inverter else ""
    return [{"what": f"synthesize {request.model}{inverter}"} | runs.facts()]


def reconstruct(request: Request) -> list[Row]:
    """A WAV file of `seconds`, mono, at the inverter's rate, as `music-diffusion reconstruct` does it."""
    from music_diffusion.audio.io import AudioWriter
    from music_diffusion.synthesis.hub import DEFAULT_INVERTER, load_inverter
    from music_diffusion.synthesis.reconstruct import reconstruct_file
    from music_diffusion.workflows.benchmark.piece import loop_samples

    name = request.inverter or DEFAULT_INVERTER
    inverter = load_inverter(name)
    rate = inverter.codec.sample_rate
    loop = loop_samples(rate)  # takes 0.1 s, which counts as start-up
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        source, output = (os.path.join(folder, file) for file in ("in.wav", "out.wav"))
        with AudioWriter(source, rate) as writer:  # loop by loop: a long piece takes no more memory
            while (missing := round(request.seconds * rate) - writer.samples) > 0:
                writer.write(loop[:missing])
        del loop
        runs = request.repeated(lambda: reconstruct_file(inverter, source, output))
    return [{"what": f"reconstruct {name}"} | runs.facts()]


def render(request: Request) -> list[Row]:
    """Excerpts of a piece of `seconds` by a SoundFont, in rooms, to spectrograms, in this one process."""
    from music_diffusion.audio.codec import MelCodec
    from music_diffusion.data.sets.soundfont_renders import SoundFontRenders, measure_rendering
    from music_diffusion.notes.midi import write_midi
    from music_diffusion.workflows.benchmark.piece import piece

    assert request.soundfont is not None
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        for i in range(3):
            write_midi(piece(request.seconds), os.path.join(folder, f"{i}.mid"))
        renders = SoundFontRenders(folder=folder, soundfonts=(request.soundfont,), room=1.0, shelf=0.5,
                                   train_hours=request.seconds / 3600, validation_hours=0.0)
        runs = request.repeated(lambda: measure_rendering(renders, MelCodec()))
    return [{"what": f"render {os.path.basename(request.soundfont)} in rooms"} | runs.facts()]


def input_pipeline(request: Request) -> list[Row]:
    """Examples of a data folder, in batches of 8, for the default model and for the T5."""
    from music_diffusion.audio.codec import MelCodec
    from music_diffusion.data.note_features import FrameFeatures, TokenFeatures
    from music_diffusion.data.pipeline import RecordSource
    from music_diffusion.data.records import read_manifest

    assert request.data is not None
    codec = MelCodec.from_dict(read_manifest(request.data)["codec"])
    members = {"frames": RecordSource(folder=request.data, codec=codec, features=FrameFeatures(slots=0)),
               "tokens, context": RecordSource(folder=request.data, codec=codec, context=True,
                                               features=TokenFeatures(hop=codec.hop / codec.sample_rate))}
    rows: list[Row] = []
    for what, source in members.items():
        iterator = source.train_iterator(BATCH, 0)

        def batches(iterator=iterator, seconds=BATCHES * BATCH * source.frames / codec.frame_rate) -> Speed:
            return measure(lambda: [next(iterator) for _ in range(BATCHES)], seconds)[1]

        runs = request.repeated(batches, len(rows), len(members)).facts()
        rows.append({"what": f"input, {what}", "examples_per_second": round(
            BATCHES * BATCH / max(runs["wall_seconds"], 1e-9), 1)} | runs)
    return rows


def train_step(request: Request) -> list[Row]:
    """One training step of a recipe, on made-up batches."""
    from music_diffusion.workflows.benchmark import step as benchmark_step

    return benchmark_step.train_step(request)


PARTS: dict[str, Callable[[Request], list[Row]]] = {
    "start_up": start_up, "synthesize": synthesize, "reconstruct": reconstruct, "render": render,
    "input": input_pipeline, "train_step": train_step}
# Parts that run where this option is given.
NEEDS = {"render": "soundfont", "input": "data", "train_step": "gin_file"}
BATCH, BATCHES = 8, 20  # of `input`


def interpreter(code: str) -> list[str]:
    """The command that runs code (with `sys` imported) in a new interpreter like this one."""
    # The same folders in the same order: else another installed version might be measured.
    return [sys.executable, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{code}"]


class EndedBySignalError(UserError):
    """A part's process was killed, as it is when it takes more memory than there is."""


def how_it_ended(code: int, stderr: str) -> str:
    """One line for a process that failed: the signal, or the last line of its traceback."""
    if code < 0:
        return f"its process was ended by signal {-code}" + " (out of memory?)" * (code == -9)
    return stderr.strip().rpartition("\n")[2] or f"its process ended with code {code}"


def work(name: str, options: dict[str, Any]) -> None:
    """Runs a part in this process; tells what happens in lines of JSON on stdout.

    {"share": 0.5} as it goes on, then {"rows": [...]} or {"error": "one line"}.
    """
    # What libraries print must not come between the lines, so their stdout becomes stderr.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        rows = PARTS[name](Request(**options, told=lambda share: tell(share=share)))
    except (UserError, OSError) as e:
        tell(error=" ".join(str(e).split()))
    else:
        tell(rows=rows)


def run_part(name: str, options: dict[str, Any], told: Callable[[float], None]) -> list[Row]:
    """Runs a part in a new process, and returns its rows. Raises UserError if it fails."""
    code = f"from music_diffusion.workflows.benchmark.parts import work\nwork({name!r}, {options!r})"
    with (tempfile.TemporaryFile("w+") as errors,
          subprocess.Popen(interpreter(code), stdout=subprocess.PIPE, stderr=errors, text=True) as process):
        assert process.stdout is not None
        message: dict[str, Any] = {}
        try:
            for line in process.stdout:
                message = json.loads(line)
                told(message.get("share", 1.0))
        except BaseException:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            kind = EndedBySignalError if process.returncode < 0 else UserError
            raise kind(how_it_ended(process.returncode, errors.read()))
    if "rows" not in message:
        raise UserError(message.get("error", "its process told nothing"))
    return message["rows"]
