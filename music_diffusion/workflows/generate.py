"""Sound from noise, as files: one take or several."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

from music_diffusion.audio.io import check_writable, read_audio, write_audio
from music_diffusion.audio.loudness import normalize
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.heard import HeardFrames
from music_diffusion.errors import UserError
from music_diffusion.paths import shown
from music_diffusion.speed import Speed, measure
from music_diffusion.synthesis import generate as make
from music_diffusion.synthesis.edits import Stretch, parse_pair
from music_diffusion.synthesis.hearing import Hearing, open_style, style_settings
from music_diffusion.synthesis.hub import load
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_spectrogram
from music_diffusion.synthesis.render import check_outputs, render_file
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.synthesis.transfer import transfer_file
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import SILENT, Monitor, part_of
from music_diffusion.workflows.requests import GENERATOR, RESTYLE, GenerateRequest

SECONDS = 10.0  # that are made where nothing is said
STRENGTH = 0.5  # of a variation, where nothing is said


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated(Speed):
    """Facts of a take, for machines. The speed is without loading the model, compiling and the plot."""

    output: str
    plot: str | None  # None also of a picture that could not be drawn
    plot_error: str | None  # why it could not, in one line
    model: str
    kind: str  # free, loop, continued, edited or varied
    class_name: str | None
    steps: int | None  # None for what the model does not have
    solver: str | None
    guidance: float | None
    strength: float | None
    seed: int
    joining: str  # of segments: overlap, context or separate
    sample_rate: int  # Hz
    channels: int


def generate(request: GenerateRequest, settings: RenderSettings = RenderSettings(),
             monitor: Monitor = SILENT) -> list[Generated]:
    """Writes sound that is made of noise, or of noise and a recording; takes have one seed after the other.

    Raises UserError for files that cannot be read or written (before the model is loaded), options that do
    not go together, and as `synthesis.generate` does.
    """
    kind, outputs = _kind(request, settings), _outputs(request)
    given = {name: read_audio(path) for name in ("continued", "until", "edit", "vary")
             if (path := getattr(request, name)) is not None}
    stretch = _stretch(request, given["edit"]) if kind == "edited" else None
    if kind == "varied" and settings.strength is None:
        settings = settings.changed(strength=STRENGTH)
    made = []
    with monitor.bar(f"generating {shown(outputs[0])}") as progress:
        usual = GENERATOR if request.style is None else RESTYLE
        synthesizer = load(request.model or usual, request.inverter)
        seconds = SECONDS if request.seconds is None else request.seconds
        restyler = None
        if request.style is not None and isinstance(synthesizer.model.conditions, HeardFrames):
            restyler = _Restyler(synthesizer, open_style(synthesizer, request.style),
                                 style_settings(synthesizer, settings))
            synthesizer, settings = load(GENERATOR), RenderSettings(seed=settings.seed)
        # Its errors come before anything is written.
        source = (make.free_source(synthesizer, seconds, request.class_name,
                                   None if restyler else request.style) if kind == "free" else None)
        make.class_weights(synthesizer, request.class_name)
        for k, output in enumerate(outputs):
            own = settings.changed(seed=settings.seed + k)
            if request.out_dir is not None:
                os.makedirs(request.out_dir, exist_ok=True)
                check_writable(output)
            bar = part_of(progress, k, len(outputs))
            if restyler is not None and source is not None:
                made.append(_restyled(request, restyler, synthesizer, source, output, own, bar))
                continue
            made.append(_take(request, synthesizer, kind, source, given, stretch, output, own, bar))
    return made


@dataclasses.dataclass(frozen=True)
class _Restyler:
    """A model that makes something of a content that it hears, and nothing without."""

    synthesizer: Synthesizer
    hearing: Hearing
    settings: RenderSettings


def _restyled(request: GenerateRequest, restyler: _Restyler, synthesizer: Synthesizer, source: Source,
              output: str, settings: RenderSettings, progress: Progress) -> Generated:
    """Writes one take: the package's generator makes a content, which is restyled."""
    own = restyler.settings.changed(seed=settings.seed)
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        content = os.path.join(folder, "content.wav")
        first = render_file(synthesizer, source, content, settings=settings,
                            progress=part_of(progress, 0, 2))
        made = transfer_file(restyler.synthesizer, content, output, settings=own, hearing=restyler.hearing,
                             plot=request.plot, progress=part_of(progress, 1, 2))
    facts = {name: getattr(made, name) for name in (
        "output", "plot", "plot_error", "model", "steps", "solver", "seed", "joining", "sample_rate",
        "channels")}
    speed = {field.name: getattr(made, field.name) for field in dataclasses.fields(Speed)}
    wall = first.wall_seconds + made.wall_seconds
    speed |= {"wall_seconds": round(wall, 3), "realtime_factor": round(made.audio_seconds / wall, 3)}
    return Generated(**facts, **speed, kind="free", class_name=request.class_name, strength=None,
                     guidance=restyler.synthesizer.sampled_by(own).sampling.guidance)


