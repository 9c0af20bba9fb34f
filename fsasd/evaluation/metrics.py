"""The official metrics of DCASE Task 2: AUC per domain, partial AUC, precision, recall and F1.

Conventions, here and in the rest of the package:

* ``scores``: shape (n,), finite; higher means more anomalous.
* ``labels``: shape (n,), 0 for a normal clip, 1 for an anomalous one.
* ``domains``: shape (n,), ``"source"`` or ``"target"``; ``None`` where no clip has one: then there
  is one AUC, of all clips, and it enters the official score in the place of two.
* ``decisions``: shape (n,), 1 where the detector calls the clip anomalous, else 0.
* Metrics are fractions between 0 and 1.
* Undefined is NaN, never 0: means are taken over what is defined, and tables count what is not.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

DOMAINS = ("source", "target")
OFFICIAL = ("auc_source", "auc_target", "pauc")
"""The metrics of a section that enter the official score."""


@dataclass(frozen=True, eq=False)
class Section:
    """The test clips of one section of one machine, scored.

    Args:
        labels: 0 normal, 1 anomalous, shape (n,).
        domains: ``"source"`` or ``"target"``, shape (n,); None without domains.
        scores: Anomaly scores, shape (n,).
        decisions: 1 where a clip was called anomalous, shape (n,); None without decisions.
        groups: Equal for clips of one recording, shape (n,), which are resampled together; None
            where each clip is one of its own.

    Raises:
        ValueError: A shape, label, domain, score or decision breaks the conventions above.

    >>> Section([0, 1], ["source", "target"], [0.2, 0.9]).scores.dtype
    dtype('float64')
    """

    labels: NDArray[np.int_]
    domains: NDArray[np.str_] | None
    scores: NDArray[np.float64]
    decisions: NDArray[np.int_] | None = None
    groups: NDArray[np.int_] | None = None

    def __init__(
        self,
        labels: ArrayLike,
        domains: ArrayLike | None,
        scores: ArrayLike,
        decisions: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        scores = _scores(scores)
        object.__setattr__(self, "labels", _zero_one("labels", labels, scores))
        object.__setattr__(self, "domains", None if domains is None else _domains(domains, scores))
        object.__setattr__(self, "scores", scores)
        given = None if decisions is None else _zero_one("decisions", decisions, scores)
        object.__setattr__(self, "decisions", given)
        numbers = None if groups is None else np.asarray(groups)
        if numbers is not None:
            _same_shape("groups", numbers, scores)
        object.__setattr__(self, "groups", numbers)


@dataclass(frozen=True)
class SectionMetrics:
    """The official metrics of one section, fractions; NaN where undefined.

    Attributes:
        auc_source: Normal clips of the source domain against all anomalous ones.
        auc_target: The same for the target domain.
        pauc: Partial AUC, both domains together.
        precision_source: At the detector's threshold, as the other five.
        recall_source: Of the source domain's anomalous clips.
        f1_source: Harmonic mean of the two.
        precision_target: As for the source domain.
        recall_target: As for the source domain.
        f1_target: As for the source domain.
        precision: Of all clips where none has a domain.
        recall: Of all clips where none has a domain.
        f1: Of all clips where none has a domain.
        auc: Harmonic mean of the two domains' AUC, NaN unless both are defined; where no clip has a
            domain, the AUC of all clips.

    >>> SectionMetrics(auc_source=0.9, auc_target=0.6, pauc=0.7).auc
    0.72
    """

    auc_source: float
    auc_target: float
    pauc: float
    precision_source: float = math.nan
    recall_source: float = math.nan
    f1_source: float = math.nan
    precision_target: float = math.nan
    recall_target: float = math.nan
    f1_target: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    f1: float = math.nan
    auc: float = math.nan

    def __post_init__(self) -> None:
        both = (self.auc_source, self.auc_target)
        if not any(map(math.isnan, both)):
            object.__setattr__(self, "auc", harmonic_mean(both))

    @property
    def undefined(self) -> int:
        """How many of the metrics that enter the official score are undefined."""
        official = OFFICIAL if self._is_divided else ("auc", "pauc")
        return sum(math.isnan(getattr(self, name)) for name in official)

    def named(self) -> dict[str, float]:
        """Return the metrics by name: per domain, or of all clips where none has a domain.

        >>> list(SectionMetrics(math.nan, math.nan, 0.7, auc=0.8).named())
        ['pauc', 'precision', 'recall', 'f1', 'auc']
        """
        pooled = ("precision", "recall", "f1")
        return {
            name: value
            for name, value in asdict(self).items()
            if (name not in pooled if self._is_divided else not name.endswith(DOMAINS))
        }

    @property
    def _is_divided(self) -> bool:
        divided = not (math.isnan(self.auc_source) and math.isnan(self.auc_target))
        return divided or math.isnan(self.auc)


@dataclass(frozen=True)
class OfficialScore:
    """The official score and how much of it was defined.

    Attributes:
        value: Harmonic mean of the defined cells, a fraction; NaN when none is.
        cells: Three per machine and section, two where no clip has a domain.
        undefined: How many of the cells are undefined and therefore not in ``value``.
    """

    value: float
    cells: int
    undefined: int


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(anomalous > normal) + P(anomalous = normal) / 2.

    Args:
        labels: 0 normal, 1 anomalous, shape (n,).
        scores: Anomaly scores, shape (n,).

    Returns:
        A fraction; 0.5 is chance.

    Raises:
        ValueError: The input breaks the module's conventions, or a class is missing.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return pauc(labels, scores, max_fpr=1.0)


def pauc(labels: ArrayLike, scores: ArrayLike, max_fpr: float = 0.1) -> float:
    r"""Partial AUC over false-positive rates up to p = ``max_fpr``, standardised by McClish.

    With A the area under the ROC curve between 0 and p, pAUC = (1 + (A - p²/2) / (p - p²/2)) / 2:
    chance is 0.5 and perfection 1 for every p. McClish, "Analyzing a portion of the ROC curve",
    Medical Decision Making 9 (1989); computed by scikit-learn.

    Args:
        labels: 0 normal, 1 anomalous, shape (n,).
        scores: Anomaly scores, shape (n,).
        max_fpr: p, in (0, 1]; DCASE Task 2 takes 0.1.

    Raises:
        ValueError: As ``auc``, or ``max_fpr`` is out of range.

    >>> pauc([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])
    1.0
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr: expected a fraction in (0, 1], found {max_fpr}")
    scores = _scores(scores)
    labels = _zero_one("labels", labels, scores)
    for label, name in enumerate(("normal", "anomalous")):
        if not (labels == label).any():
            raise ValueError(f"AUC needs normal and anomalous clips, found no {name} one")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores, max_fpr=max_fpr))


