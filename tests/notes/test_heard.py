"""Activations at a spectrogram's frames, instruments among those that are there, notes on others."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.notes.activations import (
    NUM_CLASSES,
    Activations,
    SparseClasses,
    draw_activations,
)
from music_diffusion.notes.decoding import DecodeConfig, decode_notes
from music_diffusion.notes.heard import (
    CHANNELS,
    HeardFrames,
    heard_frames,
    level,
    only_classes,
    recast,
)
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM

STEP, HOP = 0.025, 0.02


def ramp(frames, slope=1e-3):
    """Activations that rise linearly in time, each pitch from another value."""
    time = (np.arange(frames) + 0.5) * STEP
    onset = slope * time[:, None] + np.linspace(0, 0.5, 88)[None]
    return Activations(onset=onset, frame=1 - onset, velocity=onset, drums=np.zeros((frames, 61)),
                       classes=None, frame_seconds=STEP)


def test_what_is_linear_in_time_stays_so():
    heard = heard_frames(ramp(400, 0.05), 480, HOP)
    time = (np.arange(480) + 1) * HOP
    want = 0.05 * time[:, None] + np.linspace(0, 0.5, 88)[None]
    assert heard.shape == (480, CHANNELS) and heard.dtype == np.uint8
    np.testing.assert_allclose(heard[:, :88] / 255, want, atol=0.51 / 255)
    np.testing.assert_allclose(heard[:, 88:] / 255, 1 - want, atol=0.51 / 255)


@pytest.mark.parametrize("hop", [0.01, 0.02, 0.03])
@pytest.mark.parametrize("cuts", [(), (1,), (0, 3, 4, 4, 50), tuple(range(1, 100))])
def test_a_stream_gives_the_same_however_it_is_cut(cuts, hop):
    rng = np.random.default_rng(0)
    whole = dataclasses.replace(ramp(100), onset=rng.random((100, 88)), frame=rng.random((100, 88)))
    frames = int(100 * STEP / hop)

    def part(first, last):
        return dataclasses.replace(whole, **{name: getattr(whole, name)[first:last]
                                             for name in ("onset", "frame", "velocity", "drums")})

    stream, edges = HeardFrames(hop), [0, *cuts, 100]
    parts = [stream.push(part(a, b)) for a, b in zip(edges, edges[1:], strict=False)]
    parts.append(stream.finish(frames))
    np.testing.assert_array_equal(np.concatenate(parts), heard_frames(whole, frames, hop))
    assert stream._held.shape[0] < 6  # memory does not grow


def test_behind_the_end_nothing_is_heard():
    heard = heard_frames(ramp(4), 20, HOP)
    assert heard.shape == (20, CHANNELS) and heard[:3].any() and not heard[6:].any()
    assert not HeardFrames(HOP).finish(7).any() and HeardFrames(HOP).finish(7).shape == (7, CHANNELS)


def test_an_onset_is_seen_where_it_is():
    notes = Notes([1.0], [1.5], [60], [100], [0], [False])
    heard = heard_frames(draw_activations(notes, 0.0, 120, STEP), 150, HOP)
    onset, frame = heard[:, 60 - 21], heard[:, 88 + 60 - 21]
    assert (onset.argmax() + 1) * HOP == pytest.approx(1.0, abs=HOP)
    sounding = (np.flatnonzero(frame > 127) + 1) * HOP
    assert sounding[0] == pytest.approx(1.0, abs=HOP) and sounding[-1] == pytest.approx(1.5, abs=HOP)


def heard_as(probabilities):
    """Activations of one note whose classes have these probabilities, sparse."""
    notes = Notes([0.1], [0.6], [60], [100], [0], [False])
    drawn = draw_activations(notes, 0.0, 40, STEP)
    at, pitch = np.nonzero(drawn.frame)
    rows = np.zeros((len(at), NUM_CLASSES), np.float16)
    for kind, value in probabilities.items():
        rows[:, kind] = value
    return dataclasses.replace(drawn, classes=SparseClasses.gather(at, pitch, rows, 40))


@pytest.mark.parametrize("dense", [False, True])
def test_a_note_is_played_by_the_likeliest_of_those_that_are_there(dense):
    activations = heard_as({0: 0.4, 9: 0.3, 12: 0.1})
    if dense:
        full = np.zeros((40, 88, NUM_CLASSES), np.float32)
        sparse = activations.classes
        pitch, frame = np.divmod(sparse.cell, 40)
        full[frame, pitch] = sparse.probability
        activations = dataclasses.replace(activations, classes=full)

    def kind(classes):
        notes = decode_notes(only_classes(activations, classes), DecodeConfig())
        return [int(SLAKH_CLASS_OF_PROGRAM[p]) for p in notes.program]

    assert (kind([]), kind([9, 12]), kind([12]), kind([0, 12])) == ([0], [9], [12], [0])


def test_targets_are_no_answer_of_a_transcriber():
    drawn = draw_activations(Notes([0.1], [0.6], [60], [100], [0], [False]), 0.0, 40, STEP)
    with pytest.raises(ValueError, match="packed"):
        only_classes(drawn, [1])
    silent = dataclasses.replace(drawn, classes=None)
    assert only_classes(silent, [1]) is silent


def test_notes_are_put_on_other_instruments_by_their_class():
    #                violin  piano  bright piano  flute  drums
    notes = Notes(np.arange(5.0), np.arange(5.0) + 1, [60] * 5, [90] * 5, [40, 0, 1, 73, 0],
                  [False, False, False, False, True])
    violin, piano = int(SLAKH_CLASS_OF_PROGRAM[40]), int(SLAKH_CLASS_OF_PROGRAM[0])
    assert recast(notes, {violin: 56, piano: 11}).program.tolist() == [56, 11, 11, 73, 0]
    assert recast(notes, {violin: 56}, rest=46).program.tolist() == [56, 46, 46, 46, 0]
    # One after the other, a note on its new program would be moved again.
    assert recast(notes, {violin: 0, piano: 40}).program.tolist() == [0, 40, 40, 73, 0]
    assert notes.program.tolist() == [40, 0, 1, 73, 0]


def test_level_is_of_energies():
    mel = np.log(np.array([[1.0, 2.0], [0.0001, 3.0]]))
    assert level(mel) == pytest.approx(0.5 * np.log((1 + 4 + 1e-8 + 9) / 2))
    assert level(mel + 1.5) == pytest.approx(level(mel) + 1.5)
