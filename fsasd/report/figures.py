"""Figures of the report page: inline SVG that takes its colours from the page around it."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.scale import AsinhTransform, LogTransform
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import IdentityTransform, Transform
from sklearn.metrics import roc_curve

from fsasd.evaluation.metrics import DOMAINS, known_domains, official_score, section_metrics
from fsasd.report.comparison import SETTING_TITLES, distinct_settings
from fsasd.report.formatting import count, percent
from fsasd.report.results import ID, PARAMETER, parameters

PALETTE = {
    "ink": ("#1c2126", "#e6e9ec"),
    "muted": ("#666e76", "#9aa3ab"),
    "line": ("#c9ced4", "#454c54"),
    "paper": ("#fefefe", "#1b2025"),
    "source": ("#0b69b0", "#62b1ec"),
    "target": ("#b34f09", "#f09a4e"),
    "anomaly": ("#96307a", "#dd8ac2"),
    "synthetic": ("#00705a", "#45c4a3"),
}
"""Name to colour on light and on dark; after Okabe and Ito, so that the colour-blind see each."""

INK, MUTED, LINE, PAPER, SOURCE, TARGET, ANOMALY, SYNTHETIC = (c for c, _ in PALETTE.values())
_DOMAIN_STYLES = {"source": (SOURCE, "-"), "target": (TARGET, (0, (5, 1.5)))}
_SOURCE_STYLES = (
    (SOURCE, "-"), (TARGET, (0, (5, 1.5))), (ANOMALY, (0, (1, 1.2))), (MUTED, (0, (4, 1, 1, 1))),
    (INK, (0, (2, 2))),
)  # fmt: skip
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titlecolor": INK,
    "text.color": INK,
    # A machine's name may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
}


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page that defines ``--ink`` and the other colours.

    Args:
        figure: Drawn with colours of ``PALETTE``.
        name: Prefix of its inner references, unique on the page.

    >>> text = svg(Figure(figsize=(1, 1)), "empty")
    >>> text[:4], "http" in text
    ('<svg', False)
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for part in (
        r"<metadata>.*?</metadata>",
        r"<style.*?</style>",
        r"<!--.*?-->",
        r"<defs>\s*</defs>",
    ):
        text = re.sub(part, "", text, flags=re.DOTALL)
    # Groups are never referred to, and their names would come twice on a page.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' (width|height)="[\d.]+pt"| xmlns(:xlink)?="[^"]*"| version="1.1"', "", text)
    text = text.replace("xlink:href", "href")
    for colour, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{colour})")
    return re.sub(r"\n\s*", "\n", text).strip()


def selection_curve(curve: pd.DataFrame, real: pd.DataFrame) -> Figure:
    """Draw AUC, pAUC and objective against the one parameter of the grid.

    The interval of the objective is shaded. A filled dot is the setting that is used, an open one
    the highest, where that is another.

    Args:
        curve: ``selection.csv`` of one machine and section.
        real: ``real_curve.csv`` of the same, drawn below and paler, or empty.
    """
    (name,) = parameters(curve)
    shown = name.removeprefix(PARAMETER)
    chosen = float(curve.loc[curve["chosen"], name].iloc[0])
    highest = curve.sort_values("objective").iloc[-1]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(3.8, 3.5), layout="constrained")
        ratios = [1.5] if real.empty else [1.5, 1]
        axes = figure.subplots(
            len(ratios), sharex=True, sharey=True, squeeze=False, height_ratios=ratios
        )[:, 0]
        _curves(axes[0], curve, name, SYNTHETIC)
        axes[0].set_title("On synthetic clips", fontweight="bold")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        best = curve.loc[curve["chosen"], "objective"].iloc[0]
        axes[0].plot(chosen, 100 * best, "o", color=SYNTHETIC, markersize=6, zorder=5)
        if highest[name] != chosen:
            axes[0].plot(highest[name], 100 * highest["objective"], "o", markerfacecolor=PAPER,
                         color=SYNTHETIC, markersize=6, zorder=5)  # fmt: skip
        if not real.empty:
            _curves(axes[1], real, name, MUTED)
            axes[1].set_title("On real test clips (needs their labels)", color=MUTED)
            top = real[real["oracle"]].iloc[0]
            axes[1].plot(top[name], 100 * top["objective"], "o", markerfacecolor=PAPER,
                         color=MUTED, markersize=6, zorder=5)  # fmt: skip
        for axis in axes:
            axis.axvline(chosen, color=SYNTHETIC, linewidth=1, zorder=0)
            axis.axhline(50, color=LINE, linewidth=0.8, zorder=0)
            axis.set_ylabel("%")
        span = curve[name].max() - curve[name].min()
        side = -1 if chosen > curve[name].min() + span / 2 else 1
        axes[0].annotate(
            f"{shown} = {chosen:g}", (chosen, 0), (4 * side, 4),
            xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if side < 0 else "left", color=SYNTHETIC,
        )  # fmt: skip
        axes[-1].set_xlabel(shown)
    return figure


def spectra(differences: pd.DataFrame) -> Figure:
    """Draw level and range over time of synthetic normal clips and real ones, by frequency.

    Lines are medians over clips; between their 10 % and 90 % quantiles it is shaded. Bands that
    differ surely are marked below.

    Args:
        differences: ``synthetic/differences.csv`` of one machine and section.
    """
    titles = {"level": "Level, dB", "unsteadiness": "Range over time, dB"}
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(3.8, 3.5), layout="constrained")
        axes = figure.subplots(2, sharex=True)
        for axis, (aspect, title) in zip(axes, titles.items(), strict=True):
            bands = differences[differences["aspect"] == aspect][1:]
            edges = np.append(bands["low_hz"], bands["high_hz"].iloc[-1])
            # Bands of equal width, as they are in mels.
            place = np.arange(len(bands) + 1)
            for kind, colour in (("real", MUTED), ("synthetic", SYNTHETIC)):
                columns = [f"{kind}{end}" for end in ("_low", "", "_high")]
                # The last step ends where the last band does.
                low, middle, high = bands[columns].to_numpy()[[*place[:-1], -1]].T
                axis.fill_between(place, low, high, step="post", color=colour, alpha=0.2,
                                  linewidth=0)  # fmt: skip
                axis.step(place, middle, where="post", color=colour, label=kind)
            for band in np.flatnonzero(bands["sure"]):
                axis.axvspan(band + 0.08, band + 0.92, ymax=0.04, color=ANOMALY, linewidth=0)
            axis.set_title(title)
            shown = place[:: len(bands) // 4]
            axis.set_xticks(shown, [f"{edges[i] / 1000:.2g}" for i in shown])
        axes[-1].set_xlabel("frequency, kHz (marked: bands that differ surely)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


EXPECTED = "expected"
"""Column of ``selection.csv`` with the combined gain; ``expected.<source>`` are the sources'."""


