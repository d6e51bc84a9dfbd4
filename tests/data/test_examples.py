"""Examples from records whose spectrograms say which record and which frame they are."""

import collections
import concurrent.futures
import dataclasses
import itertools
import logging
import pickle

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.spectrograms import Nothing, SourceSpectrogram, StyleSpectrogram
from music_diffusion.data import records
from music_diffusion.data.dump import example_notes
from music_diffusion.data.examples import Examples
from music_diffusion.data.shards import ShardMember, ShardPlan, facts_path, write_shards
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(mels=3)
STEP = 1 / 16  # nat a frame, exact in half precision
T = 16
FLOOR = np.float32(CODEC.scale(np.log(CODEC.clip_min)))
LENGTHS = {"train": (64, 24, 40, 7, 16, 70), "validation": (33, 48)}  # frames of the records
STYLES = ("folk", "jazz", "folk", "jazz", "folk", "odd")
# All that examples can have beside their targets.
EVERYTHING = (
    NoteFrames(slots=2, performance=PerformanceNumbers()),
    NoteTokens(tokens=200, context=True, performance=PerformanceNumbers()),
    SourceSpectrogram(), StyleSpectrogram())
every_condition = pytest.mark.parametrize("conditions", EVERYTHING, ids=lambda c: type(c).__name__)


def clock_record(number, length, hop=0.02, **more):
    """Frame t has mel[t, 0] = t steps, mel[t, 1] = number steps above the floor of -11.5; in frame
    t begins a note of pitch t, which lasts for 0.1 s."""
    mel = np.full((length, 3), -11.5)
    mel[:, 0] += STEP * np.arange(length)
    mel[:, 1] += STEP * number
    begin = 100.0 + number + hop * np.arange(length) + 0.005
    notes = Notes(begin, begin + 0.1, np.arange(length), *(np.full(length, n) for n in (127, 0, False)))
    place = np.arange(length)[:, None, None] + np.array([0.25, 0.5])[:, None]
    labels = {"name": str(number), "style": STYLES[number % 6], "performance": f"hall {number % 3}"}
    fields = dict(mel=mel, notes=notes, start=100.0 + number, source=mel + 1.0, labels=labels,
                  maps=np.broadcast_to(place / 100, (length, 2, 3)))
    return records.Record(**fields | more)


def write(folder, suffix=records.ARRAY_RECORD, lengths=None, codec=CODEC, **more):
    """A folder as the builder makes it, a record for each member, two members a shard."""
    def maker(member, account):
        record = member.content
        account.lengths.append(len(record.mel))
        account.styles.append(record.labels.get("style"))
        for kind in record.labels.keys() - {"name"}:
            account.labels[kind].add(record.labels[kind])
        yield record.to_bytes(suffix)

    members = [ShardMember(name=f"{split}{i}", split=split, state=(), shard=i // 2,
                      content=clock_record(i, length, 1 / codec.frame_rate, **more))
               for split, of_split in (lengths or LENGTHS).items() for i, length in enumerate(of_split)]
    plan = ShardPlan(kind=records.EXAMPLES, options={}, maker=maker, workers=1, suffix=suffix)
    write_shards(plan, members, str(folder), more={"codec": codec.to_dict()})
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "array_record")


def examples_of(folder, split="train", **more):
    return Examples(**dict(folder=str(folder), split=split, codec=CODEC, frames=T) | more)


def place(mel):
    """(record, first frame) of scaled frames, and that they follow each other without a gap."""
    steps = (CODEC.unscale(np.asarray(mel, np.float64)) + 11.5) / STEP
    assert np.allclose(np.diff(steps[:, 0]), 1, atol=1e-3)
    return round(float(steps[0, 1])), round(float(steps[0, 0]))


