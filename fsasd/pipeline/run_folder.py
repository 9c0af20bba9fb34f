"""A run's folder: what it has of the store's artifacts, as files of its own."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from fsasd.store.provenance import PROVENANCE

log = logging.getLogger(__name__)

UNREADABLE = "unreadable.csv"
"""Lists the recordings that a run went on without."""

CAPTIONS = "captions.csv"
"""Lists the clips that the generator is trained on, with their captions."""

_LINKED = ".artifacts"
"""Lists the files and folders of a run's folder that are copies of artifacts."""

_CLONE = 0x40049409
"""``FICLONE`` of Linux: a file that shares its blocks with another until one of them is changed."""


def link(artifact: Path, run: Path, name: str = "", without: Iterable[str] = ()) -> None:
    """Copy an artifact into a run's folder, sharing its blocks where the file system can.

    Nothing that is done to the copies reaches the store.

    Args:
        artifact: Its folder.
        run: The run's folder.
        name: Of a folder in it; without, the artifact's files lie in the run's folder itself.
        without: Names that are left out.
    """
    left_out = {PROVENANCE, *without}
    run.mkdir(parents=True, exist_ok=True)
    # Noted first: whoever is killed here leaves nothing that a later run takes for its own.
    note(run, [name] if name else [p.name for p in artifact.iterdir() if p.name not in left_out])
    try:
        shutil.copytree(
            artifact,
            run / name,
            copy_function=copy,
            ignore=shutil.ignore_patterns(*left_out),
            dirs_exist_ok=True,
        )
    except shutil.Error as error:
        _, target, reason = error.args[0][0]
        raise OSError(f"{target}: {reason}") from error


def point(artifact: Path, run: Path, name: str) -> None:
    """Make a symbolic link in a run's folder to a part of an artifact, which is read-only.

    So of what is too large to be copied for each job of a sweep, and of logs, which are read where
    they were written. Where the file system has no such links, a warning says where it is.

    Args:
        artifact: A folder of the artifact.
        run: The run's folder.
        name: Of the link in it.
    """
    path = run / name
    note(run, [name])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    try:
        path.symlink_to(artifact.resolve(), target_is_directory=True)
    except OSError as error:
        log.warning("%s cannot be a link: %s. It is %s", path, error.strerror, artifact)


def note(run: Path, names: Iterable[str]) -> None:
    """Note what is to be taken away when a run is repeated in this folder."""
    with (run / _LINKED).open("a", encoding="utf-8") as listed:
        listed.writelines(f"{name}\n" for name in names)


def unlink(run: Path) -> None:
    """Take away what an earlier run had of the store in this folder, and reported of it.

    It may be of other settings, and not all of it might be replaced.
    """
    for path in _of_the_store(run):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        _remove_empty(path.parent, run)


def result_files(run: Path) -> list[Path]:
    """Return the files and links that a run has left in its folder.

    Its log, its configuration and what links lead to are not among them.
    """
    waiting, files = [*_of_the_store(run), run / CAPTIONS], set()
    while waiting:
        path = waiting.pop()
        if path.is_symlink() or path.is_file():
            files.add(path)
        elif path.is_dir():
            waiting += path.iterdir()
    return sorted(files)


def remove_unused(run: Path) -> None:
    """Remove a run's folder that holds nothing but its log and configuration."""
    if {path.name for path in run.iterdir()} <= {".hydra", "run.log"}:
        shutil.rmtree(run)


def _of_the_store(run: Path) -> list[Path]:
    """Return what a run had of the store, files and folders, there or not, and reported of it."""
    listed = run / _LINKED
    names = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    # ``report`` has the pages of a run of many machines.
    pages = [*run.glob("report.html"), *run.glob("report")]
    reported = [*pages, *run.glob("table[2-6].csv")] if names else []
    return [*(run / name for name in names), *reported, listed]


def list_unreadable(run: Path, recordings: pd.DataFrame) -> None:
    """Write ``unreadable.csv`` of a run, or take away that of an earlier one.

    Args:
        run: The run's folder.
        recordings: Those that it goes on without, a row each: path, machine, section, split and
            ``problem``.
    """
    listed = run / UNREADABLE
    listed.unlink(missing_ok=True)
    if len(recordings):
        columns = ["path", "machine", "section", "split", "reason"]
        named = recordings.fillna({"section": "00"}).rename(columns={"problem": "reason"})
        named[columns].to_csv(listed, index=False)


def add_unscored(run: Path, recordings: pd.DataFrame) -> None:
    """Give test clips that could not be read a row in ``clips.csv``, without score and decision.

    Score files for submission lack them, since DCASE has no score that means "not known".

    Args:
        run: The run's folder.
        recordings: As in ``list_unreadable``, with label and domain.
    """
    clips = run / "clips.csv"
    if recordings.empty or not clips.is_file():
        return
    table = pd.read_csv(clips, dtype=str, keep_default_na=False)
    tests = recordings[recordings["split"] == "test"].fillna({"section": "00"})
    tests = tests.merge(table[["machine", "section"]].drop_duplicates())
    for (machine, section), rows in tests.groupby(["machine", "section"]):
        log.warning(
            "%s section %s: %d of its test clips could not be read: they have no score, metrics "
            "are over the others, and its files in scores/ are incomplete as a submission",
            machine, section, len(rows),
        )  # fmt: skip
    names = tests["path"].map(lambda path: Path(path).name)
    rows = tests[["machine", "section", "label", "domain"]].assign(file=names)
    pd.concat([table, rows]).to_csv(clips, index=False)


def _remove_empty(folder: Path, run: Path) -> None:
    while folder != run and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a file so that its owner may write the copy; share its blocks if that can be done."""
    Path(target).unlink(missing_ok=True)
    with Path(source).open("rb") as original, Path(target).open("wb") as duplicate:
        try:
            _share_blocks(original, duplicate)
        except (OSError, ImportError):
            shutil.copyfileobj(original, duplicate, 2**20)


def _share_blocks(original: BinaryIO, duplicate: BinaryIO) -> None:
    # Not there on Windows.
    import fcntl

    fcntl.ioctl(duplicate.fileno(), _CLONE, original.fileno())
