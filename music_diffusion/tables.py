"""Text and tables that people wrote, in the encodings and with the separators that they come in."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence

from music_diffusion.errors import UserError
from music_diffusion.paths import legacy, shown

# Byte order marks; that of UTF-32 (little-endian) begins with that of UTF-16.
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
MOST_BYTES = 64 * 2 ** 20  # of a text that people wrote; more is something else
SEPARATORS = ",;\t"  # the first that parts the header into most names

Row = dict[str, str]


def read_text(path: str | os.PathLike, advice: str = "save it as UTF-8") -> str:
    """A text file's content: UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one.

    What is none of these is read as Windows-1252 (and Latin-1), with a warning: a name may then
    be wrong, but the rest is right.

    Args:
      path: of the file.
      advice: what to do about a bad file, for messages.

    Raises:
      UserError: missing, unreadable, damaged, no text, no file (nor a pipe), or more than MOST_BYTES.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # /dev/zero never ends
            raise UserError(f"{shown(path)}: is a device; give a file, or a pipe")
        with open(path, "rb") as f:
            data = f.read(MOST_BYTES + 1)
    except OSError as e:
        raise UserError(f"{shown(path)}: cannot be read ({e.strerror}); {advice}") from e
    if len(data) > MOST_BYTES:
        raise UserError(f"{shown(path)}: is larger than {MOST_BYTES >> 20} MB, as no text or table "
                        f"here is; {advice}")
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark):].decode(encoding)
            except UnicodeDecodeError as e:
                raise UserError(f"{shown(path)}: damaged {encoding.upper()} text ({e.reason} at byte "
                                f"{e.start}); {advice}") from e
    if b"\0" in data:  # no text has it; UTF-16 without a mark does, and so has what is no text at all
        raise UserError(f"{shown(path)}: is no text in UTF-8 (it has zero bytes); {advice}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data[:e.start].count(b"\n") + 1
        warnings.warn(f"{shown(path)}: line {line} is not UTF-8; read as Windows-1252 (Latin-1). "
                      "Save it as UTF-8 if names come out wrong", stacklevel=2)
        return legacy(data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a header: a dictionary a row, '' for a cell that is not there."""

    path: str
    columns: tuple[str, ...]  # of the header, in order
    rows: tuple[Row, ...]
    lines: tuple[int, ...]  # where each row ends in the file, from 1

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def read_table(path: str | os.PathLike, columns: Sequence[str] = (), *,
               advice: str = "save it as comma-separated text (CSV) in UTF-8") -> Table:
    """A table of comma-separated text, or one parted by semicolons or tabs, as spreadsheets write.

    Args:
      path: of the file; see `read_text` for encodings.
      columns: that it must have.
      advice: what to do about a bad file, for messages.

    Raises:
      UserError: see `read_text`; a column is missing or has no name of its own; a row has more
        cells than the header; a quote that does not end.
    """
    name, text = shown(path), read_text(path, advice)
    lines = io.StringIO(text, newline="")
    first = text.partition("\n")[0].strip().lower()
    skipped = 0
    if first.startswith("sep=") and len(first) == 5:  # a note to spreadsheets
        separator, skipped = first[4], 1
        lines.readline()
    else:
        separator = _separator(text)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    rows, ends, header = [], [], None
    try:
        for cells in reader:
            if len(cells) < 2 and not "".join(cells).strip():  # an empty line
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(name, header, columns, advice)
                continue
            at = skipped + reader.line_num
            if any(cell.strip() for cell in cells[len(header):]):
                raise UserError(f'{name}, line {at}: has more cells than the header; put "..." around a '
                                f"cell with a {'comma' if separator == ',' else 'separator'}")
            cells += [""] * (len(header) - len(cells))
            rows.append(dict(zip(header, cells, strict=False)))
            ends.append(at)
    except csv.Error as e:
        raise UserError(f"{name}, line {skipped + reader.line_num}: is no row of a table ({e}); "
                        f"{advice}") from e
    if header is None:
        _check_header(name, [], columns, advice)
    return Table(path=os.fspath(path), columns=tuple(header or ()), rows=tuple(rows), lines=tuple(ends))


def _separator(text: str) -> str:
    """Returns the separator of the first line that is not empty."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    counts = {}
    for separator in SEPARATORS:
        try:
            counts[separator] = len(next(csv.reader([line], delimiter=separator)))
        except csv.Error:
            counts[separator] = 0
    return max(SEPARATORS, key=lambda separator: counts[separator])  # of equals the first


def _check_header(name: str, header: Sequence[str], columns: Sequence[str], advice: str) -> None:
    missing = [repr(column) for column in columns if column not in header]
    if missing:
        raise UserError(f"{name}: has no column {', '.join(missing)}; it has "
                        f"{', '.join(filter(None, header)) or 'none'}; {advice}")
    double = {column for column in header if column and header.count(column) > 1}
    if double:
        raise UserError(f"{name}: has several columns {', '.join(sorted(double))}; {advice}")
