"""The command ``fsasd-store``: what a store holds, why, whether it is whole, what may go."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fsasd.cli.arguments import command_parser
from fsasd.report.formatting import size
from fsasd.store.collecting import collect, forget_runs, garbage
from fsasd.store.key import Description
from fsasd.store.listing import Artifact, artifacts, folder_bytes
from fsasd.store.provenance import PROVENANCE
from fsasd.store.registry import RUNS, registered
from fsasd.store.store import Store


class _RefusedError(Exception):
    """The arguments name something that is not there, or that cannot be done."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``fsasd-store``.

    Returns:
        0 where all is well; 1 where artifacts are damaged or could not be collected; 2 where the
        arguments name something that is not there.
    """
    arguments = _parser().parse_args(argv)
    try:
        if not arguments.store.is_dir():
            raise _RefusedError(
                f"{arguments.store}: expected the folder of a store (--store, or the environment "
                "variable FSASD_STORE), found none"
            )
        return arguments.run(arguments)
    except (_RefusedError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "fsasd-store",
        "The store of artifacts that stages of all runs share. An ARTIFACT is a key, "
        "the beginning of one, or a path.",
    )
    store: dict[str, Any] = {
        "type": Path,
        "metavar": "DIR",
        "help": "the store (default: $FSASD_STORE, or outputs/store)",
    }
    parser.add_argument(
        "--store", default=os.environ.get("FSASD_STORE") or "outputs/store", **store
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, as_json: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--store", default=argparse.SUPPRESS, **store)
        if as_json:
            added.add_argument("--json", action="store_true", help="print JSON")
        return added

    listed = command("ls", _ls, "List artifacts: key, state, when they were built, size, runs.")
    listed.add_argument("stage", nargs="?", help="only of this stage")
    listed.add_argument("--section", help='only of this section, e.g. "fan section 00"')
    shown = command("show", _show, "Say what determines an artifact and how it was built.")
    shown.add_argument("artifact", metavar="ARTIFACT")
    why = command("why", _why, "Say what two artifacts differ in, and so why both were built.")
    why.add_argument("artifacts", metavar="ARTIFACT", nargs=2)
    collected = command(
        "gc", _gc, "Delete artifacts that no run folder uses. Their key and provenance are left. "
        "What is being built is not collected, nor what that is built from.",
    )  # fmt: skip
    collected.add_argument("--unused", action="store_true", help="whenever they were built")
    collected.add_argument(
        "--older", type=_days, metavar="DAYS", help="only if neither built nor used for so long"
    )
    collected.add_argument("--dry-run", action="store_true", help="only list them")
    verified = command("verify", _verify, "Compare all files, of any size, with the provenance.")
    verified.add_argument("artifacts", metavar="ARTIFACT", nargs="*", help="default: all")
    command("du", _du, "Sizes of the folders of a store: stages, features of recordings.")
    exported = command(
        "export", _export, "Copy an artifact, or a section's saved detector (models/<machine>/"
        "section_<nn> of a run) with the networks that it shares, so that it stands alone.",
        as_json=False,
    )  # fmt: skip
    exported.add_argument("artifact", metavar="ARTIFACT-or-MODEL")
    exported.add_argument("target", type=Path, metavar="DIR", help="empty, or does not exist")
    return parser


def _ls(arguments: argparse.Namespace) -> int:
    users: dict[str, int] = {}
    for run in registered(arguments.store):
        for key in run.artifacts if run.exists(arguments.store) is not False else ():
            users[key] = users.get(key, 0) + 1
    rows = [
        {**_row(artifact, arguments.store), "runs": users.get(artifact.key, 0)}
        for artifact in artifacts(arguments.store)
    ]
    if arguments.stage:
        rows = [row for row in rows if row["stage"] == arguments.stage]
    if arguments.section is not None:
        rows = [row for row in rows if row["section"] == arguments.section]
    _print(rows, arguments.json)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    artifact = _artifact(arguments.store, arguments.artifact)
    if artifact.provenance is None:
        if artifact.description is None:
            raise _RefusedError(f"{artifact.path}: {artifact.state}, nothing says what it is")
        fields = artifact.description.to_json()
    else:
        fields = artifact.provenance.to_json()
    fields = {"path": str(artifact.path), "state": artifact.state, **fields}
    if arguments.json:
        print(json.dumps(fields, indent=2))
        return 0
    files = fields.pop("files", {})
    if "bytes" in fields:
        fields["bytes"] = f"{size(fields['bytes'])} in {len(files)} files"
    fields["inputs"] = {
        name: _named(arguments.store, key) for name, key in fields["inputs"].items()
    }
    # The spec may be long.
    spec = fields.pop("spec")
    for line in _lines({**fields, "spec": spec}):
        print(line)
    return 0


def _why(arguments: argparse.Namespace) -> int:
    old, new = (_description(arguments.store, name) for name in arguments.artifacts)
    lines = Store(arguments.store).differences(old, new)
    if arguments.json:
        print(json.dumps(lines, indent=2))
    else:
        print("\n".join(lines or ["they are the same artifact"]))
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    if not arguments.unused and arguments.older is None:
        raise _RefusedError("say which: --unused for all that no run uses, or --older DAYS")
    unused = garbage(arguments.store, arguments.older or 0)
    collected, failed = [], 0
    for artifact in unused.artifacts:
        row = _row(artifact, arguments.store)
        try:
            if arguments.dry_run or collect(artifact):
                collected.append(row)
        except OSError as error:
            failed += 1
            print(f"{artifact.path}: not collected: {error}", file=sys.stderr)
    if not arguments.dry_run:
        forget_runs(arguments.store)
    _print(collected, arguments.json)
    for run in unused.unknown:
        print(
            f"{run.folder} of {', '.join(sorted(run.hosts))} cannot be seen from here, so what it "
            f"uses was kept; if it is gone, delete {run.file}",
            file=sys.stderr,
        )
    if not arguments.json:
        what = "would be collected" if arguments.dry_run else "collected"
        print(f"{size(sum(row['bytes'] for row in collected))} {what}")
    return int(failed > 0)


def _verify(arguments: argparse.Namespace) -> int:
    entries = [_artifact(arguments.store, name) for name in arguments.artifacts]
    entries = entries or [
        artifact
        for artifact in artifacts(arguments.store)
        if artifact.state in ("whole", "damaged")
    ]
    rows = []
    for artifact in entries:
        damage: str | None = f"{PROVENANCE}: expected one that is whole"
        if artifact.state == "collected":
            damage = "it was collected"
        elif artifact.provenance:
            damage = artifact.provenance.damage(artifact.path, math.inf)
        if damage:
            rows.append({"path": str(artifact.path), "damage": damage})
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['path']}: {row['damage']}")
        print(f"{len(entries)} artifacts, {len(rows)} damaged")
    return int(bool(rows))


def _du(arguments: argparse.Namespace) -> int:
    counts: dict[str, int] = {}
    for artifact in artifacts(arguments.store):
        if artifact.state != "collected":
            stage = artifact.path.relative_to(arguments.store).parts[0]
            counts[stage] = counts.get(stage, 0) + 1
    rows = [
        {"folder": path.name, "artifacts": counts.get(path.name, 0), "bytes": folder_bytes(path)}
        for path in sorted(arguments.store.iterdir())
        if path.is_dir() and path.name != RUNS
    ]
    total = {
        "folder": "total",
        "artifacts": sum(counts.values()),
        "bytes": folder_bytes(arguments.store),
    }
    _print([*rows, total], arguments.json)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from fsasd.detectors.saved import SETTINGS, SHARED, export_section

    folder = Path(arguments.artifact)
    if (folder / SETTINGS).is_file():
        # Networks may be in the artifacts of the stage that trained them.
        networks = sorted(arguments.store.glob(f"*/*/{SHARED}"))
        export_section(folder, arguments.target, shared=networks)
        return 0
    artifact = _artifact(arguments.store, arguments.artifact)
    if artifact.provenance is None or artifact.state != "whole":
        raise _RefusedError(f"{artifact.path}: expected a whole artifact, it is {artifact.state}")
    if damage := artifact.provenance.damage(artifact.path, math.inf):
        raise _RefusedError(f"{artifact.path} is damaged: {damage}")
    if arguments.target.exists() and any(arguments.target.iterdir()):
        raise _RefusedError(
            f"{arguments.target}: expected an empty folder or none, found files in it"
        )
    shutil.copytree(
        artifact.path, arguments.target, copy_function=shutil.copyfile, dirs_exist_ok=True
    )
    return 0


def _artifact(store: Path, name: str) -> Artifact:
    """Return the artifact of a key, of the beginning of one, or of a path."""
    key = Path(name).name if Path(name).exists() else name
    key = key.partition(".")[0]
    if not re.fullmatch(r"[0-9a-f]{1,16}", key):
        raise _RefusedError(f"{name}: expected a key, the beginning of one, or an artifact's path")
    matches = [
        artifact
        for artifact in artifacts(store)
        if artifact.key.startswith(key) and artifact.state != "replaced"
    ]
    keys = sorted({artifact.key for artifact in matches})
    if len(keys) != 1:
        there = f"found {len(keys)}: {', '.join(keys[:5])}" if keys else "found none"
        raise _RefusedError(f"{name}: expected an artifact of {store}, {there}")
    order = ["whole", "damaged", "building", "unfinished", "collected"]
    return min(matches, key=lambda artifact: order.index(artifact.state))


def _description(store: Path, name: str) -> Description:
    artifact = _artifact(store, name)
    if artifact.description is None:
        raise _RefusedError(f"{artifact.path}: {artifact.state}, nothing says what it is")
    return artifact.description


def _named(store: Path, key: str) -> str:
    description = Store(store).description(key)
    return f"{key} ({description.title})" if description else f"{key} (not in the store)"


def _row(artifact: Artifact, store: Path) -> dict[str, Any]:
    provenance, description = artifact.provenance, artifact.description
    return {
        "key": artifact.key,
        "stage": artifact.path.relative_to(store).parts[0],
        "section": description.section if description else None,
        "state": artifact.state,
        "built": provenance.started if provenance else None,
        "seconds": provenance.seconds if provenance else None,
        "bytes": artifact.bytes,
    }


def _print(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        return
    table = [list(rows[0])]
    for row in rows:
        short = {**row, "bytes": size(row["bytes"])}
        if row.get("built"):
            short["built"], short["seconds"] = row["built"][:19], f"{row['seconds']:.1f}"
        table.append(["" if value is None else str(value) for value in short.values()])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())


def _lines(fields: dict[str, Any], indent: str = "") -> Iterable[str]:
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif value not in (None, "", {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{indent}{name}: {text if len(text) < 200 else text[:197] + '...'}"


def _days(text: str) -> float:
    days = float(text)
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"expected 0 days or more, found {text}")
    return days
