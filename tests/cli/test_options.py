"""A plain function becomes a command: every field of its dataclasses is an option."""

import dataclasses
import functools
import inspect
import math

import pytest
import typer
from typer.testing import CliRunner

from music_diffusion.cli import (
    adapt,
    benchmark,
    dump,
    evaluate,
    prepare,
    reconstruct,
    render,
    restyle,
)
from music_diffusion.cli import generate as generate_command
from music_diffusion.cli import models as models_commands
from music_diffusion.cli import synthesize as synthesize_command
from music_diffusion.cli import train as train_command
from music_diffusion.cli import transcribe as transcribe_command
from music_diffusion.cli import transfer as transfer_command
from music_diffusion.cli import tune as tune_command
from music_diffusion.cli.options import SHARED, Text, argument, command, option
from music_diffusion.diffusion.sampling import KarrasLogSNR, UniformLogSNR, UniformTime
from music_diffusion.diffusion.solvers import DDIM, DDPM, DPMSolverPP2M
from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows import requests


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baking(requests.Request):
    """Something to ask for."""

    cake: str
    pieces_each: int = requests.ranged(2, 1, 9)
    toppings: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    warm: bool = True
    vegan: bool = False
    sugar: float | None = requests.ranged(None, 0.5)
    oven: str | None = None


TEXTS = dict(cake=argument("Which.", "CAKE"), pieces_each=option("How many."),
             toppings=option("On it.", "--topping"), notes=option("For the cook.", "--note"),
             warm=option("Warm it."), vegan=option("Vegan."), sugar=option("Grams."),
             oven=Text(help="Gas or not.", type=str | None, convert=str.upper))


@pytest.fixture
def bake():
    """Runs a command made of `Baking` and a plain parameter; returns what its function got."""
    seen = []

    @command("bake plum", **TEXTS)
    def baked(request: Baking, loud: bool = False) -> None:
        """Bake."""
        seen.append((request, loud))

    app = typer.Typer()
    app.command()(baked)

    def bake(*arguments):
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
        return result, seen.pop() if seen else None

    return bake


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setitem(SHARED, "loud", option("Aloud."))


def test_defaults_are_those_of_the_dataclass(bake):
    result, seen = bake("plum")
    assert result.exit_code == 0 and seen == (Baking(cake="plum"), False)


def test_every_field_is_handed_on(bake):
    result, seen = bake("plum", "--pieces-each", "3", "--topping", "a", "--topping", "b", "--note", "x=1",
                        "--note", "y = z=2", "--no-warm", "--vegan", "--sugar", "0.5", "--oven", "gas",
                        "--loud")
    assert result.exit_code == 0, result.output
    assert seen == (Baking(cake="plum", pieces_each=3, toppings=("a", "b"),
                           notes=(("x", "1"), ("y", "z=2")), warm=False, vegan=True, sugar=0.5,
                           oven="GAS"), True)
    assert bake("plum", "--pieces_each", "4")[1][0].pieces_each == 4  # either spelling


@pytest.mark.parametrize("arguments, word", [
    ([], "CAKE"), (["plum", "--pieces-each", "10"], "--pieces-each"), (["plum", "--sugar", "0.4"], "0.5"),
    (["plum", "--nothing"], "--nothing")], ids=str)
def test_what_does_not_fit_is_code_2(bake, arguments, word):
    result, seen = bake(*arguments)
    assert result.exit_code == 2 and seen is None and word in result.output


def test_pairs_need_an_equals_sign(bake):
    assert "--note x: write it as NAME=VALUE" in str(bake("plum", "--note", "x")[0].exception)


def test_ranges_hold_in_python_too():
    with pytest.raises(UserError, match="--pieces_each 10: must be from 1 to 9"):
        Baking(cake="plum", pieces_each=10)
    with pytest.raises(UserError, match="--sugar 0.1: must be at least 0.5"):
        Baking(cake="plum", sugar=0.1)
    assert Baking(cake="plum", sugar=None).sugar is None


def test_a_request_may_be_made_later_and_lack_what_it_requires():
    seen = []

    @command("x", **TEXTS | {"cake": option("Which.", optional=True), "vegan": None})
    def later(context: typer.Context, request: functools.partial[Baking]) -> None:
        seen.append((context.args, request))

    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True})(later)
    assert CliRunner().invoke(app, ["--sugar", "1", "more"]).exit_code == 0
    (rest, request), = seen
    assert rest == ["more"] and request.keywords["cake"] is None and "vegan" not in request.keywords
    assert request(cake="plum") == Baking(cake="plum", sugar=1.0)
    assert CliRunner().invoke(app, ["--vegan"]).exit_code == 2


