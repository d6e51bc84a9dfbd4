"""Frame-wise conditions: what is learned from and what is rendered from are the same."""

import dataclasses
import functools

import numpy as np
import pytest
from reference.excerpts import (
    CODECS,
    MELS,
    WEIGHTS,
    excerpt_of,
    mapped_record,
    random_notes,
    tiny_timbre,
)

from music_diffusion.conditions.base import Source
from music_diffusion.conditions.note_frames import NoteFrames, frame_grid
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

RING, TAILS = 0.2, (0.3, 0.6)  # seconds
SECONDS, NOTES_UNTIL = 3.6, 2.4  # after 2.4 + 0.4 + 0.2 s nothing is drawn any more
WINDOW = 0.32
HALF = 6e-4  # of scaled maps in half precision
every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{1000 / c.frame_rate:.1f}ms")


@functools.cache
def piece(codec, on_the_grid=False):
    """(record, conditions, piece): the same notes as training has them and as they are rendered."""
    notes, hop = random_notes(NOTES_UNTIL), codec.hop / codec.sample_rate
    if on_the_grid:
        onset = np.round(notes.start / hop) * codec.hop / codec.sample_rate
        notes = dataclasses.replace(notes, start=onset, end=onset + 3 * hop)
    config, timbre = tiny_timbre(codec)
    frames = int(SECONDS * codec.frame_rate)
    record = mapped_record(config, timbre, notes, frames, RING)
    conditions = NoteFrames(slots=0, ring=RING, tails=TAILS, timbre=config, base_maps=True)
    source = Source(codec=codec, frames=frames, notes=notes, performance=WEIGHTS)
    return record, conditions, conditions.of_piece(source, {"timbre": timbre})


def frames_of(seconds, codec):
    return round(seconds * codec.frame_rate)


def power(codec, scaled):
    return np.exp(2 * codec.unscale(np.asarray(scaled, np.float64)))


def assert_same(codec, got, want, tails=slice(None), atol=2e-5):
    """All features but the performance, which is a number for training.

    Maps differ by the rounding of ages (measured 2e-6). Windows of a group hear more than 60 dB of
    tails of what was before the first: 1e-6 of the loudest power.
    """
    assert got.keys() - {"performance"} == want.keys() == {"roll", "maps", "base_maps", "tails"}
    np.testing.assert_array_equal(got["roll"], want["roll"])
    for name in ("maps", "base_maps"):
        assert got[name].shape == want[name].shape and got[name].dtype == want[name].dtype == np.float32
        np.testing.assert_allclose(got[name], want[name], atol=atol, err_msg=name)
    assert got["tails"].shape == want["tails"].shape and got["tails"].dtype == want["tails"].dtype
    a, b = (power(codec, x["tails"][tails]) for x in (got, want))
    half_range = (codec.log_max - codec.log_min) / 2
    np.testing.assert_allclose(a, b, rtol=4 * half_range * atol, atol=1e-6 * b.max(), err_msg="tails")


def window(piece, firsts, size, number=0):
    return {name: values[number] for name, values in piece.windows(firsts, size).items()}


def of_record(conditions, record, first, size, codec):
    return conditions.of_record(excerpt_of(record, first, size, codec))


@every_codec
@pytest.mark.parametrize("second", [0.0, 0.5, 1.7])
def test_rendering_has_the_features_of_training(codec, second):
    record, conditions, rendered = piece(codec)
    first, size = frames_of(second, codec), frames_of(WINDOW, codec)
    want = of_record(conditions, record, first, size, codec)
    assert_same(codec, window(rendered, [first], size), want)
    for name in ("maps", "base_maps", "tails", "roll"):
        assert np.ptp(want[name]) > 0.1  # there is something to be wrong
    assert np.abs(want["maps"] - want["base_maps"]).max() > 0.02


def test_records_in_half_precision_differ_by_their_rounding():
    codec = CODECS[0]
    record, conditions, rendered = piece(codec)
    stored = Record.from_bytes(record.to_bytes())
    want = of_record(conditions, stored, 40, 16, codec)
    assert_same(codec, window(rendered, [40], 16), want, atol=HALF)


def test_onsets_on_the_edges_of_frames_are_in_the_same_frames():
    codec = CODECS[0]
    record, conditions, rendered = piece(codec, on_the_grid=True)
    for first in range(0, 120, 3):
        want = conditions.of_notes(record.notes, excerpt_of(record, first, 8).start, 8, codec)
        np.testing.assert_array_equal(window(rendered, [first], 8)["roll"], want["roll"])


