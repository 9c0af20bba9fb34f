"""The command ``fsasd-push``: upload a saved detector or a fine-tuned generator to the hub."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsasd.cli.arguments import add_trust, command_parser

if TYPE_CHECKING:
    from fsasd.deployment.hub_folder import HubFolder


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = command_parser(
        "fsasd-push",
        "Upload a saved detector or a fine-tuned generator as a repository of the Hugging Face "
        "hub: its files and its card. Without --yes it only says what would be uploaded.",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL",
        help="of a run's folder: models/<machine>/ or models/<machine>/section_<nn>/ (a detector), "
        "model/ (the generator)",
    )  # fmt: skip
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository's id")
    parser.add_argument("--yes", action="store_true", help="upload")
    parser.add_argument("--private", action="store_true", help="a repository that is not public")
    parser.add_argument(
        "--licence", metavar="NAME",
        help="of the model, as the hub calls it (mit, apache-2.0, cc-by-nc-sa-4.0 ...); by default "
        "the card's",
    )  # fmt: skip
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument(
        "--revision", metavar="BRANCH", help="a branch, which is created if there is none"
    )
    parser.add_argument(
        "--no-create", action="store_true", help="refuse a repository that there is not"
    )
    add_trust(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-push``.

    Returns:
        Exit code: 0 when the model was uploaded, or could be; 2 when it cannot be, or the hub
        refuses.
    """
    arguments = parser().parse_args(argv)
    from fsasd.deployment.hub_folder import prepare
    from fsasd.deployment.uploading import require_repository, upload

    try:
        require_repository(arguments.repository)
        with tempfile.TemporaryDirectory() as place:
            folder = prepare(
                arguments.model,
                Path(place) / "model",
                arguments.repository,
                arguments.licence,
                arguments.trust,
            )
            print(_text(folder, arguments), flush=True)
            if not arguments.yes:
                print("dry run: nothing was uploaded; --yes uploads")
                return 0
            commit = upload(
                folder,
                arguments.repository,
                private=arguments.private,
                message=arguments.message,
                revision=arguments.revision,
                create=not arguments.no_create,
            )
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"uploaded: {commit}")
    return 0


def _text(folder: HubFolder, arguments: argparse.Namespace) -> str:
    visible = "private" if arguments.private else "public, unless it is private already"
    branch = f", branch {arguments.revision}" if arguments.revision else ""
    lines = [f"{folder.model} as {arguments.repository} ({visible}{branch})"]
    lines += [f"{_size(size):>10}  {name}" for name, size in folder.sizes.items()]
    lines += [f"{_size(sum(folder.sizes.values())):>10}  in {len(folder.sizes)} files"]
    lines += [f"licence: {folder.licence}"] if folder.licence else []
    lines += [f"missing in the card: {', '.join(folder.missing)}"] if folder.missing else []
    return "\n".join(lines)


def _size(size: float) -> str:
    """Return bytes as the hub shows them.

    >>> _size(999), _size(2_605_604)
    ('999 B', '2.6 MB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
