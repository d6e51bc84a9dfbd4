"""The report of a small evaluation: whole, self-contained, readable by machines; and its pictures."""

import base64
import csv
import dataclasses
import html.parser
import io
import json
import math
import re
import zlib

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from reference.toy_listeners import CALLS, RATE, ToyLoader, play, sine_notes

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation import examples as examples_module
from music_diffusion.evaluation import report as report_module
from music_diffusion.evaluation.charts import (
    match_for_display,
    nice_ticks,
    number,
    png_uri,
    roll,
    spectrograms,
    strip,
)
from music_diffusion.evaluation.evaluate import evaluate
from music_diffusion.evaluation.examples import _first_sound, choose, mp3_uri
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.report import plain
from music_diffusion.evaluation.transcription import note_scores
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

ODD = "<b>&amp; \"ä\" 'x'"  # a file name that a careless page would run or lose
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An evaluation with pairs, groups, an inverter and some problems: (folder, content, plan)."""
    root = tmp_path_factory.mktemp("evaluation")
    for name in ("gen", "ref", "mid"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(["a", "b", "c", "d", ODD]):
        notes = sine_notes(i, program=40 * (i % 2))
        write_midi(notes, root / "mid" / f"{name}.mid")
        soundfile.write(root / "ref" / f"{name}.wav", play(notes), RATE)
        kept = notes[np.arange(8) >= i]
        soundfile.write(root / "gen" / f"{name}.wav",
                        play(kept) + 0.002 * i * rng.normal(size=4 * RATE), RATE)
    soundfile.write(root / "gen" / "alone.wav", 0.1 * rng.normal(size=(RATE, 2)), RATE)
    (root / "gen" / "broken.wav").write_text("no audio")
    (root / "groups.csv").write_text("file,group\na,one\nb,two\nc,one\nd,two\n")
    plan = EvaluationPlan(generated=str(root / "gen"), reference=str(root / "ref"), notes=str(root / "mid"),
                          groups=str(root / "groups.csv"), inverter="toy inverter", draws=10, splits=2)
    content = evaluate(plan, str(root / "out"), loader=ToyLoader(inverter=True))
    return root, content, plan


@pytest.fixture(scope="module")
def page(made):
    return Page((made[0] / "out" / "report.html").read_text("utf-8"))


def test_the_page_is_whole_and_has_its_parts(page):
    text = " ".join(page.text)
    assert page.tags.count("audio") == 9 and page.tags.count("image") == 9  # three examples, three sides
    for word in ("FAD, toy (this project's own)", "Floor", "Ceiling", "Note F1", "reference halves",
                 "Violin", "Group-FAD", "Best:", "Median:", "Worst:", "Cannot be read: 1",
                 "More than one channel: 1", "below 10 minutes", "8 bands, 0.25 s", "toy inverter"):
        assert word in text, word


def test_the_page_needs_no_network_and_no_script(page, made):
    source = (made[0] / "out" / "report.html").read_text("utf-8")
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert not [a for a in page.attributes if a[1].startswith("on")]
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert value.startswith("data:")
    assert "://" not in source and "@import" not in source and "url(" not in source
    assert len(source) < 10e6


def test_it_is_legible_in_light_and_dark(made):
    """Every colour is a variable that both schemes set."""
    source = (made[0] / "out" / "report.html").read_text("utf-8")
    style = source.partition("<style>")[2].partition("</style>")[0]
    light, dark = (set(re.findall(r"(--[\w-]+):", part)) for part in style.split("@media")[:2])
    used = set(re.findall(r"var\((--[\w-]+)\)", style))
    assert used <= light and light == dark
    rules = style.partition("* {")[2]
    assert not re.findall(r"#[0-9a-fA-F]{3,6}\b", rules)


def decoded(uri, kind):
    head, _, data = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


def test_sounds_and_pictures_can_be_decoded(page):
    sounds = [v for t, n, v in page.attributes if t == "audio" and n == "src"]
    for uri in sounds:
        samples, rate = soundfile.read(io.BytesIO(decoded(uri, "audio/mpeg")))
        assert rate == RATE and samples.ndim == 1 and len(samples) / rate == pytest.approx(4.0, abs=0.2)
        assert 0.1 < np.abs(samples).max() < 1.0
    for uri in (v for t, n, v in page.attributes if t == "image" and n == "href"):
        assert pixels(uri).shape == (128, 100)  # 4 s, 40 ms a column


def pixels(uri):
    """[H, W] indices of an indexed PNG, with checked sums."""
    content = decoded(uri, "image/png")
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(content):
        size = int.from_bytes(content[at:at + 4], "big")
        kind, body = content[at + 4:at + 8], content[at + 8:at + 8 + size]
        assert zlib.crc32(kind + body) == int.from_bytes(content[at + 8 + size:at + 12 + size], "big")
        chunks[kind], at = body, at + 12 + size
    width, height = (int.from_bytes(chunks[b"IHDR"][i:i + 4], "big") for i in (0, 4))
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert len(chunks[b"PLTE"]) == 768 and (rows[:, 0] == 0).all()
    return rows[:, 1:]


def test_names_are_shown_as_they_are(page):
    assert any(ODD in text for text in page.text)
    assert page.tags.count("b") == 2  # the page's own


def test_the_json_has_all_numbers_and_no_nan(made):
    root, content, plan = made
    text = (root / "out" / "report.json").read_text("utf-8")

    def refuse(word):
        raise AssertionError(word)

    loaded = json.loads(text, parse_constant=refuse)
    assert loaded == content
    assert loaded["settings"] == plain(dataclasses.asdict(plan))
    assert {f["name"] for f in loaded["files"]} == {"a", "b", "c", "d", ODD, "alone", "broken"}
    assert loaded["tools"]["embeddings"][0]["stand_in"] is True
    assert loaded["versions"]["music-diffusion"] and loaded["versions"]["numpy"]
    assert {"kind", "file", "what", "advice"} <= set(loaded["problems"][0])
    assert {p["kind"] for p in loaded["problems"]} == {
        "unreadable", "missing_pair", "stereo", "notes_missing", "no_group"}
    fad = next(f for f in loaded["figures"] if f["key"] == "fad:toy")
    assert fad["value"] > 0 and fad["median"] is None and fad["floors"] and fad["ceilings"]


def test_the_csv_has_a_row_a_file(made):
    root, content, _ = made
    with open(root / "out" / "scores.csv", newline="", encoding="utf-8") as f:
        rows = {row["file"]: row for row in csv.DictReader(f)}
    assert set(rows) == {f["name"] for f in content["files"]}
    for file in content["files"]:
        row = rows[file["name"]]
        for name, value in file["scores"].items():
            if value is None:
                assert row[name] == ""
            else:
                assert float(row[name]) == pytest.approx(value, rel=1e-4)
    assert rows["a"]["group"] == "one" and rows["b"]["instruments"] == "Violin"
    assert rows["broken"]["generated_seconds"] == "" and rows["alone"]["generated_seconds"] == "1.000"


def test_the_best_and_the_worst_are_shown(made, page):
    """Of a…d and ODD every next one misses a note more; the best is heard whole."""
    text = " ".join(page.text)
    assert "Best: a" in text and "Median: c" in text and f"Worst: {ODD}" in text
    assert "8 heard, 0 missed, 0 extra" in text and "4 heard, 4 missed, 0 extra" in text


def test_another_run_computes_nothing_and_tells_the_same(made):
    root, content, plan = made
    CALLS.clear()
    again = evaluate(plan, str(root / "out"), loader=ToyLoader(inverter=True))
    # What tells the tools apart, and the third player of each example.
    assert sorted(CALLS) == ["invert"] * 4 + ["transcribe"]
    drop = ("created",)
    assert {k: v for k, v in again.items() if k not in drop} == {
        k: v for k, v in content.items() if k not in drop}


def test_equal_folders_have_no_distance(made, tmp_path):
    root, _, _ = made
    plan = EvaluationPlan(generated=str(root / "ref"), reference=str(root / "ref"), notes=str(root / "mid"),
                          draws=5, splits=1, examples=0)
    content = evaluate(plan, str(tmp_path / "out"), loader=ToyLoader())
    found = {f["key"]: f["value"] for f in content["figures"]}
    assert found["fad:toy"] == pytest.approx(0.0, abs=1e-6)
    for key in ("reconstruction_toy", "log_mel_distance", "fine_spectral_distance",
                "pitch_jaccard_distance"):
        assert found[key] == 0.0
    assert found["onset_f1"] == 1.0 and content["problems"] == []
    assert "audio" not in Page((tmp_path / "out" / "report.html").read_text("utf-8")).tags


def test_sets_without_pairs_have_a_report_too(made, tmp_path):
    root, _, _ = made
    (tmp_path / "other").mkdir()
    for name in "abcd":
        (tmp_path / "other" / f"take {name}.wav").write_bytes((root / "ref" / f"{name}.wav").read_bytes())
    plan = EvaluationPlan(generated=str(root / "gen"), reference=str(tmp_path / "other"), draws=5)
    content = evaluate(plan, str(tmp_path / "out"), loader=ToyLoader())
    assert {f["section"] for f in content["figures"]} == {"Sets"}
    assert [p["kind"] for p in content["problems"]].count("unpaired") == 1
    assert any("sets alone" in w for w in content["warnings"])
    page = Page((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert page.tags.count("audio") == 6  # three of each side


def test_nothing_to_score_leaves_no_report(tmp_path):
    for name in ("gen", "ref"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.zeros(RATE * (name == "ref")), RATE)
    plan = EvaluationPlan(generated=str(tmp_path / "gen"), reference=str(tmp_path / "ref"))
    with pytest.raises(UserError, match="no generated file can be scored.*has no samples"):
        evaluate(plan, str(tmp_path / "out"), loader=ToyLoader())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["cache"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; give a folder"):
        evaluate(plan, str(tmp_path / "file"), loader=ToyLoader())


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40),
       better=st.sampled_from(["lower", "higher", "none"]))
def test_strips_keep_order_and_stay_inside(values, better):
    found = strip("x", better, [(str(i), v) for i, v in enumerate(values)], [("floor", min(values) - 1)])
    xs = [p.x for p in found.points]
    assert xs == sorted(xs) and len(xs) == len(values)
    marks, ticks = [m.x for m in found.marks], [t.at for t in found.ticks]
    assert all(0 <= x <= 1000 for x in [*xs, found.mean, *marks, *ticks])
    assert min(xs) - 0.1 <= found.mean <= max(xs) + 0.1 and found.marks[0].x <= xs[0]
    assert all(-1 <= p.y <= 1 for p in found.points)


def test_long_strips_are_thinned_evenly_and_say_so():
    found = strip("x", "lower", [(str(i), float(i)) for i in range(1000)], [])
    assert len(found.points) == 400 and found.left_out == 600
    assert found.points[0].title == "0: 0.000" and found.points[-1].title == "999: 999"
    assert np.diff([p.x for p in found.points]).max() < 3 * 1000 / 400


@given(low=st.floats(-100, 100), span=st.floats(1e-3, 1e4))
def test_ticks_are_few_round_and_inside(low, span):
    found = nice_ticks(low, low + span)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-9 * span <= t <= low + span * (1 + 1e-9) for t in found)
    assert np.allclose(np.diff(found), found[1] - found[0])


@pytest.mark.parametrize("value, text", [
    (math.nan, "–"), (0.0, "0.000"), (0.12345, "0.123"), (-0.5, "−0.500"), (3.14159, "3.14"),
    (31.4159, "31.4"), (31415.9, "31416"), (0.00012345, "1.2e−4"), (-2e-7, "−2.0e−7")])
def test_numbers_for_people(value, text):
    assert number(value) == text


def random_notes(rng, count):
    start = rng.integers(0, 40, size=count) * 0.02
    return Notes(start, start + 0.1, rng.integers(60, 63, size=count), np.full(count, 80), np.zeros(count),
                 rng.random(count) < 0.3)


@pytest.mark.parametrize("seed", range(20))
def test_displayed_hits_are_as_many_as_can_be(seed):
    """Against the matching that the scores use."""
    rng = np.random.default_rng(seed)
    asked, heard = random_notes(rng, 15), random_notes(rng, 12)
    hits, extra = match_for_display(asked, heard)
    scores = note_scores(asked, heard)
    assert heads(asked)[hits].sum() == scores.onset.matched + scores.drum_onset.matched
    assert heads(heard)[~extra].sum() == heads(asked)[hits].sum()
    assert heads(asked).sum() == scores.onset.reference + scores.drum_onset.reference


def heads(notes):
    """Which notes stay when unisons become one, by the definition."""
    first = {}
    result = np.zeros(len(notes), bool)
    for i, key in enumerate(zip(notes.pitch, notes.is_drum, strict=True)):
        if key not in first or notes.start[i] - first[key] > 0.05001:
            first[key], result[i] = notes.start[i], True
    return result


def test_unisons_are_heard_together():
    asked = Notes([0, 0.01, 1, 1], [0.5] * 2 + [1.5] * 2, [60] * 4, [80] * 4, [0, 40, 0, 40], [False] * 4)
    hits, extra = match_for_display(asked, asked[[0]])
    assert hits.tolist() == [True, True, False, False] and extra.tolist() == [False]


def test_a_roll_shows_what_was_asked_and_what_was_heard():
    asked = Notes([0.0, 1.0, 2.0, 9.0], [0.5, 1.5, 2.5, 9.5], [60, 64, 38, 70], [80] * 4, [0] * 4,
                  [False, False, True, False])
    heard = Notes([0.03, 1.2, 2.0], [0.5, 1.5, 2.1], [60, 64, 38], [80] * 3, [0] * 3, [False, False, True])
    found = roll(asked, heard, 0.0, 4.0)
    assert found.counts == {"hit": 2, "miss": 1, "extra": 1}  # the last one is outside
    boxes = {(b.kind, b.title.split(" at ")[0]): b for b in found.boxes}
    assert boxes["hit", "hit: pitch 60"].x == 0.0 and boxes["hit", "hit: pitch 60"].width == 124.0
    assert boxes["miss", "miss: pitch 64"].x == 250.0 and boxes["extra", "extra: pitch 64"].x == 300.0
    assert boxes["miss", "miss: pitch 64"].y < boxes["hit", "hit: pitch 60"].y  # higher pitches above
    assert boxes["hit", "hit: drum key 38"].y > found.drums_at
    assert [t.text for t in found.pitch_ticks] == ["C4"]
    assert roll(asked, heard, 20.0, 4.0) is None


def test_spectrograms_have_one_scale_and_their_pitch_where_the_axis_says():
    codec, time = MelCodec(), np.arange(32000) / 16000
    loud = 0.5 * np.sin(2 * np.pi * 1000 * time)
    pictures = spectrograms([("loud", loud), ("quiet", 0.01 * loud), ("short", loud[:16000])], codec, 3.0)
    images = [pixels(p.uri) for p in pictures]
    assert {i.shape for i in images} == {(128, 50)}
    row = int(images[0][:, 25].argmax())
    tick = next(t for t in pictures[0].frequency_ticks if t.text == "1 kHz")
    assert row / 128 == pytest.approx(tick.at, abs=1.5 / 128)
    # 40 dB less are 4.6 of 9 nat.
    drop = (int(images[0][row, 25]) - int(images[1][row, 25])) / 255
    assert drop == pytest.approx(math.log(100) / 9, abs=0.01)
    assert (images[2][:, 30:] == 0).all()  # silence after its end
    assert pictures[0].time_ticks[0].text == "3 s" and pictures[0].time_ticks[0].at == 0


def test_a_picture_survives_its_png():
    picture = np.random.default_rng(0).integers(0, 256, size=(7, 13)).astype(np.uint8)
    np.testing.assert_array_equal(pixels(png_uri(picture)), picture)


@pytest.mark.parametrize("rate, expected", [(44100, 44100), (96000, 48000), (20000, 16000), (6000, 8000)])
def test_players_have_a_rate_that_mp3_knows(rate, expected):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    samples, got = soundfile.read(io.BytesIO(decoded(mp3_uri(Waveform(tone, rate)), "audio/mpeg")))
    assert got == expected and np.abs(samples).max() == pytest.approx(0.5, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * got / len(samples) == pytest.approx(440, abs=2)


def test_an_excerpt_begins_with_sound():
    samples = np.zeros(60 * RATE, np.float32)
    samples[30 * RATE:] = 0.5
    wave = Waveform(samples, RATE)
    assert _first_sound(wave, 20.0) == 29.75
    assert _first_sound(wave, 40.0) == 20.0  # not beyond the end
    assert _first_sound(wave, 60.0) == _first_sound(None, 20.0) == 0.0


def test_choosing_without_scores_or_without_examples():
    assert choose([], 3) == []


def test_json_values_are_plain():
    assert plain({"a": (1, math.nan, [math.inf]), 2: np.float64(0.5), "b": None}) == {
        "a": [1, None, [None]], "2": 0.5, "b": None}


def test_what_fails_at_the_end_costs_no_figures(made, tmp_path, monkeypatch):
    """An example that cannot be made is left out; a page that cannot, comes after JSON and CSV."""
    _, _, plan = made

    def fail(*_, **__):
        raise RuntimeError("no\nencoder")

    monkeypatch.setattr(examples_module, "mp3_uri", fail)
    content = evaluate(plan, str(tmp_path / "a"), loader=ToyLoader(inverter=True))
    assert sum("is left out: RuntimeError: no encoder." in w for w in content["warnings"]) == 3
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_file()) == [
        "report.html", "report.json", "scores.csv"]
    monkeypatch.setattr(report_module, "render_html", fail)
    with pytest.raises(RuntimeError, match="encoder"):
        evaluate(plan, str(tmp_path / "a" / "b"), loader=ToyLoader(inverter=True),
                 cache=str(tmp_path / "a" / "cache"))
    assert json.loads((tmp_path / "a" / "b" / "report.json").read_text())["figures"] == content["figures"]
    assert (tmp_path / "a" / "b" / "scores.csv").exists()
