"""Figures over files: against direct computation, and that each says what it is worth."""

import dataclasses
import math

import numpy as np
import pytest
from reference.toy_listeners import ToyEmbedder, ToyTranscriber

from music_diffusion.errors import UserError
from music_diffusion.evaluation.bootstrap import bootstrap_interval
from music_diffusion.evaluation.frechet import (
    fad_infinity,
    fit_gaussian,
    frechet_audio_distance,
    frechet_distance,
)
from music_diffusion.evaluation.groups import group_scores
from music_diffusion.evaluation.kernel_distance import kernel_audio_distance, median_distance
from music_diffusion.evaluation.pairing import ItemFiles, Problem
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import FileResult
from music_diffusion.evaluation.set_metrics import kernel_sums, quick_frechet, set_metrics
from music_diffusion.evaluation.sounds import AudioFacts
from music_diffusion.evaluation.summary import summarize
from music_diffusion.evaluation.tools import Tools
from music_diffusion.evaluation.transcription import NoteCounts, NoteScores

PLAN = EvaluationPlan(generated="gen", reference="ref", notes="mid", inverter="vocoder", draws=20, splits=2)
TOOLS = Tools(embedders=(ToyEmbedder(),), transcriber=ToyTranscriber(), transcriber_name="ear")


def clips(seed, files=6, size=20, shift=0.0, spread=0.3):
    """Embeddings [size, 8] of each file, around a centre of its own."""
    rng = np.random.default_rng(seed)
    return [(shift + spread * rng.normal(size=8) + rng.normal(size=(size, 8))).astype(np.float32)
            for _ in range(files)]


def result(name, made=None, real=None, inverted=None, *, scores=None, group=None, counts=None,
           instruments=None, seconds=60.0, problems=()):
    """A file with the embeddings of some sides."""
    sides = {k: v for k, v in (("generated", made), ("reference", real), ("inverted", inverted))
             if v is not None}
    facts = {side: AudioFacts(seconds=seconds, sample_rate=8000, channels=1, peak=0.5, cut=False)
             for side in sides if side != "inverted"}
    return FileResult(
        item=ItemFiles(name=name, generated="g" if made is not None else None, group=group,
                  reference="r" if real is not None else None),
        problems=list(problems), facts=facts, embeddings={"toy": sides}, scores=scores or {},
        counts=counts or {}, instruments=instruments or {}, notes=None, heard={})


def figures(results, plan=PLAN, tools=TOOLS, **more):
    return {f.key: f for f in summarize(plan, tools, results, [], **more).figures}


def pairs(made, real, inverted=None, **fields):
    return [result(f"f{i}", a, b, inverted[i] if inverted else None, **fields)
            for i, (a, b) in enumerate(zip(made, real, strict=True))]


def test_sets_are_compared_as_a_whole():
    made, real, through = clips(0), clips(1, shift=0.5), clips(2, shift=0.4)
    found = figures(pairs(made, real, through))
    a, b, c = (np.concatenate(x) for x in (made, real, through))
    assert found["fad:toy"].value == pytest.approx(frechet_audio_distance(a, b), rel=1e-9)
    assert found["fad:toy"].ceilings[0].value == pytest.approx(frechet_audio_distance(c, b), rel=1e-9)
    assert found["fad_infinity:toy"].value == pytest.approx(fad_infinity(a, b).value, rel=1e-9)
    assert found["kad:toy"].value == pytest.approx(kernel_audio_distance(a, b), rel=1e-9)
    assert found["kad:toy"].ceilings[0].value == pytest.approx(kernel_audio_distance(c, b), rel=1e-9)
    for figure in found.values():
        assert figure.low < figure.value < figure.high
        assert (figure.files, figure.reference_files) == (6, 6)
        assert figure.minutes == figure.reference_minutes == 6.0
        assert figure.ceilings[0].of == "reference through vocoder"


