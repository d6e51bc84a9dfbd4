"""`music-diffusion evaluate --seams`: overlapping and independent renderings of one piece."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from reference.tiny_release import MODEL, tiny_params

from music_diffusion.cli import main as module
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.synthesizer import Settings, Synthesizer
from music_diffusion.workflows import seams as evaluate_seams

SECONDS = 12.0


def piece_of(seconds=SECONDS):
    start = np.arange(0, seconds, 0.45)
    pitch = 60 + np.arange(len(start)) % 12
    return Notes(start, start + 0.4, pitch, np.full(len(start), 80), np.zeros(len(start)),
                 np.zeros(len(start), bool))


@pytest.fixture(scope="module")
def synthesizer():
    windows = Windows(frames=128, overlap=32, group=2)
    return Synthesizer(name="tiny", model=MODEL, params=tiny_params(),
                       joining=OverlapJoining(windows=windows))


@pytest.fixture(scope="module")
def pair(synthesizer):
    return evaluate_seams.render_pair(synthesizer, piece_of(), Settings(seed=3))


def test_segments_are_cut_from_two_seeds_where_others_overlap(synthesizer, pair):
    faded, cut = pair
    whole = np.concatenate(list(synthesizer.stream_mel(piece_of(), Settings(seed=3))))
    np.testing.assert_array_equal(faded.mel, whole)
    assert faded.joins.tolist() == cut.joins.tolist() == list(range(96, len(whole) - 32, 96))
    assert (faded.overlap, cut.overlap) == (32, 0) and cut.mel.shape == whole.shape
    assert np.abs(cut.mel[96:192] - faded.mel[96:192]).max() > 0.1


def test_windows_apart_are_not_faded():
    x0 = np.ones((1, 128, 4))
    apart = evaluate_seams.Apart(frames=128, overlap=32, group=1)
    assert apart.fade(x0, np.zeros((32, 4)), np.ones(())) is x0
    assert apart.for_length(1000) == apart != Windows(frames=128, overlap=32, group=1)


def test_the_command_prints_a_table_or_json(pair, synthesizer, tmp_path, monkeypatch, capsys):
    (tmp_path / "midi").mkdir()
    write_midi(piece_of(), tmp_path / "midi" / "a.mid")
    monkeypatch.setattr(evaluate_seams, "load", lambda name: synthesizer)
    monkeypatch.setattr(evaluate_seams, "render_pair", lambda *_: pair)

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", "evaluate", "--seams", *arguments])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    notes = ("--notes", str(tmp_path / "midi"))
    code, out, _ = cli(*notes, "--json", "-o", str(tmp_path / "out"))
    facts = json.loads(out)
    assert code == 0 and json.loads((tmp_path / "out" / "seams.json").read_text()) == facts
    assert list(facts["rows"]) == ["overlap, where segments begin", "overlap, all along", "independent"]
    assert facts["joins"] == len(pair[0].joins) and 0 < facts["rows"]["independent"]["change"]["p"] <= 1
    code, out, _ = cli(*notes)
    assert code == 0 and out.count("| independent |") == 2 and "change from frame to frame" in out
    code, _, err = cli()
    assert code == 2 and "--notes is missing" in err


def test_models_without_overlaps_are_refused(synthesizer):
    class Joining:
        def name(self, model):
            return "context"

    with pytest.raises(UserError, match="do not overlap"):
        evaluate_seams.render_pair(dataclasses.replace(synthesizer, joining=Joining()), piece_of(),
                                   Settings())
