"""``fsasd init DIR``: a commented study of own recordings, to be edited and run."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from fsasd.cli.arguments import command_parser

STUDY = Path("conf", "experiment", "study.yaml")
MANIFEST = Path("clips.csv")

COLUMNS = ["path", "machine", "split", "label"]
EXAMPLES = [
    ["recordings/pump/monday_01.wav", "pump", "train", "normal"],
    ["recordings/pump/monday_02.wav", "pump", "test", "normal"],
    ["recordings/pump/leak_01.wav", "pump", "test", "anomaly"],
    ["recordings/motor/night_01.wav", "motor", "train", "normal"],
    ["recordings/motor/today_01.wav", "motor", "test", ""],
]
"""Rows for recordings that are not there yet; those of the tutorial."""

_NEXT = """\
{manifest} has {rows}: machine, split and label of each recording; any other column is an attribute.
{study} has the settings, with comments.
Edit both, then, in {folder}:

  fsasd-check --config-dir conf experiment=study   # what the recordings are, and problems in them
  fsasd --config-dir conf experiment=study         # the whole method"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``fsasd init``.

    Returns:
        Exit code: 0; 2 where one of the files exists, or the folder is none.
    """
    parser = command_parser(
        "fsasd init",
        "Write a study of your own recordings into a folder: settings with comments "
        f"({STUDY.as_posix()}), and a table of the recordings that are in there ({MANIFEST}). "
        "Nothing is overwritten.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a new folder, or one of recordings"
    )
    folder: Path = parser.parse_args(argv).folder
    try:
        rows = write_study(folder)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    what = f"{rows} recordings" if rows else "rows to replace"
    print(_NEXT.format(manifest=folder / MANIFEST, rows=what, study=folder / STUDY, folder=folder))
    return 0


def write_study(folder: Path) -> int:
    """Write a study.

    Args:
        folder: Where; made if it is not there.

    Returns:
        The number of recordings in the folder, which the table lists by their paths alone; 0 if
        there are none, and it has examples.

    Raises:
        FileExistsError: if it has one of the files; none is written then.
        NotADirectoryError: if it is a file.
    """
    from fsasd.data.audio_files import recordings_below

    for name in (STUDY, MANIFEST):
        if (folder / name).exists():
            raise FileExistsError(
                f"{folder / name}: expected no such file, found one, which is not overwritten: "
                "remove it, or name another folder"
            )
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, found a file")
    recordings = recordings_below(folder) if folder.is_dir() else []
    paths = [path.relative_to(folder).as_posix() for path in recordings]
    (folder / STUDY).parent.mkdir(parents=True, exist_ok=True)
    text = (resources.files("fsasd.cli") / "study.yaml").read_text(encoding="utf-8")
    (folder / STUDY).write_text(text, encoding="utf-8")
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([path, "", "", ""] for path in paths)
        writer.writerows([] if paths else EXAMPLES)
    return len(paths)
