"""The command ``fsasd-evaluate``: the official metrics of score files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsasd.cli.arguments import command_parser

if TYPE_CHECKING:
    from fsasd.data.ground_truth import Key
    from fsasd.evaluation.submission.evaluation import Evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-evaluate``.

    Returns:
        Exit code: 0 after an evaluation; 2 when arguments or files are wrong, with every problem on
        stderr.
    """
    parser = command_parser(
        "fsasd-evaluate",
        "Compute the official DCASE Task 2 metrics of a folder of score files.",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with anomaly_score_<machine>_section_<nn>_test.csv (of 2020 ..._id_<nn>.csv, "
        "of 2021 ..._section_<nn>_<domain>_test.csv) and, optionally, decision_result_... files",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        required=True,
        metavar="DIR",
        help="ground truth as published for any edition: a folder with ground_truth_data, "
        "ground_truth_domain and ground_truth_attributes, or an eval_data_list.csv",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: fractions, null where undefined, machines by name, or by "
        "name/section_<nn> where a machine has several sections",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples for the 95 %% interval of the official score; 0 for none "
        "(default: 1000)",
    )
    arguments = parser.parse_args(argv)
    if arguments.bootstrap < 0:
        parser.error(f"--bootstrap: expected 0 or more, found {arguments.bootstrap}")
    from fsasd.evaluation.submission.evaluation import evaluate
    from fsasd.evaluation.submission.reading import SubmissionError

    try:
        evaluation = evaluate(arguments.scores, arguments.ground_truth, arguments.bootstrap)
    except (SubmissionError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(_json(evaluation))
        for note in evaluation.notes:
            print(note, file=sys.stderr)
    else:
        _print(evaluation, arguments.bootstrap)
    return 0


def _label(key: Key, keys: Iterable[Key]) -> str:
    several = sum(key[0] == machine for machine, _ in keys) > 1
    return f"{key[0]}/section_{key[1]}" if several else key[0]


def _json(evaluation: Evaluation) -> str:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    interval = evaluation.interval
    content = {
        "official_score": plain(evaluation.official.value),
        "official_score_ci95": interval and [interval.low, interval.high],
        "undefined_cells": evaluation.official.undefined,
        "machines": {
            _label(key, evaluation.metrics): {
                name: plain(value) for name, value in metrics.named().items()
            }
            for key, metrics in evaluation.metrics.items()
        },
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _print(evaluation: Evaluation, resamples: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = evaluation.table.set_index("machine").drop(columns=["section", "undefined"])
    numbers = table.iloc[:-1].drop(columns=["official_score", "ci_low", "ci_high"])
    numbers = numbers.dropna(axis="columns", how="all")
    view = Table(title="DCASE Task 2 metrics, percent", title_justify="left")
    view.add_column("machine", no_wrap=True)
    for column in numbers:
        view.add_column(str(column).replace("_", "\n"), justify="right", no_wrap=True)
    names = [_label(key, evaluation.metrics) for key in evaluation.metrics]
    labels = [*names, "arithmetic mean", "harmonic mean"]
    partial = numbers.iloc[: len(names)].isna().any().to_list()
    for index, (label, row) in enumerate(zip(labels, numbers.to_numpy(float), strict=True)):
        marks = ("*" if index >= len(names) and some else "" for some in partial)
        cells = (
            "" if math.isnan(v) else f"{100 * v:.2f}{m}" for v, m in zip(row, marks, strict=True)
        )
        view.add_row(label, *cells, end_section=index == len(names) - 1)
    if any(partial):
        view.caption = "* mean over the defined values"
    # A pipe has no width, and numbers must not be cut to fit one.
    width = max(120, Console().width)
    console = Console(width=width, markup=False, highlight=False, soft_wrap=True)
    console.print(view)
    official, interval = evaluation.official, evaluation.interval
    line = f"official score {100 * official.value:.6f} %"
    if official.undefined:
        line += f" (over {official.cells - official.undefined} of {official.cells} values)"
    if interval:
        line += f", 95 % interval {100 * interval.low:.2f} to {100 * interval.high:.2f} %"
        line += f" ({resamples} bootstrap resamples)"
    console.print(line)
    for note in evaluation.notes:
        console.print(note)
