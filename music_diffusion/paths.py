"""File names as people have them: shown, written down, found again, compared; and pipes.

A file name is bytes. Those that are not UTF-8 stand in Python's strings as lone surrogates
(PEP 383), which neither a terminal nor a file in UTF-8 takes; and a name such as é.wav has two
spellings (Unicode's normal forms C and D), so that two names that look alike may differ.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from typing import Any

from music_diffusion.errors import UserError

ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")  # a byte that is not UTF-8, as `encoded` writes it
HANDLER = "music_diffusion.shown"  # name of the error handler of `make_lenient`


def shown(path: str | os.PathLike) -> str:
    """One line for people: bytes that are not UTF-8 as \\xE9, control characters as \\n, \\x1b, …"""
    text = os.fspath(path)
    return "".join(_readable(c) for c in text) if not text.isprintable() else text


def _readable(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xdc00:02X}"
    # A control character, a line separator, or half a character. (No-break spaces and joiners,
    # which are not "printable" either, are part of words and emoji.)
    if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs"):
        return character.encode("unicode_escape").decode()
    return character


def encoded(text: str) -> bytes:
    """Content of a JSON or CSV file, in UTF-8: bytes of names that are not UTF-8 become \\udce9.

    In JSON that is the escape of what Python's strings hold, so that `json.loads` gives the name
    back; in the cells of a table `restored` does.
    """
    return text.encode("utf-8", "backslashreplace")


def restored(cell: str) -> str:
    """The file name that stands in a cell; see `encoded`."""
    return ESCAPED.sub(lambda found: chr(0xdc00 + int(found[1], 16)), cell)


def check_utf8(path: str | os.PathLike) -> None:
    """Raises UserError for a name that is not UTF-8, which libraries of records and checkpoints refuse.

    Call it for folders that they will write, before the work.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as e:
        raise UserError(f"{shown(path)}: the name is not UTF-8, which records and checkpoints need; give "
                        "another name") from e


def name_key(path: str) -> str:
    """Equal for names that people take for the same: for both spellings of é, for é in Latin-1.

    In normal form C, after bytes that are not UTF-8 are taken for Windows-1252 (else Latin-1).
    """
    if not path.isascii():
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            path = legacy(path.encode("utf-8", "surrogateescape"))
    return unicodedata.normalize("NFC", path)


def legacy(data: bytes) -> str:
    """Text in Windows-1252, of which Latin-1 is a part; that has a character for every byte."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def located(path: str | os.PathLike) -> str:
    """The path itself if it is there, else one whose names have the same `name_key`, else the path."""
    path = os.fspath(path)
    if os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    if not name or folder == path:
        return path
    folder = located(folder) if folder else ""
    try:
        names = sorted(os.listdir(folder or os.curdir))
    except OSError:
        return path
    same = [other for other in names if name_key(other) == name_key(name)]
    return os.path.join(folder, same[0]) if same else path


def make_lenient(*streams: Any) -> None:
    """Makes text streams write the characters that they cannot encode as escapes, from now on.

    Otherwise a name in a last line of output would end the work with an exception.
    """
    codecs.register_error(HANDLER, _escape)
    for stream in streams or (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a caller put in its place
            stream.reconfigure(errors=HANDLER)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start:error.end]
    text = "".join(f"\\x{ord(c) - 0xdc00:02X}" if "\udc80" <= c <= "\udcff" else
                   c.encode("ascii", "backslashreplace").decode() for c in bad)
    return text, error.end


@contextlib.contextmanager
def source_file(path: str) -> Iterator[str]:
    """A file that can be opened several times: the path itself, or a copy of what a pipe gives.

    /dev/stdin is one: `cat x.wav | music-diffusion transcribe /dev/stdin -o x.mid`. Inside the
    `with` block errors name the pipe, not the copy.

    Raises:
      UserError: the path is a terminal, a device or a socket; nothing comes out of the pipe; the
        disk is full. (A file that is missing is left to whoever opens it.)
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = stat.S_IFREG
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        yield path
        return
    if not stat.S_ISFIFO(mode):
        raise UserError(f"{shown(path)}: is a device; give a file, or a pipe such as "
                        "`cat FILE | … /dev/stdin`")
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        copy = os.path.join(folder, os.path.basename(path) or "pipe")
        try:
            with open(path, "rb") as pipe, open(copy, "wb") as file:
                shutil.copyfileobj(pipe, file)
        except OSError as e:
            raise UserError(f"{shown(path)}: cannot be read to its end ({e.strerror})") from e
        if not os.path.getsize(copy):
            raise UserError(f"{shown(path)}: nothing came out of the pipe")
        try:
            yield copy
        except UserError as e:
            e.args = tuple(a.replace(copy, path) if isinstance(a, str) else a for a in e.args)
            raise



def check_apart(output: str | os.PathLike, *sources: str | os.PathLike | None) -> None:
    """Raises UserError where what is written would replace a file that is read, also through a link."""
    for source in sources:
        if source is not None and os.path.exists(source) and os.path.exists(output) and os.path.samefile(
                output, source):
            raise UserError(f"{shown(output)}: is the file that is read; give another name")
