"""The command ``fsasd-export``: write a saved detector as one ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fsasd.cli.arguments import add_trust, command_parser
from fsasd.data.audio_files import READABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-export``.

    Returns:
        Exit code: 0 when the file was written; 1 when its scores are not those of Python; 2 when
        there is no such model, it cannot be exported, or the file is there already.
    """
    parser = command_parser(
        "fsasd-export",
        "Write a saved detector as one ONNX file, from the waveform to score, p-value and "
        "decision, with threshold, calibration and provenance as metadata. It is written only if "
        "onnxruntime's scores are those of Python.",
    )
    parser.add_argument(
        "--onnx", type=Path, required=True, metavar="OUT", help="the file to write"
    )  # fmt: skip
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR",
        help="models/<machine>/ of a run's folder, models/<machine>/section_<nn>/, or "
        "hub:owner/name",
    )  # fmt: skip
    parser.add_argument(
        "--check", nargs="+", default=[], metavar="WAV",
        help=f"recordings, folders of recordings ({READABLE}) or patterns, of which scores are "
        "compared; without, of a waveform that is drawn",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there")
    add_trust(parser)
    arguments = parser.parse_args(argv)
    try:
        return _export(
            arguments.onnx, arguments.model, arguments.check, arguments.force, arguments.trust
        )
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def _export(
    out: Path, folder: Path, checked: Sequence[str], force: bool, trust: Sequence[str]
) -> int:
    from fsasd.data.audio_files import printable
    from fsasd.deployment.files import recordings
    from fsasd.deployment.model import load
    from fsasd.export.comparison import SECONDS, TOLERANCE, compare, read_input
    from fsasd.export.graph import require_extra
    from fsasd.export.model_file import described, export
    from fsasd.store.atomic import replacing

    for package in ("onnx", "onnxruntime"):
        require_extra(package)
    if out.exists() and not force:
        raise FileExistsError(f"{printable(out)} is there already: name another, or use --force")
    model = load(folder, trust)
    exported = export(
        model.detector, model.calibration, model.channel, about=described(model.folder)
    )
    paths = list(recordings(checked))
    compared = compare(
        exported, model.detector, {path: read_input(exported, path) for path in paths}
    )
    of = f"{compared.clips} recordings" if paths else "a waveform that was drawn"
    if not compared.difference <= TOLERANCE:
        print(
            f"not written: the scores of {of} differ from Python's by {compared.difference:.1e}, "
            f"more than {TOLERANCE:g}",
            file=sys.stderr,
        )
        return 1
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as unfinished:
        unfinished.write_bytes(exported.content)
    print(
        f"{printable(out)}: {len(exported.content) / 1000:.0f} kilobytes\n"
        f"scores of {of}: {compared.difference:.1e} from Python's at most (scores above 1: "
        "relative)\n"
        f"a clip of {SECONDS:g} s: {compared.onnx_milliseconds:.1f} ms with onnxruntime on one "
        f"thread, {compared.python_milliseconds:.1f} ms with Python"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
