"""What settings scored on a section's clips: all that a choice is made on, as an artifact."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from fsasd.generation.gap import Gap
from fsasd.selection.settings import Candidates
from fsasd.settings.files import read_json
from fsasd.settings.objects import described, rebuilt

EVIDENCE = "evidence.json"
SCORES = "evidence.safetensors"

FORMAT = 4
"""Of these files, raised when what they hold changes."""

Domains = list[str | None]


@dataclass(frozen=True, eq=False)
class ScoredClips:
    """Clips as settings scored them, and what the rule needs to know of them.

    Attributes:
        scores: (settings, n).
        labels: (n,) 1 for anomaly.
        domains: (n,) as far as they are known.
        groups: (n,) equal for clips of one recording.
        strengths: (n,) rung of a generator's ladder of strengths; NaN without one.
        donors: (n,) machine and section whose anomaly a clip has (``Clip.donor``); empty if none.
        faults: (n,) kind of anomaly, several joined by ``+`` (``Clip.fault``); empty if none.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int_]
    domains: Domains
    groups: NDArray[np.int_]
    strengths: NDArray[np.float64]
    donors: list[str]
    faults: list[str]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Scores of every candidate setting on clips of one section.

    Attributes:
        candidates: The settings.
        measured: What the selector asked for (``Selector.measured``).
        abstain_reason: Why nothing could be tried, if so; then there is no ``synthetic``.
        synthetic: Synthetic clips of both labels, a row for each candidate. Cross-fitted if any is
            made of a training clip or the selector calibrates, else scored by fits on all
            training clips.
        train: Real normal training clips, held out: a row for each candidate where the synthetic
            clips are cross-fitted, else none.
        gap: Between synthetic and real normals; ``None`` where it was not measured.
        test: (candidates, t) of test clips; ``None`` where they were not given, or a setting could
            not be fitted.
    """

    candidates: Candidates
    measured: Mapping[str, Any]
    abstain_reason: str = ""
    synthetic: ScoredClips | None = None
    train: ScoredClips | None = None
    gap: Gap | None = None
    test: NDArray[np.float64] | None = None

    def save(self, folder: Path) -> None:
        """Write ``evidence.json`` and ``evidence.safetensors``; ``load`` gives the same bits.

        Raises:
            TypeError: A value of a setting can be neither JSON nor made again from JSON.
        """
        folder.mkdir(parents=True, exist_ok=True)
        clips = {"synthetic": self.synthetic, "train": self.train}
        arrays = {name: some.scores for name, some in clips.items() if some is not None}
        if self.test is not None:
            arrays["test"] = self.test
        about = {
            "format": FORMAT,
            "measured": self.measured,
            "abstain_reason": self.abstain_reason,
            "settings": described(self.candidates.settings, "settings"),
            "n_grid": self.candidates.n_grid,
            "params": described(self.candidates.params, "params"),
            "clips": {
                name: {
                    "labels": some.labels.tolist(),
                    "domains": some.domains,
                    "groups": some.groups.tolist(),
                    "strengths": [None if np.isnan(s) else s for s in some.strengths.tolist()],
                    "donors": some.donors,
                    "faults": some.faults,
                }
                for name, some in clips.items()
                if some is not None
            },
            "gap": None if self.gap is None else asdict(self.gap),
        }
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / SCORES)
        (folder / EVIDENCE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, trust: Iterable[str] = ()) -> Self:
        """Read what ``save`` wrote.

        Args:
            folder: Holds the two files.
            trust: Packages whose classes values of settings may have, beside those of fsasd and
                scikit-learn.

        Raises:
            ValueError: They are of another format.
        """
        about = read_json(folder / EVIDENCE)
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{folder / EVIDENCE}: expected format {FORMAT}, found {about.get('format')}: it "
                "was written by another version of fsasd"
            )
        arrays = load_file(folder / SCORES)
        clips = {
            name: ScoredClips(
                arrays[name],
                np.array(known["labels"], dtype=int),
                known["domains"],
                np.array(known["groups"], dtype=int),
                np.array(known["strengths"], dtype=float),
                known["donors"],
                known["faults"],
            )
            for name, known in about["clips"].items()
        }
        trust = tuple(trust)
        settings, params = rebuilt(about["settings"], trust), rebuilt(about["params"], trust)
        return cls(
            Candidates(settings, about["n_grid"], params),
            about["measured"],
            about["abstain_reason"],
            clips.get("synthetic"),
            clips.get("train"),
            None if about["gap"] is None else Gap(**about["gap"]),
            arrays.get("test"),
        )


@dataclass(frozen=True, eq=False)
class Curve:
    """What each setting achieves on labelled clips.

    Attributes:
        settings: Those that were tried.
        table: One row per setting: its parameters (``param.<name>``), ``auc``, ``pauc``,
            ``auc_source``, ``auc_target``, ``objective``, the 95 % interval of that (``low``,
            ``high``), and ``picked``, the share of resamples in which it is the best.
        resampled: (settings, resamples) objectives.
        best: Row of the best setting; of equals, that nearest the detector's default.
    """

    settings: list[dict[str, Any]]
    table: pd.DataFrame
    resampled: NDArray[np.float64]
    best: int