@every_codec
def test_overlapping_windows_are_those_of_training_and_agree(codec):
    record, conditions, rendered = piece(codec)
    size, step = frames_of(WINDOW, codec), frames_of(0.1, codec)
    firsts = [frames_of(1.3, codec) + i * step for i in range(4)]
    windows = rendered.windows(firsts, size)
    for number, first in enumerate(firsts):
        got = {name: values[number] for name, values in windows.items()}
        assert_same(codec, got, of_record(conditions, record, first, size, codec))
    for name in ("roll", "maps", "base_maps", "tails"):
        assert windows[name].shape[:2] == (4, size)
        np.testing.assert_array_equal(windows[name][1:, :-step], windows[name][:-1, step:], err_msg=name)


@every_codec
def test_windows_beyond_the_end_of_the_piece(codec):
    """Notes have died away by then; rooms ring on, which training has only within its records."""
    record, conditions, rendered = piece(codec)
    size = frames_of(WINDOW, codec)
    for first in (rendered.frames - size // 2, rendered.frames - 1):
        inside = rendered.frames - first
        got, want = window(rendered, [first], size), of_record(conditions, record, first, size, codec)
        assert_same(codec, got, want, tails=slice(0, inside))
        np.testing.assert_allclose(want["tails"][inside:], -1, atol=1e-6)
        assert got["maps"].max() == -1 and not got["roll"].any()
        assert len(got["maps"]) == size
    beyond = window(rendered, [rendered.frames + frames_of(2.0, codec)], size)
    for name in ("maps", "base_maps", "tails"):
        np.testing.assert_allclose(beyond[name], -1, atol=1e-6)


@pytest.mark.parametrize("first", [10, 60, 80])
def test_tails_are_of_the_frames_before_the_excerpt_too(first):
    """One loud frame, by the recursion tail[t] = a tail[t-1] + (1 - a) P[t-1]."""
    codec, struck, loud = CODECS[0], 40, 2.0
    maps = np.full((120, 2, MELS), -1.0, np.float32)
    maps[struck, 0] = codec.scale(np.float32(loud))
    record = Record(mel=np.zeros((120, MELS)), notes=Notes.empty(), maps=maps)
    conditions = NoteFrames(slots=0, tails=(0.5, 1.0))
    got = of_record(conditions, record, first, 8, codec)["tails"]
    decay = 10.0 ** (-6 * 0.02 / np.array([0.5, 1.0]))
    since = first + np.arange(8)[:, None] - struck - 1
    tail = np.where(since >= 0, np.exp(2 * loud) * (1 - decay) * decay ** np.maximum(since, 0), 0)
    want = codec.scale(0.5 * np.log(tail + codec.clip_min**2))
    np.testing.assert_allclose(got, np.repeat(want[:, :, None], MELS, 2), atol=1e-5)  # measured 4e-7


def test_what_sounded_before_a_window_is_heard_in_its_tails():
    """A short note, and windows that begin after it: only the tails know of it."""
    codec = CODECS[0]
    config, timbre = tiny_timbre(codec)
    conditions = NoteFrames(slots=0, ring=0.05, tails=(1.0,), timbre=config)
    note = Notes([0.5], [0.6], [60], [100], [0], [False])
    rendered = conditions.of_piece(Source(codec=codec, frames=100, notes=note), {"timbre": timbre})
    for first in (40, 60):
        got = window(rendered, [first], 8)
        assert got.keys() == {"roll", "maps", "tails"}
        assert got["maps"].max() == -1 and not got["roll"].any() and got["tails"].min() > -0.9
    steps = np.diff(window(rendered, [40], 8)["tails"][:, 0], axis=0)
    # 60 dB in a second, in scaled nat.
    want = -np.log(1000) * 0.02 * 2 / (codec.log_max - codec.log_min)
    np.testing.assert_allclose(steps, want, rtol=1e-3)


def test_maps_are_drawn_with_the_performance_and_base_maps_without():
    codec = CODECS[0]
    _, conditions, rendered = piece(codec)
    params, source = rendered.params, rendered.source
    own = window(rendered, [40], 16)
    none, other = (window(conditions.of_piece(dataclasses.replace(source, performance=weights), params),
                          [40], 16) for weights in (None, np.array([0.0, 1.0, 0.0], np.float32)))
    np.testing.assert_array_equal(none["maps"], none["base_maps"])
    for found in (own, other):
        np.testing.assert_array_equal(found["base_maps"], none["maps"])
        assert np.abs(found["maps"] - none["maps"]).max() > 0.02
    assert np.abs(own["maps"] - other["maps"]).max() > 0.02
    asked = dataclasses.replace(conditions, base_maps=False, tails=())
    assert asked.of_piece(source, params).windows([40], 16).keys() == {"roll", "maps", "performance"}


def test_every_window_has_the_weights_of_the_performance():
    _, conditions, rendered = piece(CODECS[0])
    weights = rendered.windows([0, 8, 16], 16)["performance"]
    assert weights.shape == (3, 3) and weights.dtype == np.float32
    np.testing.assert_array_equal(weights, [WEIGHTS] * 3)
    unplayed = dataclasses.replace(rendered.source, performance=None)
    assert "performance" not in conditions.of_piece(unplayed, rendered.params).windows([0], 16)


def test_slots_list_the_notes_of_every_frame_for_training_alone():
    codec = CODECS[2]
    record, conditions, rendered = piece(codec)
    without_maps = dataclasses.replace(record, maps=None)
    listing = NoteFrames(slots=40, ring=RING)
    got = of_record(listing, without_maps, 30, 20, codec)
    assert {n for n in got if n.startswith("slot_")} == {
        f"slot_{n}" for n in ("program", "pitch", "velocity", "age", "release")}
    centres = (30 + np.arange(20) + 1) * 0.01
    notes = record.notes
    for frame, centre in enumerate(centres):
        half = codec.window / codec.sample_rate / 2
        heard = (notes.start - half < centre) & (centre < notes.end + RING)
        slots = got["slot_program"][frame] >= 0
        assert sorted(got["slot_pitch"][frame][slots]) == sorted(notes.pitch[heard])
        np.testing.assert_allclose(np.sort(got["slot_age"][frame][slots]),
                                   np.sort(centre - notes.start[heard]), atol=1e-6)
    assert of_record(listing.mapped(), record, 30, 20, codec).keys() == {"roll", "maps", "base_maps"}
    assert listing.mapped() == dataclasses.replace(listing, slots=0)


def test_base_maps_are_those_that_a_record_has():
    record, _, _ = piece(CODECS[0])
    two = dataclasses.replace(record, maps=record.maps[:, :2])
    got = of_record(NoteFrames(slots=0), two, 0, 16, CODECS[0])
    assert got.keys() == {"roll", "maps"}
    np.testing.assert_array_equal(got["maps"], record.maps[:16, :2])


def test_a_records_seconds_need_not_begin_at_zero():
    """A record from the middle of an item has the item's times."""
    record, conditions, _ = piece(CODECS[0])
    later = Record(mel=record.mel[50:], notes=record.notes, start=1.0, maps=record.maps[50:])
    for name, values in of_record(NoteFrames(slots=8, ring=RING), later, 10, 16, CODECS[0]).items():
        want = of_record(NoteFrames(slots=8, ring=RING), record, 60, 16, CODECS[0])[name]
        np.testing.assert_allclose(values, want, atol=1e-6, err_msg=name)


def test_frames_lie_where_the_codec_has_them():
    grid = frame_grid(CODECS[1], 0.7)
    assert (grid.hop, grid.half_window, grid.tail) == (256 / 24000, 512 / 24000, 0.7)


@pytest.mark.parametrize(("conditions", "needs"), [
    (NoteFrames(), {"notes"}), (NoteFrames(tails=(1.0,)), {"notes", "maps"}),
    (NoteFrames(performance=PerformanceNumbers()), {"notes", "performance"}),
    (NoteFrames(performance=PerformanceNumbers(only=1)), {"notes"})])
def test_what_records_must_have(conditions, needs):
    assert set(conditions.needs) == needs


def test_classes_are_those_of_the_performance_numbers():
    classes = {"performance": ["a", "b"]}
    assert NoteFrames().check({}, "folder") == {}
    numbered = NoteFrames(performance=PerformanceNumbers())
    assert numbered.check(classes, "folder") == classes
    with pytest.raises(UserError, match="folder: its records have no performance"):
        numbered.check({}, "folder")


def test_impossible_conditions_are_refused():
    for wrong in ({"slots": -1}, {"ring": -0.1}, {"ring": float("nan")}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            NoteFrames(**wrong)
    plain = Record(mel=np.zeros((20, MELS)), notes=Notes.empty())
    with pytest.raises(UserError, match="memory: its records have no note maps"):
        of_record(NoteFrames(tails=(1.0,)), plain, 0, 8, CODECS[0])
    source = Source(codec=CODECS[0], frames=8, notes=Notes.empty())
    with pytest.raises(ValueError, match="needs a note timbre network"):
        NoteFrames().of_piece(source, {"timbre": {}}).windows([0], 8)
