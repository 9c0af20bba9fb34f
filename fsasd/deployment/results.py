"""The result of scoring: a row for each recording, or window of a stream, and model."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TextIO

from fsasd.deployment.model import Model


@dataclass(frozen=True)
class Result:
    """A recording as a model scores it.

    Attributes:
        file: Path of the recording, or name of the stream.
        score: Anomaly score, higher is more anomalous.
        threshold: A score above it is anomalous.
        decision: 1 for anomalous, 0 for normal.
        p_value: Probability that a normal clip scores as high (see ``Calibration.p_values``).
        time: When the file was last changed, or when the window began: UTC, ISO 8601.
        model: Machine and section of the model.
        alarm: 1 while there is an alarm, 0 otherwise; ``None`` without an alarm policy.
    """

    file: str
    score: float
    threshold: float
    decision: int
    p_value: float
    time: str
    model: str
    alarm: int | None = None

    @classmethod
    def of(cls, model: Model, file: str, time: float, score: float) -> Result:
        """Compare a score with the model's threshold and its normal training clips.

        Args:
            model: That scored.
            file: See the attributes.
            time: Seconds since the epoch.
            score: See the attributes.

        Raises:
            ValueError: The score is not finite; names ``file``.
        """
        if not math.isfinite(score):
            raise ValueError(f"{file}: expected a finite anomaly score, found {score}")
        return cls(
            file,
            score,
            model.threshold,
            int(score > model.threshold),
            float(model.calibration.p_values([score])[0]),
            iso(time),
            model.name,
        )


def p_in_words(p_value: float) -> str:
    """Return a p-value as one reads it: those below a millionth are not compared any more.

    >>> p_in_words(0.0312), p_in_words(1e-149)
    ('p = 0.031', 'p < 1e-6')
    """
    return f"p = {p_value:.2g}" if p_value >= 1e-6 else "p < 1e-6"


def iso(seconds: float) -> str:
    """Return a time as ISO 8601, in UTC and milliseconds.

    Args:
        seconds: Since the epoch.

    >>> iso(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class ResultWriter:
    """Writes results as CSV or as JSON lines, each row as soon as it is known.

    Args:
        file: Gets them.
        as_json: A JSON object for each row, not CSV.
        alarms: Whether rows have the column ``alarm``.
    """

    def __init__(self, file: TextIO, *, as_json: bool = False, alarms: bool = False) -> None:
        self._file, self._as_json = file, as_json
        self._columns = [f.name for f in fields(Result) if alarms or f.name != "alarm"]
        self._rows = csv.DictWriter(file, self._columns, lineterminator="\n")
        if not as_json:
            self._rows.writeheader()

    def write(self, results: Sequence[Result]) -> None:
        """Write results, and hand them to whoever reads."""
        for result in results:
            values = asdict(result)
            row = {name: values[name] for name in self._columns}
            if self._as_json:
                self._file.write(json.dumps(row) + "\n")
            else:
                self._rows.writerow(row)
        self._file.flush()
