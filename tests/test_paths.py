"""File names that are not UTF-8, names in two spellings, and pipes."""

import io
import json
import os
import threading
import unicodedata

import pytest

from music_diffusion.errors import UserError
from music_diffusion.paths import (
    check_utf8,
    encoded,
    located,
    make_lenient,
    name_key,
    restored,
    shown,
    source_file,
)
from music_diffusion.tables import read_table

LATIN = os.fsdecode(b"caf\xe9.wav")  # as an old archive unpacks to
NFC = "caf\u00e9.wav"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize("path, want", [
    ("a b.wav", "a b.wav"), (NFC, NFC), (LATIN, r"caf\xE9.wav"), ("a\nb", r"a\nb"),
    ("a\x1b[31m", r"a\x1b[31m"),
    ("a\u2028b", r"a\u2028b"), ("\ud800", r"\ud800"), ("a\u00a0b", "a\u00a0b"), ("日本", "日本")])
def test_a_path_is_shown_in_one_line_that_any_file_takes(path, want):
    assert shown(path) == want
    shown(path).encode()
    assert len(shown(path).splitlines()) == 1


@pytest.mark.parametrize("path", [NFC, NFD, LATIN, os.fsdecode(bytes(range(1, 256))), "$x$"])
def test_a_name_in_json_is_found_again(path):
    for ascii in (True, False):
        data = encoded(json.dumps({"path": path}, ensure_ascii=ascii))
        assert os.fsencode(json.loads(data.decode("utf-8"))["path"]) == os.fsencode(path)


@pytest.mark.parametrize("path", [NFC, NFD, LATIN, "a,b.wav", 'a"b.wav'])
def test_a_name_in_a_table_is_found_again(path, tmp_path):
    quoted = path.replace('"', '""')
    (tmp_path / "t.csv").write_bytes(encoded(f'file\n"{quoted}"\n'))
    [row] = read_table(tmp_path / "t.csv")
    assert os.fsencode(restored(row["file"])) == os.fsencode(path)


def test_names_that_look_alike_are_compared_as_equal():
    assert name_key(NFC) == name_key(NFD) == name_key(LATIN) == NFC
    assert name_key("a.wav") != name_key("A.wav") and name_key("cafe.wav") != NFC
    assert name_key(os.fsdecode(b"\x80\x81")) == "\x80\x81"  # 81 is nothing in Windows-1252


@pytest.mark.parametrize("there, asked", [(NFD, NFC), (NFC, NFD), (LATIN, NFC)])
def test_a_file_is_located_under_its_other_spelling(there, asked, tmp_path):
    folder = tmp_path / f"in {there}"
    folder.mkdir()
    (folder / there).touch()
    wanted = str(tmp_path / f"in {asked}" / asked)
    assert located(wanted) == str(folder / there)
    (folder / asked).touch()  # what is there is taken as it is
    assert located(str(folder / asked)) == str(folder / asked)


def test_what_is_nowhere_keeps_its_path(tmp_path, monkeypatch):
    assert located(tmp_path / "none" / NFC) == str(tmp_path / "none" / NFC)
    monkeypatch.chdir(tmp_path)
    assert located(NFC) == NFC
    (tmp_path / NFD).touch()
    assert located(NFC) == NFD


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_lenient_stream_takes_any_name(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    make_lenient(stream, object())
    stream.write(f"{LATIN} 日\n")
    stream.flush()
    sun = "日" if encoding == "utf-8" else r"\u65e5"
    assert raw.getvalue().decode(encoding) == rf"caf\xE9.wav {sun}" + "\n"


def test_a_file_is_its_own_source(tmp_path):
    for name in ("a.wav", "missing.wav", "."):
        if name == "a.wav":
            (tmp_path / name).touch()
        with source_file(str(tmp_path / name)) as path:
            assert path == str(tmp_path / name)


def _fed(pipe, content):
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content), daemon=True)
    writer.start()
    return writer


def test_a_pipe_can_be_read_twice_and_errors_name_it(tmp_path):
    pipe = tmp_path / "song"
    writer = _fed(pipe, bytes(200000))
    with pytest.raises(UserError) as error, source_file(str(pipe)) as path:
        writer.join(5)
        for _ in range(2):
            with open(path, "rb") as f:
                assert f.read() == bytes(200000)
        raise UserError(f"{path}: is no good")
    assert str(error.value) == f"{pipe}: is no good" and not os.path.exists(path)


def test_empty_pipes_and_devices_are_user_errors(tmp_path):
    _fed(tmp_path / "empty", b"")
    with pytest.raises(UserError, match="nothing came"), source_file(str(tmp_path / "empty")):
        pass
    with pytest.raises(UserError, match="/dev/zero: is a device"), source_file("/dev/zero"):
        pass


def test_folders_of_records_need_utf8():
    check_utf8(NFD)
    with pytest.raises(UserError, match=r"caf\\xE9\.wav: the name is not UTF-8"):
        check_utf8(LATIN)
