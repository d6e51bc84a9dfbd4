"""Activations against loops over notes and frames; decoding against the notes drawn."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.notes.activations import (
    CLASS_BYTES,
    NUM_CLASSES,
    NUM_DRUMS,
    NUM_PITCHES,
    Activations,
    draw_activations,
    pitch_roll,
)
from music_diffusion.notes.decoding import DecodeConfig, NoteDecoder, decode_notes
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES, nearest_slakh_class

HOP = 0.02


def note_rows(notes):
    return zip(notes.start, notes.end, notes.pitch, notes.velocity, notes.program, notes.is_drum,
               strict=True)


def make(rows):
    """Notes from (start, end, pitch, velocity, program, drum)."""
    return Notes(*np.array(rows, float).reshape(-1, 6).T)


def random_notes(rng, count, seconds):
    drum = rng.random(count) < 0.3
    start = rng.uniform(0, seconds, count)
    # Some without any duration, some shorter than a frame, some long.
    end = start + rng.choice([0, 0.004, 0.015, 0.1, 0.7], count) * rng.uniform(0.5, 1.5, count)
    return Notes(start, end, rng.integers(18, 112, count), rng.integers(1, 128, count),
                 np.where(drum, 0, rng.integers(0, 128, count)), drum)


def class_bits(activations):
    return np.unpackbits(activations.classes, axis=-1, count=NUM_CLASSES)


def covers(start, end, centres, edges, i):
    """A note covers a frame if it sounds at its centre, or else if it begins in it."""
    if any(start <= c < end for c in centres):
        return start <= centres[i] < end
    return edges[i] <= start < edges[i + 1]


def drawn(notes, start, frames):
    """All five arrays, a note and a frame at a time."""
    onset, frame, velocity = (np.zeros((frames, NUM_PITCHES)) for _ in range(3))
    drums, classes = np.zeros((frames, NUM_DRUMS)), np.zeros((frames, NUM_PITCHES, NUM_CLASSES))
    wide = [start + (i + 0.5) * HOP for i in range(-1, frames + 1)]  # and one frame on both sides
    edges = [start + i * HOP for i in range(-1, frames + 2)]
    for s, e, pitch, loud, program, drum in note_rows(notes):
        for i in range(frames):
            value = 1 - abs(wide[i + 1] - s) / 0.05
            if drum:
                if 27 <= pitch <= 87:
                    drums[i, pitch - 27] = max(drums[i, pitch - 27], value)
            elif 21 <= pitch <= 108:
                at = i, pitch - 21
                if value > 0 and (value, loud / 127) > (onset[at], velocity[at]):
                    onset[at], velocity[at] = value, loud / 127
                if covers(s, e, wide, edges, i + 1):
                    frame[at] = classes[(*at, nearest_slakh_class(int(program)))] = 1
    return onset, frame, velocity, drums, classes


@pytest.mark.parametrize("seed", range(6))
def test_drawing_is_the_loop(seed):
    """Crops that begin and end amid notes; float32 rounds by up to 3e-8."""
    rng = np.random.default_rng(seed)
    notes = random_notes(rng, 120, 1.2)
    start = [0.0, 0.3][seed % 2] + seed / 37
    got = draw_activations(notes, start, 30, HOP)
    expected = drawn(notes, start, 30)
    for name, value in zip(("onset", "frame", "velocity", "drums"), expected, strict=False):
        np.testing.assert_allclose(getattr(got, name), value, atol=1e-7, err_msg=name)
        assert getattr(got, name).dtype == np.float32
    np.testing.assert_array_equal(class_bits(got), expected[-1])
    assert got.classes.shape == (30, NUM_PITCHES, CLASS_BYTES)


def test_a_crop_is_a_part_of_the_whole():
    notes = random_notes(np.random.default_rng(7), 200, 3.0)
    whole, crop = draw_activations(notes, 0.0, 150, HOP), draw_activations(notes, 0.5, 50, HOP)
    for field in ("onset", "frame", "velocity", "drums", "classes"):
        part = getattr(whole, field)[25:75]
        np.testing.assert_allclose(getattr(crop, field), part, atol=1e-6, err_msg=field)


def test_a_note_by_hand():
    """Onset at 0.05 s, the centre of frame 2; 20 ms are 0.4 of the triangle's half."""
    got = draw_activations(make([(0.05, 0.11, 60, 127, 40, 0)]), 0.0, 8, HOP)
    np.testing.assert_allclose(got.onset[:, 39], [0.2, 0.6, 1, 0.6, 0.2, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(got.velocity[:, 39], [1, 1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(got.frame[:, 39], [0, 0, 1, 1, 1, 0, 0, 0])
    violin = [c.name for c in SLAKH_CLASSES].index("Violin")
    np.testing.assert_array_equal(class_bits(got)[:, 39, violin], got.frame[:, 39])
    assert class_bits(got).sum() == 3 and got.onset.sum() == pytest.approx(2.6)


def test_shapes_are_checked():
    good = draw_activations(Notes.empty(), 0.0, 4)
    for name in ("onset", "frame", "velocity", "drums", "classes"):
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(good, **{name: getattr(good, name)[:, 1:]})
    with pytest.raises(ValueError, match="frame_seconds"):
        dataclasses.replace(good, frame_seconds=0.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_roll_is_the_loop(seed):
    notes = random_notes(np.random.default_rng(seed), 40, 1.0)
    roll = pitch_roll(notes, HOP)
    assert len(roll) * HOP >= notes[~notes.is_drum].duration > (len(roll) - 1) * HOP - 1e-9
    for frames in (len(roll), len(roll) + 3, 20):
        expected = np.zeros((frames, 128), bool)
        wide = [(i + 0.5) * HOP for i in range(-1, frames + 1)]
        edges = [i * HOP for i in range(-1, frames + 2)]
        for s, e, pitch, _, _, drum in note_rows(notes):
            for i in range(frames):
                expected[i, pitch] |= not drum and covers(s, e, wide, edges, i + 1)
        np.testing.assert_array_equal(pitch_roll(notes, HOP, frames), expected)


def test_the_roll_of_a_last_note_without_duration_holds_it():
    roll = pitch_roll(make([(0.1, 0.1, 60, 80, 0, 0), (0, 9, 40, 80, 0, 1)]), 0.1)
    assert np.argwhere(roll).tolist() == [[1, 60]]
    assert pitch_roll(Notes.empty(), HOP).shape == (0, 128)
    with pytest.raises(ValueError, match="frame_seconds"):
        pitch_roll(Notes.empty(), 0.0)


@st.composite
def separable_notes(draw):
    """Notes that decoding can tell apart: per pitch no overlap, onsets 0.12 s apart or more."""
    more = st.floats(0, 1)  # seconds
    rows = []
    for pitch in draw(st.lists(st.integers(21, 108), max_size=3, unique=True)):
        # At the very edge of the piece a triangle has no left side to tell the time by.
        onset = 0.01 + draw(more)
        for _ in range(draw(st.integers(1, 4))):
            step = 0.12 + draw(more)
            # Longer than a frame, so that one frame tells who plays this note and none before.
            end = onset + draw(st.floats(0.021, step))
            kinds = draw(st.lists(st.integers(0, NUM_CLASSES - 1), min_size=1, max_size=3,
                                  unique=True))
            velocity = draw(st.integers(1, 127))
            rows += [(onset, end, pitch, velocity, SLAKH_CLASSES[k].programs[0], 0) for k in kinds]
            onset += step
    for key in draw(st.lists(st.integers(27, 87), max_size=2, unique=True)):
        onset = 0.01 + draw(more)
        rows += [(onset + 0.13 * i, onset + 0.13 * i, key, 100, 0, 1) for i in range(3)]
    return make(rows)


@settings(max_examples=80)
@given(notes=separable_notes(), as_bits=st.booleans())
def test_decoding_recovers_what_was_drawn(notes, as_bits):
    """Onsets to 2 ms (float32 makes microseconds of it), ends to a frame."""
    drawn_from = draw_activations(notes, 0.0, int(notes.duration / HOP) + 5, HOP)
    if not as_bits:
        drawn_from = dataclasses.replace(
            drawn_from, classes=class_bits(drawn_from).astype(np.float16))
    got = decode_notes(drawn_from, DecodeConfig())
    assert len(got) == len(notes)
    got, notes = in_order_arrays(got), in_order_arrays(notes)
    for name in ("pitch", "program", "is_drum", "velocity"):
        np.testing.assert_array_equal(got[name], notes[name], err_msg=name)
    np.testing.assert_allclose(got["start"], notes["start"], atol=0.002)
    melodic = ~notes["is_drum"]
    np.testing.assert_allclose(got["end"][melodic], notes["end"][melodic], atol=HOP)


def in_order_arrays(notes):
    """Columns sorted so that onsets that differ by microseconds do not change the order."""
    order = np.lexsort((notes.start, notes.program, notes.pitch, notes.is_drum))
    return {f.name: getattr(notes, f.name)[order] for f in dataclasses.fields(notes)}


def silent(frames=40, classes=False):
    """Writable activations without sound."""
    return Activations(
        onset=np.zeros((frames, NUM_PITCHES)), frame=np.zeros((frames, NUM_PITCHES)),
        velocity=np.full((frames, NUM_PITCHES), 0.5), drums=np.zeros((frames, NUM_DRUMS)),
        classes=np.zeros((frames, NUM_PITCHES, NUM_CLASSES)) if classes else None,
        frame_seconds=HOP)


@pytest.mark.parametrize("seconds", [0.1, 0.1033, 0.1099, 0.12, 0.1201])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_an_onset_is_placed_within_its_frame(seconds, scale):
    """Also when the whole triangle is lower, as an unsure network makes it."""
    a = silent()
    centres = (np.arange(40) + 0.5) * HOP
    a.onset[:, 5] = scale * np.maximum(0, 1 - np.abs(centres - seconds) / 0.05)
    notes = decode_notes(a, DecodeConfig())
    np.testing.assert_allclose(notes.start, [seconds], atol=1e-9)
    assert notes.pitch.tolist() == [26] and notes.velocity.tolist() == [64]


@pytest.mark.parametrize("frame", [0, 39])
def test_an_onset_at_the_edge_lies_in_its_frame(frame):
    a = silent()
    a.onset[frame, 5] = 1.0
    (start,) = decode_notes(a, DecodeConfig()).start
    assert frame * HOP <= start <= (frame + 1) * HOP


def test_onsets_below_the_threshold_and_beside_a_larger_one_are_none():
    a = silent()
    a.onset[10, 0], a.onset[20, 0], a.onset[22, 0], a.onset[25, 0] = 0.39, 0.8, 0.7, 0.4
    np.testing.assert_allclose(decode_notes(a, DecodeConfig(onset_threshold=0.4)).start,
                               [20.5 * HOP, 25.5 * HOP])
    a.onset[30:32, 0] = 0.9  # a plateau is one onset, in its middle
    np.testing.assert_allclose(decode_notes(a, DecodeConfig()).start[-1], 31 * HOP)


def test_a_note_ends_where_the_pitch_falls_silent_or_begins_anew():
    a = silent()
    a.onset[[5, 15], 3] = 1
    a.frame[5:25, 3] = 1
    notes = decode_notes(a, DecodeConfig())
    np.testing.assert_allclose(notes.start, [5.5 * HOP, 15.5 * HOP])
    np.testing.assert_allclose(notes.end, [15.5 * HOP, 25 * HOP])


def test_an_onset_behind_the_centre_of_its_frame_leaves_the_frame_to_the_rest_before():
    """Sound in frames 5 to 9; an onset at the end of frame 10, heard from frame 11 on."""
    a = silent()
    a.onset[5, 3] = 1
    a.onset[10:12, 3] = 0.8
    a.frame[5:10, 3] = a.frame[11:20, 3] = 1
    notes = decode_notes(a, DecodeConfig())
    np.testing.assert_allclose(notes.start, [5.5 * HOP, 11 * HOP])
    np.testing.assert_allclose(notes.end, [10 * HOP, 20 * HOP])


def test_an_onset_alone_lasts_to_the_end_of_its_frame_and_at_least_half_a_frame():
    a = silent()
    a.onset[5, 3] = 1
    a.onset[15:17, 4] = 0.8  # at the end of frame 15
    notes = decode_notes(a, DecodeConfig())
    np.testing.assert_allclose(notes.start, [5.5 * HOP, 16 * HOP])
    np.testing.assert_allclose(notes.end, [6 * HOP, 16.5 * HOP])


@pytest.mark.parametrize("gap, end", [(0, 12), (1, 12), (2, 20), (3, 20)])
def test_gaps_are_bridged(gap, end):
    a = silent()
    a.onset[5, 3] = 1
    a.frame[5:12, 3] = a.frame[14:20, 3] = 1
    notes = decode_notes(a, DecodeConfig(gap_frames=gap))
    np.testing.assert_allclose(notes.end, [end * HOP])


def test_gaps_are_not_bridged_from_pitch_to_pitch():
    a = silent(10)
    a.onset[8, 3] = 1
    a.frame[8:, 3] = 1  # to the end
    a.frame[:2, 4] = 1  # from the beginning of the next pitch
    notes = decode_notes(a, DecodeConfig(gap_frames=20))
    np.testing.assert_allclose(notes.end, [10 * HOP])


@pytest.mark.parametrize("least, starts", [
    (0, [20.5]), (3, [2, 10, 20.5]), (5, [10, 20.5]), (11, [20.5])])
def test_notes_without_onset(least, starts):
    """A run of 3 frames; a run of 20 with an onset in its middle, after 10."""
    a = silent()
    a.frame[2:5, 3] = a.frame[10:30, 3] = 1
    a.onset[20, 3] = 1
    notes = decode_notes(a, DecodeConfig(frames_without_onset=least, velocity_without_onset=33))
    np.testing.assert_allclose(notes.start, np.array(starts) * HOP)
    assert (notes.velocity == np.where(notes.start == 20.5 * HOP, 64, 33)).all()
    ends = {2: 5, 10: 20.5, 20.5: 30}
    np.testing.assert_allclose(notes.end, [ends[s] * HOP for s in starts])


def test_every_class_above_the_threshold_plays_else_the_likeliest():
    a = silent(classes=True)
    a.onset[5, :2] = 1
    a.frame[5:15, :2] = 1
    a.classes[5:15, 0, [3, 7]] = 0.6, 0.5
    a.classes[15:, 0, 9] = 1  # after the note
    a.classes[5:15, 1, 20] = 0.1

    def programs(config, pitch):
        notes = decode_notes(a, config)
        return notes.program[notes.pitch == pitch].tolist()

    first = [c.programs[0] for c in SLAKH_CLASSES]
    assert programs(DecodeConfig(class_threshold=0.5), 21) == [first[3], first[7]]
    assert programs(DecodeConfig(class_threshold=0.55), 21) == [first[3]]
    assert programs(DecodeConfig(class_threshold=0.9), 21) == [first[3]]
    assert programs(DecodeConfig(), 22) == [first[20]]


def test_frames_that_hardly_sound_hardly_tell_who_plays():
    """Class 3 has 1, 0.2, 0.2 in frames that sound 0.1, 1, 1: 0.24 and not 0.47."""
    a = silent(classes=True)
    a.onset[11:14, 0] = 0.7, 1, 0.5  # before the centre of frame 12
    a.frame[12:15, 0] = 0.1, 1, 1
    a.classes[12:15, 0, 3] = 1, 0.2, 0.2
    a.classes[12:15, 0, 7] = 0.5
    first = [c.programs[0] for c in SLAKH_CLASSES]
    for threshold, kinds in ((0.23, [3, 7]), (0.25, [7]), (0.4, [7])):
        notes = decode_notes(a, DecodeConfig(class_threshold=threshold))
        assert notes.program.tolist() == [first[k] for k in kinds]


def test_without_classes_all_is_program_0():
    a = silent()
    a.onset[5, 3] = 1
    assert decode_notes(a, DecodeConfig()).program.tolist() == [0]


def test_short_notes_are_dropped():
    a = silent()
    a.onset[5, 3:5] = 1
    a.frame[5:7, 3] = a.frame[5:9, 4] = 1  # 30 ms and 70 ms from the onsets
    assert decode_notes(a, DecodeConfig(min_seconds=0.05)).pitch.tolist() == [25]
    assert len(decode_notes(a, DecodeConfig(min_seconds=0.03 - 1e-9))) == 2


def test_velocities_are_those_of_midi():
    a = silent()
    a.onset[5, :3] = 1
    a.velocity[5, :3] = 0.0, 100 / 127, 1.0
    assert decode_notes(a, DecodeConfig()).velocity.tolist() == [1, 100, 127]


def test_drums_have_keys_and_no_length_of_their_own():
    a = silent()
    a.drums[[5, 20], [0, 60]] = 0.9
    a.drums[30, 3] = 0.3
    config = DecodeConfig(drum_velocity=77, drum_seconds=0.1, drum_threshold=0.5)
    notes = decode_notes(a, config)
    assert notes.is_drum.all() and notes.pitch.tolist() == [27, 87]
    assert notes.velocity.tolist() == [77, 77]
    np.testing.assert_allclose(notes.end - notes.start, 0.1)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_hardly_any_frames(frames):
    a = silent(frames, classes=True)
    config = DecodeConfig(frames_without_onset=1, gap_frames=1)
    assert len(decode_notes(a, config)) == 0
    a.frame[:, 0] = a.onset[:, 1] = 1
    assert decode_notes(a, config).pitch.tolist() == ([21, 22] if frames else [])


@pytest.mark.parametrize("bad", [
    dict(onset_threshold=0.0), dict(frame_threshold=1.1), dict(class_threshold=-1),
    dict(drum_threshold=2), dict(min_seconds=-0.1), dict(gap_frames=-1), dict(drum_velocity=0),
    dict(frames_without_onset=-2), dict(velocity_without_onset=128)])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DecodeConfig(**bad)


def random_activations(frames, rng):
    """Six pitches and four drums that hardly are music, with every kind of class array."""
    pitches, drums = rng.integers(0, NUM_PITCHES, 6), rng.integers(0, NUM_DRUMS, 4)
    frame, onset, velocity = (np.zeros((frames, NUM_PITCHES), np.float32) for _ in range(3))
    wander = np.cumsum(rng.normal(size=(frames, 6)), axis=0) * 0.2 + 0.5  # long notes too
    frame[:, pitches] = np.clip(np.where(rng.random(6) < 0.5, wander, rng.random((frames, 6))), 0, 1)
    onset[:, pitches] = rng.random((frames, 6)) ** rng.uniform(1, 6, 6)
    velocity[:, pitches] = rng.random((frames, 6))
    hits = np.zeros((frames, NUM_DRUMS), np.float32)
    hits[:, drums] = rng.random((frames, 4))
    classes = (rng.random((frames, NUM_PITCHES, NUM_CLASSES)) ** 2).astype(np.float16)
    classes = (None, classes, np.packbits(classes > 0.4, axis=-1))[rng.integers(3)]
    return Activations(onset=onset, frame=frame, velocity=velocity, drums=hits, classes=classes,
                       frame_seconds=float(rng.choice([0.01, 0.02, 0.025])))


def cut_activations(a, first, last):
    parts = {name: getattr(a, name)[first:last] for name in ("onset", "frame", "velocity", "drums")}
    return Activations(**parts, classes=None if a.classes is None else a.classes[first:last],
                       frame_seconds=a.frame_seconds)


@pytest.mark.parametrize("seed", range(25))
def test_the_notes_of_parts_are_those_of_the_whole_bit_for_bit(seed):
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(1, 200))
    a = random_activations(frames, rng)
    config = DecodeConfig(
        gap_frames=int(rng.integers(0, 4)), frames_without_onset=int(rng.choice([0, 1, 3, 12])),
        min_seconds=float(rng.choice([0, 0.03])))
    whole = decode_notes(a, config)
    cuts = [0, *np.sort(rng.integers(0, frames + 1, rng.integers(0, 12))), frames]
    decoder = NoteDecoder(config, a.frame_seconds)
    parts = [decoder.push(cut_activations(a, i, j)) for i, j in itertools.pairwise(cuts)]
    got = Notes.concatenate([*parts, decoder.finish()])
    assert len(got) == len(whole)
    for x, y in zip(sorted_rows(got), sorted_rows(whole), strict=True):
        np.testing.assert_array_equal(x, y)


def sorted_rows(notes):
    return sorted(note_rows(notes))


def test_a_note_is_given_out_as_soon_as_its_end_is_known():
    """A decoder that kept everything until the end would pass the test before."""
    onset, frame = np.zeros((2, 400, NUM_PITCHES), np.float32)
    onset[10, 39] = 1.0
    frame[10:20, 39] = 1.0
    a = Activations(onset=onset, frame=frame, velocity=onset, drums=np.zeros((400, NUM_DRUMS), np.float32),
                    classes=None, frame_seconds=HOP)
    decoder, at = NoteDecoder(DecodeConfig(), HOP), []
    for i in range(0, 400, 10):
        at += [i] * len(decoder.push(cut_activations(a, i, i + 10)))
        assert sum(len(part) for _, part in decoder._parts) < 40  # frames that are kept
    assert at == [20]
