"""Tables in the encodings and with the separators that spreadsheets write."""

import os
import threading
import warnings

import pytest

from music_diffusion import tables
from music_diffusion.errors import UserError
from music_diffusion.tables import read_table, read_text

TEXT = "file,group\nKöln/é.wav,Flöte\nb.wav,\"Bach, violin\"\n"
ROWS = ({"file": "Köln/é.wav", "group": "Flöte"}, {"file": "b.wav", "group": "Bach, violin"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_one_table_in_many_clothes(tmp_path, encoding, separator, line):
    text = TEXT.replace(",", separator).replace(f"Bach{separator}", "Bach,").replace("\n", line)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_table(tmp_path / "t.csv", ("file", "group"))
    assert table.rows == ROWS and table.columns == ("file", "group") and table.lines == (2, 3)


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-be"])
def test_big_endian_marks(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes(f"\ufeff{TEXT}".encode(encoding))
    assert read_table(tmp_path / "t.csv").rows == ROWS


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_latin_text_is_read_with_a_warning(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes(TEXT.encode(encoding))
    with pytest.warns(UserWarning, match=r"t\.csv: line 2 is not UTF-8; read as Windows-1252"):
        assert read_table(tmp_path / "t.csv").rows == ROWS


def test_notes_to_spreadsheets_empty_lines_and_short_rows(tmp_path):
    (tmp_path / "t.csv").write_text("sep=|\n\n a | b |c\n1| 2\n\n3|4|5||\n")
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("a", "b", "c")
    assert table.rows == ({"a": "1", "b": "2", "c": ""}, {"a": "3", "b": "4", "c": "5"})
    assert table.lines == (4, 6)


@pytest.mark.parametrize("content, word", [
    (b"name,group\na,A\n", "has no column 'file'; it has name, group"),
    (b"", "has no column 'file'; it has none"),
    (b"file,group\na,b,c\n", "line 2: has more cells"), (b"file,file\na,b\n", "several columns file"),
    (b'file,group\n"a', "line 2: is no row"), (b"file\0group", "no text in UTF-8"),
    ("file,group\n".encode("utf-16-le"), "no text in UTF-8"), (b"\xff\xfef", "damaged UTF-16"),
    (b"\xef\xbb\xbffile\xff", "damaged UTF-8"), (None, "No such file"),
    (b"\x89PNG\r\n\x1a\n\0\0", "no text")])
def test_what_is_no_table_is_one_line(tmp_path, content, word):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
        read_table(path, ("file",), advice="write it again")
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read .*; fetch it"):
        read_text(tmp_path, "fetch it")


def test_pipes_are_read_but_not_devices_or_what_never_ends(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"file\na\n",))
    writer.start()
    assert read_text(tmp_path / "pipe") == "file\na\n"
    writer.join()
    with pytest.raises(UserError, match="/dev/zero: is a device"):
        read_text("/dev/zero")
    monkeypatch.setattr(tables, "MOST_BYTES", 2 ** 20)
    (tmp_path / "large").write_bytes(b"x" * 2 ** 20)
    assert len(read_text(tmp_path / "large")) == 2 ** 20
    (tmp_path / "large").write_bytes(b"x" * (2 ** 20 + 1))
    with pytest.raises(UserError, match="larger than 1 MB"):
        read_text(tmp_path / "large")
