"""The event codec: ids by arithmetic, a segment by hand, round trips, broken input."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from music_diffusion.errors import UserError
from music_diffusion.notes.events import (
    Segment,
    decode,
    encode,
    encode_segment,
    pad,
    quantize,
)
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import (
    Event,
    EventConfig,
    Vocabulary,
    bin_to_velocity,
    velocity_to_bin,
)

# Ids with one velocity bin, counted by hand: 3 special, 1001 shifts, 128 pitches, velocities
# off and on, tie, 128 programs, 128 drums.
SHIFT, PITCH, OFF, ON, TIE, PROGRAM, DRUM = 3, 1004, 1132, 1133, 1134, 1135, 1263
EOS = 1


def make(*rows):
    """Notes from rows (start, end, pitch, velocity, program, is_drum)."""
    return Notes(*(np.array(c) for c in zip(*rows, strict=True))) if rows else Notes.empty()


def as_set(notes):
    """Notes as a sorted list of tuples, times in whole steps."""
    steps = [np.rint(t * 100).astype(int) for t in (notes.start, notes.end)]
    return sorted(zip(*steps, notes.pitch, notes.velocity, notes.program, notes.is_drum,
                      strict=True))


def test_vocabulary_sizes():
    one = Vocabulary(velocity_bins=1)
    assert one.num_events == 1001 + 128 + 2 + 1 + 128 + 128 == 1388
    assert one.size == 3 + 1388 + 100 == 1491
    assert one.rows == 1536 == 12 * 128
    full = Vocabulary(velocity_bins=127)
    assert full.size == 1491 + 126 and full.rows == 13 * 128


def test_vocabulary_ids():
    v = EventConfig().vocabulary
    by_hand = {("shift", 0): SHIFT, ("shift", 1000): 1003, ("pitch", 0): PITCH,
               ("pitch", 127): 1131, ("velocity", 0): OFF, ("velocity", 1): ON, ("tie", 0): TIE,
               ("program", 0): PROGRAM, ("drum", 0): DRUM, ("drum", 127): 1390}
    for event, token in by_hand.items():
        assert v.encode(Event(*event)) == token
        assert v.decode(token) == event
    assert all(v.decode(i) is None for i in (-1, 0, 1, 2, 1391, 1490, 1491, 10**6))
    for event in (("shift", 1001), ("velocity", 2), ("pitch", -1), ("bend", 0)):
        with pytest.raises(ValueError, match="no such event"):
            v.encode(Event(*event))


def test_velocity_bins():
    v = np.arange(128)
    assert np.array_equal(bin_to_velocity(velocity_to_bin(v, 127), 127), v)
    assert list(velocity_to_bin([0, 1, 64, 127], 1)) == [0, 1, 1, 1]
    # Four bins of 31.75: 32 is the first velocity above the first bin.
    assert list(velocity_to_bin([0, 1, 31, 32, 63, 64, 127], 4)) == [0, 1, 1, 2, 2, 3, 4]
    assert list(bin_to_velocity([0, 1, 4], 4)) == [0, 31, 127]


def test_two_segments_by_hand():
    notes = make(
        (0.00, 0.50, 60, 80, 0, False),
        (0.00, 5.20, 64, 80, 0, False),  # reaches into the second segment
        (0.50, 5.12, 67, 80, 40, False),  # ends exactly where the second begins: tied
        (0.50, 0.60, 38, 80, 0, True),
        (5.12, 5.22, 60, 80, 0, False),  # begins exactly there: not tied
    )
    first, second = encode(notes, EventConfig())
    assert (first.start, first.end, second.start, second.end) == (0.0, 5.12, 5.12, 10.24)
    assert list(first.ids) == [
        TIE,
        PROGRAM + 0, ON, PITCH + 60, PITCH + 64,  # at step 0 no shift is written
        SHIFT + 50, OFF, PITCH + 60,
        PROGRAM + 40, ON, PITCH + 67, DRUM + 38,
        EOS]
    assert list(second.ids) == [
        PROGRAM + 0, PITCH + 64, PROGRAM + 40, PITCH + 67, TIE,
        OFF, PITCH + 67,  # the program is still 40
        PROGRAM + 0, ON, PITCH + 60,
        SHIFT + 8, OFF, PITCH + 64,
        SHIFT + 10, PITCH + 60,  # absolute time, and still "off"
        EOS]


def test_flat_writes_no_programs_and_joins_unisons():
    config = EventConfig(granularity="flat")
    notes = make((0.0, 1.0, 60, 80, 0, False), (0.0, 2.0, 60, 90, 40, False),
                 (1.5, 3.0, 60, 80, 73, False))
    (segment,) = encode(notes, config)
    assert list(segment.ids) == [TIE, ON, PITCH + 60, SHIFT + 150, OFF, PITCH + 60, ON, PITCH + 60,
                                 SHIFT + 300, OFF, PITCH + 60, EOS]


def test_encode_segment_equals_encode_and_starts_anywhere():
    config = EventConfig(velocity_bins=127)
    notes = make((0.3, 1.0, 60, 80, 5, False), (0.9, 2.0, 62, 90, 5, False))
    whole = encode(notes, config)[0].ids
    assert np.array_equal(encode_segment(notes, 0.0, 5.12, config=config), whole)
    velocity = PITCH + 128
    expected = [PROGRAM + 126 + 5, PITCH + 60, TIE + 126, SHIFT + 10, velocity + 90, PITCH + 62,
                SHIFT + 20, velocity + 0, PITCH + 60, EOS]
    assert list(encode_segment(notes, 0.8, 1.5, config=config)) == expected
    no_eos = EventConfig(velocity_bins=127, add_eos=False)
    assert list(encode_segment(notes, 0.8, 1.5, config=no_eos)) == expected[:-1]
    for start, end in ((0.001, 1.0), (1.0, 1.0), (0.0, 5.13), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="start="):
            encode_segment(notes, start, end, config=config)


@st.composite
def grid_notes(draw):
    """Notes on the 10 ms grid, none overlapping another of its program and pitch."""
    edge = st.sampled_from([0, 511, 512, 513, 1024])
    rows, taken = [], {}
    for _ in range(draw(st.integers(0, 25))):
        start = draw(st.one_of(st.integers(0, 1300), edge))
        length = draw(st.sampled_from([1, 2, 30, 511, 512, 513, 1100]))
        pitch, drum = draw(st.integers(59, 62)), draw(st.booleans())
        program = 0 if drum else draw(st.sampled_from([0, 1, 40, 127]))
        key = (pitch, program, drum)
        end = start + 1 if drum else start + length
        if any(start < b and a < end for a, b in taken.get(key, [])):
            continue
        taken.setdefault(key, []).append((start, end))
        velocity = draw(st.integers(1, 127))
        rows.append((start / 100, end / 100, pitch, velocity, program, drum))
    return make(*rows)


@settings(deadline=None)
@given(grid_notes())
def test_round_trip_is_exact_with_full_velocities(notes):
    config = EventConfig(velocity_bins=127)
    segments = encode(notes, config)
    decoded = decode(segments, config)
    assert decoded.invalid == 0
    assert as_set(decoded.notes) == as_set(notes)
    for s in segments:
        assert s.ids.dtype == np.int32
        assert ((s.ids >= 1) & (s.ids < 3 + 1388 + 126)).all()


@pytest.mark.slow
@settings(deadline=None)
@given(grid_notes())
def test_round_trip_with_one_velocity_bin(notes):
    decoded = decode(encode(notes, EventConfig()), EventConfig())
    loud = Notes(notes.start, notes.end, notes.pitch, np.full(len(notes), 127), notes.program,
                 notes.is_drum)
    assert decoded.invalid == 0
    assert as_set(decoded.notes) == as_set(loud)


@pytest.mark.slow
@settings(deadline=None)
@given(grid_notes(), st.sampled_from([7, 20, 64]))
def test_split_segments_say_the_same(notes, max_length):
    """However small the segments, the notes survive or the reason is given."""
    config = EventConfig(velocity_bins=127, max_length=max_length)
    try:
        segments = encode(notes, config, on_overflow="split")
    except UserError as e:
        assert max_length < 64, "25 notes need few tokens in one frame"
        assert "tokens" in str(e) and "\n" not in str(e)
        return
    assert all(len(s.ids) <= max_length for s in segments)
    # No gap, no overlap, whole frames.
    assert all(a.end == b.start for a, b in zip(segments[:-1], segments[1:], strict=True))
    assert all(round(s.start * 100) % 2 == 0 for s in segments)
    assert as_set(decode(segments, config).notes) == as_set(notes)


any_time = st.floats(0, 30, allow_nan=False, width=32)
any_note = st.tuples(any_time, st.floats(0, 12, width=32), st.integers(0, 127),
                     st.integers(1, 127), st.integers(0, 127), st.booleans())


@settings(deadline=None)
@given(st.lists(any_note, max_size=30), st.sampled_from(["flat", "midi_class", "slakh", "full"]),
       st.sampled_from([1, 4, 127]))
@example([(0.101, 0.003, 60, 80, 0, False), (0.1045, 0.2, 60, 90, 0, False)], "full", 127)
@example([(1.0, 0.0, 60, 80, 0, False)], "full", 1)
def test_decode_inverts_encode_for_any_notes(rows, granularity, bins):
    """decode(encode(x)) = quantize(x), and quantize changes nothing the second time."""
    config = EventConfig(granularity=granularity, velocity_bins=bins)
    notes = make(*((s, s + d, *rest) for s, d, *rest in rows))
    decoded = decode(encode(notes, config), config)
    assert decoded.invalid == 0
    canonical = quantize(notes, config)
    assert as_set(decoded.notes) == as_set(canonical)
    assert as_set(quantize(canonical, config)) == as_set(canonical)
    assert len(canonical) <= len(notes)
    # Nothing vanishes: every onset is still there, within half a step.
    pitches = {(int(np.rint(s * 100)), p) for s, p in zip(notes.start, notes.pitch, strict=True)}
    assert {r[:1] + r[2:3] for r in as_set(canonical)} == pitches


def test_overlapping_notes_of_one_key():
    config = EventConfig(velocity_bins=127)
    notes = make((0.0, 1.0, 60, 80, 0, False), (0.4, 0.6, 60, 90, 0, False),
                 (2.0, 2.1, 60, 10, 0, False), (2.0, 2.5, 60, 5, 0, False))
    assert as_set(quantize(notes, config)) == [
        (0, 40, 60, 80, 0, False), (40, 60, 60, 90, 0, False), (200, 250, 60, 10, 0, False)]


def test_overflow_is_reported():
    notes = make(*((0.05 * i, 0.05 * i + 0.04, 60, 80, 0, False) for i in range(100)))
    config = EventConfig(max_length=200)
    with pytest.raises(UserError, match=r"0 s to 5.12 s need \d+ tokens and the model reads 200"):
        encode(notes, config)
    segments = encode(notes, config, on_overflow="split")
    assert len(segments) > 1 and max(len(s.ids) for s in segments) <= 200
    chord = make(*((0.0, 1.0, p, 80, 0, False) for p in range(100)))
    with pytest.raises(UserError, match="thin them out$"):
        encode(chord, EventConfig(max_length=50), on_overflow="split")
    with pytest.raises(ValueError, match="on_overflow"):
        encode(notes, config, on_overflow="cut")


def decode_ids(*segments):
    return decode([Segment(5.12 * i, 5.12 * (i + 1), np.array(ids))
                   for i, ids in enumerate(segments)], EventConfig())


@pytest.mark.parametrize("ids, invalid, expected", [
    ([], 0, []),
    ([TIE, 1491, -5, 2, 1400, EOS], 4, []),  # ids that mean nothing
    ([TIE, ON, PITCH + 60, 0, 0, OFF, SHIFT + 9, PITCH + 60], 0, [(0, 9)]),  # padding
    ([TIE, EOS, ON, PITCH + 60], 0, []),  # what follows EOS
    ([TIE, OFF, PITCH + 60, EOS], 1, []),  # off without on
    ([PITCH + 60, TIE, EOS], 1, []),  # tie of a silent note
    ([TIE, TIE, EOS], 1, []),
    ([TIE, OFF, DRUM + 38, EOS], 1, []),  # silent drum
    ([TIE, ON, SHIFT + 20, PITCH + 60, SHIFT + 10, OFF, PITCH + 60, EOS], 1, [(20, 21)]),
    ([TIE, ON, PITCH + 60, SHIFT + 600, OFF, PITCH + 60, EOS], 1, [(0, 1)]),  # past the end
    ([TIE, ON, PITCH + 60, SHIFT + 9, PITCH + 60, SHIFT + 15, OFF, PITCH + 60, EOS],
     0, [(0, 9), (9, 15)]),  # struck again while it sounds
    ([TIE, ON, SHIFT + 3, SHIFT + 4, PITCH + 60, SHIFT + 9, OFF, PITCH + 60], 0, [(7, 9)]),
    ([TIE, ON, PITCH + 60, EOS], 0, [(0, 512)]),  # never released
])
def test_decode_survives(ids, invalid, expected):
    decoded = decode_ids(ids)
    assert decoded.invalid == invalid
    assert [r[:2] for r in as_set(decoded.notes)] == expected


def test_a_note_that_is_not_tied_ends_with_its_segment():
    on = [TIE, ON, PITCH + 60, PITCH + 62, EOS]
    decoded = decode_ids(on, [PITCH + 62, TIE, SHIFT + 10, OFF, PITCH + 62, EOS])
    assert as_set(decoded.notes) == [(0, 512, 60, 127, 0, False), (0, 522, 62, 127, 0, False)]


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-3, 1600), max_size=60), max_size=3))
def test_random_tokens_never_crash(segments):
    decoded = decode_ids(*segments)
    assert 0 <= decoded.invalid <= sum(map(len, segments)) * 2
    assert decoded.notes.duration <= 5.12 * max(1, len(segments)) + 0.011


def test_pad():
    ids, mask = pad([np.array([5, 1]), np.array([], int), np.array([7, 8, 1])], 3)
    assert ids.dtype == np.int32 and mask.dtype == bool
    assert ids.tolist() == [[5, 1, 0], [0, 0, 0], [7, 8, 1]]
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    with pytest.raises(ValueError, match="3 tokens does not fit into 2"):
        pad([np.array([7, 8, 1])], 2)


@pytest.mark.parametrize("setting", [
    dict(velocity_bins=0), dict(velocity_bins=128), dict(granularity="fine"),
    dict(segment_steps=1001), dict(frame_steps=3), dict(max_length=1), dict(steps_per_second=0)])
def test_config_is_checked(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        EventConfig(**setting)


@pytest.mark.slow
def test_hours_of_music():
    """Ten hours, with a note that sounds through all of them."""
    n = 50_000
    start = np.arange(n) * (36_000 / n)
    notes = Notes(np.append(start, 0.0), np.append(start + 1.0, 36_000.0),
                  np.append(40 + np.arange(n) % 40, 100), np.full(n + 1, 127),
                  np.append(np.arange(n) % 3, 40), np.zeros(n + 1, bool))
    segments = encode(notes, EventConfig())
    assert len(segments) == int(np.ceil(36_000.28 / 5.12))  # the last note ends at 36000.28
    decoded = decode(segments, EventConfig())
    assert decoded.invalid == 0
    assert as_set(decoded.notes) == as_set(quantize(notes, EventConfig()))
