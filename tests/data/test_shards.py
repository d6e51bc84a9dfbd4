"""Folders of shards: resumable, parallel, checked; the messages here are plain bytes."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import subprocess

import pytest
from layouts.memory import ListMaker
from reference import needs

from music_diffusion.data import records, shards
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.shards import ShardMember, ShardPlan, read_facts, verify, write_shards
from music_diffusion.errors import UserError

SUFFIXES = (records.ARRAY_RECORD, records.TF_RECORD)
BEGUN = "{}: unfinished; run the same"
MAKER = ListMaker()


def member(name, split="train", state=(1,), messages=None, shard=None):
    content = [f"{name}{i}".encode() * 10 for i in range(3)] if messages is None else messages
    return ShardMember(name=name, split=split, state=state, content=content, shard=shard)


MEMBERS = (*(member(name) for name in "abcdefgh"), *(member(name, "validation") for name in "vwx"))


def plan_of(maker=MAKER, **more):
    return ShardPlan(**dict(kind="plain", options={"codec": {}, "seed": 3}, maker=maker, shards=4,
                            workers=1) | more)


def write(folder, members=MEMBERS, plan=None, **more):
    return write_shards(plan_of() if plan is None else plan, members, str(folder), **more)


def files(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).iterdir()}


def stamps(folder):
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in pathlib.Path(folder).iterdir()}


def messages(folder, split):
    return [m for path in records.shard_paths(folder, split) for m in records.read_shard(path)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_message_is_there_once_in_the_order_of_its_member(tmp_path, suffix):
    manifest = write(tmp_path, plan=plan_of(suffix=suffix))
    assert {path.suffix for path in tmp_path.iterdir()} == {suffix, ".json"}
    for split in ("train", "validation"):
        of_split = [m for m in MEMBERS if m.split == split]
        found = messages(tmp_path, split)
        assert sorted(found) == sorted(message for m in of_split for message in m.content)
        for m in of_split:
            at = found.index(m.content[0])
            assert found[at:at + 3] == m.content
        assert manifest["records"][split] == len(found) and manifest["files"][split] == len(of_split)
    assert manifest["files"]["test"] == manifest["records"]["test"] == 0
    assert len(records.shard_paths(tmp_path, "train")) > 1  # else nothing of the following is tested


def test_members_choose_their_shard(tmp_path):
    write(tmp_path, [member("a", shard=7), member("b", shard=2), member("c", shard=7),
                     member("v", "validation")])
    names = [os.path.basename(p) for p in records.shard_paths(tmp_path, "train")]
    assert names == ["train-00002.array_record", "train-00007.array_record"]
    assert messages(tmp_path, "train") == [m for name in "bac" for m in member(name).content]


def test_the_account_is_the_sum_over_the_messages(tmp_path):
    manifest = write(tmp_path)
    train = [message for m in MEMBERS if m.split == "train" for message in m.content]
    assert manifest["hours"]["train"] == pytest.approx(sum(map(len, train)) / 3600, abs=1e-4)
    assert manifest["notes"] == {"train": 24, "validation": 9, "test": 0}
    assert manifest["classes"] == {"style": list("abcdefghvwx")}
    for split in ("train", "validation"):
        lengths = [n for p in records.shard_paths(tmp_path, split) for n in read_facts(p).lengths]
        assert lengths == [len(message) for message in messages(tmp_path, split)]
    assert manifest["checksums"] == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in records.find_shards(tmp_path)}
    assert json.loads((tmp_path / "manifest.json").read_text()) == manifest


def test_progress_counts_shards_and_further_facts_are_kept(tmp_path):
    told = []
    manifest = write(tmp_path, progress=lambda i, n: told.append((i, n)), more={"x": 1},
                     skipped=[["gone", "no file"]])
    count = len(manifest["checksums"])
    assert told == [(i + 1, count) for i in range(count)]
    assert manifest["x"] == 1 and manifest["skipped"] == [["gone", "no file"]]


def test_one_and_two_processes_write_the_same(tmp_path):
    members = [dataclasses.replace(m, content=m.content * 2000) for m in MEMBERS]
    write(tmp_path / "one", members)
    write(tmp_path / "two", members, plan_of(workers=2))
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, suffix):
    write(tmp_path / "whole", plan=plan_of(suffix=suffix))
    last = max(records.find_shards(tmp_path / "whole", "train"))
    name = read_facts(last).members[-1][0]
    out, log = tmp_path / "out", tmp_path / "log"
    stopped = plan_of(ListMaker(fail_at=name, error=KeyboardInterrupt(), log=str(log)), suffix=suffix)
    with pytest.raises(KeyboardInterrupt):
        write(out, plan=stopped)
    with pytest.raises(UserError, match=BEGUN.format("out")):
        records.read_manifest(out)
    with pytest.raises(UserError, match=BEGUN.format("out")):
        verify(out)
    assert not [p for p in out.iterdir() if p.suffix == ".part"] and not (out / last.name).exists()
    done, held = set(log.read_text().split()), stamps(out)
    log.unlink()
    write(out, plan=plan_of(ListMaker(log=str(log)), suffix=suffix))
    made = set(log.read_text().split())
    assert name in made and made | done == set("abcdefghvwx")
    kept = held.keys() & {p.name for p in records.find_shards(out)}
    assert kept and all(stamps(out)[k] == held[k] for k in kept)
    assert not made & {row[0] for k in kept for row in read_facts(out / k).members}
    assert files(out) == files(tmp_path / "whole")


def test_a_folder_of_an_earlier_version_goes_on(tmp_path):
    """Its codec has a field that is no more, and never had an effect."""
    write(tmp_path)
    manifest, held = json.loads((tmp_path / "manifest.json").read_text()), stamps(tmp_path)
    manifest["options"]["codec"]["spare_frames"] = 16
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    write(tmp_path)
    shards = {p.name for p in records.find_shards(tmp_path)}
    assert shards and all(stamps(tmp_path)[k] == held[k] for k in shards)


def test_what_a_killed_run_left_is_removed(tmp_path):
    out = tmp_path / "out"
    write(tmp_path / "whole")
    out.mkdir()
    for name in ("train-00001.array_record.0a1b.part", "train-00001.json.part", "manifest.json.part"):
        (out / name).write_text("{")
    write(out)
    assert files(out) == files(tmp_path / "whole")


def test_only_the_shards_of_changed_new_and_removed_members_are_written(tmp_path):
    write(tmp_path)
    held = stamps(tmp_path)
    where = {row[0]: p.name for p in records.find_shards(tmp_path) for row in read_facts(p).members}

    def rewritten(members):
        before, manifest = stamps(tmp_path), write(tmp_path, members)
        assert verify(tmp_path) == []
        now = stamps(tmp_path)
        assert set(manifest["checksums"]) == {p.name for p in records.find_shards(tmp_path)}
        return {name for name in before if name.endswith("record") and before[name] != now.get(name)}

    assert rewritten(MEMBERS) == set()
    assert held == stamps(tmp_path) | {"manifest.json": held["manifest.json"]}
    changed = [dataclasses.replace(m, state=(2,)) if m.name == "c" else m for m in MEMBERS]
    assert rewritten(changed) == {where["c"]}
    assert rewritten([m for m in changed if m.name != "w"]) == {where["w"]}
    same = [m for m in changed if m.name != "w" and where[m.name] != where["a"]]
    assert rewritten(same) == {where["a"]}  # a shard without members goes
    assert not list(tmp_path.glob(where["a"].replace("array_record", "*")))


def test_members_that_fail_are_named_counted_and_left_out(tmp_path):
    maker = ListMaker(fail_at="b", error=UserError("damaged at 3 s"))
    manifest = write(tmp_path, plan=plan_of(maker))
    size = len(member("b").content[0])
    assert manifest["skipped"] == [["b", f"damaged at 3 s; its first {size} s are used"]]
    assert len(messages(tmp_path, "train")) == 3 * 7 + 1
    assert write(tmp_path, plan=plan_of(maker)) == manifest  # it stays among them


def test_unreadable_members_are_skipped_and_all_of_a_shard_leave_none(tmp_path):
    alone = [member("a", shard=0), member("b", shard=1, messages=[b"b"]), member("v", "validation")]
    maker = ListMaker(fail_at="b", error=PermissionError(errno.EACCES, "Permission denied", "b.wav"))
    manifest = write(tmp_path / "x", alone, plan_of(maker))
    assert manifest["skipped"][0][0] == "b" and "Permission denied" in manifest["skipped"][0][1]

    empty = [member("a", shard=0), member("b", shard=1, messages=[]), member("v", "validation")]
    manifest = write(tmp_path / "y", empty)
    assert sorted(manifest["checksums"]) == ["train-00000.array_record", "validation-" + next(
        n for n in manifest["checksums"] if n.startswith("validation-")).partition("-")[2]]
    held = stamps(tmp_path / "y")
    write(tmp_path / "y", empty)
    assert {k: v for k, v in stamps(tmp_path / "y").items() if k != "manifest.json"} == {
        k: v for k, v in held.items() if k != "manifest.json"}


@pytest.mark.parametrize("workers", [1, 2])
def test_refusing_ends_with_the_first_member_that_fails(tmp_path, workers):
    maker = ListMaker(fail_at="b", error=UserError("damaged at 3 s"))
    with pytest.raises(UserError, match="^b: damaged at 3 s$"):
        write(tmp_path, plan=plan_of(maker, refuse=True, workers=workers))
    with pytest.raises(UserError, match="unfinished"):
        records.read_manifest(tmp_path)


def test_a_fault_of_the_program_is_not_hidden_and_tells_the_member(tmp_path):
    for error in (RuntimeError("a bug"), AttributeError("a bug")):
        with pytest.raises(type(error), match="a bug") as caught:
            write(tmp_path, plan=plan_of(ListMaker(fail_at="b", error=error)))
        assert any("b" in note for note in caught.value.__notes__)


def test_a_split_without_anything_is_an_error_with_reasons(tmp_path):
    maker = ListMaker(fail_at="v", error=UserError("damaged"))
    with pytest.raises(UserError, match="nothing usable for validation .*v: damaged"):
        write(tmp_path, [member("a"), member("v", "validation", messages=[])], plan_of(maker),
              skipped=[["v", "damaged"]])
    with pytest.raises(UserError, match="nothing usable for train .*no item"):
        write(tmp_path / "x", [member("v", "validation")])
    with pytest.raises(UserError, match="unfinished"):
        records.read_manifest(tmp_path / "x")


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "train-00000.array_record").write_bytes(b"theirs")
    with pytest.raises(UserError, match="holds other data"):
        write(tmp_path)
    (tmp_path / "manifest.json").write_text('{"kind": "audio", "options": {}}')
    with pytest.raises(UserError, match="holds other data"):
        write(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="holds other data"):
        write(tmp_path)
    assert (tmp_path / "train-00000.array_record").read_bytes() == b"theirs"


def test_other_options_are_refused_and_nothing_is_touched(tmp_path):
    write(tmp_path)
    held = stamps(tmp_path)
    for other in ({"codec": {"hop": 1}}, {"seed": 4}, {"x": 1}):
        options = {"codec": {}, "seed": 3} | other
        with pytest.raises(UserError, match="choose another folder"):
            write(tmp_path, plan=plan_of(options=options))
    assert stamps(tmp_path) == held
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"]


def test_a_full_disk_is_one_line_and_the_run_can_go_on(tmp_path, monkeypatch):
    def full(path, messages):
        if "train-00002" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_shard(path, messages)

    write_shard = records.write_shard
    write(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left.*again") as error:
        patch.setattr(records, "write_shard", full)
        write(tmp_path / "out")
    assert "\n" not in str(error.value) and "train-00002" in str(error.value)
    with pytest.raises(UserError, match="unfinished"):
        records.read_manifest(tmp_path / "out")
    write(tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 200 kB, and how to make it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", *options, "tmpfs", folder],
                              capture_output=True)

    needs.programs("mount")
    needs.mounted(mount("size=200k").returncode)
    yield folder, lambda: mount("remount,size=8m").returncode
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_really_full_disk_likewise(small_disk, tmp_path, suffix):
    disk, enlarge = small_disk
    members = [dataclasses.replace(m, content=[os.urandom(9000) for _ in range(5)]) for m in MEMBERS]
    plan = plan_of(suffix=suffix)
    with pytest.raises(UserError, match="No space left on device.*again") as error:
        write(disk / "out", members, plan)
    assert "\n" not in str(error.value)
    assert not [p for p in (disk / "out").iterdir() if p.suffix == ".part"]
    assert enlarge() == 0
    write(disk / "out", members, plan)
    write(tmp_path / "whole", members, plan)
    assert files(disk / "out") == files(tmp_path / "whole") and verify(disk / "out") == []


def test_facts_are_not_believed_without_their_shard(tmp_path):
    write(tmp_path)
    lost = records.find_shards(tmp_path)[0]
    content = lost.read_bytes()
    lost.unlink()
    assert verify(tmp_path) == [lost.name]
    write(tmp_path)
    assert lost.read_bytes() == content


def test_facts_never_lie_beside_other_records(tmp_path, monkeypatch):
    """A run that dies between a shard and its facts, after which the members are again what they were."""
    def dying(*_):
        raise KeyboardInterrupt

    write(tmp_path)
    before = files(tmp_path)
    changed = [dataclasses.replace(m, state=(2,), content=m.content[:1]) for m in MEMBERS]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "write_facts", dying)
        write(tmp_path, changed)
    write(tmp_path)
    assert files(tmp_path) == before


def test_verify_names_what_is_not_as_it_was_written(tmp_path):
    write(tmp_path)
    assert verify(tmp_path) == []
    first, second, *_, last = records.find_shards(tmp_path)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-1])
    (tmp_path / "train-00099.array_record").write_bytes(last.read_bytes())
    last.unlink()
    assert verify(tmp_path) == sorted((first.name, second.name, "train-00099.array_record", last.name))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UserError, match="manifest.json"):
        verify(tmp_path)


def damage(path, kind):
    content = bytearray(path.read_bytes())
    at = content.index(b"message to damage")
    if kind == "flipped":
        content[at] ^= 1
    path.write_bytes(content if kind == "flipped" else content[:at])


@pytest.mark.parametrize("kind", ["flipped", "cut"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reading_a_damaged_shard_names_it(tmp_path, suffix, kind):
    marked = [b"fine", os.urandom(99) + b"message to damage" + os.urandom(99), b"fine"]
    write(tmp_path, [member("a", shard=0), member("b", shard=1, messages=marked), member("c", shard=2),
                     member("v", "validation")], plan_of(suffix=suffix))
    paths = records.shard_paths(tmp_path, "train")
    damage(pathlib.Path(paths[1]), kind)
    with pytest.raises(UserError, match=f"train-00001{suffix}"):
        list(records.read_shard(paths[1]))
    with pytest.raises(UserError, match=f"train-00001{suffix}") as error:
        sequence = records.open_shards(paths)
        assert len(sequence) == 9
        assert [sequence[i] for i in (0, 3, 5, 8)] == [member("a").content[0], b"fine", b"fine",
                                                     member("c").content[2]]
        sequence[4]
    assert "\n" not in str(error.value)
    assert verify(tmp_path) == [f"train-00001{suffix}"]
    # What the message says: delete it, and run the same again.
    pathlib.Path(paths[1]).unlink()
    write(tmp_path, [member("a", shard=0), member("b", shard=1, messages=marked), member("c", shard=2),
                     member("v", "validation")], plan_of(suffix=suffix))
    assert list(records.read_shard(paths[1])) == marked and verify(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_messages_have_numbers_as_in_any_sequence(tmp_path, suffix):
    write(tmp_path, plan=plan_of(suffix=suffix))
    found = records.open_shards(records.shard_paths(tmp_path, "train"))
    assert list(found) == messages(tmp_path, "train") and found[-1] == found[len(found) - 1]
    for number in (len(found), -len(found) - 1):
        with pytest.raises(IndexError):
            found[number]


def test_two_processes_may_write_one_shard(tmp_path):
    """As where a pipeline tries again what it takes for lost."""
    path = tmp_path / "train-00000.array_record"

    def nested():
        yield b"outer"
        records.write_shard(path, [b"inner"])
        assert list(records.read_shard(path)) == [b"inner"]
        yield b"outer"

    assert records.write_shard(path, nested()) == 2
    assert list(records.read_shard(path)) == [b"outer", b"outer"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_runner_gets_what_it_needs(tmp_path):
    seen = []

    def run(task, items, workers, progress):
        seen.append((workers, len(items), all(task.finished(item) is None for item in items)))
        results = run_tasks(task, items, workers, progress)
        assert [task.finished(item) for item in items] == results
        return results

    manifest = write(tmp_path, run=run)
    assert seen == [(1, len(manifest["checksums"]), True)]
