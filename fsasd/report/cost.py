"""What a run has cost, by stages, and where and with what it was built: of ``artifacts.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

ARTIFACTS = "artifacts.csv"
"""Has a row for each artifact of a run: stage, section, key, time, where it was built."""


@dataclass(frozen=True)
class Builds:
    """Where and with what the artifacts of a run were built; each has several where they differ.

    Attributes:
        hosts: Names of machines.
        commits: Of fsasd's repository; empty where it was installed without one.
        versions: Of fsasd.
        first: When the first build began.
        last: When the last one did.
    """

    hosts: Sequence[str]
    commits: Sequence[str]
    versions: Sequence[str]
    first: str
    last: str

    @classmethod
    def of(cls, artifacts: pd.DataFrame) -> Builds:
        """Return that of a run's artifacts.

        Args:
            artifacts: ``Results.artifacts``, with rows.
        """
        started = artifacts["started"].str[:16].str.replace("T", " ")
        hosts, commits, versions = (
            list(artifacts[name].dropna().unique()) for name in ("host", "commit", "fsasd")
        )
        return cls(hosts, commits, versions, started.min(), started.max())


def stage_costs(artifacts: pd.DataFrame) -> pd.DataFrame:
    """Add up what the artifacts of each stage took.

    Args:
        artifacts: ``Results.artifacts``.

    Returns:
        ``stage``, number of ``artifacts``, ``seconds`` of all builds together, ``longest`` of them
        and ``bytes``; a row per stage, in the order of the file.

    >>> rows = [["curve", 2.0, 10], ["detect", 1.0, 5], ["detect", 3.0, 5]]
    >>> costs = stage_costs(pd.DataFrame(rows, columns=["stage", "seconds", "bytes"]))
    >>> costs.set_index("stage")["seconds"].to_dict()
    {'curve': 2.0, 'detect': 4.0}
    """
    return artifacts.groupby("stage", sort=False, as_index=False).agg(
        artifacts=("seconds", "size"),
        seconds=("seconds", "sum"),
        longest=("seconds", "max"),
        bytes=("bytes", "sum"),
    )
