"""Commands from plain functions: every parameter becomes an option with a text from here.

A parameter that is a dataclass (`settings: RenderSettings`) stands for its fields: names, types,
ranges and defaults are the dataclass's own, and the command gets one object. Texts that several
commands share stand in `SHARED`; those of one command stand beside its function.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from music_diffusion.errors import UserError
from music_diffusion.workflows.requests import RANGE

Command = Callable[..., None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """Words of the command line on an option, beside its name, type and default."""

    help: str
    flags: tuple[str, ...] = ()  # (): --name
    metavar: str | None = None
    panel: str | None = None  # of the help
    positional: bool = False
    optional: bool = False  # may be left out, though the field has no default: it is None then
    limits: tuple[float, float] | None = None  # None: those of the field
    # The command line's own type, and how a value of it becomes the field's.
    type: Any = None
    convert: Callable[[Any], Any] | None = None


def argument(help: str, metavar: str | None = None, *, optional: bool = False) -> Text:
    """Returns the text of a positional argument."""
    return Text(help=help, metavar=metavar, positional=True, optional=optional)


def option(help: str, *flags: str, metavar: str | None = None, panel: str | None = None,
           optional: bool = False) -> Text:
    """Returns the text of an option."""
    return Text(help=help, flags=flags, metavar=metavar, panel=panel, optional=optional)


def named_solver(name: str) -> Any:
    """Returns the solver of a name. Raises UserError for an unknown one."""
    from music_diffusion.diffusion.solvers import DDIM, DDPM, DPMSolverPP2M, Heun, UniPC

    solvers = {"ddim": DDIM(eta=0.0), "ddpm": DDPM(log_variance=0.0), "dpm++2m": DPMSolverPP2M(),
               "heun": Heun(), "unipc": UniPC()}
    return _chosen("--solver", name, solvers)


def named_grid(name: str) -> Any:
    """Returns the grid of a name. Raises UserError for an unknown one."""
    from music_diffusion.diffusion.sampling import KarrasLogSNR, UniformLogSNR, UniformTime

    grids = {"time": UniformTime(), "logsnr": UniformLogSNR(), "karras": KarrasLogSNR()}
    return _chosen("--grid", name, grids)


def _chosen(flag: str, name: str, choices: Mapping[str, Any]) -> Any:
    """Returns the choice of a name. Raises UserError for an unknown one."""
    if name not in choices:
        raise UserError(f"{flag} {name}: unknown; choose {', '.join(choices)}")
    return choices[name]


RARE: dict[str, Text | None] = {"content_guidance": None}  # settings of single commands, which name them
SHARED = {
    "output": option("Where to write: .wav, .flac or .mp3.", "--output", "-o", metavar="OUT.wav"),
    "model": option("Name or folder of a model."),
    "inverter": option("Spectrogram to audio: griffin_lim, or what reconstruct takes; the best by "
                       "default."),
    "json": option("Print one JSON object."),
    "workers": option("Processes."),
    "bindings": option("Changes the recipe; repeatable.", "--binding", metavar="NAME=VALUE"),
    "options": option("Of the data set's reader, such as genre=classical; repeatable.", "--option",
                      metavar="NAME=VALUE"),
    # `RenderSettings`.
    "steps": Text(help="Sampling steps.", limits=(1, 10000)),
    "guidance": option("Guidance weight, 1 for none; the model's own if left out."),
    "solver": Text(help="ddim, ddpm, dpm++2m, heun or unipc.", type=str | None, convert=named_solver),
    "grid": Text(help="Where the steps lie: time (DDIM's), logsnr (DPM-Solver's) or karras (EDM's).",
                 type=str | None, convert=named_grid),
    "seed": option("Another seed is another take."),
    "performance": option(
        "Of a model with performances (see `models show NAME --performances`): NAME, a mixture "
        "NAME:0.7+NAME:0.3, for each instrument violin=NAME,rest=NAME, or none.", metavar="TEXT"),
    "performance_guidance": option("Guidance weight of the performance; 1 is none."),
    "temperature": option("Deviation of the noise that sampling begins with: towards 0 sound is nearer to "
                          "the mean of what the notes allow, and smoother; 1 as in training."),
    "texture": option("The same of that noise's fast part: at 1 partials beat and bows scrape, while notes "
                      "stay as sure as the temperature makes them."),
    "strength": option("How far from the recording, above 0 and up to 1; below 1 more of its own sound "
                       "stays."),
    "passes": Text(help="How often each step is done where a part is given; more agree better, and take as "
                        "many times longer.", limits=(1, 1000)),
    "joining": option("How segments become a piece: overlap, or context where a model reads it."),
    "overlap": option("Seconds that overlapping segments share, rounded to what the model can do.",
                      metavar="SECONDS"),
    "segment": option("Length of a segment, where the model leaves it open.", metavar="SECONDS"),
    # What is rendered by SoundFonts.
    "soundfonts": option(".sf2 or .sf3; repeatable.", "--soundfont", metavar="FILE.sf2"),
    "samplers": option("Recorded notes: a folder with instruments.csv, FOLDER@PROGRAMS with notes.csv, or "
                       "FILE.sfz@PROGRAMS; repeatable.", "--sampler", metavar="FOLDER"),
    "fallback": option("SoundFont for what recorded notes lack.", "--sampler-fallback",
                       "--sampler_fallback", metavar="FILE.sf2"),
    "hours": option("Hours of training excerpts."),
    "test": option("Also a test split."),
    "solo": option("Share of excerpts with one instrument alone."),
    "rate": option("Sample rate in Hz."),
    "mono": option("Mix stereo files to one channel."),
}


def command(example: str, **own: Text | None) -> Callable[[Command], Command]:
    """Makes a function a command for typer.

    Args:
      example: of its use, for the help.
      own: texts of its parameters and of their fields, before those of `SHARED`; None leaves a field
        with a default out.

    Every parameter and field needs a text, but for a `typer.Context`. For a parameter annotated as
    `functools.partial[SomeRequest]` the function gets what makes the object when it is called.
    """
    texts: dict[str, Text | None] = {**RARE, **SHARED, **own}

    def decorate(function: Command) -> Command:
        hints = typing.get_type_hints(function)
        parts = [_part(parameter, hints[name], texts)
                 for name, parameter in inspect.signature(function).parameters.items()]

        def run(**values: Any) -> None:
            function(**{part.name: part.gather(values) for part in parts})

        parameters = [p for part in parts for p in part.parameters]
        run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.example = example  # type: ignore[attr-defined]
        return run

    return decorate


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """A parameter of a command's function: what typer sees of it, and how it gets its value."""

    name: str
    parameters: list[inspect.Parameter]
    gather: Callable[[dict[str, Any]], Any]


