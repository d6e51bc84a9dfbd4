"""`music-diffusion evaluate`: a report, the table of a recipe, or what is heard of seams."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar

from music_diffusion.cli import terminal
from music_diffusion.cli.options import command, option
from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.workflows.requests import (
    NO_MODEL,
    EarsRequest,
    GapsRequest,
    MemorizedRequest,
    SeamsRequest,
)

if TYPE_CHECKING:
    from music_diffusion.evaluation.table import FilledTable

NOT_CHANCE = 0.05  # a smaller p is a seam
Asked = TypeVar("Asked", EarsRequest, GapsRequest, MemorizedRequest, SeamsRequest)
SHOWN = 5  # problems on the terminal; the report has all


@command("music-diffusion evaluate --generated renders/ --reference recordings/ --notes midi/ -o report/",
         output=option("Folder for report.html, report.json and scores.csv; run again into it to go on.",
                       "--output", "-o", metavar="REPORT"),
         reference=option("Folder of recordings.", metavar="DIR", optional=True),
         generated=option("Folder of what a model made.", metavar="DIR"),
         notes=option("Folder of MIDI files: the notes that should be heard.", metavar="DIR"),
         model=option("Instead of --generated: name or folder of a model that renders the notes first."),
         steps=option("Sampling steps of --model."),
         groups=option("Table of files and their groups, for Group-FAD; `folders`: each file's folder.",
                       metavar="CSV"),
         group_column=option("Its column of groups."),
         embeddings=option("tagger (default), mfcc, vggish:FILE, vggish_hub or trill; repeatable.",
                           "--embedding"),
         transcriber=option("Name or folder of a trained transcriber, or none."),
         inverter=option("As for reconstruct. The recordings also go through it, as a ceiling."),
         max_minutes=option("Of every file, its first minutes count."),
         seed=option("Of resampling, and of --model."),
         gin_file=option("Instead of all else: a recipe that fills a paper's table, such as "
                         "recipes/evaluation/spectrogram_diffusion.gin.", "--gin_file", "--gin-file",
                         metavar="FILE"),
         bindings=option("What the recipe leaves open; repeatable.", "--binding", metavar="NAME=VALUE"),
         seams=option("Instead: does one hear where segments meet? --model renders the notes, or "
                      "makes sound from noise, with segments that meet and without; -o takes seams.json."),
         gaps=option("Instead: how well does --model (generator) fill gaps in the recordings of "
                     "--reference? -o takes gaps.json."),
         check_ears=option("Instead: do the embeddings put recordings, copies and others in the order of "
                           "an ear? --reference; better with --groups, --notes, --soundfont; -o takes "
                           "ears.json.", "--check-ears", "--check_ears"),
         memorized=option("Instead: are there copies among --generated? The folder that was learned from; "
                          "--reference has music of the kind that was not; -o takes memorized.json.",
                          metavar="DIR"),
         soundfont=option("With --check-ears: plays the --notes.", metavar="FONT"),
         sources=option("Of a transfer: folder of recordings that were changed, or that --model changes.",
                        metavar="DIR"),
         conversions=option("Of a transfer: table of who plays in them, and who should (columns file, "
                            "source, target), as `prepare conversions` writes it.", metavar="CSV"),
         styles=option("Of a transfer: folder of recordings; each file should sound as that of the next "
                       "file with the same target does.", metavar="DIR"),
         performances=None, condition=None, performances_of=None, min_seconds=None, draws=None, level=None,
         splits=None, examples=None, method=None, parts=None, strength=None)
def evaluate(plan: functools.partial[EvaluationPlan], output: str | None = None,
             gin_file: str | None = None, bindings: tuple[str, ...] = (), seams: bool = False,
             gaps: bool = False, check_ears: bool = False, memorized: str | None = None,
             soundfont: str | None = None, json: bool = False) -> None:
    """Compare what a model made with recordings and notes, in a report to look at and listen to."""
    if seams:
        _seams(plan.keywords, output, json)
        return
    if gaps:
        _gaps(plan.keywords, output, json)
        return
    if check_ears:
        _ears(plan.keywords, soundfont, output, json)
        return
    if memorized is not None:
        _memorized(plan.keywords, memorized, output, json)
        return
    if soundfont is not None:
        raise UserError("--soundfont goes with --check-ears")
    if output is None:
        raise UserError("--output is missing: give a folder for the report")
    if gin_file is not None:
        _table(gin_file, bindings, output, json)
        return
    if plan.keywords["reference"] is None:
        raise UserError("--reference is missing: give the folder of recordings to compare with")
    if plan.keywords["generated"] is not None and plan.keywords["model"] is not None:
        raise UserError("--generated and --model exclude each other: give the folder or the model")
    from music_diffusion.workflows.evaluate import render_and_evaluate

    asked = plan(**{k: None for k in ("transcriber",) if plan.keywords[k] == NO_MODEL})
    report = render_and_evaluate(asked, output, monitor=terminal.TERMINAL)
    if json:
        terminal.print_json({k: v for k, v in report.items() if k != "files"})
    else:
        _show(report, output)


def _show(report: dict[str, Any], output: str) -> None:
    """Prints a line a figure for people; warnings go to stderr."""
    from music_diffusion.evaluation.charts import number
    from music_diffusion.evaluation.report import HTML

    for warning in report["warnings"]:
        terminal.say(f"warning: {warning}")
    for problem in report["problems"][:SHOWN]:
        terminal.say("{file}: {what}; {advice}".format(**problem))
    if len(report["problems"]) > SHOWN:
        terminal.say(f"and {len(report['problems']) - SHOWN} more; see the report")
    for figure in report["figures"]:
        if figure["value"] is not None:
            interval = ("" if figure["low"] is None else
                        f"  ({number(figure['low'])} … {number(figure['high'])})")
            print(f"{figure['label']}: {number(figure['value'])}{interval}")
    count = len(report["problems"])
    print(f"{os.path.join(output, HTML)}: {len(report['files'])} files, "
          f"{count} problem{'s' * (count != 1)}")


def _table(gin_file: str, bindings: tuple[str, ...], output: str, json: bool) -> None:
    from music_diffusion.workflows.tables import fill_table

    filled: FilledTable = fill_table(gin_file, bindings, output, terminal.TERMINAL)
    if json:
        terminal.print_json(filled.facts())
    else:
        print(filled.markdown(), end="")


def _request(kind: type[Asked], given: dict[str, Any]) -> Asked:
    """Returns a request of what is given of its fields."""
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{k: v for k, v in given.items() if k in names and v is not None})


def _seams(given: dict[str, Any], output: str | None, json: bool) -> None:
    if given["notes"] is None and given["model"] is None:
        raise UserError("--notes is missing: give the folder of MIDI files to render, or --model of one "
                        "that makes sound from noise")
    from music_diffusion.workflows.seams import measure_seams

    facts = measure_seams(_request(SeamsRequest, given), output, terminal.TERMINAL)
    if json:
        terminal.print_json(facts)
    else:
        print(seams_table(facts))


def _gaps(given: dict[str, Any], output: str | None, json: bool) -> None:
    if given["reference"] is None:
        raise UserError("--reference is missing: give the folder of recordings in which gaps are opened")
    from music_diffusion.workflows.gaps import measure_gaps

    facts = measure_gaps(_request(GapsRequest, given), output, terminal.TERMINAL)
    if json:
        terminal.print_json(facts)
    else:
        print(gaps_table(facts))


def _ears(given: dict[str, Any], soundfont: str | None, output: str | None, json: bool) -> None:
    if given["reference"] is None:
        raise UserError("--reference is missing: give the folder of recordings")
    from music_diffusion.workflows.check_ears import check_ears

    facts = check_ears(_request(EarsRequest, given | {"soundfont": soundfont}), output, terminal.TERMINAL)
    if json:
        terminal.print_json(facts)
    else:
        print(ears_table(facts))


def _memorized(given: dict[str, Any], training: str, output: str | None, json: bool) -> None:
    for name in ("generated", "reference"):
        if given[name] is None:
            raise UserError(f"--{name} is missing: --memorized compares --generated, and held-out music as "
                            "--reference, with what was learned from")
    from music_diffusion.workflows.memorized import memorized

    facts = memorized(_request(MemorizedRequest, given | {"training": training}), output, terminal.TERMINAL)
    if json:
        terminal.print_json(facts)
    else:
        print(memorized_table(facts))


def memorized_table(facts: dict[str, Any]) -> str:
    """Returns what `workflows.memorized` found, for people, in Markdown."""
    found = "" if facts["found"] is None else (
        f"| degraded copies of training music, found | {facts['found']:.2f} of {facts['planted']} |")
    lines = ["| nearest neighbours in the training set | |", "| --- | --- |",
             f"| samples | {facts['samples']} |", f"| median similarity | {facts['median']:.3f} |",
             f"| … of {facts['null']} held-out excerpts | {facts['null_median']:.3f} |",
             f"| most similar held-out excerpt | {facts['threshold']:.3f} |",
             f"| **samples beyond it: replicas** | **{facts['replicas']}** ({facts['share']:.3f}) |", found]
    return "\n".join(line for line in lines if line)


def ears_table(facts: dict[str, Any]) -> str:
    """Returns what `workflows.check_ears` found, for people, in Markdown."""
    embeddings = facts["embeddings"]
    orders = list(dict.fromkeys(order for e in embeddings.values() for order in e["by_order"]))
    lines = [f"# Order of an ear: {facts['recordings']} recordings", "",
             f"| nearer < farther | {' | '.join(embeddings)} |", "| --- " * (1 + len(embeddings)) + "|"]
    for order in orders:
        cells = ("{:.2f} of {}".format(*e["by_order"][order]) for e in embeddings.values())
        lines.append(f"| {order} | {' | '.join(cells)} |")
    total = (f"**{e['share']:.3f}**" + ("" if e["low"] is None else f" ({e['low']:.2f} … {e['high']:.2f})")
             + f" of {e['triples']}" for e in embeddings.values())
    lines += [f"| all | {' | '.join(total)} |", "",
              "1 is an ear, 0.5 is chance; distances from one half of a recording (docs/evaluation.md)."]
    return "\n".join(lines)


def gaps_table(facts: dict[str, Any]) -> str:
    """Returns what `workflows.gaps` found, for people, in Markdown."""
    lines = [f"# {facts['gaps']} gaps of {facts['seconds']:g} s, by {facts['model']}", "",
             "| filled by | change at edges, over elsewhere (p) | liveliness | error, nat | outside, nat |",
             "| --- | --- | --- | --- | --- |"]
    for name, row in facts["rows"].items():
        lines.append(f"| {name} | {row['edges']:.2f} ({row['p']:.3g}) | {row['spread']:.2f} | "
                     f"{row['error']:.3f} | {row['outside']:.2g} |")
    return "\n".join(lines)


def seams_table(facts: dict[str, Any]) -> str:
    """Returns what `workflows.seams` found, for people, in Markdown."""
    lines = [f"# Seams of {facts['model']}: {facts['joins']} joins in {facts['pieces']} pieces", "",
             "| segments | statistic | at joins | elsewhere (95 %) | percentile | p | |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, row in facts["rows"].items():
        for kind, unit, what in (("change", "nat", "change from frame to frame"),
                                 ("level", "dB", "step of the level")):
            test = row[kind]
            lines.append(f"| {name} | {what} | {test['at_joins']:.3f} {unit} | {test['elsewhere']:.3f} "
                         f"({test['low']:.3f} … {test['high']:.3f}) | {test['percentile']:.1f} | "
                         f"{test['p']:.3g} | {'seam' if test['p'] < NOT_CHANCE else 'none found'} |")
    return "\n".join(lines)
