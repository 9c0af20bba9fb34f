"""A run's folder: what it shows of the store, without a second copy of recordings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fsasd.store import BESIDE

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
        ignore=shutil.ignore_patterns(*BESIDE),
        dirs_exist_ok=True,
    )
    names = [name] if name else [path.name for path in made.iterdir() if path.name not in BESIDE]
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


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
