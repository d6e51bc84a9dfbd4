"""Shifts, drifts, jumps, other pieces, speeds and pitches that were put in are found again."""

import dataclasses
import re

import numpy as np
import pytest
import soxr
from layouts.faulty_folder import melody, play

from music_diffusion.data.checks import alignment, fit, maps, speeds
from music_diffusion.data.checks.hearing import RATE, Stretch
from music_diffusion.data.rooms import Room
from music_diffusion.notes.notes import Notes

LENGTH = 20.0


def compare(notes, samples, label=44100):
    return fit.compare("item", notes, maps.spectra((Stretch(start=0.0, samples=samples),)), label)


@pytest.fixture(scope="module")
def piece():
    notes = melody(1, LENGTH)
    return notes, play(notes, LENGTH, RATE)


def stretched(notes, ratio):
    return dataclasses.replace(notes, start=ratio * notes.start, end=ratio * notes.end)


def test_aligned_is_no_fault(piece):
    assert compare(*piece) == []


@pytest.mark.parametrize("spoil", [
    lambda x: Room(rt60=1.8, wet_db=-2.0, seed=1)(x, RATE),
    lambda x: x + 0.1 * np.random.default_rng(0).normal(size=len(x)).astype(np.float32) * x.std(),
    lambda x: 0.003 * x,
    lambda x: np.concatenate([x[480:], np.zeros(480, np.float32)]),  # 30 ms early
    lambda x: soxr.resample(x, RATE, RATE * 2 ** (20 / 1200)),  # 20 cents
], ids=["room", "noise", "faint", "30 ms", "20 cents"])
def test_what_recordings_do_is_no_fault(piece, spoil):
    notes, samples = piece
    assert compare(notes, spoil(samples)) == []


@pytest.mark.parametrize("shift", [-3.0, -0.4, 0.4, 1.25, 25.0])
def test_a_shift_is_measured(piece, shift):
    notes, _ = piece
    late = play(notes.shift(max(shift, 0)), LENGTH + max(shift, 0), RATE)
    found = compare(notes.shift(max(-shift, 0)), late)
    assert [f.kind for f in found] == ["misaligned"]
    amount, way = re.search(r"([\d.]+) s (later|earlier)", found[0].measured).groups()
    # Frames are 25 ms apart.
    assert float(amount) * (1 if way == "later" else -1) == pytest.approx(shift, abs=0.04)


def test_a_drift_and_a_jump_are_told_apart():
    notes = melody(2, 60.0)
    found = compare(stretched(notes, 1 / 1.015), play(notes, 60.0, RATE))
    assert [f.kind for f in found] == ["misaligned"]
    first, last = map(float, re.findall(r"([+-][\d.]+) s", found[0].measured))
    assert "drifts evenly" in found[0].measured
    # The lag grows by 0.015 s a second, from the first segment's centre to the last one's.
    assert last - first == pytest.approx(0.015 * 50, abs=0.15)
    cut = np.delete(play(notes, 60.0, RATE), slice(29 * RATE, 31 * RATE))
    found = compare(notes, cut)
    assert [f.kind for f in found] == ["misaligned"]
    # The segments are 9.7 s long, and one of them ends there.
    assert int(re.search(r"jumps at about 0:(\d+)", found[0].measured)[1]) == pytest.approx(29, abs=2)
    first, last = map(float, re.findall(r"([+-][\d.]+) s", found[0].measured))
    assert (first, last) == pytest.approx((0, -2), abs=0.05)


def test_another_piece_fits_nowhere(piece):
    found = compare(melody(77, LENGTH), piece[1])
    assert [f.kind for f in found] == ["misaligned"] and "no shift fits" in found[0].measured


@pytest.mark.parametrize("true, label", [(48000, 44100), (44100, 48000), (8000, 16000)])
def test_a_wrong_rate_label_is_heard_as_speed_and_pitch(piece, true, label):
    notes, samples = piece
    slow = soxr.resample(samples, label, true).astype(np.float32)  # lasts true / label times as long
    found = compare(notes, slow, label)
    assert [f.kind for f in found] == ["wrong rate"]
    assert found[0].advice.startswith(f"write {true} Hz")
    semitones = 12 * np.log2(label / true)
    assert f"{abs(semitones):.2f} semitones {'higher' if semitones > 0 else 'lower'}" in found[0].measured


