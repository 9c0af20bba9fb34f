"""Leave-one-machine-out validation: what choices of settings are worth, with intervals.

Each reference machine is in turn treated as a target: its setting is chosen on its synthetic clips,
and on other machines where several sources choose, and its real anomalies then say what the choice
was worth. They play no part in the choice, nor do machines of its type and of its site; what is
gained if those of its site do is said beside it (``WITH_SITE``).
The generator may have been trained on them: then such a machine is easier than a target will be
(``strict`` is false). To withhold them from it, too, hold them out:
``data.hold_out=[{machine: fan, label: anomaly}]``, one training per machine.

Conventions: *gain* is a setting's objective minus that of the detector's default setting, *regret*
that of the best setting in hindsight (the oracle) minus its own, *closed* its gain over the
oracle's. The oracle was chosen on the clips that it is judged by, so regrets are somewhat too
large, for every setting alike. Intervals are of the paired bootstrap: every setting is judged on
the same resampled clips; those of a mean are over resampled types of machines, too, and speak of
machines of other types: two fans are no two independent machines.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fsasd.data.clips import Clips
from fsasd.data.names import SectionId
from fsasd.detectors.base import Detector
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import known_domains
from fsasd.evaluation.resampling import resample, resampled_areas
from fsasd.evaluation.uncertainty import percentile_interval
from fsasd.selection.choice import Hindsight, choose, has_both_labels, in_hindsight, measure
from fsasd.selection.evidence import Curve
from fsasd.selection.selection import Selection
from fsasd.selection.selector import OBJECTIVES, Selector
from fsasd.selection.settings import title

SECTION = list(SectionId._fields)
MEAN = "mean"

WITH_SITE = "with_site"
"""Name of the setting that was chosen with machines of the same site among the references."""

Values = dict[str, NDArray[np.float64]]
"""Metric to (settings, 1 + resamples): as observed, then on each resample."""


@dataclass(frozen=True, eq=False)
class ValidatedSection:
    """A section of a reference machine that was treated as a target.

    Attributes:
        selection: What its synthetic clips chose.
        hindsight: What that was worth on its real anomalies.
        strict: The generator was not trained on the machine's anomalies.
        type: Of the machine, as far as it is known.
        site: Of the machine, as far as it is known.
        with_site: The same, chosen with machines of the same site among the references; ``None``
            where these were not left out.
    """

    selection: Selection
    hindsight: Hindsight
    strict: bool
    type: str | None = None
    site: str | None = None
    with_site: ValidatedSection | None = None

    @property
    def scores(self) -> pd.DataFrame:
        """Scores of the test clips with all settings that are compared (see ``Hindsight``)."""
        scores = self.hindsight.scores
        if self.with_site is None:
            return scores
        others = self.with_site.hindsight.scores
        used = others[others["setting"] == "synthetic"]
        return pd.concat([scores, used.assign(setting=WITH_SITE)], ignore_index=True)


def validation_clips(clips: Clips) -> tuple[Clips, Clips] | None:
    """Return the normal training clips and the labelled test clips of a section.

    Returns:
        What to give to ``measure``; ``None`` without training clips or without test clips of both
        labels.
    """
    train = clips.where(split="train", label="normal")
    test = clips[[clip.split == "test" and clip.label is not None for clip in clips]]
    return (train, test) if len(train) and has_both_labels(test) else None


def validate(
    detector: Detector,
    selector: Selector,
    clips: Clips,
    synthetic: Clips,
    strict: bool = False,
) -> ValidatedSection | None:
    """Choose a setting for a section with known anomalies as if they were not known.

    Args:
        detector: Unfitted; copies are fitted on the normal training clips.
        selector: The settings to choose from, and by what.
        clips: All clips of the section.
        synthetic: Synthetic normal and anomalous clips.
        strict: The generator was not trained on the machine's anomalies.

    Returns:
        The choice and what it was worth; ``None`` without normal training clips or without test
        clips of both labels, or where the detector cannot be fitted on so few clips.
    """
    if (known := validation_clips(clips)) is None:
        return None
    train, test = known
    evidence = measure(detector, selector, train, synthetic, test)
    selection = choose(evidence, selector)
    hindsight = in_hindsight(evidence, selection, selector, test)
    if hindsight is None:
        return None
    return ValidatedSection(selection, hindsight, strict, clips[0].type, clips[0].site)


def compare(
    scores: pd.DataFrame,
    objective: str = "mean",
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare settings on machines whose anomalies are known.

    Args:
        scores: ``setting_scores.csv``: machine, section, label, domain, recording (where clips were
            cut from recordings), setting, default, score. With a column ``run``, a machine's runs
            (of several seeds, say) are averaged. With columns ``type`` and ``site`` so has the
            result, and intervals of the mean are over types; else over machines and sections.
        objective: By which gain, regret and what is closed are measured.
        resamples: Of clips, and of types.
        level: Of the intervals.
        seed: Of the bootstrap.

    Returns:
        One row per machine, section and setting, then one per setting for their ``mean``: ``auc``,
        ``pauc``, ``objective``, ``gain``, ``regret``, and for the mean ``closed`` (empty where the
        oracle is no better than the default setting), each with ``_low`` and ``_high``.

    Raises:
        ValueError: The runs of a machine have other clips.

    >>> clips = {"machine": "fan", "section": "00", "label": ["normal"] * 2 + ["anomaly"] * 2}
    >>> default = pd.DataFrame({**clips, "domain": "source", "setting": "r=1",
    ...                         "default": True, "score": [0.0, 3.0, 1.0, 2.0]})
    >>> best = default.assign(setting="oracle", default=False, score=[0.0, 1.0, 2.0, 3.0])
    >>> compare(pd.concat([default, best]))[["setting", "auc", "pauc"]].values.tolist()[:2]
    [['r=1', 0.5, 0.47368421052631576], ['oracle', 1.0, 1.0]]
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(scores["setting"]))
    default = names.index(scores.loc[scores["default"], "setting"].iloc[0])
    oracle = names.index("oracle")
    tables, sections, types = [], [], []
    for (machine, section), part in scores.groupby(SECTION, sort=False):
        values = _metrics(part, names, objective, resamples, rng)
        types.append(_type(part))
        values["gain"] = values["objective"] - values["objective"][default]
        values["regret"] = values["objective"][oracle] - values["objective"]
        sections.append(values)
        about = {"machine": machine, "section": section}
        about |= {key: part[key].iloc[0] for key in ("type", "site") if key in part}
        tables.append(_rows(about, names, values, level))
    means = {key: over_types([values[key] for values in sections], types) for key in sections[0]}
    with np.errstate(divide="ignore", invalid="ignore"):
        possible = means["gain"][oracle]
        means["closed"] = np.where(possible > 0, means["gain"] / possible, np.nan)
    mean = _rows({"machine": MEAN, "section": ""}, names, means, level)
    return pd.concat([*tables, mean], ignore_index=True)


def correlate(selection: Selection, real: Curve) -> NDArray[np.float64]:
    """Measure how alike synthetic and real clips order the settings.

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
    synthetic_curves = np.column_stack([selection.curve["objective"], selection.resampled])
    real_curves = np.column_stack([real.table["objective"], real.resampled])
    correlations = np.full((2, synthetic_curves.shape[1]), np.nan)
    for i, (one, other) in enumerate(zip(synthetic_curves.T, real_curves.T, strict=True)):
        if np.ptp(one) > 0 and np.ptp(other) > 0:
            correlations[0, i] = stats.spearmanr(one, other).statistic
            correlations[1, i] = stats.kendalltau(one, other).statistic
    return correlations


