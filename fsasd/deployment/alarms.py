"""Alarms: when decisions about a machine become an alarm, and what is then run."""

from __future__ import annotations

import json
import logging
import queue
import re
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from fsasd.deployment.results import Result

log = logging.getLogger(__name__)

HOOK_SECONDS = 60.0
"""Time after which a command that an alarm started is killed."""

_WAITING = 100


@dataclass(frozen=True)
class AlarmPolicy:
    """When a series of decisions is an alarm.

    An alarm begins when at least ``k`` of the last ``n`` decisions are anomalous, and ends when at
    most ``release`` of them are: below ``k``, so that it does not flicker (hysteresis). For
    ``cool_down`` seconds after its end, none begins.

    Args:
        k: Anomalous decisions that begin an alarm.
        n: Of how many.
        release: Anomalous decisions with which it ends; by default ``k - 1``.
        cool_down: In seconds.

    Raises:
        ValueError: Not 1 <= k <= n, 0 <= release < k and cool_down >= 0.

    >>> AlarmPolicy.of("2/3")
    AlarmPolicy(k=2, n=3, release=1, cool_down=0.0)
    """

    k: int = 1
    n: int = 1
    release: int | None = None
    cool_down: float = 0.0

    def __post_init__(self) -> None:
        if self.release is None:
            object.__setattr__(self, "release", self.k - 1)
        assert self.release is not None
        if not 1 <= self.k <= self.n:
            raise ValueError(
                f"alarm: expected at least K=1 of N anomalous decisions, found {self.k}/{self.n}"
            )
        if not 0 <= self.release < self.k:
            raise ValueError(
                f"alarm: expected it to end with 0 to {self.k - 1} of {self.n} anomalous "
                f"decisions, fewer than those that begin it, found {self.release}"
            )
        if not self.cool_down >= 0:
            raise ValueError(f"cool-down: expected 0 seconds or more, found {self.cool_down}")

    @classmethod
    def of(cls, text: str, release: int | None = None, cool_down: float = 0.0) -> AlarmPolicy:
        """Read ``K/N``, or ``K`` for ``K/K``.

        Raises:
            ValueError: The text is another, or see the class.
        """
        k, _, n = text.partition("/")
        if not (k.isdigit() and (n or k).isdigit()):
            raise ValueError(f"alarm: expected K/N, such as 3/5, found {text!r}")
        return cls(int(k), int(n or k), release, cool_down)


class Alarm:
    """The alarm of one model: follows its results by a policy.

    >>> alarm = Alarm(AlarmPolicy(k=2, n=3))
    >>> [alarm.update(anomalous, time) for time, anomalous in enumerate([1, 0, 1, 1, 0, 0])]
    [False, False, True, True, True, False]
    """

    def __init__(self, policy: AlarmPolicy) -> None:
        self.policy = policy
        self.active = False
        self._last: deque[bool] = deque(maxlen=policy.n)
        self._ended = -float("inf")

    def update(self, anomalous: int | bool, time: float) -> bool:
        """Return whether there is an alarm after one more decision.

        Args:
            anomalous: The decision.
            time: Of the recording, in seconds; they ascend.
        """
        policy = self.policy
        assert policy.release is not None
        self._last.append(bool(anomalous))
        count = sum(self._last)
        if self.active and count <= policy.release:
            self.active, self._ended = False, time
        elif not self.active and count >= policy.k and time - self._ended >= policy.cool_down:
            self.active = True
        return self.active


class Hook:
    """Runs a command for each alarm that begins, one after the other, beside the scoring.

    The command is split as a shell would, and run without one: ``{file}``, ``{time}``, ``{score}``,
    ``{threshold}``, ``{p_value}`` and ``{model}`` in its arguments become the values of the result,
    whatever characters they hold, and the result is JSON on its standard input. What it prints is
    discarded. One that fails, or takes more than a minute, is named in a warning.

    Args:
        command: Such as ``notify-send 'anomaly in {model}' {file}``.

    Raises:
        ValueError: The command is empty, or its quotes are not closed.

    >>> hook = Hook("echo '{model}: {score}' {file}")
    >>> hook.arguments({"model": "a;b", "score": 1, "file": "c d"})
    ['echo', 'a;b: 1', 'c d']
    """

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"on-alarm: {error}, found {command!r}") from error
        if not self._command:
            raise ValueError("on-alarm: expected a command, found nothing")
        self._alarms: queue.Queue[Result | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run_all, name="on-alarm", daemon=True)
        self._thread.start()

    def arguments(self, values: Mapping[str, object]) -> list[str]:
        """Return the command's arguments with values in place of their names in braces."""
        # In one pass, so that a value which holds the name of another stays as it is.
        return [
            re.sub(r"\{(\w+)\}", lambda name: str(values.get(name[1], name[0])), argument)
            for argument in self._command
        ]

    def start(self, result: Result) -> None:
        """Run the command for a result, as soon as those before have ended."""
        try:
            self._alarms.put_nowait(result)
        except queue.Full:
            log.warning(
                "on-alarm: %d commands wait already: none is run for %s", _WAITING, result.file
            )

    def close(self) -> None:
        """Wait until all commands have ended."""
        self._alarms.put(None)
        self._thread.join()

    def _run_all(self) -> None:
        while (result := self._alarms.get()) is not None:
            self._run(asdict(result))

    def _run(self, values: dict[str, object]) -> None:
        arguments = self.arguments(values)
        try:
            done = subprocess.run(
                arguments, input=json.dumps(values), text=True, timeout=HOOK_SECONDS, check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace",
            )  # fmt: skip
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            log.warning("on-alarm: %s", error)
            return
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            log.warning(
                "on-alarm: %s ended with exit code %d%s", arguments[0], done.returncode,
                f": {lines[-1]}" if lines else "",
            )  # fmt: skip


class Alarms:
    """The alarms of several models, and what they run.

    Args:
        policy: Of each model.
        hook: Is run when an alarm begins.
    """

    def __init__(self, policy: AlarmPolicy, hook: Hook | None = None) -> None:
        self._policy, self._hook = policy, hook
        self._alarms: dict[str, Alarm] = {}

    def update(self, result: Result) -> Result:
        """Return a result with its model's alarm; log, and run the hook, where one begins.

        Args:
            result: Those of a model in the order of their time.
        """
        alarm = self._alarms.setdefault(result.model, Alarm(self._policy))
        time = datetime.fromisoformat(result.time).timestamp()
        before, after = alarm.active, alarm.update(result.decision, time)
        result = replace(result, alarm=int(after))
        if after and not before:
            log.warning(
                "ALARM %s at %s: score %.4g above %.4g (%s)", result.model, result.time,
                result.score, result.threshold, result.file,
            )  # fmt: skip
            if self._hook:
                self._hook.start(result)
        elif before and not after:
            log.warning("alarm of %s ended at %s", result.model, result.time)
        return result

    def close(self) -> None:
        """Wait until all commands have ended."""
        if self._hook:
            self._hook.close()