def expected_gains(curve: pd.DataFrame, real: pd.DataFrame) -> Figure:
    """Draw the gain over the default setting that sources expect, against the grid's one parameter.

    Shaded: the standard error of the combined gain. A dot is the setting that is used.

    Args:
        curve: ``selection.csv`` of one machine and section, with expected gains.
        real: ``real_curve.csv`` of the same, drawn below and paler, or empty.
    """
    (name,) = parameters(curve)
    shown, values = name.removeprefix(PARAMETER), curve.sort_values(name)
    chosen = curve[curve["chosen"]].iloc[0]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(3.8, 3.5), layout="constrained")
        ratios = [1.5] if real.empty else [1.5, 1]
        axes = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        expected, error = 100 * values[EXPECTED], 100 * values["expected_error"]
        axes[0].fill_between(values[name], expected - error, expected + error, color=SYNTHETIC,
                             alpha=0.15, linewidth=0)  # fmt: skip
        sources = [column for column in curve if str(column).startswith(f"{EXPECTED}.")]
        spoken = [column for column in sources if curve[column].abs().max() > 0]
        for column, (colour, dashes) in zip(spoken, _SOURCE_STYLES, strict=False):
            axes[0].plot(values[name], 100 * values[column], color=colour, linestyle=dashes,
                         linewidth=1, label=str(column).removeprefix(f"{EXPECTED}."))  # fmt: skip
        axes[0].plot(values[name], expected, color=SYNTHETIC, label="combined")
        axes[0].plot(chosen[name], 100 * chosen[EXPECTED], "o", color=SYNTHETIC, zorder=5)
        axes[0].set_title("Expected gain", fontweight="bold")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        if not real.empty:
            known = real.sort_values(name)
            usual = curve.loc[curve["default"], name].iloc[0]
            gains = known["objective"] - real["objective"][(real[name] - usual).abs().idxmin()]
            axes[1].plot(known[name], 100 * gains, color=MUTED)
            axes[1].set_title("Real gain (needs labels of the test clips)", color=MUTED)
        for axis in axes:
            axis.axvline(chosen[name], color=SYNTHETIC, linewidth=1, zorder=0)
            axis.axhline(0, color=LINE, linewidth=0.8, zorder=0)
            axis.set_ylabel("points")
        # A source that expects the worst of far settings leaves the others room.
        reach = max(2.0, 1.5 * float((expected + error).max()))
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(max(low, -2.5 * reach), max(high, reach))
        axes[-1].set_xlabel(shown)
    return figure