def test_a_field_without_a_text_is_a_mistake_at_once():
    with pytest.raises(KeyError, match="sugar"):
        @command("x", **{k: v for k, v in TEXTS.items() if k != "sugar"})
        def forgotten(request: Baking) -> None:
            pass


def test_solvers_and_grids_are_objects():
    seen = []

    @command("x")
    def render_it(settings: RenderSettings) -> None:
        seen.append(settings)

    app = typer.Typer()
    app.command()(render_it)
    for name in ("ddim", "ddpm", "dpm++2m"):
        assert CliRunner().invoke(app, ["--solver", name, "--steps", "3"]).exit_code == 0
    assert [s.solver for s in seen] == [DDIM(eta=0.0), DDPM(log_variance=0.0), DPMSolverPP2M()]
    assert {s.steps for s in seen} == {3} and {s.grid for s in seen} == {None}
    for name in ("time", "logsnr", "karras"):
        assert CliRunner().invoke(app, ["--grid", name]).exit_code == 0
    assert [s.grid for s in seen[3:]] == [UniformTime(), UniformLogSNR(), KarrasLogSNR()]
    assert "unknown; choose time, logsnr" in str(CliRunner().invoke(app, ["--grid", "even"]).exception)
    both = CliRunner().invoke(app, ["--grid", "time", "--strength", "0.5"])
    assert "leave one of them out" in str(both.exception)
    for name in ("--temperature", "--texture"):
        wrong = CliRunner().invoke(app, [name, "-1"])
        assert f"{name} -1: give a number from 0 to 10" in str(wrong.exception)
        assert CliRunner().invoke(app, [name, "0.5"]).exit_code == 0
    assert (seen[-2].temperature, seen[-1].texture) == (0.5, 0.5)
    assert "unknown; choose ddim, ddpm" in str(CliRunner().invoke(app, ["--solver", "euler"]).exception)


COMMANDS = {
    synthesize_command.synthesize: RenderSettings, reconstruct.reconstruct: requests.ReconstructRequest,
    transcribe_command.transcribe: requests.TranscribeRequest,
    generate_command.generate: requests.GenerateRequest, tune_command.tune: requests.TuneRequest,
    transfer_command.transfer: requests.TransferRequest, restyle.restyle: requests.RestyleRequest,
    adapt.adapt: requests.AdaptRequest,
    train_command.train: requests.OwnDataRequest, benchmark.benchmark: requests.BenchmarkRequest,
    evaluate.evaluate: EvaluationPlan, render.render: requests.ScoresRequest,
    prepare.data_set: requests.DataSetRequest, prepare.audio_folder: requests.AudioFolderRequest,
    prepare.references: requests.ReferencesRequest,
    prepare.conversions: requests.ConversionsRequest, prepare.excerpts: requests.ExcerptsRequest,
    prepare.pictures: requests.PicturesRequest,
    dump.dump: requests.DumpRequest,
    models_commands.release: requests.ReleaseRequest,
    models_commands.compare: requests.CompareRequest,
    models_commands.note_rows: requests.NoteRowsRequest,
    models_commands.note_maps: requests.NoteMapsRequest,
    models_commands.statistics: requests.StatisticsRequest,
    models_commands.performances: requests.PerformanceListRequest}
HIDDEN = {  # filled in otherwise, or for recipes alone
    synthesize_command.synthesize: {"strength", "content_guidance"},  # of what a recording becomes
    train_command.train: {"bindings"}, prepare.data_set: {"kind"},
    evaluate.evaluate: {"performances", "condition", "performances_of", "min_seconds", "draws", "level",
                        "splits", "examples", "method", "parts", "strength"}}


@pytest.mark.parametrize("function", COMMANDS, ids=lambda f: f.__name__)
def test_no_field_of_a_request_is_forgotten_and_every_default_is_its(function):
    parameters = inspect.signature(function).parameters
    fields = {f.name: f for f in dataclasses.fields(COMMANDS[function])}
    assert set(fields) - HIDDEN.get(function, set()) == set(fields) & set(parameters)
    for name in set(fields) & set(parameters):
        default, field = parameters[name].default, fields[name]
        if field.default is dataclasses.MISSING:
            assert default in (inspect.Parameter.empty, None)
        else:
            assert default == field.default or (default is None and field.default == ()), name


@pytest.mark.parametrize("cls", [c for c in vars(requests).values() if isinstance(c, type)
                                 and dataclasses.is_dataclass(c)], ids=lambda c: c.__name__)
def test_ranges_of_requests_contain_their_defaults(cls):
    for field in dataclasses.fields(cls):
        least, most = field.metadata.get(requests.RANGE, (-math.inf, math.inf))
        if isinstance(field.default, int | float):
            assert least <= field.default <= most