def test_the_floor_is_of_halves_of_the_reference():
    """With four files there are three ways to halve them; the mean is between their extremes."""
    real = clips(3, files=4)
    found = set_metrics(clips(4), real, [], dataclasses.replace(PLAN, splits=8))
    halves = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    sets = [[np.concatenate([real[i] for i in half]) for half in pair] for pair in halves]
    fads = [frechet_audio_distance(a, b) for a, b in sets]
    width = median_distance(np.concatenate(real))
    kads = [kernel_audio_distance(a, b, bandwidth=width) for a, b in sets]
    assert min(fads) <= found["fad"].floor <= max(fads)
    assert min(kads) <= found["kad"].floor <= max(kads)
    assert all(math.isnan(m.ceiling) for m in found.values())
    # One way to halve at a time is one of the three, exactly.
    for seed in range(3):
        one = set_metrics(clips(4), real, [], dataclasses.replace(PLAN, splits=1, seed=seed))
        which = [i for i, fad in enumerate(fads) if one["fad"].floor == pytest.approx(fad, rel=1e-6)]
        assert len(which) == 1 and one["kad"].floor == pytest.approx(kads[which[0]], abs=1e-9)


def test_kernel_sums_are_those_of_all_pairs():
    x, y = clips(0, files=3, size=4), clips(1, files=2, size=5)
    found = kernel_sums(x, y, 1.7)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            expected = sum(math.exp(-np.square(u.astype(float) - v).sum() / (2 * 1.7**2))
                           for u in a for v in b)
            assert found[i, j] == pytest.approx(expected, rel=1e-6)


def test_intervals_of_kad_are_those_of_drawn_files():
    """Sums over pairs of files give what concatenated embeddings give."""
    made, real = clips(0, size=5), clips(1, size=5)
    target = np.concatenate(real)
    width = median_distance(target)
    expected = bootstrap_interval(lambda x: kernel_audio_distance(x, target, bandwidth=width), made,
                                  draws=20, seed=PLAN.seed)
    found = set_metrics(made, real, [], PLAN)["kad"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("size, rank", [(50, 8), (5, 8), (50, 3)], ids=["many", "few", "flat"])
def test_the_quick_distance_is_frechets(size, rank):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, rank)) @ rng.normal(size=(rank, 8)) + rng.normal(size=8)
            for n in (size, 40))
    target = fit_gaussian(y)
    expected = frechet_distance(fit_gaussian(x), target)
    assert quick_frechet(x, target) == pytest.approx(expected, rel=1e-6)
    assert quick_frechet(y, target) == pytest.approx(0, abs=1e-5 * np.trace(target.cov))


def test_intervals_are_those_of_the_frechet_distance():
    made, real = clips(0), clips(1)
    target = np.concatenate(real)
    expected = bootstrap_interval(lambda x: frechet_audio_distance(x, target), made, draws=20,
                                  seed=PLAN.seed)
    found = set_metrics(made, real, [], PLAN)["fad"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-5)


def test_equal_sets_have_no_distance_and_shifted_ones_rank_in_order():
    real = clips(1)
    assert figures(pairs(real, real))["fad:toy"].value == pytest.approx(0.0, abs=1e-6)
    for key in ("fad:toy", "kad:toy", "fad_infinity:toy"):
        values = [figures(pairs([c + shift for c in real], real))[key].value for shift in (0.1, 0.3, 1.0)]
        assert values == sorted(values) and values[0] > (0 if key == "fad:toy" else -1)


@pytest.mark.parametrize("made, real, reasons", [
    (clips(0, files=1, size=1), clips(1), {"fad:toy", "fad_infinity:toy", "kad:toy"}),
    (clips(0, files=1, size=3), clips(1), {"fad_infinity:toy"}),
    (clips(0), [np.zeros((9, 8), np.float32)] * 4, {"kad:toy"})], ids=["one", "three", "equal"])
def test_what_cannot_be_computed_says_why(made, real, reasons):
    results = [result(f"g{i}", c) for i, c in enumerate(made)]
    results += [result(f"r{i}", None, c) for i, c in enumerate(real)]
    found = figures(results)
    assert {k for k, f in found.items() if math.isnan(f.value)} == reasons
    assert all(found[k].note for k in reasons)
    assert all(math.isnan(found[k].low) for k in reasons)


def test_single_files_have_no_interval_and_few_references_no_floor():
    found = figures([result("a", clips(0, files=1)[0], clips(1, files=1)[0])])
    assert math.isnan(found["fad:toy"].low) and found["fad:toy"].floors == ()
    assert found["fad:toy"].value > 0