def roc(clips: pd.DataFrame) -> Figure:
    """Draw the ROC curve of each domain's normal clips against all anomalous ones, as in DCASE.

    Where no clip has a domain, one curve of all clips.

    Args:
        clips: ``Results.clips`` of one machine and section, all labelled.
    """
    labels = (clips["label"] == "anomaly").to_numpy(int)
    domains = known_domains(clips["domain"])
    scores = clips["score"].to_numpy(float)
    metrics = section_metrics(labels, domains, scores)
    curves: list[tuple[str, np.ndarray, float, Any]]
    curves = [("all clips", np.full(len(labels), True), metrics.auc, (SOURCE, "-"))]
    if domains is not None:
        areas = metrics.auc_source, metrics.auc_target
        curves = [
            (f"{domain} normals", (domains == domain) | (labels == 1), area, _DOMAIN_STYLES[domain])
            for domain, area in zip(DOMAINS, areas, strict=True)
        ]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(3.8, 3.5), layout="constrained")
        axis = figure.subplots()
        axis.axvspan(0, 10, color=LINE, alpha=0.45, linewidth=0,
                     label=f"all clips, shaded: pAUC {percent(metrics.pauc)} %")  # fmt: skip
        axis.plot([0, 100], [0, 100], color=LINE, linewidth=0.8)
        for name, shown, area, (colour, dashes) in curves:
            if np.isnan(area):
                axis.plot([], [], " ", label=f"{name}: AUC undefined, no such clips")
                continue
            false, true, _ = roc_curve(labels[shown], scores[shown])
            axis.plot(100 * false, 100 * true, color=colour, linestyle=dashes,
                      label=f"{name}: AUC {percent(area)} %")  # fmt: skip
        axis.set(xlabel="false positive rate, %", ylabel="true positive rate, %",
                 xlim=(-1.5, 101.5), ylim=(-1.5, 101.5))  # fmt: skip
        axis.legend(loc="lower right", handlelength=1.8)
    return figure


def score_histogram(clips: pd.DataFrame) -> Figure:
    """Draw histograms of the scores by label and domain, with the threshold.

    Args:
        clips: ``Results.clips`` of one machine and section.
    """
    normal, domains = clips["label"] == "normal", known_domains(clips["domain"])
    groups = [("normal", clips[normal], SOURCE)]
    if domains is not None:
        groups = [
            (f"normal, {name}", clips[normal & (domains == name)], colour)
            for name, (colour, _) in _DOMAIN_STYLES.items()
        ]
    both = "" if domains is None else ", both domains"
    groups += [
        (f"anomaly{both}", clips[clips["label"] == "anomaly"], ANOMALY),
        ("label unknown", clips[clips["label"].isna()], MUTED),
    ]
    groups = [group for group in groups if len(group[1])]
    scores = clips["score"].to_numpy(float)
    threshold = float(clips["threshold"].iloc[0])
    transform, scale, options = readable_scale(np.append(scores, threshold))
    # Bins are even as they are drawn.
    count_bins = int(np.clip(2 * np.sqrt(len(scores)), 10, 40))
    drawn = np.histogram_bin_edges(transform.transform(scores), bins=count_bins)
    edges = transform.inverted().transform(drawn)
    if scores.min() < scores.max():
        # Rounding must leave no score out.
        edges[[0, -1]] = scores.min(), scores.max()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(3.8, 3.5), layout="constrained")
        axes = figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
        for axis, (name, rows, colour) in zip(axes, groups, strict=True):
            axis.hist(rows["score"], bins=edges, color=colour, alpha=0.85, rwidth=0.92)
            axis.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (3, 2)))
            axis.set_title(f"{name} ({count(len(rows), 'clip')})", color=colour, fontweight="bold")
            axis.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes[-1].set_xscale(scale, **options)
        axes[-1].set_xlabel(f"anomaly score (dashed: threshold {threshold:.4g})")
        figure.supylabel("clips", color=MUTED, fontsize=8.5)
    return figure