def known_domains(domains: Iterable[str | None]) -> NDArray[np.str_] | None:
    """Return the clips' domains, or ``None`` where no clip has one.

    Among clips with a domain, one without counts as source.

    >>> known_domains(["target", None]), known_domains([None, float("nan")])
    (array(['target', 'source'], dtype='<U6'), None)
    """
    known = [None if pd.isna(domain) else domain for domain in domains]
    if not any(known):
        return None
    return np.array([domain or "source" for domain in known])


def section_metrics(
    labels: ArrayLike,
    domains: ArrayLike | None,
    scores: ArrayLike,
    decisions: ArrayLike | None = None,
) -> SectionMetrics:
    """All official metrics of one section, as ``dcase2023_task2_evaluator`` computes them.

    AUC of a domain sets that domain's normal clips against the anomalous clips of *both* domains,
    pAUC takes both domains together, and precision, recall and F1 look at one domain alone. They
    are undefined, NaN, in a domain without anomalous clips; where there are some and none is
    found, precision is 0 as the evaluator has it.

    Args:
        labels: 0 normal, 1 anomalous, shape (n,).
        domains: ``"source"`` or ``"target"``, shape (n,); None where no clip has one.
        scores: Anomaly scores, shape (n,).
        decisions: 1 where a clip was called anomalous, shape (n,), optional.

    Raises:
        ValueError: The input breaks the module's conventions.

    >>> domains = ["source", "source", "target", "target"]
    >>> metrics = section_metrics([0, 1, 0, 1], domains, [0.1, 0.6, 0.5, 0.4], [0, 1, 1, 0])
    >>> metrics.auc_source, metrics.auc_target, metrics.f1_source, metrics.f1_target
    (1.0, 0.5, 1.0, 0.0)
    """
    section = Section(labels, domains, scores, decisions)
    anomalous, everywhere = section.labels == 1, np.full(len(section.labels), True)
    pauc = _area(section, everywhere, max_fpr=0.1)
    if section.domains is None:
        auc = _area(section, everywhere, max_fpr=1.0)
        return SectionMetrics(math.nan, math.nan, pauc, auc=auc, **_decided(section, everywhere))
    metrics = {"pauc": pauc}
    for domain in DOMAINS:
        inside = section.domains == domain
        metrics[f"auc_{domain}"] = _area(section, inside | anomalous, max_fpr=1.0)
        metrics |= {f"{k}_{domain}": v for k, v in _decided(section, inside).items()}
    return SectionMetrics(**metrics)