def _kind(request: GenerateRequest, settings: RenderSettings) -> str:
    """Returns what is asked for. Raises UserError for options that do not go together."""
    names = {"continued": request.continued, "edited": request.edit, "varied": request.vary,
             "loop": request.loop or None}
    flags = {"continued": "--continue", "edited": "--edit", "varied": "--vary", "loop": "--loop"}
    asked = [name for name, value in names.items() if value is not None]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(flags[name] for name in asked)}: one at a time")
    kind = asked[0] if asked else "free"
    for flag, value, needed in (("--until", request.until, "continued"),
                                ("--inpaint", request.inpaint, "edited"),
                                ("--band", request.band, "edited"),
                                ("--strength", settings.strength, "varied")):
        if value is not None and kind != needed:
            raise UserError(f"{flag}: goes with {flags[needed]} RECORDING")
    if request.style is not None and kind != "free":
        raise UserError(f"--style: makes sound from noise alone; leave {flags[kind]} out")
    if kind == "edited" and request.inpaint is None and request.band is None:
        raise UserError("--edit: say what of it is made anew: --inpaint BEGIN:END in seconds, --band "
                        "LOW:HIGH in Hz, or both")
    if kind in ("edited", "varied") and request.seconds is not None:
        raise UserError(f"--seconds: {flags[kind]} keeps the recording's length; leave it out")
    return kind


def _outputs(request: GenerateRequest) -> list[str]:
    """Returns the files to be written. Raises UserError where they cannot be."""
    if request.count == 1 and request.out_dir is None:
        if request.output is None:
            raise UserError("give the file to write: -o OUT.wav")
        check_outputs(request.output, request.plot)
        return [request.output]
    if request.out_dir is None or request.output is not None or request.plot is not None:
        raise UserError("--count: of several takes give --out-dir DIR, and leave -o and --plot out")
    folder = pathlib.Path(request.out_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)}: is a file; give a folder")
    digits = len(str(request.count))
    outputs = [os.fspath(folder / f"{k + 1:0{digits}}.wav") for k in range(request.count)]
    for output in outputs:
        if os.path.exists(output):
            raise UserError(f"{shown(output)}: is there already; give another --out-dir")
    return outputs


def _stretch(request: GenerateRequest, wave: Waveform) -> Stretch:
    """Returns what is made anew of a recording."""
    begin, end = (0.0, wave.duration) if request.inpaint is None else parse_pair(
        request.inpaint, "--inpaint", "seconds")
    if request.band is None:
        return Stretch(begin=begin, end=end)
    low, high = parse_pair(request.band, "--band", "Hz")
    return Stretch(begin=begin, end=end, low=low, high=high)


def _take(request: GenerateRequest, synthesizer: Synthesizer, kind: str, source: Source | None,
          given: dict[str, Waveform], stretch: Stretch | None, output: str,
          settings: RenderSettings, progress: Progress) -> Generated:
    """Writes one take."""
    seconds = SECONDS if request.seconds is None else request.seconds
    chosen: dict[str, Any] = {"classes": request.class_name, "settings": settings}
    sampling = synthesizer.sampled_by(settings).sampling
    facts: dict[str, Any] = {
        "output": output, "model": synthesizer.name, "kind": kind, "class_name": request.class_name,
        "steps": sampling.steps, "solver": None if sampling.solver is None else repr(sampling.solver),
        "guidance": sampling.guidance, "strength": sampling.strength if kind == "varied" else None,
        "seed": settings.seed, "joining": synthesizer.joining_of(settings).name}
    if source is not None:
        rendering = render_file(synthesizer, source, output, settings=settings, plot=request.plot,
                                progress=progress)
        speed = {field.name: getattr(rendering, field.name) for field in dataclasses.fields(Speed)}
        return Generated(**facts, **speed, plot=rendering.plot, plot_error=rendering.plot_error,
                         sample_rate=synthesizer.codec.sample_rate, channels=1)
    synthesizer.compile(make.free_source(synthesizer, make.LEAST_SECONDS), settings)

    def work() -> Waveform:
        if kind == "loop":
            return normalize(make.looped(synthesizer, seconds, progress=progress, **chosen))
        if kind == "continued":
            return make.continued(synthesizer, given["continued"], seconds, until=given.get("until"),
                                  progress=progress, **chosen)
        if kind == "varied":
            return make.varied(synthesizer, given["vary"], progress=progress, **chosen)
        assert stretch is not None
        return make.edited(synthesizer, given["edit"], stretch, progress=progress, **chosen)

    new = seconds if kind in ("loop", "continued") else None
    wave, speed = measure(work, lambda wave: wave.duration if new is None else new)
    write_audio(output, wave)
    failed = None
    if request.plot is not None:
        failed = attempt(plot_spectrogram, request.plot, _sketch(synthesizer, wave), synthesizer.codec,
                         os.path.basename(output))
    return Generated(**facts, **dataclasses.asdict(speed.rounded()), plot=None if failed else request.plot,
                     plot_error=failed, sample_rate=wave.sample_rate, channels=wave.channels)


def _sketch(synthesizer: Synthesizer, wave: Waveform) -> SpectrogramSketch:
    codec = synthesizer.codec
    sketch = SpectrogramSketch(codec.mels)
    sketch.push(codec.encode(wave.mono().resample(codec.sample_rate).samples))
    return sketch
