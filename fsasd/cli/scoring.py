"""A session of ``fsasd-score``: rows on standard output, everything else on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fsasd.data.recording import AudioError
from fsasd.deployment.alarms import Alarms
from fsasd.deployment.drift import DriftMonitor
from fsasd.deployment.files import Scored, score_group, score_groups
from fsasd.deployment.model import Model
from fsasd.deployment.recording_warnings import LikenessMonitor
from fsasd.deployment.results import Result, ResultWriter, iso
from fsasd.deployment.streaming import Source, Stream, score_window
from fsasd.deployment.watching import watch

if TYPE_CHECKING:
    from fsasd.deployment.explanation.folder import ExplanationFolder

T = TypeVar("T")


class ScoringSession:
    """What is scored from the start of the command to its end.

    Args:
        models: Each scores all recordings.
        writer: Gets the rows.
        alarms: Follow the rows.
        explanations: Explain the rows of recordings in files.
        live: Whether warnings come as soon as they are known; else together, at the end.
    """

    def __init__(
        self,
        models: Sequence[Model],
        writer: ResultWriter,
        alarms: Alarms | None = None,
        explanations: ExplanationFolder | None = None,
        live: bool = False,
    ) -> None:
        self.failed = 0
        self._models, self._writer, self._alarms, self._live = models, writer, alarms, live
        self._explanations = explanations
        self._likeness = {
            model.name: LikenessMonitor(model.profile) for model in models if model.profile
        }
        self._drift = {model.name: DriftMonitor(model.calibration) for model in models}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._alarms:
            self._alarms.close()
        if error is not None and not isinstance(error, KeyboardInterrupt):
            return
        for model in self._models:
            prefix = f"{model.name}: " if len(self._models) > 1 else ""
            if likeness := self._likeness.get(model.name):
                for line in likeness.summary():
                    _warn(prefix + line)
            if overall := self._drift[model.name].overall():
                print(f"{'WARNING drift' if overall.significant else 'drift'}: {prefix}{overall}",
                      file=sys.stderr)  # fmt: skip

    def score_files(self, groups: Iterable[Sequence[Path]], jobs: int = 1) -> None:
        """Score recordings group by group (see ``files.score_groups``)."""
        for scored in score_groups(self._models, _tracked(groups), jobs):
            self._take(scored)
            self._explain(scored.results)

    def watch(self, folder: Path) -> None:
        """Score recordings as they appear below a folder, without end."""
        for complete in watch(folder):
            # One by one: each row is there before the next recording is read.
            for path in complete:
                scored = score_group(self._models, [path])
                self._take(scored)
                self._explain([result for result in scored.results if result.decision])

    def score_stream(self, stream: Stream, source: Source, name: str) -> None:
        """Score the windows of a stream until it ends.

        Args:
            stream: What it consists of.
            source: Its bytes.
            name: Of the stream, in the column ``file``.

        Raises:
            ValueError: It ended before the first window.
        """
        began = time.time()
        # Windows that overlap say the same of drift and likeness again.
        apart = max(1, round(stream.window / stream.hop))
        number = -1
        for number, window in enumerate(stream.windows(source)):
            moment = began + window.start
            scores, measures = score_window(self._models, window, stream.rate, name)
            results = []
            for model, score in scores:
                try:
                    if isinstance(score, AudioError):
                        raise score
                    results.append(Result.of(model, name, moment, score))
                except ValueError as error:
                    self._fail(f"{iso(moment)} {error}")
            self._add(results, drift=number % apart == 0)
            if number % apart == 0:
                self._compare(measures)
        if number < 0:
            raise ValueError(
                f"{name}: expected {stream.window:g} s of sound or more, a window, found less"
            )

    def _take(self, scored: Scored) -> None:
        for failure in scored.failures:
            self._fail(failure.message)
        self._add(scored.results)
        self._compare(scored.measures)

    def _add(self, results: Iterable[Result], drift: bool = True) -> None:
        rows = []
        for result in results:
            rows.append(self._alarms.update(result) if self._alarms else result)
            change = self._drift[result.model].update(result.score) if drift else None
            if change and self._live:
                kind = "WARNING drift" if change.significant else "drift has ended"
                print(f"{kind}: {result.model}: {change}", file=sys.stderr)
        self._writer.write(rows)

    def _compare(self, measures: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        for model, rows in zip(self._models, measures, strict=True):
            likeness = self._likeness.get(model.name)
            for new in likeness.update(rows) if likeness else ():
                if self._live:
                    _warn(f"{model.name}: {new}")

    def _explain(self, results: Iterable[Result]) -> None:
        for result in results if self._explanations else ():
            assert self._explanations is not None
            try:
                self._explanations.add(result)
            except (AudioError, OSError) as error:
                # It was deleted, or the disk is full.
                self._fail(f"{result.file}: not explained: {error}")

    def _fail(self, message: str) -> None:
        print(message, file=sys.stderr)
        self.failed += 1


def _warn(message: str) -> None:
    print(f"WARNING {message}", file=sys.stderr)


def _tracked(groups: Iterable[T]) -> Iterable[T]:
    """Show on a terminal how far scoring is, which one group is too few for."""
    if not (isinstance(groups, Sequence) and len(groups) > 1 and sys.stderr.isatty()):
        return groups
    from rich.console import Console
    from rich.progress import track

    return track(groups, "scoring", console=Console(stderr=True), transient=True)
