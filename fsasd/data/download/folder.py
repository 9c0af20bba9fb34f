"""The data set's folder: installed archives, free space, ground truth.

::

    <root>/dev_data/<machine>/{train,test}, <root>/eval_data/..., <root>/ground_truth/...
    <root>/archives/   edition.txt; zips and .partial files on their way; a receipt for each
                       archive that was unpacked: <name>.json

A receipt lists the files that came of an archive, with their sizes. It is written last: an
archive counts as done when it has a receipt and all of its files are there.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import logging
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from filelock import Timeout
from rich.filesize import decimal

from fsasd.data.download.archive import unpack
from fsasd.data.download.catalogue import Archive
from fsasd.data.download.transfer import DownloadError
from fsasd.data.ground_truth import KINDS, truth_tables
from fsasd.settings.files import read_json
from fsasd.store.locks import file_lock

UNPACKED = 1.5
"""Bytes of recordings per byte of archive, at most: real ones have 1.1 to 1.35."""

log = logging.getLogger(__name__)


class DataFolder:
    """A folder that an edition is installed in.

    Args:
        root: Made when there is something to write.
        edition: Name of the edition.

    Raises:
        DownloadError: The folder holds another edition.
    """

    def __init__(self, root: str | Path, edition: str) -> None:
        self.root = Path(root)
        self.edition = edition
        self.archives = self.root / "archives"
        named = self.archives / "edition.txt"
        present = _text(named) if named.exists() else edition
        if present != edition and any(self.archives.glob("*.zip*")):
            raise DownloadError(
                f"{self.root} holds {present}, and {edition} has machines of the same names: "
                "choose another --root"
            )

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other downloads out of the folder.

        Raises:
            DownloadError: Another process is at work in it, or it cannot be written to.
        """
        try:
            self.archives.mkdir(parents=True, exist_ok=True)
            (self.archives / "edition.txt").write_text(f"{self.edition}\n", "utf-8")
            lock = file_lock(self.archives / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise DownloadError(
                f"{self.root}: another fsasd-download is at work here; wait for it, or stop it"
            ) from error
        except OSError as error:
            raise DownloadError(
                f"{self.root}: {error.strerror or error}: choose another --root"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def zip(self, archive: Archive) -> Path:
        """The archive's place until it is unpacked; a copy that you have can be put there."""
        return self.archives / archive.name

    def has(self, archive: Archive) -> bool:
        """Whether an archive has been unpacked here, and all of its files are still there."""
        receipt = self._receipt(archive)
        if not receipt.exists():
            return False
        try:
            content = read_json(receipt)
            if content["record"] != archive.record:
                return False
            files = content["files"].items()
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        gone = [
            name
            for name, size in files
            if not (path := self.root / archive.folder / name).is_file()
            or path.stat().st_size != size
        ]
        if gone:
            log.warning(
                "%s: %d of its files are missing or changed, %s first",
                archive.name,
                len(gone),
                self.root / archive.folder / gone[0],
            )
        return not gone

    def needed(self, archives: Iterable[Archive]) -> int:
        """Bytes that described archives still take: what is missing of them, and their contents."""
        total = 0
        for archive in archives:
            path = self.zip(archive)
            partial = path.with_name(f"{path.name}.partial")
            there = next((p.stat().st_size for p in (path, partial) if p.exists()), 0)
            size = archive.size or 0
            total += max(0, size - there) + round(UNPACKED * size)
        return total

    def free(self) -> int:
        """Bytes that are free where the folder is, or will be."""
        there = next(p for p in (self.root, *self.root.absolute().parents) if p.is_dir())
        return shutil.disk_usage(there).free

    def require_room(self, archives: Iterable[Archive]) -> None:
        """Check that described archives fit on the disk.

        Raises:
            DownloadError: Says how much is needed, and how much is free.
        """
        needed, free = self.needed(archives), self.free()
        if needed > free:
            raise DownloadError(
                f"{self.root}: {decimal(needed)} are needed for the archives and what they unpack "
                f"to, and {decimal(free)} are free. Make room, choose another --root, or fewer "
                "--machines or --parts"
            )

    def install(self, archive: Archive) -> None:
        """Unpack a verified archive, put its files in place, and delete it.

        The files appear when all of them are unpacked.

        Raises:
            DownloadError: The zip is not what it should be, see ``unpack``; a file is there
                already, with other content; the disk is full.
        """
        path = self.zip(archive)
        staged = path.with_name(f"{path.name}.unpacking")
        shutil.rmtree(staged, ignore_errors=True)
        try:
            unpack(path, staged, archive.machine, archive.renamed)
            files = {
                str(file.relative_to(staged).as_posix()): file.stat().st_size
                for file in sorted(staged.rglob("*"))
                if file.is_file()
            }
            _merge(staged, self.root / archive.folder)
            self._write_receipt(archive, files)
        except OSError as error:
            raise DownloadError(
                f"{error.filename or staged}: {error.strerror}. {path} is whole and kept: put the "
                "cause right, and the same command goes on with unpacking it"
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        path.unlink()

    def join_ground_truth(self, source: str | Path, machines: Collection[str]) -> int:
        """Copy the evaluators' ground truth to where ``read_clips`` finds it.

        Args:
            source: The evaluators' folder, in the form of any year (see ``data.ground_truth``).
            machines: The edition's target machines.

        Returns:
            The number of files that are now in ``<root>/ground_truth``.

        Raises:
            DownloadError: No ground truth, of a machine that is not the edition's, or other than
                that which is already there.
        """
        source = Path(source)
        problems: list[str] = []
        tables = truth_tables(source, problems)
        lists = sorted(source.glob("eval_data_list*.csv"))
        if not lists and not any(table.kind == "data" for table in tables):
            names = ", ".join(sorted(p.name for p in source.glob("*"))) or "nothing"
            problems.append(
                f"{source}: expected ground_truth_data/ground_truth_<machine>_section_<nn>_test.csv"
                f" or eval_data_list.csv, found {names}"
            )
        if problems:
            raise DownloadError("\n".join(problems))
        for kind in KINDS if tables else ():
            of = {table.machine for table in tables if table.kind == kind}
            if strange := sorted(of - set(machines)):
                raise DownloadError(
                    f"{source}/ground_truth_{kind}: expected the machines of {self.edition}, "
                    f"{', '.join(sorted(machines))}; found {', '.join(strange)}: is it the ground "
                    "truth of another year?"
                )
            if missing := sorted(set(machines) - of):
                names = ", ".join(missing)
                log.warning("%s/ground_truth_%s says nothing of %s", source, kind, names)
        staged = self.archives / "ground_truth.copying"
        shutil.rmtree(staged, ignore_errors=True)
        files = [*lists, *(table.path for table in tables)]
        try:
            for path in files:
                copy = staged / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            _merge(staged, self.root / "ground_truth")
        except OSError as error:
            raise DownloadError(f"{error.filename or staged}: {error.strerror}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return len(files)

    def _receipt(self, archive: Archive) -> Path:
        return self.archives / f"{archive.name}.json"

    def _write_receipt(self, archive: Archive, files: dict[str, int]) -> None:
        receipt = self._receipt(archive)
        draft = receipt.with_name(f"{receipt.name}.partial")
        content = {"record": archive.record, "md5": archive.md5, "files": files}
        draft.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        draft.replace(receipt)


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace").strip()


def _merge(source: Path, target: Path) -> None:
    """Move a folder's contents into another folder, which is created if need be."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        return
    for path in sorted(source.iterdir()):
        there = target / path.name
        if path.is_dir() or not there.exists():
            _merge(path, there)
        elif not filecmp.cmp(path, there, shallow=False):
            raise DownloadError(
                f"{there} is there already, with other content than what was downloaded: move it "
                "away, and run the same command again"
            )
