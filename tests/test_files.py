"""Files appear complete or not at all, whatever ends the writing."""

import ast
import errno
import os
import pathlib

import pytest

from music_diffusion import files
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write, replacing, write_bytes, write_text

PACKAGE = pathlib.Path(files.__file__).parent


@pytest.mark.parametrize("manager", [replacing, atomic_write])
def test_the_old_file_stands_until_the_block_ends(tmp_path, manager):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with manager(target) as part:
        assert part.parent == tmp_path and part.name.startswith(".") and part.suffix == files.PART
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("manager", [replacing, atomic_write])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError])
@pytest.mark.parametrize("written", [False, True])
def test_nothing_remains_of_a_block_that_fails(tmp_path, manager, error, written):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), manager(tmp_path / "a.txt") as part:
        if written:
            part.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_two_at_the_same_time_do_not_meet(tmp_path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_a_user_error_with_the_name_of_the_file(tmp_path):
    with pytest.raises(UserError, match="a.txt: writing failed .No space left.*is the disk full") as e:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(e.value) and not os.listdir(tmp_path)
    with pytest.raises(UserError, match="writing failed"):
        write_text(tmp_path / "missing" / "a.txt", "x")
    with pytest.raises(OSError, match="missing"), replacing(tmp_path / "missing" / "a.txt") as part:
        part.touch()


def test_text_is_utf_8_with_its_own_line_ends_and_bytes_are_bytes(tmp_path):
    write_text(tmp_path / "a", "ä\r\n\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\r\n\n"
    write_bytes(tmp_path / "a", b"\0\xff")
    assert (tmp_path / "a").read_bytes() == b"\0\xff"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "a", "")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_links_are_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/real")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder/real").read_text() == "x"
    assert os.listdir(tmp_path / "folder") == ["real"]


def test_the_longest_name_can_be_written(tmp_path):
    write_text(tmp_path / ("x" * 255), "x")


@pytest.mark.slow
def test_nothing_else_renames_files():
    """Other code that put a file in another's place would be a second copy of this."""
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Attribute) and node.attr in ("replace", "rename")
             and isinstance(node.value, ast.Name) and node.value.id == "os"}
    assert found == {"files.py"}