def harmonic_mean(values: Iterable[float]) -> float:
    """Harmonic mean of the defined values: n / sum(1 / v).

    One zero makes it 0. NaN is left out; when nothing is left, the mean is NaN. (The official
    evaluator replaces zeros by the machine epsilon, which gives some 1e-15 instead of 0.)

    Raises:
        ValueError: A value is negative or infinite.

    >>> harmonic_mean([0.5, 1.0, float("nan")]), harmonic_mean([0.0, 1.0])
    (0.6666666666666666, 0.0)
    """
    defined = [value for value in map(float, values) if not math.isnan(value)]
    wrong = [value for value in defined if value < 0 or math.isinf(value)]
    if wrong:
        raise ValueError(f"harmonic_mean: expected finite values of at least 0, found {wrong}")
    if not defined:
        return math.nan
    return 0.0 if 0.0 in defined else len(defined) / math.fsum(1 / value for value in defined)


def official_score(table: pd.DataFrame) -> OfficialScore:
    """Harmonic mean of AUC (source), AUC (target) and pAUC of all machines and sections.

    Of sections whose clips have no domain, AUC and pAUC.

    Args:
        table: What ``metrics_table`` returns, or reads back from its CSV file; only rows with a
            section count.

    >>> table = metrics_table({("fan", "00"): SectionMetrics(0.5, 1.0, math.nan)})
    >>> official_score(table)
    OfficialScore(value=0.6666666666666666, cells=3, undefined=1)
    """
    sections = table[table["section"].notna() & (table["section"] != "")]
    cells = sections[list(OFFICIAL)].to_numpy(dtype=float, copy=True)
    undivided = without_domains(sections)
    if undivided.any():
        cells[undivided, 0] = sections.loc[undivided, "auc"]
    missing = int(undivided.sum())
    undefined = int(np.isnan(cells).sum()) - missing
    return OfficialScore(harmonic_mean(cells.ravel()), cells.size - missing, undefined)


def without_domains(table: pd.DataFrame) -> NDArray[np.bool_]:
    """(n,) True for rows of ``metrics_table`` whose clips have no domain: one AUC, not two."""
    if "auc" not in table:
        return np.zeros(len(table), bool)
    divided = table[["auc_source", "auc_target"]].notna().any(axis=1)
    return (table["auc"].notna() & ~divided).to_numpy(bool)


