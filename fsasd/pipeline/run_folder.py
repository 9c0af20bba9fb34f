"""A run's folder: what it shows of the store, without a second copy of recordings."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pandas as pd

from fsasd.store.provenance import PROVENANCE

log = logging.getLogger(__name__)

UNREADABLE = "unreadable.csv"
"""Lists the recordings that a run went on without."""

_SHOWN = ".shown"
"""Says which files and folders of a run's folder are shown in it."""


def show(made: Path, run: Path, name: str = "") -> None:
    """Show an artifact in a run's folder.

    Args:
        made: The artifact; what is in it is linked, or copied where that cannot be done.
        run: The run's folder.
        name: Of a folder in it; without, all of the artifact lies in the run's folder itself.
    """
    shutil.copytree(
        made,
        run / name,
        copy_function=_link_or_copy,
        ignore=shutil.ignore_patterns(PROVENANCE),
        dirs_exist_ok=True,
    )
    names = [name] if name else [path.name for path in made.iterdir() if path.name != PROVENANCE]
    with (run / _SHOWN).open("a", encoding="utf-8") as listed:
        listed.writelines(f"{name}\n" for name in names)


def clear(run: Path) -> None:
    """Take away what an earlier run showed in this folder, and reported of it.

    It may be of other settings, and not all of it might be replaced.
    """
    listed = run / _SHOWN
    names = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    made_of_it = [*run.glob("report.html"), *run.glob("table[2-6].csv")] if names else []
    for path in [*(run / name for name in names), *made_of_it, listed]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


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
    for (machine, section), own in tests.groupby(["machine", "section"]):
        log.warning(
            "%s section %s: %d of its test clips could not be read: they have no score, metrics "
            "are over the others, and its files in scores/ are incomplete as a submission",
            machine, section, len(own),
        )  # fmt: skip
    names = tests["path"].map(lambda path: Path(path).name)
    rows = tests[["machine", "section", "label", "domain"]].assign(file=names)
    # What is linked there is the store's.
    clips.unlink()
    pd.concat([table, rows]).to_csv(clips, index=False)


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
