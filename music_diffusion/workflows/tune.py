"""Search for values of gin bindings that lower the validation loss, with Optuna."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import math
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from music_diffusion import gin_setup
from music_diffusion.errors import StoppedError, UserError
from music_diffusion.files import atomic_write, write_json, write_text
from music_diffusion.paths import shown
from music_diffusion.workflows.fine_tuning import EVALUATIONS, fine_tune, shorter, validation_losses
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import TuneRequest
from music_diffusion.workflows.search_space import PAPER, Range, parse_range
from music_diffusion.workflows.tune_report import draw_history, draw_importances

if TYPE_CHECKING:
    import optuna

STUDY, DATABASE, BEST, TABLE, SUMMARY = "study", "study.db", "best.gin", "trials.csv", "study.json"
PRUNERS = ("median", "hyperband", "none")
FOLDER = "folder"  # user attribute of a trial: where its run is, which may be that of one that was stopped
EVALUATIONS_EACH = 6  # of a trial, at which it may be pruned
STARTUP_TRIALS = 4  # that are drawn at random, and that pruning compares with at least
WARMUP = 300  # steps of a recipe's schedule, which shorter runs do not have


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned:
    """Result of a search so far."""

    folder: str
    trials: int  # that were completed or pruned
    pruned: int
    failed: int  # that were stopped; they are gone on with under other numbers
    start: float | None  # validation loss of the recipe's own values; None: not known yet
    best: float | None  # lowest validation loss; None: no trial was completed
    values: dict[str, Any]  # that have it
    gin_file: str | None  # of it, which `train` takes


def tune(request: TuneRequest, monitor: Monitor = SILENT) -> Tuned:
    """Trains with drawn values, and goes on with what lies in the folder; see `music-diffusion tune`.

    The first trial has the recipe's own values. Trials whose validation loss is worse than the others' at
    the same step are ended early. Several processes may work on one folder at once; all together they do
    `request.trials`. A trial that was killed is gone on with from its last checkpoint.

    Raises:
      UserError: a recipe or range that does not fit, Optuna is missing, or the folder holds another search.
      StoppedError: a signal ended it; the same call goes on.
    """
    optuna = _optuna()
    ranges = tuple(parse_range(text) for text in request.search) or PAPER
    start = _checked(request, ranges)
    if request.pruner not in PRUNERS:
        raise UserError(f"--pruner {request.pruner}: unknown; choose {', '.join(PRUNERS)}")
    folder = pathlib.Path(request.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)}: is a file; give a folder")
    others = [p for p in folder.iterdir() if p.suffix != ".lock"] if folder.is_dir() else []
    if others and not (folder / DATABASE).is_file():
        raise UserError(f"{shown(folder)}: has other files; give a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "opening.lock"):
        study = _open(optuna, request, folder, ranges)
        _adopt_stopped(optuna, study, folder)
        if not study.trials:
            study.enqueue_trial(start)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    def count() -> int:
        return len(study.get_trials(deepcopy=False, states=ended))

    with monitor.bar(f"tuning {shown(request.output)}") as progress:
        progress(count() / request.trials)
        while count() < request.trials:
            trial = study.ask()
            state = _run(optuna, request, study, trial, ranges, folder)
            done = _write(optuna, request, study, folder, ranges)
            best = "" if done.best is None else f", best so far {done.best:.4f}"
            monitor.say(f"trial {trial.number}: {state}{best}")
            progress(min(1.0, count() / request.trials))
    return _write(optuna, request, study, folder, ranges)


def _optuna() -> Any:
    for module in ("optuna", "filelock"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"tune needs {module}: pip install 'music-diffusion[tune]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _checked(request: TuneRequest, ranges: tuple[Range, ...]) -> dict[str, Any]:
    """Returns the recipe's own values. Raises UserError for names that the run does not read."""
    from music_diffusion.configuration.print_config import GIVEN
    from music_diffusion.configuration.reads import check, reads

    names = [r.name for r in ranges]
    if len(set(names)) < len(names):
        raise UserError(f"--search: {', '.join(names)}: a name is given twice")
    with gin_setup.private_gin():
        gin_setup.parse((request.gin_file,), request.bindings)
        own = {r.name: r.near(_bound(r.name)) for r in ranges}
        searched = [f"{name} = {value!r}" for name, value in own.items()]
        gin_setup.parse((request.gin_file,), [*request.bindings, *searched])
        check(reads("train", GIVEN), [*request.bindings, *searched])
    return own