def test_fewer_embeddings_than_dimensions_are_told():
    few = pairs(clips(0, files=2, size=3), clips(1, files=2, size=3))
    assert "mostly bias" in figures(few)["fad:toy"].note
    assert figures(pairs(clips(0), clips(1)))["fad:toy"].note == ""


def test_means_are_over_the_files_that_have_the_score():
    made, real = clips(0, files=4), clips(1, files=4)
    scores = [{"onset_f1": v, "reference:onset_f1": 0.9, "unrelated:onset_f1": u, "log_mel_distance": 1.0}
              for v, u in ((0.2, 0.0), (0.4, 0.1), (0.9, 0.2), (math.nan, 0.9))]
    results = [dataclasses.replace(r, scores=s) for r, s in zip(pairs(made, real), scores, strict=True)]
    found = figures(results)
    f1 = found["onset_f1"]
    assert (f1.value, f1.median, f1.files, f1.minutes) == (pytest.approx(0.5), 0.4, 3, 3.0)
    assert 0.1 < f1.low < 0.5 < f1.high < 1.0
    # Of the same three files.
    assert [b.value for b in f1.floors] == [pytest.approx(0.1)]
    assert [(b.of, b.value) for b in f1.ceilings] == [("reference as it is", pytest.approx(0.9))]
    assert found["log_mel_distance"].low == found["log_mel_distance"].high == 1.0
    assert "chroma_f1" not in found  # nobody has it


def test_pooled_scores_count_notes_and_not_files():
    counts = [NoteScores(onset=NoteCounts(matched=m, reference=n, estimate=n))
              for m, n in ((1, 2), (90, 90))]
    results = [dataclasses.replace(r, scores=c.values(), counts={"generated": {
        f.name: getattr(c, f.name) for f in dataclasses.fields(c)}})
        for r, c in zip(pairs(clips(0, files=2), clips(1, files=2)), counts, strict=True)]
    found = figures(results)["onset_f1"]
    assert found.value == pytest.approx(0.75) and found.pooled == pytest.approx(91 / 92)


def test_groups_are_those_of_the_embeddings():
    made = [(g, c + d) for g, d in (("a", 0.0), ("b", 3.0)) for c in clips(0, files=2)]
    real = [(g, c + d) for g, d in (("a", 0.2), ("b", 3.2), ("c", 9.0), ("d", -9.0))
            for c in clips(1, files=2)]
    results = [result(f"g{i}", c, group=g) for i, (g, c) in enumerate(made)]
    results += [result(f"r{i}", None, c, group=g) for i, (g, c) in enumerate(real)]
    results.append(result("free", clips(5, files=1)[0]))
    plan = dataclasses.replace(PLAN, groups="groups.csv")
    summary = summarize(plan, TOOLS, results, [])
    direct = group_scores({g: np.concatenate([c for h, c in made if h == g]) for g in "ab"},
                          {g: np.concatenate([c for h, c in real if h == g]) for g in "abcd"})
    groups = summary.groups[0]
    assert groups.group_fad == pytest.approx(direct.group_fad) and groups.nearest == {"a": "a", "b": "b"}
    assert (groups.top1, groups.file_top1, groups.reference_groups) == (1.0, 1.0, 4)
    found = {f.key: f for f in summary.figures}
    assert found["group_fad:toy"].value == pytest.approx(direct.mean_group_fad)
    assert found["group_top1:toy"].floors[0].value == 0.25
    assert found["group_top3:toy"].floors[0].value == 0.75
    # A group that the reference lacks is left out, and named.
    more = [*results, result("x", clips(6, files=1)[0], group="lost")]
    assert [(p.kind, p.file) for p in summarize(plan, TOOLS, more, []).problems] == [
        ("no_group", "group lost")]


def test_scores_by_group_and_by_instrument():
    one = NoteCounts(matched=3, reference=4, estimate=6)
    two = NoteCounts(matched=1, reference=4, estimate=2)
    results = pairs(clips(0, files=3), clips(1, files=3))
    fields = [("x", 0.1, {"Violin": one}), ("x", 0.3, {"Violin": two, "Drums": one}),
              ("y", 0.8, {"Drums": two})]
    results = [dataclasses.replace(
        r, item=dataclasses.replace(r.item, group=g), scores={"onset_f1": v},
        instruments={k: {"found": c, "named": c} for k, c in i.items()})
        for r, (g, v, i) in zip(results, fields, strict=True)]
    summary = summarize(PLAN, TOOLS, results, [])
    assert {g: (row["onset_f1"].mean, row["onset_f1"].files) for g, row in summary.by_group.items()} == {
        "x": (pytest.approx(0.2), 2), "y": (0.8, 1)}
    rows = {row.name: row for row in summary.instruments}
    assert (rows["Violin"].notes, rows["Violin"].recall) == (8, 0.5)
    assert rows["Violin"].named_f1 == pytest.approx(2 * 4 / (8 + 8))
    assert rows["Drums"].scores["onset_f1"].median == pytest.approx(0.55)