def summarise(
    validated: Mapping[SectionId, ValidatedSection], compared: pd.DataFrame, level: float = 0.95
) -> pd.DataFrame:
    """Lay out ``validation.csv``: what was chosen, what it was worth, how alike the curves are.

    Args:
        validated: The sections.
        compared: What ``compare`` returns of their ``scores``.
        level: Of the intervals.

    Returns:
        One row per machine and section, then their ``mean``. Of choices that had machines of the
        same site among the references ``chosen_with_site`` and ``gain_with_site``.
    """
    used = _of_setting("synthetic", compared)
    with_site = _of_setting(WITH_SITE, compared)[["gain", "gain_low", "gain_high"]]
    with_site.columns = [f"gain_{WITH_SITE}{end}" for end in ("", "_low", "_high")]
    rows: list[dict[str, object]] = []
    correlations = []
    for section in validated.values():
        selection, real = section.selection, section.hindsight.real
        correlations.append(correlate(selection, real))
        rows.append(
            {
                "type": section.type,
                "site": section.site,
                "strict": section.strict,
                "chosen": title(selection.setting),
                "argmax": title(selection.argmax),
                "oracle": title(real.settings[real.best]),
                "abstain_reason": selection.abstain_reason,
                "gap": selection.gap.auc if selection.gap else np.nan,
                **_named(correlations[-1], level),
            }
        )
        if section.with_site:
            rows[-1][f"chosen_{WITH_SITE}"] = title(section.with_site.selection.setting)
    known = [row for row, values in enumerate(correlations) if not np.isnan(values[:, 0]).any()]
    types = [section.type or key for key, section in validated.items()]
    means = over_types([correlations[row] for row in known], [types[row] for row in known])
    rows.append({**_named(means, level)})
    table = pd.DataFrame([*validated, (MEAN, "")], columns=SECTION)
    table = table.join(pd.DataFrame(rows)).join(used, on=SECTION)
    return table.join(with_site, on=SECTION) if len(with_site) else table


