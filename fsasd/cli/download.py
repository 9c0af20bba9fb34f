"""The command ``fsasd-download``: editions of DCASE Task 2 from Zenodo."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from fsasd.cli.arguments import command_parser
from fsasd.data.download.catalogue import ZENODO, Archive, archives, editions
from fsasd.data.names import MetadataError

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-download``.

    Returns:
        Exit code: 0 when the data set is complete; 1 when something is missing, which the same
        command resumes; 2 when the arguments are wrong; 130 when it was interrupted.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.list and (arguments.edition is None or arguments.root is None):
        parser.error("expected an EDITION and --root DIR (or --list)")
    if arguments.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, found {arguments.jobs}")
    from rich.console import Console
    from rich.logging import RichHandler

    from fsasd.data.download.download import GO_ON
    from fsasd.data.download.transfer import DownloadError

    # Standard output is for results, as in the other commands.
    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
    logger = logging.getLogger("fsasd.data.download")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return _run(arguments, console)
    except MetadataError as error:
        print(error, file=sys.stderr)
        return 2
    except DownloadError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted. {GO_ON}", file=sys.stderr)
        return 130
    finally:
        logger.removeHandler(handler)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "fsasd-download",
        "Download an edition of DCASE Task 2 from Zenodo, verified, into folders that "
        "fsasd reads (data=EDITION data.root=DIR). Existing files are not downloaded again; "
        "interrupted downloads are resumed.",
    )
    parser.add_argument("edition", nargs="?", metavar="EDITION", help=f"{', '.join(editions())}")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder for the data set")
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="PART",
        help="dev: reference machines; eval_train: normal clips of the target machines; "
        "eval_test: their test clips (default: all)",
    )
    parser.add_argument("--machines", nargs="+", metavar="NAME", help="machine types; default: all")
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="DIR",
        help="the evaluators' folder with ground_truth_data, _domain and _attributes, to copy "
        "into the data set",
    )
    parser.add_argument(
        "--base-url",
        default=ZENODO,
        metavar="URL",
        help="a mirror with Zenodo's paths, /records/<id>/files/<name> and /api/records/<id> "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=3, metavar="N", help="archives at the same time (default: 3)"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the archives, without network access"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be downloaded, write nothing"
    )
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.list:
        wanted = [arguments.edition] if arguments.edition else editions()
        listed = [archives(edition, arguments.parts, arguments.machines) for edition in wanted]
        for edition in listed:
            _show(edition)
        return 0
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from fsasd.data.download.download import download
    from fsasd.data.download.folder import DataFolder
    from fsasd.data.download.transfer import Zenodo

    zenodo = Zenodo(arguments.base_url)
    chosen = archives(arguments.edition, arguments.parts, arguments.machines)
    if arguments.dry_run:
        folder = DataFolder(arguments.root, chosen[0].edition)
        missing = zenodo.describe(a for a in chosen if not folder.has(a))
        _show(missing)
        print(
            f"{len(chosen) - len(missing)} of {len(chosen)} archives are in {folder.root}; "
            f"{decimal(folder.needed(missing))} needed, {decimal(folder.free())} free"
        )
        return 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        fetched = download(
            arguments.edition,
            arguments.root,
            parts=arguments.parts,
            machines=arguments.machines,
            ground_truth=arguments.ground_truth,
            zenodo=zenodo,
            jobs=arguments.jobs,
            progress=progress,
        )
    there = len(chosen) - len(fetched)
    print(f"{len(fetched)} archives downloaded, {there} existed; all are in {arguments.root}")
    return 0


def _show(listed: Sequence[Archive]) -> None:
    for archive in listed:
        size = "size unknown" if archive.size is None else decimal(archive.size)
        print(
            f"{archive.edition}  {archive.part:<10}  {archive.machine:<19}  {size:>14}  "
            f"{archive.name}"
        )
