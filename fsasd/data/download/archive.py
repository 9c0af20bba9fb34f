"""Unpacking: a machine's zip file -> its folder, without trusting names and sizes in the zip."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from fsasd.data.audio_files import AUDIO_SUFFIXES, is_foreign
from fsasd.data.download.transfer import DownloadError

_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    EOFError, RuntimeError, ValueError,
)  # fmt: skip
"""What zipfile and its decoders raise for damage."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of compression: zipfile decompresses others whole, however large a member becomes."""

_REGULAR = (0, stat.S_IFREG, stat.S_IFDIR)


def unpack(
    path: Path, folder: Path, machine: str, renamed: Mapping[str, str] | None = None
) -> None:
    """Unpack a machine's recordings and tables into an empty folder.

    DCASE's archives hold a folder ``<machine>`` with ``train``, ``test`` and attribute tables;
    what is above that folder is left out, and so is what macOS adds.

    Args:
        path: The zip file.
        folder: Becomes the machine's folder. It is written to as the unpacking goes: give a place
            no other process reads, and move it when this function returns.
        machine: Machine type, as the folder in the zip is called.
        renamed: Folders in the machine's folder that are to be called otherwise, e.g.
            ``source_test`` of DCASE 2021, which becomes ``test``.

    Raises:
        DownloadError: A member with an absolute name, a name that leads out of the folder, a
            link, a device, an encrypted member, one that is neither stored nor deflated, or one
            that another one would overwrite; more than the disk has room for; a zip that is
            damaged, or that has no recordings where they are expected. Of these nothing is
            unpacked, except in front of damage.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, machine, renamed or {})
            _require_room(members, folder, path)
            for target, member in members.items():
                file = folder / target
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, file.open("xb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    except DownloadError:
        raise
    except _DAMAGE as error:
        raise DownloadError(f"{path}: expected a zip file, found damage: {error}") from error


def _members(
    archive: zipfile.ZipFile, path: Path, machine: str, renamed: Mapping[str, str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive by where they belong in the machine's folder."""
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if info.header_offset < 0:
            raise zipfile.BadZipFile(f"{info.filename} is to begin before the file")
        _require_harmless(info, name, path)
        if info.is_dir() or any(map(is_foreign, name.parts)):
            continue
        parts = list(name.parts)
        if machine in parts[:-1]:
            parts = parts[parts.index(machine) + 1 :]
        parts[0] = renamed.get(parts[0], parts[0])
        target = PurePosixPath(*parts)
        if target in members:
            raise DownloadError(
                f"{path}: expected every file once, found {members[target].filename} and "
                f"{info.filename}, both to become {target}"
            )
        members[target] = info
    if both := members.keys() & {folder for target in members for folder in target.parents}:
        raise DownloadError(f"{path}: expected a file or a folder, found both called {min(both)}")
    clips = [t for t in members if t.suffix.lower() in AUDIO_SUFFIXES]
    if not clips or any(t.parts[:-1] not in (("train",), ("test",)) for t in clips):
        shown = ", ".join(info.filename for info in archive.infolist()[:5]) or "nothing"
        raise DownloadError(
            f"{path}: expected recordings in {machine}/train or {machine}/test, found {shown}"
        )
    return members


def _require_harmless(info: zipfile.ZipInfo, name: PurePosixPath, path: Path) -> None:
    wrong = None
    if not name.parts or name.is_absolute() or PureWindowsPath(info.filename).drive:
        wrong = "an absolute name or none"
    elif ".." in name.parts:
        wrong = "a name that leads out of the folder"
    elif stat.S_IFMT(info.external_attr >> 16) not in _REGULAR:
        wrong = "a link or a device"
    elif info.flag_bits & 0x1:
        wrong = "an encrypted file"
    elif info.compress_type not in _METHODS:
        wrong = f"a compression (method {info.compress_type}) other than deflate"
    if wrong:
        raise DownloadError(
            f"{path}: expected files and folders only, found {wrong}: {info.filename!r}"
        )


def _require_room(
    members: Mapping[PurePosixPath, zipfile.ZipInfo], folder: Path, path: Path
) -> None:
    # zipfile gives no more of a member than it declares, so no zip unpacks to more than this.
    needed = sum(info.file_size for info in members.values())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{path}: unpacks to {needed:,} bytes, and {free:,} are free in {folder.parent}: make "
            "room and run the same command again"
        )
