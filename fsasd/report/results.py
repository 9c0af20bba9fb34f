"""The files that a run leaves in its folder, read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pandas.api.types import is_numeric_dtype

from fsasd.data.names import SectionId
from fsasd.evaluation.metrics import OFFICIAL, without_domains
from fsasd.report.cost import ARTIFACTS
from fsasd.selection.settings import PARAMETER, title
from fsasd.settings.files import read_json, read_yaml
from fsasd.settings.objects import described_by_name

T = TypeVar("T")

FAILED = "failed.csv"
"""Lists the sections that have no result: machine, section, stage, reason."""

ID = list(SectionId._fields)
"""Columns that name the section of a row."""

_TEXT = (*ID, "domain", "label", "recording", "caption", "raw_label", "reason", "abstain_reason",
         "wav", "setting", "stage", "words", "source", "best", "origins", "details", "key",
         "started", "host", "commit", "fsasd")  # fmt: skip
_NUMBERS = frozenset({
    "score", *OFFICIAL, "auc", "official_score", "ci_low", "ci_high", "objective", "parameters",
    "fit_seconds", "score_ms",
})  # fmt: skip
_COLUMNS = {
    FAILED: (*ID, "stage", "reason"),
    "clips.csv": (*ID, "file", "label", "domain", "score"),
    "metrics.csv": (*ID, *OFFICIAL, "official_score", "ci_low", "ci_high"),
    "costs.csv": (*ID, "parameters", "fit_seconds", "score_ms"),
}
"""Columns without which a table is of another version."""

_TABLES_OF_SETTINGS = ("selection.csv", "real_curve.csv", "settings.csv")


class Results:
    """The tables and the configuration in a run's folder. Without its file a table is empty.

    A run that has not finished, or some of whose sections failed, has rows of the other sections.

    Args:
        folder: The run's folder.

    Raises:
        ValueError: A file is damaged, or of a version of fsasd that named its columns otherwise.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._indices: dict[tuple[str, int], dict[Any, Any]] = {}
        self.failed = self._table(FAILED)
        clips = self._table("clips.csv")
        unscored = clips["score"].isna() if "score" in clips else clips.index == -1
        self.unscored = clips[unscored]
        self.clips = clips[~unscored]
        self.metrics = self._table("metrics.csv")
        self._require_summary()
        self.costs = self._table("costs.csv")
        self.artifacts = self._table(ARTIFACTS)
        self.selection = self._table("selection.csv")
        self.real_curve = self._table("real_curve.csv")
        self.settings = self._table("settings.csv")
        self.setting_scores = self._table("setting_scores.csv")
        self.sources = self._table("sources.csv")
        self.validation = self._table("validation.csv")
        paths = {n: self.folder / f"table{n}.csv" for n in range(2, 7)}
        self.tables = {
            n: read_frame(path, [*_TEXT, "row", "column", *(["paper", "run"] if n == 3 else [])])
            for n, path in paths.items()
            if path.is_file()
        }
        self.captions = self._table("captions.csv")
        self.manifest = self._table("synthetic/manifest.csv")
        self.quality = self._table("synthetic/quality.csv")
        self.gap = self._table("synthetic/gap.csv")
        self.differences = self._table("synthetic/differences.csv")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as Hydra wrote it, interpolations left as they are."""
        return self._yaml("config.yaml", dict)

    @cached_property
    def choices(self) -> dict[str, str]:
        """Configuration group to the option that was chosen."""
        chosen: Any = self._yaml("hydra.yaml", dict)
        for name in ("hydra", "runtime", "choices"):
            chosen = chosen.get(name) if isinstance(chosen, dict) else None
        choices = chosen.items() if isinstance(chosen, dict) else ()
        return {str(k): str(v) for k, v in choices if v is not None and "/" not in str(k)}

    @cached_property
    def overrides(self) -> list[str]:
        """The arguments of the command line."""
        return [str(override) for override in self._yaml("overrides.yaml", list)]

    @property
    def is_simulated(self) -> bool:
        """Whether the recordings are the simulated factory's."""
        return str(self._group("data").get("_target_", "")).endswith("from_factory")

    def rows(self, table: str, machine: str, section: str | None = None) -> pd.DataFrame:
        """Return the rows of a machine, or of one of its sections, by an index of the table.

        Args:
            table: Name of the attribute that is the table.
            machine: The machine.
            section: Its section; all of them without.
        """
        by = ID[:1] if section is None else ID
        if (table, len(by)) not in self._indices:
            self._indices[table, len(by)] = getattr(self, table).groupby(by).indices
        index = self._indices[table, len(by)]
        # A single column's groups are named by its values.
        rows = index.get(machine if section is None else (machine, section), [])
        return getattr(self, table).iloc[rows]

    def sections_of(self, machine: str) -> list[SectionId]:
        """Return the sections of a machine that were scored."""
        return self._sections_of.get(machine, [])

    @cached_property
    def _sections_of(self) -> dict[str, list[SectionId]]:
        sections: dict[str, list[SectionId]] = {}
        for section in self.sections:
            sections.setdefault(section.machine, []).append(section)
        return sections

    @cached_property
    def sections(self) -> list[SectionId]:
        """The sections that were scored, in the order of the files."""
        return _sections(self.clips)

    @property
    def machines(self) -> list[str]:
        """The machines that were scored or for which clips were synthesised."""
        return list(dict.fromkeys([*self.clips["machine"], *self.manifest["machine"]]))

    @property
    def failed_targets(self) -> list[SectionId]:
        """The sections of target machines that have no score because a stage failed."""
        scored = set(self.sections)
        roles = dict(self.captions[["machine", "role"]].values) if "role" in self.captions else {}
        return [
            section
            for section in _sections(self.failed)
            if roles.get(section.machine) != "reference" and section not in scored
        ]

    @property
    def missing_scores(self) -> list[str]:
        """What the score files lack to be a submission, a sentence each."""
        absent = [f"{section}: no scores, it failed" for section in self.failed_targets]
        unscored = Counter(map(SectionId, self.unscored["machine"], self.unscored["section"]))
        return absent + [
            f"{section}: no scores of {count} test clips that could not be read"
            for section, count in unscored.items()
        ]

    @property
    def references(self) -> Results:
        """The results of the leave-one-machine-out validation."""
        return Results(self.folder / "validation")

    def abstain_reason(self, section: SectionId) -> str:
        """Return why no setting was chosen; empty where one was."""
        if "abstain_reason" not in self.selection:
            return ""
        reasons = self.rows("selection", *section)["abstain_reason"].dropna()
        return "" if reasons.empty else str(reasons.iloc[0])

    def setting(self, section: SectionId) -> str:
        """Return the setting that the detector of a section has, e.g. ``r=0.98``.

        Without synthetic clips it is the default setting, as the saved detector has it, of the
        parameters that could have been chosen.
        """
        curve = self.rows("selection", *section)
        if not curve.empty:
            return setting_titles(curve[curve["chosen"]])[0]
        saved = self.folder / "models" / section.machine / f"section_{section.section}"
        described = saved / "detector.json"
        params = read_json(described)["params"] if described.is_file() else {}
        default = dict(described_by_name(params))
        grids = self._group("selection").get("grid") or {}
        grids = [grids] if isinstance(grids, dict) else grids
        # Interpolated values are not known here; of several grids, the default is in one.
        grid = next(
            (
                grid
                for grid in grids
                if all(isinstance(v, str) or default.get(k) in v for k, v in grid.items())
            ),
            {key: None for grid in grids for key in grid},
        )
        return title({key: default[key] for key in grid if key in default}) or "default"

    def _group(self, name: str) -> dict[str, Any]:
        group = self.config.get(name)
        return group if isinstance(group, dict) else {}

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        if not path.is_file():
            return pd.DataFrame(columns=ID)
        table = read_frame(path)
        if missing := [column for column in _COLUMNS.get(name, ()) if column not in table]:
            raise ValueError(
                f"{path}: expected the columns {', '.join(_COLUMNS[name])}, missing: "
                f"{', '.join(missing)}: it is damaged, or of another version of fsasd"
            )
        if name in _TABLES_OF_SETTINGS and len(table) and not parameters(table):
            raise ValueError(
                f"{path}: expected columns {PARAMETER}<name> with the detector's parameters, found "
                f"{', '.join(table.columns)}: it was written by another version of fsasd. Run the "
                "stage detect anew"
            )
        return table

    def _require_summary(self) -> None:
        rows = set(self.metrics["machine"])
        if missing := {"official score", "arithmetic mean"} - rows if rows else None:
            raise ValueError(
                f"{self.folder / 'metrics.csv'}: expected the rows of the official score and of "
                f"the arithmetic mean, missing: {', '.join(sorted(missing))}"
            )

    def _yaml(self, name: str, kind: type[T]) -> T:
        path = self.folder / ".hydra" / name
        return read_yaml(path, kind) if path.is_file() else kind()