def test_stand_ins_are_named_in_every_figure_they_make():
    results = pairs(clips(0, files=2), clips(1, files=2),
                    scores={"onset_f1": 0.5, "reconstruction_toy": 1.0, "pitch_jaccard_distance": 0.1,
                            "log_mel_distance": 1.0})
    plan = dataclasses.replace(PLAN, groups="x.csv")
    results = [dataclasses.replace(r, item=dataclasses.replace(r.item, group="a")) for r in results]
    for key, figure in figures(results, plan).items():
        whose = "ear (" if key in ("onset_f1", "pitch_jaccard_distance") else "toy ("
        assert (f"{whose}this project's own)" in figure.label) == (key != "log_mel_distance"), key
    published = dataclasses.replace(TOOLS, embedders=(ToyEmbedder(stand_in=False),),
                                    transcriber_stand_in=False)
    summary = summarize(plan, published, results, [])
    assert not any("project" in f.label for f in summary.figures)
    assert not any("project" in w for w in summary.warnings)


@pytest.mark.parametrize("seconds, sides", [(590.0, 2), (610.0, 0)])
def test_little_audio_is_a_warning_for_each_side(seconds, sides):
    summary = summarize(PLAN, TOOLS, [result("a", clips(0)[0], clips(1)[0], seconds=seconds)], [])
    assert sum("below 10 minutes" in w for w in summary.warnings) == sides


def test_silent_files_and_missing_pairs_are_warnings():
    silent = result("a", clips(0)[0], clips(1)[0])
    silent.facts["generated"] = dataclasses.replace(silent.facts["generated"], peak=0.0)
    problem = Problem(kind="unpaired", file="gen", what="", advice="")
    summary = summarize(dataclasses.replace(PLAN, notes=None), TOOLS, [silent], [problem])
    text = " ".join(summary.warnings)
    assert "1 generated file is silent" in text and "sets alone" in text and "No notes" in text


def test_the_speed_of_the_model_is_a_figure():
    speed = {"model": "default", "realtime_factor": 7.5, "audio_seconds": 120.0, "files": 3, "note": "CPU"}
    found = figures(pairs(clips(0), clips(1)), speed=speed)["realtime_factor"]
    assert (found.value, found.minutes, found.files, found.note) == (7.5, 2.0, 3, "CPU")


def test_problems_are_in_order_of_gravity():
    def problem(kind, file):
        return Problem(kind=kind, file=file, what="", advice="")

    results = [result("a", clips(0)[0], clips(1)[0],
                      problems=[problem("stereo", "a"), problem("silent", "b")])]
    summary = summarize(PLAN, TOOLS, results, [problem("stereo", "0"), problem("unreadable", "z")])
    assert [(p.kind, p.file) for p in summary.problems] == [
        ("unreadable", "z"), ("silent", "b"), ("stereo", "0"), ("stereo", "a")]


def test_nothing_to_score_is_an_error_that_names_a_reason():
    problem = Problem(kind="unreadable", file="x.wav", what="the file is empty", advice="")
    with pytest.raises(UserError, match="no generated file can be scored.*x.wav: the file is empty"):
        summarize(PLAN, TOOLS, [result("a", None, clips(1)[0])], [problem])
    with pytest.raises(UserError, match="no reference file can be scored"):
        summarize(PLAN, TOOLS, [result("a", clips(1)[0])], [])
    # Notes can be scored without a reference.
    counts = {f.name: NoteCounts(matched=1, reference=2, estimate=2)
              for f in dataclasses.fields(NoteScores)}
    found = figures([result("a", clips(1)[0], scores={"onset_f1": 0.5}, counts={"generated": counts})])
    assert found["onset_f1"].value == 0.5 and "fad:toy" not in found