def metrics_table(
    results: Mapping[tuple[str, str], SectionMetrics],
    interval: tuple[float, float] = (math.nan, math.nan),
) -> pd.DataFrame:
    """Lay metrics out as ``metrics.csv`` has them.

    One row per machine and section, then ``arithmetic mean`` and ``harmonic mean`` (of the defined
    cells of each column) and ``official score``, these three with an empty section. ``auc`` is the
    harmonic mean of a section's two AUCs, or its one AUC where no clip has a domain; ``undefined``
    counts the undefined ones among auc_source, auc_target and pauc (among auc and pauc where no
    clip has a domain), in the last three rows over all sections. ``official_score``, ``ci_low``
    and ``ci_high`` are filled in the last row only. ``to_csv(index=False)`` leaves undefined empty.

    Args:
        results: Metrics by machine and section, e.g. ``("fan", "00")``.
        interval: Low and high end of the official score's confidence interval.

    Raises:
        ValueError: There are no results.

    >>> table = metrics_table({("fan", "00"): SectionMetrics(0.9, 0.6, 0.7)})
    >>> table["machine"].tolist()
    ['fan', 'arithmetic mean', 'harmonic mean', 'official score']
    >>> print(f"{table['official_score'].iloc[-1]:.4f}")
    0.7132
    """
    if not results:
        raise ValueError("metrics_table: expected at least one machine and section, found none")
    sections = pd.DataFrame(
        [
            {"machine": machine, "section": section, "auc": metrics.auc}
            | asdict(metrics)
            | {"undefined": metrics.undefined}
            for (machine, section), metrics in results.items()
        ]
    )
    official = official_score(sections)
    numbers = sections[["auc", *(field.name for field in fields(SectionMetrics))]]
    summary = pd.DataFrame(
        [
            {"machine": "arithmetic mean"} | numbers.mean().to_dict(),
            {"machine": "harmonic mean"} | numbers.apply(harmonic_mean).to_dict(),
            {
                "machine": "official score",
                "official_score": official.value,
                "ci_low": interval[0],
                "ci_high": interval[1],
            },
        ]
    ).assign(section="", undefined=official.undefined)
    columns = [*sections.columns, "official_score", "ci_low", "ci_high"]
    rows = [frame.reindex(columns=columns) for frame in (sections, summary)]
    return pd.DataFrame({c: [*rows[0][c], *rows[1][c]] for c in columns})


def _decided(section: Section, inside: NDArray[np.bool_]) -> dict[str, float]:
    """Precision, recall and F1 of some clips; none without anomalous clips."""
    anomalous = section.labels == 1
    if section.decisions is None or not (inside & anomalous).any():
        return {}
    decided = section.decisions == 1
    hits = int((inside & anomalous & decided).sum())
    alarms, faults = int((inside & decided).sum()), int((inside & anomalous).sum())
    return {
        "precision": hits / alarms if alarms else 0.0,
        "recall": hits / faults,
        "f1": 2 * hits / (alarms + faults),
    }


def _area(section: Section, chosen: NDArray[np.bool_], max_fpr: float) -> float:
    labels = section.labels[chosen]
    if len(set(labels.tolist())) < 2:
        return math.nan
    return pauc(labels, section.scores[chosen], max_fpr)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"scores: expected shape (n,), found {values.shape}")
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise ValueError(
            f"scores: expected finite numbers, found {values[wrong[0]]} at index {wrong[0]}"
        )
    return values


def _domains(domains: ArrayLike, scores: NDArray[np.float64]) -> NDArray[np.str_]:
    array = np.asarray(domains)
    _same_shape("domains", array, scores)
    unknown = sorted({str(domain) for domain in array} - set(DOMAINS))
    if unknown:
        raise ValueError(f"domains: expected 'source' or 'target', found {unknown}")
    return array.astype(str)


def _zero_one(name: str, values: ArrayLike, scores: NDArray[np.float64]) -> NDArray[np.int_]:
    array = np.asarray(values)
    _same_shape(name, array, scores)
    wrong = [value for value in array.tolist() if value not in (0, 1)]
    if wrong:
        raise ValueError(f"{name}: expected 0 or 1, found {wrong[0]!r}")
    return array.astype(int)


def _same_shape(name: str, values: NDArray, scores: NDArray[np.float64]) -> None:
    if values.shape != scores.shape:
        raise ValueError(f"{name}: expected shape {scores.shape} like scores, found {values.shape}")