def sound(example):
    """The frames before the silence that follows a short record."""
    return example["targets"][~(example["targets"] == FLOOR).all(axis=1)]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_the_grid_covers_every_frame_in_order(folder):
    examples = examples_of(folder)
    seen = collections.defaultdict(list)
    for i in range(len(examples)):
        frames = sound(examples.grid()(i))
        record, first = place(frames)
        seen[record].append((first, first + len(frames)))
    for record, length in enumerate(LENGTHS["train"]):
        parts = seen[record]
        assert parts[0][0] == 0 and parts[-1][1] == length and len(parts) == -(-length // T)
        assert all(b[0] <= a[1] and a[0] < b[0] for a, b in itertools.pairwise(parts))
    assert [len(seen[r]) for r in range(6)] == [4, 2, 3, 1, 1, 5]
    assert_same(examples.grid()(len(examples) + 2), examples.grid()(2))  # and again
    np.testing.assert_array_equal(examples.lengths, LENGTHS["train"])


def test_notes_are_cut_at_the_frame_of_the_spectrogram(folder):
    examples = examples_of(folder, conditions=NoteFrames(slots=2, ring=0.0))
    for i in [*range(len(examples)), *range(3)]:
        example = examples.grid()(i) if i else examples.crops(0)(i)
        record, first = place(sound(example))
        count = len(sound(example))
        onsets = example["roll"][:, :128]
        np.testing.assert_array_equal(onsets[:count].argmax(1), first + np.arange(count))
        np.testing.assert_array_equal(onsets.sum(1), np.arange(T) < count)


def test_an_epoch_of_crops_has_every_record_as_often_as_it_has_segments(folder):
    examples = examples_of(folder)
    crops, size = examples.crops(3), len(examples)
    epochs = [[place(sound(crops(size * e + i))) for i in range(size)] for e in range(3)]
    for epoch in epochs:
        assert collections.Counter(r for r, _ in epoch) == {0: 4, 1: 2, 2: 3, 3: 1, 4: 1, 5: 5}
        assert all(0 <= first <= max(LENGTHS["train"][r] - T, 0) for r, first in epoch)
    orders = [[r for r, _ in epoch] for epoch in epochs]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [r for r, _ in epochs[0]] != sorted(r for r, _ in epochs[0])


def test_crops_are_uniform_over_all_places(tmp_path):
    examples = examples_of(write(tmp_path / "x", lengths={"train": (T + 4, T + 4), "validation": (T,)}))
    counts = collections.Counter(place(examples.crops(0)(i)["targets"]) for i in range(1000))
    assert set(counts) == set(itertools.product((0, 1), range(5)))
    # Chi squared of 8 degrees of freedom (each record comes 500 times): 1 in 10^4 is above 31.8.
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 31.8


@every_condition
def test_an_example_depends_on_seed_and_position_alone(folder, conditions):
    crops, again = (examples_of(folder, conditions=conditions).crops(5) for _ in range(2))
    positions = [3, 0, 40, 3, 1 << 40]
    for i in positions:
        assert_same(crops(i), again(i))
    other = examples_of(folder, conditions=conditions).crops(6)
    assert [place(sound(crops(i))) for i in range(20)] != [place(sound(other(i))) for i in range(20)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        fresh = examples_of(folder, conditions=conditions).crops(5)  # nothing is open yet
        for i, example in zip(range(24), pool.map(fresh, range(24)), strict=True):
            assert_same(example, crops(i))


@every_condition
def test_examples_go_to_other_processes_without_what_is_open(folder, conditions):
    examples = examples_of(folder, conditions=conditions)
    before = examples.crops(1)(7)  # all is open
    for order in (examples.crops(1), examples.grid()):
        packed = pickle.dumps(order)
        assert len(packed) < 2000
        assert_same(pickle.loads(packed)(7), order(7))
    assert_same(pickle.loads(pickle.dumps(examples)).crops(1)(7), before)


def test_context_is_the_frames_before(folder):
    examples = examples_of(folder, conditions=NoteTokens(tokens=200, context=True))
    masks = set()
    for record, first in [(0, 0), (0, T - 1), (0, T), (0, 29), (0, 48), (3, 0), (5, 54)]:
        example = examples.segment(record, first)
        before, mask = example["targets_context"], example["targets_context_mask"]
        assert before.shape == (T, 3) and before.dtype == mask.dtype == np.float32 and mask.shape == (T,)
        if first >= T:
            assert place(before) == (record, first - T)
            np.testing.assert_array_equal(before, examples.segment(record, first - T)["targets"])
        else:
            assert not before.any()
        assert (mask == (first >= T)).all()
        masks.add(float(mask[0]))
    assert masks == {0.0, 1.0}
    plain = examples_of(folder, conditions=NoteTokens(tokens=200)).segment(0, 30)
    assert plain.keys() == {"targets", "inputs"}


def test_source_and_maps_are_cut_as_the_targets(folder):
    parts = [examples_of(folder, conditions=c) for c in (SourceSpectrogram(), NoteFrames(slots=0))]
    for record, first in [(0, 5), (5, 54), (3, 0)]:
        source, mapped = (part.segment(record, first) for part in parts)
        np.testing.assert_array_equal(source["targets"], mapped["targets"])
        example = mapped | source
        length = min(LENGTHS["train"][record] - first, T)
        nat, source = (CODEC.unscale(example[k][:length].astype(np.float64)) for k in ("targets", "source"))
        np.testing.assert_allclose(source, nat + 1, atol=1e-4)
        want = (first + np.arange(length))[:, None, None] + np.array([0.25, 0.5])[:, None]
        want = np.broadcast_to(want / 100, (length, 2, 3))
        np.testing.assert_allclose(example["maps"][:length], want, atol=1e-3)
        for name in ("targets", "source", "maps"):
            assert example[name].dtype == np.float32 and len(example[name]) == T
            np.testing.assert_allclose(example[name][length:], FLOOR, rtol=1e-6)


def test_of_the_records_maps_there_are_those_that_the_conditions_ask_for(folder):
    for conditions in (Nothing(), NoteTokens(tokens=200), SourceSpectrogram(), StyleSpectrogram()):
        assert not examples_of(folder, conditions=conditions).segment(0, 5).keys() & {"maps", "base_maps"}
    assert examples_of(folder).segment(0, 5).keys() == {"targets"}


def test_performance_and_style_are_numbers_among_the_manifests_classes(folder):
    classes = records.read_manifest(folder, CODEC)["classes"]
    assert classes == {"performance": ["hall 0", "hall 1", "hall 2"], "style": ["folk", "jazz", "odd"]}
    for split in LENGTHS:
        performed, styled = (examples_of(folder, split, conditions=c) for c in (
            NoteFrames(performance=PerformanceNumbers()), StyleSpectrogram()))
        for record in range(len(LENGTHS[split])):
            example = performed.segment(record, 0) | styled.segment(record, 0)
            assert classes["performance"][example["performance"]] == f"hall {record % 3}"
            assert classes["style"][example["style_label"]] == STYLES[record]
            assert example["performance"].dtype == example["style_label"].dtype == np.int32
            assert example["performance"].shape == example["style_label"].shape == ()


@pytest.mark.parametrize("with_facts", [True, False])
def test_style_is_a_crop_of_another_record_of_the_style(tmp_path, with_facts):
    lengths = {"train": (20, 24, 18, 17, 16, 70), "validation": (33,)}
    folder = write(tmp_path / "x", lengths=lengths)
    if not with_facts:  # as of folders that the builder has not made
        for path in records.find_shards(folder):
            facts_path(path).unlink()
    examples = examples_of(folder, conditions=StyleSpectrogram())
    chosen = collections.defaultdict(set)
    for i in range(300):
        example = examples.crops(0)(i)
        chosen[place(example["targets"])[0]].add(place(example["style"]))
    assert {r for r, _ in chosen[0]} == {2, 4} and {r for r, _ in chosen[2]} == {0, 4}
    assert {r for r, _ in chosen[1]} == {3} and {r for r, _ in chosen[5]} == {5}  # alone in its style
    assert {f for r, f in chosen[0] if r == 2} == {0, 1, 2} and {f for r, f in chosen[0] if r == 4} == {0}
    a, b = (examples.segment(1, 0)["style"] for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_the_builders_facts_save_reading_the_records(folder, monkeypatch):
    examples = examples_of(folder, conditions=StyleSpectrogram())
    monkeypatch.setattr(records.Record, "from_bytes", lambda *_: pytest.fail("a record was read"))
    assert examples.lengths.tolist() == list(LENGTHS["train"]) and len(examples) == 16
    found = {k: v.tolist() for k, v in examples._labelled["style"].items()}
    assert found == {0: [0, 2, 4], 1: [1, 3], 2: [5]}


def dense_record(folder, dense):
    """A folder whose records of 64 frames have 50 notes in each frame of `dense`."""
    begin = 100.01 + 0.02 * np.repeat(dense, 50)
    notes = Notes(begin, begin + 0.01, np.tile(np.arange(50), len(dense)),
                  *(np.full(len(begin), n) for n in (100, 0, False)))
    return write(folder, lengths={"train": (64,), "validation": (64,)}, notes=notes)


def test_too_dense_crops_give_way_to_others(tmp_path, caplog):
    folder = dense_record(tmp_path / "x", np.arange(20, 30))
    examples = examples_of(folder, conditions=NoteTokens(tokens=100))
    with caplog.at_level(logging.WARNING):
        firsts = [place(examples.crops(0)(i)["targets"])[1] for i in range(60)]
    # Fifty onsets at the end fit, or fifty notes that are tied and end; more do not.
    assert all(first + T <= 21 or first >= 30 for first in firsts) and len(set(firsts)) > 10
    assert len(caplog.records) == 1 and f"{folder}: record 0 of train" in caplog.text  # not at every step
    # All in order are just those; evaluation takes the next that fit.
    with pytest.raises(UserError, match=f"{folder}: record 0 of train: .*tokens"):
        examples.grid()(1)
    assert [place(e["targets"])[1] for e in examples.spread(4)] == [0, 32, 32, 48]


def test_a_record_that_is_dense_all_over_is_an_error_that_names_it(tmp_path):
    folder = dense_record(tmp_path / "x", np.arange(64))
    examples = examples_of(folder, conditions=NoteTokens(tokens=100))
    for get in (examples.crops(0), examples.grid(), examples.spread(2).__getitem__):
        with pytest.raises(UserError, match=f"{folder}: record 0 of train: .* model's 100 tokens") as error:
            get(0)
        assert "\n" not in str(error.value)


def test_both_containers_give_the_same_examples(folder, tmp_path):
    other = write(tmp_path / "tf", records.TF_RECORD)
    for conditions in EVERYTHING:
        a, b = (examples_of(f, conditions=conditions) for f in (folder, other))
        for i in range(len(a)):
            assert_same(a.crops(0)(i), b.crops(0)(i))


def test_impossible_examples_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="0 frames"):
        examples_of(folder, frames=0)
    for conditions in (Nothing(), StyleSpectrogram()):
        with pytest.raises(UserError, match="codecs differ"):
            len(examples_of(folder, codec=MelCodec(), conditions=conditions))
    with pytest.raises(UserError, match="no shards named test-"):
        len(examples_of(folder, "test"))
    plain = write(tmp_path / "plain", labels={"name": "x"}, source=None, maps=None)
    for kind, conditions in (("style", StyleSpectrogram()),
                             ("performance", NoteFrames(performance=PerformanceNumbers())),
                             ("performance", NoteTokens(performance=PerformanceNumbers()))):
        with pytest.raises(UserError, match=f"{plain}: its records have no {kind}; prepare"):
            examples_of(plain, conditions=conditions)
    for conditions, missing in ((SourceSpectrogram(), "no second timbre"),
                                (NoteFrames(slots=0, tails=(0.5,)), "no note maps")):
        with pytest.raises(UserError, match=f"{plain}: its records have {missing}"):
            examples_of(plain, conditions=conditions).segment(0, 0)


def test_folders_that_are_not_whole_are_refused(tmp_path):
    folder = tmp_path / "x"
    write(folder)
    paths = records.find_shards(folder, "train")
    content = paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(UserError, match=r"1 shards are missing \(train-00001.array_record"):
        len(examples_of(folder))
    assert len(examples_of(folder, "validation")) == 6
    paths[1].write_bytes(paths[0].read_bytes()[:-1])
    with pytest.raises(UserError, match="train-00001.array_record: damaged"):
        len(examples_of(folder))
    records.write_shard(paths[1], [clock_record(0, 20).to_bytes()])
    with pytest.raises(UserError, match="do not fit each other"):
        len(examples_of(folder))
    paths[1].write_bytes(content)
    assert len(examples_of(folder)) == 16
    records.write_manifest(folder, complete=False, kind=records.EXAMPLES, options={})
    with pytest.raises(UserError, match="unfinished"):
        len(examples_of(folder))


@pytest.mark.parametrize("damage", [
    lambda m: b"", lambda m: m[:40], lambda m: m[:-300], lambda m: m[:8] + b"x" + m[9:],
    lambda m: m.replace(b'"mel"', b'"mal"'), lambda m: m.replace(b"F16", b"F99")])
def test_messages_that_are_no_records_are_named(tmp_path, damage):
    write(tmp_path)
    path = records.find_shards(tmp_path, "train")[0]
    good, other = records.read_shard(path)
    records.write_shard(path, [good, damage(bytes(other))])
    examples = examples_of(tmp_path)
    assert place(examples.segment(0, 0)["targets"]) == (0, 0)
    with pytest.raises(UserError, match=f"{tmp_path}: record 1 of train is damaged") as error:
        examples.segment(1, 0)
    assert "\n" not in str(error.value)


def test_records_of_other_shapes_are_followed_by_silence(folder):
    long = examples_of(folder, frames=100, conditions=NoteTokens(context=True))
    assert len(long) == 6
    for record, length in enumerate(LENGTHS["train"]):
        example = long.grid()(record)
        assert place(sound(example)) == (record, 0) and len(sound(example)) == length
        assert example["targets"].shape == (100, 3) and not example["targets_context_mask"].any()
        np.testing.assert_array_equal(example["targets"][length:], FLOOR)
    assert dataclasses.replace(long, frames=1).segment(0, 63)["targets"].shape == (1, 3)


@pytest.mark.parametrize("conditions", [NoteFrames(ring=0.0), NoteTokens(tokens=400)],
                         ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("codec", [MelCodec(mels=3, hop=160, window=640),  # 10 ms
                                   MelCodec(mels=3, sample_rate=24000, hop=960, window=960)])  # 40 ms
def test_notes_are_on_the_spectrograms_frames_whatever_the_hop(tmp_path, conditions, codec):
    folder, hop = write(tmp_path / "x", codec=codec), codec.hop / codec.sample_rate
    examples = Examples(folder=folder, split="train", codec=codec, frames=T, conditions=conditions)
    for record, first in ((0, 0), (0, 37), (5, 50)):
        notes = example_notes(examples.segment(record, first), conditions.events, hop)
        new = notes[notes.start > 1e-6]  # others are tied in
        # Tokens come in steps of 10 ms.
        np.testing.assert_allclose(new.start, hop * (new.pitch - first) + 0.005, atol=0.0051)
        assert set(new.pitch.tolist()) >= set(range(first + 1, first + T - 1))
