"""The manifest of synthetic clips: a row per clip, how it was generated, whether it is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fsasd.data.metadata import Clip
from fsasd.generation.prompts import Prompt
from fsasd.store.atomic import replacing

MANIFEST = "manifest.csv"

COLUMNS = [*Prompt._fields, "sha256", "kept", "reason"]
"""Of the manifest: the prompt, the SHA-256 of the wav file, whether it is kept, and if not why."""


def write_table(manifest: pd.DataFrame, folder: str | Path) -> None:
    """Write ``manifest.csv``: complete, or not at all."""
    with replacing(Path(folder) / MANIFEST) as unfinished:
        manifest.to_csv(unfinished, index=False)


def read_table(folder: str | Path) -> pd.DataFrame:
    """Read ``manifest.csv``.

    Returns:
        Its rows: text as it was written, ``kept`` and ``derived`` True or False.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: A column is missing.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: was the synthesis finished?")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, found none named "
            f"{', '.join(missing)}. It is of an older version: synthesise anew"
        )
    return with_booleans(table)


def with_booleans(manifest: pd.DataFrame) -> pd.DataFrame:
    """Convert the text ``True`` and ``False`` of a table that was read to booleans."""
    return manifest.assign(**{name: manifest[name] == "True" for name in ("kept", "derived")})


def read_manifest(
    folder: str | Path, recordings: str | Path | None = None, *, kept: bool = True
) -> list[Clip]:
    """Read the synthetic clips that a manifest lists.

    A clip has the attributes of the real clip whose caption it has, so that a synthetic normal clip
    is of its class. Where it was derived from that clip's audio, the clip's content is its
    ``source``.

    Args:
        folder: Holds ``manifest.csv``: where clips were synthesised, or judged.
        recordings: The folder that the wav files are in, if it is another one.
        kept: Only the clips that are kept; otherwise all.

    Raises:
        FileNotFoundError: There is no manifest.
    """
    table = read_table(folder)
    return clips_of(table[table["kept"]] if kept else table, recordings or folder)


def clips_of(rows: pd.DataFrame, recordings: str | Path) -> list[Clip]:
    """Return the clips of rows of a manifest (see ``read_manifest``)."""
    return [
        Clip(
            path=Path(recordings) / row["wav"],
            machine=row["machine"],
            section=row["section"] or None,
            domain=row["domain"] or None,
            label=row["label"],
            attributes=json.loads(row["attributes"]),
            raw_label=row["raw_label"],
            source=row["source_sha256"] if row["derived"] else None,
            synthetic=True,
            strength=float(row["strength"]) if row["strength"] else None,
            donor=row["donor"] or None,
            fault=row["fault"] or None,
            pair=int(row["pair"]) if row["pair"] else None,
        )
        for row in rows.to_dict("records")
    ]


def rejections(folder: str | Path, machine: str) -> Counter[str]:
    """Count the reasons for which clips of a machine are not kept."""
    table = read_table(folder)
    return Counter(table[(table["machine"] == machine) & ~table["kept"]]["reason"])


def sources_of_derived(rows: pd.DataFrame) -> Sequence[str | None]:
    """Return for each row the content hash of the recording that it was derived from, if it was."""
    return [s if d else None for s, d in zip(rows["source_sha256"], rows["derived"], strict=True)]