def mark_submission(folder: Path) -> None:
    """Write ``scores/INCOMPLETE.txt`` if score files are missing or lack clips, else remove it.

    Args:
        folder: The run's folder.
    """
    results = Results(folder)
    mark = results.folder / "scores" / "INCOMPLETE.txt"
    mark.unlink(missing_ok=True)
    if mark.parent.is_dir() and (missing := results.missing_scores):
        lines = ["As a submission to DCASE these files are incomplete.", *missing]
        mark.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_frame(path: Path, text: Sequence[str] = _TEXT) -> pd.DataFrame:
    """Read a table that fsasd wrote; an empty cell is unknown.

    A section is a name, 00 is not 0; so is a machine, which may be called 101 or NA; and a column
    of text without any value is no number.

    Args:
        path: The CSV file.
        text: Columns of text.

    Raises:
        ValueError: It is no such table; names it.
    """
    types = dict.fromkeys(text, str)
    try:
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: expected a table that fsasd wrote: {error}") from error
    for name in _NUMBERS.intersection(frame.columns):
        if not is_numeric_dtype(frame[name]):
            numbers = pd.to_numeric(frame[name], errors="coerce")
            text_cells = frame[name][numbers.isna() & frame[name].notna()]
            if len(text_cells):
                raise ValueError(
                    f"{path}: expected numbers as {name}, found {text_cells.iloc[0]!r:.60}"
                )
            # Of a table without rows, or of numbers beyond 64 bits.
            frame[name] = numbers
    return frame