def _of_setting(name: str, compared: pd.DataFrame) -> pd.DataFrame:
    rows = compared[compared["setting"] == name].set_index(SECTION)
    return rows.drop(columns=["setting", "type", "site"], errors="ignore")


def _metrics(
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
    groups = recording_groups(clips.get("recording", ()))
    drawn = resample(*strata, n=resamples, seed=rng, groups=groups)
    counts = np.vstack([np.ones((1, len(labels)), int), drawn])
    metrics = []
    for run in runs:
        rows = [run[run["setting"] == name] for name in names]
        if any(row["label"].tolist() != clips["label"].tolist() for row in rows):
            section = SectionId(*part.iloc[0][SECTION])
            raise ValueError(f"{section}: its runs score other clips")
        areas = resampled_areas(labels, domains, [row["score"] for row in rows], counts)
        metrics.append((areas.auc, areas.pauc, OBJECTIVES[objective](areas)))
    return dict(zip(("auc", "pauc", "objective"), np.mean(metrics, axis=0), strict=True))


def _type(part: pd.DataFrame) -> Hashable:
    """Type of a section's machine; the section itself where it is not known."""
    known = part["type"].iloc[0] if "type" in part else None
    return tuple(part.iloc[0][SECTION]) if pd.isna(known) else known


def over_types(values: Sequence[NDArray], types: Sequence[Hashable]) -> NDArray:
    """Mean over sections: as observed, then over resampled types with resampled clips.

    Args:
        values: Of each section, (metrics or settings, 1 + resamples).
        types: Of each section; those of one type are drawn together.

    Returns:
        (metrics or settings, 1 + resamples); NaN without sections.
    """
    if not values:
        return np.full((2, 2), np.nan)
    stacked = np.stack(values)
    resamples = stacked.shape[2] - 1
    members = [[i for i, t in enumerate(types) if t == kind] for kind in dict.fromkeys(types)]
    # The same for every metric, so that what is paired stays paired.
    rng = np.random.default_rng(0)
    picks = rng.integers(len(members), size=(resamples, len(members)))
    replicates = rng.integers(1, resamples + 1, size=picks.shape)
    sums = np.stack([stacked[rows].sum(axis=0) for rows in members])
    sizes = np.array([len(rows) for rows in members])
    drawn = sums[picks, :, replicates].sum(axis=1) / sizes[picks].sum(axis=1)[:, None]
    return np.column_stack([stacked[:, :, 0].mean(axis=0), drawn.T])


def _rows(
    about: Mapping[str, object], names: Sequence[str], values: Values, level: float
) -> pd.DataFrame:
    table = pd.DataFrame({**about, "setting": names})
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


def _named(correlations: NDArray, level: float) -> dict[str, float]:
    named: dict[str, float] = {}
    for name, values in zip(("spearman", "kendall"), correlations, strict=True):
        keys = (name, f"{name}_low", f"{name}_high")
        named |= dict(zip(keys, _summary(values, level), strict=True))
    return named
