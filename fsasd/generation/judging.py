"""Judging synthetic clips: which of them are kept, and how near they are to real clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fsasd.data.front_ends import FrontEnd
from fsasd.generation.encoder_space import Pooled, RealClips
from fsasd.generation.filters import Filters, mark_duplicates
from fsasd.generation.gap import DIFFERENCES, GAP, gap_tables
from fsasd.generation.quality import QUALITY, quality_table
from fsasd.generation.synthetic_clips import read_table, write_table
from fsasd.store.atomic import replacing


def judge(
    synthesis_folder: str | Path,
    folder: str | Path,
    real: RealClips,
    filters: Filters | None = None,
    encoders: Mapping[str, FrontEnd | Pooled] | None = None,
) -> pd.DataFrame:
    """Decide which synthetic clips are kept, and compare these with real clips.

    Writes ``manifest.csv``, that of the synthesis with ``kept`` and ``reason`` of all rules
    (cleaning, duplicates, filters, candidates), ``quality.csv`` (see ``quality_table``),
    ``gap.csv`` and ``differences.csv`` (see ``gap_tables``).

    Args:
        synthesis_folder: Where ``synthesise`` left recordings and manifest; is not changed.
        folder: Gets the tables; their wav files are named relative to ``synthesis_folder``.
        real: The captioned real clips that synthetic ones are compared with.
        filters: Rules for the whole set; the default ones without.
        encoders: Of ``quality.csv`` (see ``quality_table``).

    Returns:
        The manifest (see ``synthetic_clips.read_table``).

    Raises:
        FileNotFoundError: The synthesis is not finished.
        ValueError: A filter lacks real clips to take its limit from, or a clip was made of a
            recording that is not among them.
    """
    recordings = Path(synthesis_folder)
    manifest = mark_duplicates(read_table(recordings))
    manifest = (filters or Filters())(manifest, recordings, real)
    Path(folder).mkdir(parents=True, exist_ok=True)
    gap, differences = gap_tables(manifest, recordings, real)
    tables = {
        QUALITY: quality_table(manifest, recordings, real, encoders),
        GAP: gap,
        DIFFERENCES: differences,
    }
    for name, table in tables.items():
        with replacing(Path(folder) / name) as unfinished:
            table.to_csv(unfinished, index=False)
    write_table(manifest, folder)
    return manifest
