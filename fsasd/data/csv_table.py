"""CSV tables: one reader for all of them, with their encodings, blank rows and unknown values.

Attribute tables, ground truth, score files and manifests come from spreadsheets and scripts. Errors
name the file and, where there is one, the row.
"""

from __future__ import annotations

import csv
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from fsasd.data.names import MetadataError

T = TypeVar("T")

SHOWN = 10
"""Problems of one file that are listed; the others are counted."""

_UNKNOWN = frozenset(
    {"", "-", "--", "–", "—", "nan", "na", "<na>", "n/a", "#n/a", "null", "none", "noattribute"}
)
_SAVE = "save it as CSV UTF-8"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def is_known(cell: str) -> bool:
    """Tell whether a cell holds a value, and not a sign that it is unknown.

    >>> [is_known(cell) for cell in ("1200 rpm", "0", "", "N/A", "nan", "-", "noAttribute")]
    [True, True, False, False, False, False, False]
    """
    return cell.strip().casefold() not in _UNKNOWN


def read_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    r"""Yield the rows of a CSV file with the numbers of their first lines; blank rows are skipped.

    UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        MetadataError: It is no file, or no comma-separated text; names the file and the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "clips.csv"
    ...     size = path.write_text("path,machine\n\na.wav,fan\n")
    ...     list(read_rows(path))
    [(1, ['path', 'machine']), (3, ['a.wav', 'fan'])]
    """
    path = Path(path)
    _require_file(path)
    line = 1
    try:
        with path.open("rb") as file:
            encoding = "utf-16" if file.read(2) in _UTF16 else "utf-8-sig"
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.reader(_without_nul(file, path), strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield line, cells
                # A quoted cell may span several.
                line = reader.line_num + 1
    except UnicodeError as error:
        raise MetadataError(
            f"{path}: expected UTF-8 text, found {_undecodable(path, encoding)}: {_SAVE}"
        ) from error
    except csv.Error as error:
        raise MetadataError(
            f"{path}, near line {line}: expected comma-separated text: {error}"
        ) from error
    except OSError as error:
        raise MetadataError(f"{path}: not readable: {error.strerror}") from error


def read_column(
    path: Path,
    convert: Callable[[str], T],
    problems: list[str],
    clip_of: Callable[[str], str | None],
    *,
    header: str = "",
    repeats: bool = False,
) -> dict[str, T]:
    """Read a table of two columns or more: a clip, and a value for it.

    Args:
        path: The CSV file.
        convert: Text behind the clip's name -> value; raises ``ValueError`` for a bad one.
        problems: Gets a sentence for the file, or for each of the first ten bad rows.
        clip_of: Name as it is written -> clip; ``None`` where there is no such clip.
        header: First cell of the header that the table may have.
        repeats: Repeated rows are allowed. Contradicting ones never are.

    Returns:
        By clip, in the order of the rows.
    """
    values: dict[str, T] = {}
    first: dict[str, int] = {}
    wrong: list[str] = []
    try:
        for number, (name, *cells) in read_rows(path):
            if header and name.strip() == header:
                continue
            # Spreadsheets fill rows up.
            while len(cells) > 1 and not cells[-1].strip():
                cells.pop()
            where = f"{path}, row {number}"
            clip = clip_of(name)
            if clip is None:
                wrong.append(f"{where}: {name!r} is not a clip of the ground truth")
                continue
            try:
                value = convert(",".join(cells))
            except ValueError as error:
                if clip in first:
                    wrong.append(f"{where}: {name!r} duplicates row {first[clip]}")
                else:
                    wrong.append(f"{where}: {name}: {error}")
                first.setdefault(clip, number)
                continue
            if clip in first and not (repeats and values.get(clip) == value):
                verb = "contradicts" if repeats else "duplicates"
                wrong.append(f"{where}: {name!r} {verb} row {first[clip]}")
                continue
            first.setdefault(clip, number)
            values.setdefault(clip, value)
    except MetadataError as error:
        wrong.insert(0, str(error))
    problems += wrong[:SHOWN]
    if len(wrong) > SHOWN:
        problems.append(f"{path}: {len(wrong) - SHOWN} more rows like these")
    return values


def _require_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        kind = "a link to nothing" if path.is_symlink() else "nothing"
        raise MetadataError(f"{path}: expected a CSV file, found {kind}") from error
    except OSError as error:
        raise MetadataError(f"{path}: not readable: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise MetadataError(f"{path}: expected a CSV file, found {kind}")


def _undecodable(path: Path, encoding: str) -> str:
    # Text is decoded in blocks, well ahead of the line that is read.
    content = path.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"byte 0x{content[error.start]:02x} in line {line} ({error.reason})"
    return "another encoding"


def _without_nul(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise MetadataError(
                f"{path}: expected UTF-8 text, found a NUL character in line {number}: {_SAVE}"
            )
        yield line
