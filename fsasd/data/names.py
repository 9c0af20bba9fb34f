"""Names of machines and sections: one spelling of each, checked where it is read.

A machine's name becomes a folder, part of file names and a cell of tables; a name that cannot be
one of these, or that is a row of a table already, is refused. A section is digits, two at least.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Collection, Hashable, Iterable
from typing import NamedTuple

NAME_BYTES = 128
"""Longest name of a machine in UTF-8. The longest file name that holds it,
``decision_result_<machine>_section_<nn>_test.csv`` while it is written, must fit into 255 bytes."""

SUMMARY_ROWS = ("official score", "arithmetic mean", "harmonic mean", "mean", "all machines")
"""Rows of ``metrics.csv``, ``validation.csv`` and ``costs.csv`` that are no machine's."""

# Its folder lies beside them.
_OF_TABLES = (".csv", ".json", ".partial")
_SECTION = re.compile(r"(\d{1,9})(?:\.0+)?", re.ASCII)


class MetadataError(ValueError):
    """A data set is not laid out, named or tabulated as expected."""


class SectionId(NamedTuple):
    """A section of a machine, for which a detector is fitted and evaluated.

    >>> str(SectionId("fan", "00"))
    'fan section 00'
    """

    machine: str
    section: str

    def __str__(self) -> str:
        return f"{self.machine} section {self.section}"


def spelling(text: object) -> str:
    """Return a name in composed Unicode (NFC), without outer spaces.

    >>> spelling("po\u0308mp ") == "p\u00f6mp", spelling(101)
    (True, '101')
    """
    return unicodedata.normalize("NFC", str(text)).strip()


def machine_name(text: str) -> str:
    r"""Return the one spelling of a machine's name.

    Raises:
        MetadataError: It cannot be a folder's name, has characters that cannot be seen, is too
            long, or is a row of a table that fsasd writes.

    >>> machine_name(" pump "), machine_name("NA"), machine_name("101")
    ('pump', 'NA', '101')
    >>> machine_name("a/b")
    Traceback (most recent call last):
    ...
    fsasd.data.names.MetadataError: machine: expected a name without '/' and '\', found 'a/b'
    """
    name = spelling(text)
    wrong = None
    if "/" in name or "\\" in name or not name:
        wrong = "a name without '/' and '\\'"
    elif not name.isprintable():
        wrong = "a name of characters that can be printed"
    elif name.startswith("."):
        wrong = "a name that does not begin with a point"
    elif name.casefold().endswith(_OF_TABLES):
        wrong = "a name without the suffix of a table"
    elif len(name.encode()) > NAME_BYTES:
        wrong = f"a name of at most {NAME_BYTES} bytes"
    elif name.casefold() in SUMMARY_ROWS:
        wrong = f"another name than those of rows of tables ({', '.join(SUMMARY_ROWS)})"
    if wrong:
        raise MetadataError(f"machine: expected {wrong}, found {text!r}")
    return name


def section_name(text: str | int) -> str:
    """Return the one spelling of a section: its number with two digits at least.

    Raises:
        MetadataError: It is no number.

    >>> section_name("0"), section_name("01"), section_name(1), section_name("100")
    ('00', '01', '01', '100')
    """
    match = _SECTION.fullmatch(str(text).strip())
    if not match:
        raise MetadataError(f"section: expected digits such as 00, found {str(text)!r}")
    return f"{int(match[1]):02d}"


def twin_key(name: str) -> str:
    """Return a key that is equal for names that differ in case, spaces and composition only.

    >>> twin_key("Motor") == twin_key("motor ")
    True
    """
    return spelling(spelling(name).casefold())


def require_distinct(names: Iterable[str], where: object) -> None:
    """Raise for names of machines that are easily confused.

    Args:
        names: One for each machine, as written.
        where: Where they are from, for the message.

    Raises:
        MetadataError: Two differ in case, outer spaces or Unicode composition only.

    >>> require_distinct(["Motor", "motor"], "clips.csv")
    Traceback (most recent call last):
    ...
    fsasd.data.names.MetadataError: clips.csv: expected one spelling of each machine, found 'Motor' and 'motor': they differ in case, spaces or accents' encoding only
    """  # noqa: E501
    seen: dict[str, str] = {}
    for name in sorted(names):
        twin = seen.setdefault(twin_key(name), name)
        if twin != name:
            same = twin.casefold() != name.casefold() or twin.strip() != twin
            show = ascii if same else repr
            raise MetadataError(
                f"{where}: expected one spelling of each machine, found {show(twin)} and "
                f"{show(name)}: they differ in case, spaces or accents' encoding only"
            )


def as_written(names: Iterable[object], known: Iterable[str], what: str) -> list[str]:
    """Return names as the data set spells them; unknown ones as text.

    A configuration says ``[101]`` or ``[null]`` for machines with these names.

    Raises:
        MetadataError: ``names`` is no list, or a number may mean several of them.

    >>> as_written([101, 1000.0, None, "fann"], ["101", "1e3", "null", "fan"], "machines")
    ['101', '1e3', 'null', 'fann']
    """
    _require_list(names, what)
    known = set(known)
    return [_meant(name, known, what) for name in names]


def require_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise for an unknown name, suggesting a similar one, and for a text instead of a list.

    Raises:
        MetadataError: Lists the known names and suggests a similar one.

    >>> require_known(["fann"], ["fan"], "machines")
    Traceback (most recent call last):
    ...
    fsasd.data.names.MetadataError: 'fann' is not among the machines: fan. Did you mean 'fan'?
    """
    _require_list(names, what)
    known = set(known)
    for name in names:
        if name not in known:
            lower = {k.lower(): k for k in known}
            near = difflib.get_close_matches(str(name).lower(), lower, n=1)
            hint = f". Did you mean '{lower[near[0]]}'?" if near else ""
            there = ", ".join(sorted(known)) or "none"
            raise MetadataError(f"'{name}' is not among the {what}: {there}{hint}")


def _meant(name: object, known: Collection[str], what: str) -> str:
    # As a configuration writes it.
    text = "null" if name is None else spelling(name)
    if text in known or isinstance(name, str):
        return text
    meant = sorted(k for k in known if _value(k) == _value(text))
    if len(meant) > 1:
        quoted = " or ".join(f'"{k}"' for k in meant)
        raise MetadataError(f"{what}: {text} may be {quoted}: write the name in quotes")
    return meant[0] if meant else text


def _value(text: str) -> Hashable:
    """Return the value that a configuration reads from a word."""
    word = text.lower()
    if word in ("none", "null", "~"):
        return None
    if word in ("true", "false"):
        return word
    try:
        number = float(word)
    except ValueError:
        return text
    return "nan" if math.isnan(number) else number


def _require_list(names: Iterable[object], what: str) -> None:
    # A word is a list of letters.
    if isinstance(names, str):
        raise MetadataError(f"expected a list of {what}, found '{names}': write [{names}]")
