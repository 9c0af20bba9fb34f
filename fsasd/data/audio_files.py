"""Recordings among the files of a folder, without files that other programs leave there."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import soundfile

log = logging.getLogger(__name__)

_OF_FORMAT = {
    "WAV": (".wav", ".wave"), "FLAC": (".flac",), "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",), "AIFF": (".aif", ".aiff", ".aifc"), "AU": (".au", ".snd"), "CAF": (".caf",),
    "W64": (".w64",), "RF64": (".rf64",),
}  # fmt: skip
"""libsndfile's formats in which a cut is noticed (see ``containers``)."""

AUDIO_SUFFIXES = tuple(
    suffix
    for name, suffixes in _OF_FORMAT.items()
    if name in soundfile.available_formats()
    for suffix in suffixes
)
"""Of the recordings that are read here."""

READABLE = ".wav, .flac, .ogg, .mp3, .aif, .au, .caf, .w64, .rf64"

# What people have recordings in, and that is not read.
_ANY_AUDIO = frozenset(
    {
        *AUDIO_SUFFIXES,
        ".3gp", ".8svx", ".aac", ".ac3", ".amr", ".ape", ".avr", ".dff", ".dsf", ".eac3", ".iff",
        ".m4a", ".m4b", ".mka", ".mp2", ".mp4", ".nist", ".paf", ".pvf", ".raw", ".sd2", ".sds",
        ".sf", ".sph", ".tta", ".voc", ".webm", ".wma", ".wv",
    }
)  # fmt: skip
_FOREIGN = frozenset(
    {
        "__macosx", "__pycache__", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle",
        "#snapshot", "~snapshot", "$recycle.bin", "recycler", "lost+found", "thumbs.db",
        "desktop.ini", "system volume information", "network trash folder",
    }
)  # fmt: skip


def printable(path: str | Path) -> str:
    r"""Return a path as text that any file, terminal or parser takes.

    Names on disk are bytes; those that are not UTF-8 become escapes.

    >>> print(printable(os.fsdecode(b"L\xfcfter.wav")), printable("Lüfter.wav"))
    L\xfcfter.wav Lüfter.wav
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def path_of(text: str) -> Path:
    r"""Return the path of which ``printable`` returned this text.

    >>> os.fsencode(path_of(r"L\xfcfter.wav")), os.fsencode(path_of("Lüfter.wav"))
    (b'L\xfcfter.wav', b'L\xc3\xbcfter.wav')
    """
    # Bytes below 0x80 are UTF-8 and never escaped.
    escaped = re.compile(rb"\\x([89a-f][0-9a-f])")
    name = escaped.sub(lambda match: bytes.fromhex(match[1].decode()), os.fsencode(text))
    return Path(os.fsdecode(name))


def is_foreign(name: str) -> bool:
    """Tell by its name whether a file or folder is one that other programs leave in data sets.

    Those of notebooks, macOS, Windows and storage systems, and whatever is hidden (begins with a
    point, as do the ``._a.wav`` that macOS leaves beside files on foreign disks).

    >>> [is_foreign(name) for name in (".ipynb_checkpoints", "@eaDir", "._a.wav", "#1 pump", "a.wav")]
    [True, True, True, False, False]
    """  # noqa: E501
    return name.startswith(".") or name.casefold() in _FOREIGN


def is_recording(path: Path) -> bool:
    """Tell by its name whether a file is a recording.

    >>> is_recording(Path("a.WAV")), is_recording(Path("._a.wav")), is_recording(Path("a.txt"))
    (True, False, False)
    """
    return _is_named(path.name, AUDIO_SUFFIXES) and not is_foreign(path.name)


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted, without those of other programs."""
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if _is_folder(e) and not is_foreign(e.name))


def recordings_in(folder: Path) -> list[Path]:
    """Return the recordings directly in a folder, sorted; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            path for e in entries if is_recording(path := Path(e.path)) and not _is_folder(e)
        )


def recordings_below(folder: Path) -> list[Path]:
    """Return the recordings in a folder and in all folders below it, sorted by their path."""
    return sorted(Path(path) for path in _files_below(folder) if _is_named(path, AUDIO_SUFFIXES))


def warn_of_left_out(place: Path, folders: Iterable[Path], taken: Collection[Path]) -> None:
    """Log one warning that lists files that look like audio and are not used.

    Args:
        place: The data set, for the message.
        folders: Where to look, and below.
        taken: The recordings that are used.
    """
    used = set(map(str, taken))
    left = [
        Path(path)
        for folder in folders
        for path in _files_below(folder)
        if _is_named(path, _ANY_AUDIO) and path not in used
    ]
    if not left:
        return
    left.sort()
    names = ", ".join(printable(path.relative_to(place)) for path in left[:3])
    kinds = sorted({path.suffix.lower() for path in left if not is_recording(path)})
    unread = f" ({', '.join(kinds)} cannot be read)" if kinds else ""
    log.warning(
        "%s: %d file%s that look%s like audio left out%s: %s%s", place, len(left),
        "s" * (len(left) > 1), "s" * (len(left) == 1), unread, names, ", ..." * (len(left) > 3),
    )  # fmt: skip


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself.
        return False


def _is_named(path: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(path)[1].lower() in suffixes  # noqa: PTH122


def _files_below(folder: Path) -> Iterator[str]:
    """Yield the path of each file that is not another program's, as ``Path`` writes it."""
    # A link may lead back to where it lies.
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_foreign(name))
        # Of ``./a.wav`` the path is ``a.wav``; making one of each name takes long.
        prefix = str(Path(root, "_"))[:-1]
        yield from (prefix + name for name in files if not is_foreign(name))