def readable_scale(scores: np.ndarray) -> tuple[Transform, str, dict[str, Any]]:
    """Return the transform, the name and the options of an axis on which scores can be read.

    Linear unless the largest is far from the others: then logarithmic, or, of scores on both sides
    of 0, their inverse hyperbolic sine.

    >>> [readable_scale(np.array(s))[1] for s in ([1.0, 2.0, 3.0], [1.0, 2.0, 900.0], [-1.0, 2.0, 900.0])]
    ['linear', 'log', 'asinh']
    """  # noqa: E501
    middle = float(np.median(np.abs(scores)))
    if np.abs(scores).max() <= 10 * middle or not middle:
        return IdentityTransform(), "linear", {}
    if scores.min() > 0:
        return LogTransform(10), "log", {}
    return AsinhTransform(middle), "asinh", {"linear_width": middle}


def settings_dots(settings: pd.DataFrame) -> Figure:
    """Draw the official score of each setting of ``settings.csv``, one line per section."""
    sections = list(settings.groupby(ID, sort=False))
    names = distinct_settings(settings)
    titles = [SETTING_TITLES.get(name, name) for name in names]
    several = settings.groupby("machine")["section"].nunique().max() > 1
    markers = iter("sv^<>Pph")
    labels = [" ".join(map(str, key if several else key[:1])) for key, _ in sections]
    # Settings of several parameters have long names; a line of the legend holds some 50 letters.
    abreast = min(max(50 // (max(map(len, titles)) + 5), 1), len(names))
    above = 0.2 * (math.ceil(len(names) / abreast) - 1)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(4.2, 0.95 + above + 0.3 * len(sections)), layout="constrained")
        axis = figure.subplots()
        lines = np.arange(len(sections))
        axis.hlines(lines, 0, 1, color=LINE, linewidth=0.6, zorder=0,
                    transform=axis.get_yaxis_transform())  # fmt: skip
        for name, title in zip(names, titles, strict=True):
            rows = [table[table["setting"] == name] for _, table in sections]
            values = [100 * official_score(row).value for row in rows]
            style: dict[str, Any] = {
                "marker": "o",
                "color": SYNTHETIC,
                "markersize": 8,
                "zorder": 4,
            }
            if name == "oracle":
                style = {"marker": "*", "color": MUTED, "markersize": 9, "zorder": 3}
            elif name != "synthetic":
                style = {"marker": next(markers, "x"), "color": INK, "markersize": 6, "zorder": 5}
            fill = style["color"] if name == "synthetic" else PAPER
            axis.plot(values, lines, linestyle="", markerfacecolor=fill, label=title, **style)
        axis.set_yticks(lines, labels, color=INK)
        axis.set(ylim=(len(sections) - 0.5, -0.5), xlabel="official score, %")
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=abreast, handletextpad=0.2)
    return figure


def _curves(axis: Axes, curve: pd.DataFrame, name: str, colour: str) -> None:
    values = curve.sort_values(name)
    lines: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("AUC", "auc", {"linestyle": (0, (5, 1.5)), "linewidth": 1, "alpha": 0.8}),
        ("pAUC", "pauc", {"linestyle": (0, (1, 1.5)), "linewidth": 1.2, "alpha": 0.8}),
        ("objective", "objective", {}),
    )
    if "low" in values:
        axis.fill_between(values[name], 100 * values["low"], 100 * values["high"], color=colour,
                          alpha=0.15, linewidth=0)  # fmt: skip
    for label, column, style in lines:
        axis.plot(values[name], 100 * values[column], color=colour, label=label, **style)