def rows_of(table: pd.DataFrame, machine: str, section: str | None = None) -> pd.DataFrame:
    """Return the rows of a machine, or of one of its sections."""
    rows = table[table["machine"] == machine]
    return rows if section is None else rows[rows["section"] == section]


def parameters(table: pd.DataFrame) -> list[str]:
    """Return the columns of a table of settings that hold a detector's parameters.

    >>> parameters(pd.DataFrame(columns=["machine", "section", "param.low", "low", "auc"]))
    ['param.low']
    """
    return [column for column in table.columns if column.startswith(PARAMETER)]


def setting_titles(table: pd.DataFrame) -> list[str]:
    """Return the setting of each row of a table as text.

    >>> setting_titles(pd.DataFrame({"param.k": [1, 2], "param.low": [0.5, 0.1], "low": 0.3}))
    ['k=1, low=0.5', 'k=2, low=0.1']
    """
    settings = table[parameters(table)].rename(columns=lambda name: name.removeprefix(PARAMETER))
    return [title(setting) for setting in settings.to_dict("records")]


def is_path(curve: pd.DataFrame) -> bool:
    """Return whether settings lie on a line: one numeric parameter with more than three values.

    >>> is_path(pd.DataFrame({"param.r": [0.0, 0.5, 1.0, 1.1], "auc": 0.5}))
    True
    >>> is_path(pd.DataFrame({"param.pool": ["mean", "max"], "auc": 0.5}))
    False
    """
    names = parameters(curve)
    return len(names) == 1 and is_numeric_dtype(curve[names[0]]) and curve[names[0]].nunique() > 3


def metric_titles(metrics: pd.DataFrame, decided: bool = True) -> dict[str, str]:
    """Return the columns of ``metrics.csv`` to show, with their titles.

    Two AUCs and two F1s where clips have a domain, one of each where they have none.

    Args:
        metrics: Rows of ``metrics.csv``, or of another table with AUCs.
        decided: Whether F1 is among them.

    >>> metrics = pd.DataFrame([{"auc": 0.8, "auc_source": None, "auc_target": None, "pauc": 0.7}])
    >>> metric_titles(metrics)
    {'auc': 'AUC', 'pauc': 'pAUC', 'f1': 'F1'}
    """
    undivided = without_domains(metrics)
    suffixes = [""] * bool(undivided.any())
    suffixes += ["_source", "_target"] * (not undivided.any() or not undivided.all())
    titles = {f"auc{suffix}": "AUC" + suffix.replace("_", " ") for suffix in suffixes}
    titles["pauc"] = "pAUC"
    if decided:
        titles |= {f"f1{suffix}": "F1" + suffix.replace("_", " ") for suffix in suffixes}
    return titles


def _sections(table: pd.DataFrame) -> list[SectionId]:
    pairs = table[ID].drop_duplicates()
    return [SectionId(*pair) for pair in pairs.itertuples(index=False, name=None)]
