"""An edition of DCASE Task 2, from Zenodo to folders that can be read."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.progress import Progress

from fsasd.data.download.catalogue import Archive, archives
from fsasd.data.download.folder import DataFolder
from fsasd.data.download.transfer import DownloadError, Zenodo

GO_ON = "What is there is kept: the same command goes on from here."

log = logging.getLogger(__name__)


def download(
    edition: str,
    root: str | Path,
    *,
    parts: Sequence[str] | None = None,
    machines: Sequence[str] | None = None,
    ground_truth: str | Path | None = None,
    zenodo: Zenodo | None = None,
    jobs: int = 3,
    progress: Progress | None = None,
) -> list[Archive]:
    """Download what an edition has and ``root`` has not, and unpack it.

    Afterwards ``fsasd.data.metadata.read_clips(root)`` reads it. When something fails, the other
    archives are finished first; what was begun stays, and the next call goes on with it.

    Args:
        edition: ``dcase2023``, or ``2023`` for short.
        root: The data set's folder, one for each edition.
        parts: Of ``dev``, ``eval_train``, ``eval_test``; all by default.
        machines: Machine types; all by default.
        ground_truth: Folder with the evaluators' ``ground_truth_data`` etc. to join.
        zenodo: Where from; by default Zenodo itself.
        jobs: Archives that are downloaded at the same time.
        progress: Shows the bytes of each archive on its way.

    Returns:
        The archives that were downloaded and unpacked; none when all were there.

    Raises:
        MetadataError: An edition, part or machine that is not known.
        DownloadError: With every problem found.
    """
    chosen = archives(edition, parts, machines)
    zenodo = zenodo or Zenodo()
    folder = DataFolder(root, chosen[0].edition)
    with folder.claimed():
        if ground_truth is not None:
            targets = {a.machine for a in archives(edition, ["eval_train", "eval_test"])}
            joined = folder.join_ground_truth(ground_truth, targets)
            log.info("%d files of ground truth are in %s", joined, folder.root / "ground_truth")
        missing = zenodo.describe(a for a in chosen if not folder.has(a))
        folder.require_room(missing)
        _obtain_all(missing, folder, zenodo, jobs, progress or Progress(disable=True))
    return missing


def _obtain_all(
    missing: list[Archive], folder: DataFolder, zenodo: Zenodo, jobs: int, progress: Progress
) -> None:
    """Fetch and install archives at the same time; raise for all that failed at the end."""
    one_at_a_time = threading.Lock()

    def obtain(archive: Archive) -> None:
        task = progress.add_task(archive.name, total=archive.size)
        path = folder.zip(archive)
        try:
            zenodo.fetch(archive, path, lambda done: progress.update(task, completed=done))
            progress.update(task, description=f"{archive.name}, unpacking")
            # Training and test clips of a machine go to one folder, and each checks what is free
            # before it unpacks.
            with one_at_a_time:
                folder.install(archive)
        finally:
            progress.remove_task(task)

    problems: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(obtain, archive): archive for archive in missing}
        try:
            for future in as_completed(futures):
                archive = futures[future]
                if error := future.exception():
                    if not isinstance(error, DownloadError):
                        raise error
                    problems.append(f"{archive.name}: {error}")
                else:
                    log.info("%s is in %s", archive.name, folder.root / archive.folder)
        except BaseException:
            zenodo.stop()
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        raise DownloadError("\n".join([*sorted(problems), GO_ON]))
