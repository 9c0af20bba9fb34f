"""The paper's tables 2 to 6, beside the results of a run.

Guan et al., ICASSP 2024; its numbers are in ``conf/paper``, in percent. A table has one line per
row and column of the paper's:

* ``paper``: the paper's number; empty where the row or the column is not in it.
* ``run``, ``low``, ``high``: the run's number and its 95 % interval.
* ``difference``: run minus paper; empty where the averages are over other machines.
* ``against``, ``against_low``, ``against_high``: run minus the run's row FS-TWFR-GMM, paired.

AUC and pAUC are fractions. A machine's AUC is the harmonic mean over its domains, an average the
harmonic mean over machines, as in the paper.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fsasd.evaluation.metrics import known_domains
from fsasd.evaluation.resampling import harmonic_means, resample, resampled_areas
from fsasd.evaluation.uncertainty import percentile_interval
from fsasd.report.formatting import UNDEFINED, percent, points, signed
from fsasd.report.results import ID, PARAMETER, Results, rows_of

log = logging.getLogger(__name__)

METHOD = "FS-TWFR-GMM"
RESAMPLES = 1000
_FILES = {
    2: "table2_dcase2023.csv",
    3: "table3_parameters.csv",
    4: "table4_ablation.csv",
    5: "table5_r_source.csv",
    6: "table6_selected_r.csv",
}
_CHOICE = "a choice of settings on synthetic clips, and the labels of the test clips"
_NEEDS = {3: "a fitted detector", 6: "a choice of r"}
_R = f"{PARAMETER}r"
_SETTINGS = {"r=0": "r=0", "r=1": "r=1", METHOD: "synthetic", "TWFR-GMM": "oracle"}

Cells = Mapping[str, NDArray[np.float64]]
"""Column to (1 + resamples,) values: observed, then on each resample."""


def paper_table(number: int) -> pd.DataFrame:
    """Return one of the paper's tables as printed, in percent.

    Raises:
        ValueError: There is no such table.

    >>> paper_table(5)["auc"].tolist()
    [56.44, 66.78, 68.41, 71.55]
    """
    if number not in _FILES:
        raise ValueError(f"table {number}: expected one of {', '.join(map(str, _FILES))}")
    text = (resources.files("fsasd.conf") / "paper" / _FILES[number]).read_text("utf-8")
    return pd.read_csv(io.StringIO(text))


def write_tables(
    folder: Path,
    numbers: Sequence[int],
    generator_parameters: int | None = None,
    trust: Iterable[str] = (),
) -> None:
    """Write ``table<N>.csv`` into a run's folder; table 4 also into the folder of its sweep.

    Args:
        folder: The run's folder.
        numbers: Of the paper's tables, 2 to 6.
        generator_parameters: Number of parameters of the trained generator, for table 3.
        trust: Packages whose classes saved detectors may name (see ``detectors.base.load``).

    Raises:
        ValueError: There is no such table, or it is table 4 and the run is no job of its sweep.
    """
    results = Results(folder)
    makers: dict[int, Callable[[], pd.DataFrame | None]] = {
        2: lambda: _table2(results),
        3: lambda: _table3(results, generator_parameters, trust),
        4: lambda: _table4(_arms(folder)),
        5: lambda: _table5(results),
        6: lambda: _table6(results),
    }
    for number in numbers:
        paper_table(number)
        table = makers[number]()
        if table is None:
            log.warning("table %d is left out: it needs %s", number, _NEEDS.get(number, _CHOICE))
            continue
        for place in (folder, folder.parent) if number == 4 else (folder,):
            partial = place / f"table{number}.csv.partial"
            table.to_csv(partial, index=False)
            partial.replace(place / f"table{number}.csv")


def readable(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text, in percent where it has fractions.

    Of methods that the run did not use, only the averages.
    """
    if number == 3:
        return table.fillna("").astype(str).set_axis(["Row", "Column", "Paper", "This run"], axis=1)
    shown = table[table["run"].notna() | table["column"].isin(["auc", "pauc", "average"])
                  | table["column"].str.startswith("average")]  # fmt: skip
    one, difference = (_plain, signed) if number == 6 else (percent, points)
    text = pd.DataFrame(
        {
            "Row": shown["row"],
            "Column": shown["column"].str.replace("_", " "),
            "Paper": shown["paper"].map(one),
            "This run": shown["run"].map(one),
            "95 % interval": _between(shown["low"], shown["high"], one),
            "Difference": shown["difference"].map(difference),
        }
    )
    if "against" in shown and shown["against"].notna().any():
        text[f"Minus {METHOD}"] = shown["against"].map(difference)
        text["95 % interval of the difference"] = _between(
            shown["against_low"], shown["against_high"], difference
        )
    return text.astype(str)