def _part(parameter: inspect.Parameter, hint: Any, texts: dict[str, Text | None]) -> _Part:
    name = parameter.name
    if hint is typer.Context:
        return _Part(name=name, parameters=[_keyword(name, parameter.default, hint)],
                     gather=lambda values: values[name])
    later = typing.get_origin(hint) is functools.partial
    made: Any = typing.get_args(hint)[0] if later else hint
    make: Callable[..., Any] = made
    if not dataclasses.is_dataclass(made):
        single = _Option.of(name, hint, parameter.default, texts[name])
        return _Part(name=name, parameters=[single.parameter], gather=single.value)
    options = [_Option.of(f.name, f, _default(f), texts[f.name], vars(sys.modules[made.__module__]))
               for f in dataclasses.fields(made) if texts[f.name] is not None]

    def gather(values: dict[str, Any]) -> Any:
        given = {o.parameter.name: o.value(values) for o in options}
        return functools.partial(make, **given) if later else make(**given)

    return _Part(name=name, parameters=[o.parameter for o in options], gather=gather)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Option:
    """One option of the command line."""

    parameter: inspect.Parameter
    convert: Callable[[Any], Any]

    @classmethod
    def of(cls, name: str, hint: Any, default: Any, text: Text | None, names: dict[str, Any] | None = None
           ) -> _Option:
        """Makes it of a parameter (`hint` is its type) or a field; `names` are its module's."""
        assert text is not None, name
        limits = text.limits
        if isinstance(hint, dataclasses.Field):
            limits = limits or hint.metadata.get(RANGE)
            hint = text.type or (eval(hint.type, names) if isinstance(hint.type, str) else hint.type)
        convert = text.convert or (lambda value: value)
        if typing.get_origin(hint) is tuple:
            pairs = typing.get_args(hint)[0] is not str
            flag = _flags(name, text, default)[0]
            convert = functools.partial(_pairs, flag) if pairs else lambda values: tuple(values or ())
            hint = list[str] if default is inspect.Parameter.empty else list[str] | None
            default = default or None
        if default is inspect.Parameter.empty and text.optional:
            hint, default = hint | None, None
        least, most = (None if math.isinf(x) else x for x in limits or (math.inf, math.inf))
        shown: dict[str, Any] = dict(help=text.help, metavar=text.metavar, rich_help_panel=text.panel,
                                     min=least, max=most)
        info = (typer.Argument(**shown) if text.positional else
                typer.Option(*_flags(name, text, default), **shown))
        return cls(parameter=_keyword(name, default, Annotated[hint, info]), convert=convert)

    def value(self, values: dict[str, Any]) -> Any:
        """Takes its value of the command line's."""
        given = values[self.parameter.name]
        unset = given is None and not self.parameter.annotation.__origin__ == list[str] | None
        return None if unset else self.convert(given)


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _default(field: dataclasses.Field) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _flags(name: str, text: Text, default: Any) -> tuple[str, ...]:
    """Returns the option's spellings: both of a name with underscores, --no-… of a switch that is on."""
    if text.flags:
        return text.flags
    dashed = name.replace("_", "-")
    if default is True:
        return (f"--{dashed}/--no-{dashed}",)
    return (f"--{dashed}",) if dashed == name else (f"--{dashed}", f"--{name}")


def _pairs(flag: str, values: Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    """Takes NAME=VALUE apart."""
    pairs = []
    for text in values or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{flag} {text}: write it as NAME=VALUE")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)