def test_a_transposition_is_told_from_a_wrong_rate(piece):
    notes, samples = piece
    found = compare(dataclasses.replace(notes, pitch=notes.pitch + 1), samples)
    assert "1.00 semitones lower" in found[0].measured and "transposed" in found[0].measured


def clicks(notes, seconds):
    rng = np.random.default_rng(0)
    out = 1e-4 * rng.normal(size=round(seconds * RATE))
    for start in notes.start:
        at = round(start * RATE)
        burst = rng.normal(size=800) * np.exp(-np.arange(800) / 150)
        out[at:at + 800] += 0.3 * burst[:len(out) - at]
    return out.astype(np.float32)


def test_drums_are_aligned_by_their_onsets():
    drums = melody(3, LENGTH)
    drums = dataclasses.replace(drums, is_drum=np.ones(len(drums), bool))
    assert compare(drums, clicks(drums, LENGTH)) == []
    found = compare(drums, clicks(drums.shift(0.7), LENGTH + 1))
    assert "onsets" in found[0].measured
    assert float(re.search(r"([\d.]+) s later", found[0].measured)[1]) == pytest.approx(0.7, abs=0.04)


def test_sounds_without_the_pitches_of_their_notes_are_aligned_by_their_onsets():
    notes = melody(6, LENGTH)
    assert compare(notes, clicks(notes, LENGTH)) == []


def test_nothing_is_said_where_nothing_can_be_told():
    time = np.arange(round(LENGTH * RATE)) / RATE
    drone = (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=len(time)).astype(np.float32) * 0.01
    few = melody(4, LENGTH)[:6]
    held = Notes([0.0], [LENGTH], [57], [80], [0], [False])
    assert compare(few, drone + noise) == []  # too few notes
    assert compare(held, drone + noise) == []
    # The same chord again and again, tied: the notes never change what sounds.
    start = np.repeat(np.arange(0, 19.0), 3)
    tied = Notes(start, start + 1.5, np.tile([57, 61, 64], 19), np.full(57, 80), np.zeros(57),
                 np.zeros(57, bool))
    assert compare(tied, drone + noise) == []


def test_correlation_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    notes = melody(5, 6.0)
    heard = [(0.0, rng.normal(size=(60, maps.PITCHES)).astype(np.float32)),
             (1.5, rng.normal(size=(80, maps.PITCHES)).astype(np.float32))]
    reach = 20  # frames
    found = alignment.correlate_pitches(heard, notes, reach * maps.HOP)
    margin = maps.margin(maps.HOP)
    for lag in (-20, -3, 0, 7, 20):
        product = energy = 0.0
        for start, segment in heard:
            # A lag of n frames: frame i of the audio is compared with the notes n frames before.
            first = start - (reach + margin) * maps.HOP
            wide = maps.promised_map(notes, first, len(segment) + 2 * (reach + margin))
            promised = wide[margin + reach - lag:][:len(segment)]
            product += float((segment * promised).sum())
            energy += float(np.square(promised).sum())
        at = lag + reach
        assert found.product.sum(axis=0)[at] == pytest.approx(product, abs=2e-3)
        assert found.promised[at] == pytest.approx(energy, rel=1e-4)
    assert found.heard == pytest.approx(sum(np.square(s).sum() for _, s in heard), rel=1e-5)


def test_promised_map_begins_where_it_is_asked_to():
    note = Notes([1.0], [2.0], [69], [80], [0], [False])
    for start in (-2.0, 0.0, 0.5):
        column = maps.promised_map(note, start, 240)[:, 69 - maps.LOWEST]
        sounding = start + (np.flatnonzero(column > 0.5 * column.max()) + 0.5) * maps.HOP
        assert sounding.min() == pytest.approx(1.0, abs=maps.HOP)
        assert sounding.max() == pytest.approx(2.0, abs=maps.HOP)


def test_changes_hold_the_common_mistakes():
    ratios = {round(c.ratio, 3) for c in speeds.changes()}
    assert {1.088, 0.919, 2.0, 0.5} <= ratios
    # Some instruments are written an octave off.
    assert max(abs(c.semitones) for c in speeds.changes() if c.ratio == 1) < 12
    for change in speeds.changes():
        if change.ratio != 1 and change.semitones:
            assert change.semitones == pytest.approx(-12 * np.log2(change.ratio))
