"""Can synthetic anomalies be trusted? Machines whose faults are known play the target.

Each reference machine is in turn treated as if its anomalies had never been heard: its setting is
chosen on its synthetic clips alone, and its real anomalies then say what that was worth. The
choice is so judged honestly. The generator is not, if it was trained on the very anomalies: then
such a machine is easier than a target will be (``strict`` is false). To hide them from it, too,
hold them out: ``data.hold_out=[{machine: fan, label: anomaly}]``, one training per machine.

Conventions: *gain* is a setting's objective minus that of the detector's own setting, *regret* that
of the best setting in hindsight (the oracle) minus its own, *closed* its gain over the oracle's.
The oracle was found on the clips that it is judged by, so regrets are somewhat too large, for every
setting alike. Intervals are of the paired bootstrap: every setting is judged on the same resampled
clips; those of a mean are over resampled machines, too, and speak of other machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector
from fsasd.evaluation.metrics import known_domains
from fsasd.evaluation.uncertainty import percentile_interval, resample, resampled_areas
from fsasd.selection.choice import Choice, choose
from fsasd.selection.selector import OBJECTIVES, Curve, Selection, Selector, title

UNIT = ["machine", "section"]
MEAN = "mean"

Values = dict[str, NDArray[np.float64]]
"""Metric to (settings, 1 + resamples): as observed, then on each resample."""


@dataclass(frozen=True)
class Trial:
    """A machine with known anomalies that played the target.

    Attributes:
        choice: What synthetic clips chose, and what it was worth.
        strict: The generator, too, has not heard the machine's anomalies.
    """

    choice: Choice
    strict: bool


def play_target(
    detector: Detector, selector: Selector, clips: Clips, synthetic: Clips
) -> Choice | None:
    """Choose a setting for a machine with known anomalies as if they were not known.

    Args:
        detector: Unfitted; copies are fitted on the normal training clips.
        selector: The settings to choose from, and by what.
        clips: All clips of the machine, or of one section.
        synthetic: Synthetic normal and anomalous clips.

    Returns:
        The choice and what it was worth; ``None`` without normal training clips or without test
        clips of both labels, or where the detector cannot be fitted on so few clips.
    """
    train = clips.where(split="train", label="normal")
    test = clips[[clip.split == "test" and clip.label is not None for clip in clips]]
    if not len(train) or len(set(test.labels.tolist())) < 2:
        return None
    choice = choose(detector, selector, train, test, synthetic)
    return choice if choice.settings is not None else None


def compare(
    scores: pd.DataFrame,
    objective: str = "mean",
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare settings on machines whose anomalies are known.

    Args:
        scores: ``setting_scores.csv``: machine, section, label, domain, setting, own, score. With a
            column ``run``, a machine's runs (of several seeds, say) are averaged.
        objective: By which gain, regret and what is closed are measured.
        resamples: Of clips, and of machines.
        level: Of the intervals.
        seed: Of the bootstrap.

    Returns:
        One row per machine, section and setting, then one per setting for their ``mean``: ``auc``,
        ``pauc``, ``objective``, ``gain``, ``regret``, and for the mean ``closed`` (empty where the
        oracle is no better than the own setting), each with ``_low`` and ``_high``.

    Raises:
        ValueError: The runs of a machine have other clips.

    >>> clips = {"machine": "fan", "section": "00", "label": ["normal"] * 2 + ["anomaly"] * 2}
    >>> own = pd.DataFrame({**clips, "domain": "source", "setting": "r=1", "own": True,
    ...                     "score": [0.0, 3.0, 1.0, 2.0]})
    >>> best = own.assign(setting="oracle", own=False, score=[0.0, 1.0, 2.0, 3.0])
    >>> compare(pd.concat([own, best]))[["setting", "auc", "pauc"]].values.tolist()[:2]
    [['r=1', 0.5, 0.47368421052631576], ['oracle', 1.0, 1.0]]
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(scores["setting"]))
    own = names.index(scores.loc[scores["own"], "setting"].iloc[0])
    oracle = names.index("oracle")
    tables, found = [], []
    for (machine, section), part in scores.groupby(UNIT, sort=False):
        values = _measure(part, names, objective, resamples, rng)
        values["gain"] = values["objective"] - values["objective"][own]
        values["regret"] = values["objective"][oracle] - values["objective"]
        found.append(values)
        tables.append(_rows(str(machine), str(section), names, values, level))
    means = {key: _over_units([values[key] for values in found]) for key in found[0]}
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = means["gain"][oracle]
        means["closed"] = np.where(gap > 0, means["gain"] / gap, np.nan)
    return pd.concat([*tables, _rows(MEAN, "", names, means, level)], ignore_index=True)


def correlate(selection: Selection, real: Curve) -> NDArray[np.float64]:
    """Say how alike synthetic and real clips order the settings.

    Args:
        selection: The curve on synthetic clips.
        real: The curve on real ones, of the same settings.

    Returns:
        (2, 1 + resamples) Spearman's and Kendall's rank correlation, as observed and with both sets
        of clips resampled; NaN where a curve is flat or not known.
    """
    known = selection.curve["objective"].notna().all()
    if not known or len(selection.curve) != len(real.table):
        return np.full((2, 1 + real.resampled.shape[1]), np.nan)
    made = np.column_stack([selection.curve["objective"], selection.resampled])
    heard = np.column_stack([real.table["objective"], real.resampled])
    found = np.full((2, made.shape[1]), np.nan)
    for i, (one, other) in enumerate(zip(made.T, heard.T, strict=True)):
        if np.ptp(one) > 0 and np.ptp(other) > 0:
            found[0, i] = stats.spearmanr(one, other).statistic
            found[1, i] = stats.kendalltau(one, other).statistic
    return found


def summarise(
    trials: Mapping[tuple[str, str], Trial], compared: pd.DataFrame, level: float = 0.95
) -> pd.DataFrame:
    """Lay out ``validation.csv``: what was chosen, what it was worth, how alike the curves are.

    Args:
        trials: By machine and section.
        compared: What ``compare`` says of them.
        level: Of the intervals.

    Returns:
        One row per machine and section, then their ``mean``.
    """
    used = compared[compared["setting"] == "synthetic"].drop(columns="setting").set_index(UNIT)
    rows: list[dict[str, object]] = []
    alike = []
    for trial in trials.values():
        selection, gap, real = trial.choice.selection, trial.choice.gap, trial.choice.real
        assert real is not None
        alike.append(correlate(selection, real))
        rows.append(
            {
                "strict": trial.strict,
                "chosen": title(selection.params),
                "argmax": title(selection.argmax),
                "oracle": title(real.settings[real.best]),
                "reason": selection.reason,
                "gap": gap.auc if gap else np.nan,
                **_named(alike[-1], level),
            }
        )
    known = [values for values in alike if not np.isnan(values[:, 0]).any()]
    rows.append({**_named(_over_units(known), level)} if known else {})
    table = pd.DataFrame([*trials, (MEAN, "")], columns=UNIT)
    return table.join(pd.DataFrame(rows)).join(used, on=UNIT)


def _measure(
    part: pd.DataFrame,
    names: Sequence[str],
    objective: str,
    resamples: int,
    rng: np.random.Generator,
) -> Values:
    """Metrics of one machine and section, averaged over its runs."""
    runs = [run for _, run in part.groupby("run")] if "run" in part else [part]
    clips = runs[0][runs[0]["setting"] == names[0]]
    labels = (clips["label"] == "anomaly").to_numpy(int)
    domains = known_domains(clips["domain"])
    divided = objective == "official" and domains is not None
    strata = (labels, np.asarray(domains)) if divided else (labels,)
    counts = np.vstack([np.ones((1, len(labels)), int), resample(*strata, n=resamples, seed=rng)])
    found = []
    for run in runs:
        rows = [run[run["setting"] == name] for name in names]
        if any(row["label"].tolist() != clips["label"].tolist() for row in rows):
            machine, section = part.iloc[0][UNIT]
            raise ValueError(f"{machine} section {section}: its runs score other clips")
        areas = resampled_areas(labels, domains, [row["score"] for row in rows], counts)
        found.append((areas.auc, areas.pauc, OBJECTIVES[objective](areas)))
    return dict(zip(("auc", "pauc", "objective"), np.mean(found, axis=0), strict=True))


def _over_units(values: Sequence[NDArray]) -> NDArray:
    """Mean over machines: as observed, then over resampled machines with resampled clips."""
    stacked = np.stack(values)
    resamples = stacked.shape[2] - 1
    # The same for every metric, so that what is paired stays paired.
    rng = np.random.default_rng(0)
    picks = rng.integers(len(stacked), size=(resamples, len(stacked)))
    replicates = rng.integers(1, resamples + 1, size=picks.shape)
    drawn = stacked[picks, :, replicates].mean(axis=1).T
    return np.column_stack([stacked[:, :, 0].mean(axis=0), drawn])


def _rows(
    machine: str, section: str, names: Sequence[str], values: Values, level: float
) -> pd.DataFrame:
    columns = {"machine": machine, "section": section, "setting": names}
    table = pd.DataFrame(columns)
    for key, rows in values.items():
        summaries = [_summary(row, level) for row in rows]
        table[[key, f"{key}_low", f"{key}_high"]] = summaries
    return table


def _summary(values: NDArray, level: float) -> tuple[float, float, float]:
    """What was observed, and the interval of the resamples in which it is defined, if most are."""
    defined = values[1:][~np.isnan(values[1:])]
    if len(defined) < level * len(values[1:]):
        return float(values[0]), np.nan, np.nan
    interval = percentile_interval(defined, level)
    return float(values[0]), interval.low, interval.high


def _named(alike: NDArray, level: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, values in zip(("spearman", "kendall"), alike, strict=True):
        keys = (name, f"{name}_low", f"{name}_high")
        found |= dict(zip(keys, _summary(values, level), strict=True))
    return found