def _between(low: pd.Series, high: pd.Series, write: Callable[[float], str]) -> list[str]:
    return [UNDEFINED if math.isnan(a) else f"{write(a)} to {write(b)}"
            for a, b in zip(low, high, strict=True)]  # fmt: skip


def _plain(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:g}"


def cells(scores: pd.DataFrame, setting: str, resamples: int = RESAMPLES) -> Cells:
    """Return AUC and pAUC of each machine and their averages, with resamples of the test clips.

    Args:
        scores: ``setting_scores.csv``.
        setting: One of its settings. A section is resampled alike for all settings and runs, so
            that differences are paired, and independently of any other section.
        resamples: Of the bootstrap.

    Returns:
        ``<machine>_auc``, ``<machine>_pauc``, ``average_auc``, ``average_pauc``.
    """
    values: dict[str, NDArray[np.float64]] = {}
    of_setting = scores[scores["setting"] == setting]
    for machine, of_machine in of_setting.groupby("machine", sort=False):
        sections: dict[str, list[NDArray]] = {"auc": [], "pauc": []}
        for section, clips in of_machine.groupby("section", sort=False):
            # Seeded by their names: neither the order nor the number of machines matters.
            seed = np.random.default_rng(list(f"{machine} {section}".encode()))
            auc, pauc = _resampled(clips, resamples, seed)
            sections["auc"].append(auc)
            sections["pauc"].append(pauc)
        for key, rows in sections.items():
            values[f"{machine}_{key}"] = harmonic_means(np.stack(rows))
    for key in ("auc", "pauc"):
        machines = [values[name] for name in values if name.endswith(f"_{key}")]
        values[f"average_{key}"] = harmonic_means(np.stack(machines))
    return values