def _bound(name: str) -> Any:
    """Returns the number that a name is bound to, through macros; None where it is none, or not bound."""
    import gin

    try:
        value = gin.query_parameter(name if "." in name else f"{name}/gin.macro.value")
    except ValueError:
        return None
    macro = getattr(value, "scoped_selector", "").removesuffix("/gin.macro")
    if macro and macro != getattr(value, "scoped_selector", ""):
        return _bound(macro)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def _open(optuna: Any, request: TuneRequest, folder: pathlib.Path, ranges: tuple[Range, ...]
          ) -> optuna.Study:
    """Opens the study of a folder, or begins one. Raises UserError: it searches something else."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / DATABASE).resolve()}",
                                             engine_kwargs={"connect_args": {"timeout": 60}})
    except SQLAlchemyError as e:
        raise UserError(f"{shown(folder / DATABASE)}: is damaged, or no search; give another folder") from e
    pruners = {"median": lambda: optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS,
                                                            n_min_trials=2),
               "hyperband": lambda: optuna.pruners.HyperbandPruner(
                   min_resource=max(1, request.steps // EVALUATIONS_EACH), max_resource=request.steps),
               "none": optuna.pruners.NopPruner}
    study = optuna.create_study(
        storage=storage, study_name=STUDY, load_if_exists=True, direction="minimize",
        pruner=pruners[request.pruner]())
    # A seed alone would let two processes draw the same values.
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS,
                                               seed=request.seed + 7919 * len(study.trials))
    asked = {"recipe": request.gin_file, "bindings": list(request.bindings), "steps": request.steps,
             "search": [str(r) for r in ranges]}
    known = study.user_attrs.get("asked")
    if known is None:
        study.set_user_attr("asked", asked)
    elif known != asked and all(t.state == optuna.trial.TrialState.FAIL
                                for t in study.get_trials(deepcopy=False)):
        # Nothing came of it: a mistake in what was asked is corrected.
        optuna.delete_study(study_name=STUDY, storage=storage)
        shutil.rmtree(folder / "trials", ignore_errors=True)
        return _open(optuna, request, folder, ranges)
    elif known != asked:
        other = next(name for name in asked if known.get(name) != asked[name])
        raise UserError(f"{shown(request.output)}: holds a search with other {other} ({known.get(other)}); "
                        "give another folder")
    return study


def _adopt_stopped(optuna: Any, study: optuna.Study, folder: pathlib.Path) -> None:
    """Lets trials go on whose process is gone: its lock on their folder is."""
    from filelock import FileLock, Timeout

    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        where = trial.user_attrs.get(FOLDER, trial.number)
        (folder / "trials").mkdir(exist_ok=True)
        lock = FileLock(folder / "trials" / f"{where:04}.lock")
        try:
            with lock.acquire(timeout=0):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                if trial.params:
                    study.enqueue_trial(trial.params, user_attrs={FOLDER: where})
        except Timeout:
            continue  # another process is at work on it


def _run(optuna: Any, request: TuneRequest, study: optuna.Study, trial: optuna.Trial,
         ranges: tuple[Range, ...], folder: pathlib.Path) -> str:
    """Trains one trial; returns how it ended."""
    from music_diffusion.training.loop import NonFiniteError

    where = trial.user_attrs.get(FOLDER, trial.number)
    trial.set_user_attr(FOLDER, where)
    run = folder / "trials" / f"{where:04}"
    values = {r.name: r.suggest(trial) for r in ranges}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        trial.report(metrics["loss"], step)
        if trial.should_prune():
            raise optuna.TrialPruned

    with _locked(run.with_suffix(".lock")):
        try:
            if (run / EVALUATIONS).is_file():
                for step, loss in validation_losses(str(run)).items():
                    trial.report(loss, step)
            set_here = {**shorter(request.steps, WARMUP), **_evaluations(request), **values}
            fine_tune((request.gin_file,), set_here, request.bindings, model_dir=str(run),
                      on_evaluation=report)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return "pruned"
        except NonFiniteError:
            trial.report(math.inf, request.steps)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return "not finite"
        except StoppedError:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={FOLDER: where})
            raise
        except UserError:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        except (TypeError, ValueError) as e:  # of a value that the run cannot use
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            text = " ".join(str(e).split())[:160]
            raise UserError(f"trial {trial.number} cannot be trained with {trial.params} ({text}); correct "
                            "--search or --binding") from e
        loss = min(validation_losses(str(run)).values())
        study.tell(trial, loss)
        return f"loss {loss:.4f}"


def _evaluations(request: TuneRequest) -> dict[str, int]:
    every = max(1, request.steps // EVALUATIONS_EACH)
    return {"TrainConfig.eval_every": every, "TrainConfig.checkpoint_every": every, "TrainConfig.keep": 1}


def _write(optuna: Any, request: TuneRequest, study: optuna.Study, folder: pathlib.Path,
           ranges: tuple[Range, ...]) -> Tuned:
    """Writes the table, the pictures, the best values and a summary; returns it."""
    state = optuna.trial.TrialState
    trials = study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state == state.COMPLETE]
    best = min(complete, key=lambda t: float(t.value or 0.0), default=None)
    first = next((t for t in complete if t.params == trials[0].params), None)
    with _locked(folder / "writing.lock"):
        with atomic_write(folder / TABLE) as part, open(part, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["trial", "state", "loss", "folder", *(r.name for r in ranges)])
            for t in trials:
                table.writerow([t.number, t.state.name.lower(), "" if t.value is None else t.value,
                                t.user_attrs.get(FOLDER, ""), *(t.params.get(r.name, "") for r in ranges)])
        if best is not None:
            lines = [f"{name} = {value!r}" for name, value in best.params.items()]
            write_text(folder / BEST, "\n".join([
                f"# Trial {best.number} of {len(trials)}: validation loss {best.value:.5f} after "
                f"{request.steps} steps.", f"include {request.gin_file!r}", *request.bindings, *lines, ""]))
        draw_history(folder / "history.png", [
            (t.number, t.state.name.lower(), t.value, dict(t.intermediate_values)) for t in trials])
        draw_importances(folder / "importances.png", _importances(optuna, study, len(complete)))
        done = Tuned(
            folder=request.output, trials=sum(t.state in (state.COMPLETE, state.PRUNED) for t in trials),
            pruned=sum(t.state == state.PRUNED for t in trials),
            failed=sum(t.state == state.FAIL for t in trials),
            start=None if first is None else first.value, best=None if best is None else best.value,
            values={} if best is None else dict(best.params),
            gin_file=None if best is None else str(folder / BEST))
        write_json(folder / SUMMARY, dataclasses.asdict(done))
    return done


def _importances(optuna: Any, study: optuna.Study, complete: int) -> dict[str, float]:
    """Returns the share of each name in the losses' differences (PED-ANOVA); nothing of too few trials."""
    if complete < STARTUP_TRIALS:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