def _resampled(
    clips: pd.DataFrame, resamples: int, seed: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC (harmonic mean over domains, where there are any) and pAUC of one section."""
    labels = (clips["label"] == "anomaly").to_numpy(int)
    domains = known_domains(clips["domain"])
    strata = [labels] if domains is None else [labels, domains]
    counts = resample(*strata, n=resamples, seed=seed)
    counts = np.vstack([np.ones((1, len(labels)), int), counts])
    areas = resampled_areas(labels, domains, clips["score"].to_numpy()[None], counts)
    if domains is None:
        return areas.auc[0], areas.pauc[0]
    both = np.stack([areas.auc_source[0], areas.auc_target[0]])
    undefined = np.isnan(both).any(axis=0)
    return np.where(undefined, np.nan, harmonic_means(both)), areas.pauc[0]


def _table2(results: Results) -> pd.DataFrame | None:
    if results.setting_scores.empty:
        return None
    paper = paper_table(2).set_index("method")
    values = cells(results.setting_scores, "synthetic")
    printed = _in_fractions(paper, METHOD)
    lines = [
        _line(METHOD, column, printed.get(column), values[column], _is_comparable(column, values))
        for column in values
    ]
    for method in paper.index.drop(METHOD):
        others = _in_fractions(paper, method)
        lines += [_line(method, column, others[column]) for column in values if column in others]
    return pd.DataFrame(lines)


def _table3(
    results: Results, generator_parameters: int | None, trust: Iterable[str]
) -> pd.DataFrame | None:
    saved = sorted((results.folder / "models").glob("*/*/detector.json"))
    if not saved:
        return None
    from fsasd.detectors.base import load

    # Detectors of one form that keep training clips differ in how many.
    detector = max(load(path.parent, trust).n_parameters() for path in saved)
    training = f"{detector:,}"
    if generator_parameters is None:
        training += " + an unknown number (generator)"
    elif generator_parameters:
        training += f" + {generator_parameters:,} (generator)"
    run = {"training": training, "detection": f"{detector:,}"}
    return pd.DataFrame(
        [
            {"row": row["method"], "column": column, "paper": row[column],
             "run": run[column] if row["method"] == METHOD else None}
            for row in paper_table(3).to_dict("records") for column in run
        ]
    )  # fmt: skip


def _table4(arms: Mapping[tuple[str, str], Results]) -> pd.DataFrame | None:
    paper = paper_table(4).set_index(["extended_r_range", "silence_removed"])
    values = {
        arm: cells(results.setting_scores, "synthetic")
        for arm, results in arms.items()
        if not results.setting_scores.empty
    }
    if not values:
        return None
    lines = []
    for arm in paper.index:
        row = f"r to {'1.1' if arm[0] == 'yes' else '1.0'}, silence "
        row += "removed" if arm[1] == "yes" else "kept"
        lines += _averages(row, paper.loc[arm], values.get(arm), values.get(("yes", "yes")))
    return pd.DataFrame(lines)


def _table5(results: Results) -> pd.DataFrame | None:
    scores = results.setting_scores
    if scores.empty:
        return None
    paper = paper_table(5).set_index("method")
    values = {
        method: cells(scores, setting)
        for method, setting in _SETTINGS.items()
        if (scores["setting"] == setting).any()
    }
    lines = []
    for method in paper.index:
        row = f"{method} ({paper['data_used_to_choose_r'].fillna('none')[method]})"
        lines += _averages(row, paper.loc[method], values.get(method), values[METHOD])
    return pd.DataFrame(lines)


def _table6(results: Results) -> pd.DataFrame | None:
    """Selected r, with the interval of the r that resamples of the clips select."""
    curves = {"synthetic": (results.selection, "argmax"), "real": (results.real_curve, "oracle")}
    if results.selection.empty or _R not in results.selection:
        return None
    paper = paper_table(6).set_index("data_used_to_choose_r")
    lines = []
    for row, (table, mark) in curves.items():
        for machine, section in table[ID].drop_duplicates().itertuples(index=False):
            curve = rows_of(table, machine, section).sort_values(_R)
            if curve["picked"].isna().any():
                continue
            share = curve["picked"].cumsum().to_numpy()
            low, high = (float(curve[_R].iloc[int(np.searchsorted(share, q - 1e-9))])
                         for q in (0.025, 0.975))  # fmt: skip
            value = float(curve.loc[curve[mark], _R].iloc[0])
            printed = paper[machine].get(row) if machine in paper else math.nan
            name = machine if section == "00" else f"{machine} {section}"
            lines.append(
                {"row": row, "column": name, "paper": printed, "run": value, "low": low,
                 "high": high, "difference": value - printed}
            )  # fmt: skip
    return pd.DataFrame(lines) if lines else None


def _arms(folder: Path) -> dict[tuple[str, str], Results]:
    """Return the jobs of the sweep over table 4's two switches that ``folder`` is one of."""
    if not (folder.parent / "multirun.yaml").is_file():
        raise ValueError(f"{folder}: table 4 compares the runs of a sweep, that of "
                         "experiment=table4: found a single run")  # fmt: skip
    arms = {}
    for path in sorted(folder.parent.glob("*/.hydra/config.yaml")):
        results = Results(path.parent.parent)
        if 4 in results.config.get("tables", []):
            extended = results.config["highest_r"] > 1
            silence = results.config["synthesis"]["cleaning"]["silence_db"] is None
            arms["yes" if extended else "no", "no" if silence else "yes"] = results
    return arms


def _averages(
    row: str, paper: pd.Series, values: Cells | None, reference: Cells | None
) -> list[dict[str, Any]]:
    """Lines of the averages over machines, and of the mean of both where the paper has it."""
    return [
        _line(
            row,
            column,
            paper[column] / 100,
            None if values is None else _average(values, column),
            values is not None and _is_comparable("average", values),
            None if reference is None else _average(reference, column),
        )
        for column in ("auc", "pauc", "average")
        if column in paper
    ]


def _average(values: Cells, column: str) -> NDArray[np.float64]:
    if column == "average":
        return (values["average_auc"] + values["average_pauc"]) / 2
    return values[f"average_{column}"]


def _line(
    row: str,
    column: str,
    paper: float | None,
    values: NDArray[np.float64] | None = None,
    comparable: bool = False,
    reference: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    line: dict[str, Any] = {"row": row, "column": column, "paper": paper}
    line |= dict.fromkeys(["run", "low", "high", "difference"], math.nan)
    line |= dict.fromkeys(["against", "against_low", "against_high"], math.nan)
    if values is None:
        return line
    line |= _with_interval("run", values)
    if comparable and paper is not None:
        line["difference"] = line["run"] - paper
    if reference is not None:
        line |= _with_interval("against", values - reference)
    return line


def _with_interval(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    interval = percentile_interval(values[1:])
    ends = ("low", "high") if name == "run" else (f"{name}_low", f"{name}_high")
    return {name: float(values[0]), ends[0]: interval.low, ends[1]: interval.high}


def _is_comparable(column: str, values: Cells) -> bool:
    """Whether a column is of one machine, or of exactly the paper's machines."""
    if not column.startswith("average"):
        return True
    machines = {name.rpartition("_")[0] for name in values} - {"average"}
    return machines == set(paper_table(6).columns) - {"data_used_to_choose_r"}


def _in_fractions(paper: pd.DataFrame, method: str) -> dict[str, float]:
    numbers = paper.loc[method].drop("rank")
    return {str(key): float(value) / 100 for key, value in zip(numbers.index, numbers, strict=True)}
