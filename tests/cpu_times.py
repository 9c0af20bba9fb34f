"""Lists the tests that take most CPU time: ``pytest --cpu-times``.

CPU time, unlike time on the clock, is the same beside other work. That of a test is its own, of the
fixtures that are set up for it, and of the processes that it starts and that have ended.
"""

import contextlib
import os
from collections import Counter
from multiprocessing import forkserver

import commands
import psutil
import pytest

SHOWN = 20
SLOW_TEST, SLOW_FILE = 2.0, 5.0
"""A test that takes more seconds without its fixtures is ``slow``, and so are all of a file whose
tests without that mark take more together."""


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all that it has started and that have ended."""
    times = os.times()
    return sum(times[:4]) + commands.cpu_seconds + _of_the_fork_server()


def _of_the_fork_server() -> float:
    """Return the CPU time of multiprocessing's server, which lives on, and of all it has forked."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if pid := forkserver._forkserver._forkserver_pid:
            return sum(psutil.Process(pid).cpu_times()[:4])
    return 0.0


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Note the CPU time at the end of each phase of a test."""
    item.user_properties.append((call.when, cpu_seconds()))
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Note the CPU time before a test."""
    item.user_properties.append(("begin", cpu_seconds()))
    yield


def pytest_terminal_summary(terminalreporter):
    """List tests and files, and those whose mark does not say that they are slow."""
    tests, files, unmarked = Counter(), Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "teardown":
                continue
            times = dict(report.user_properties)
            file, seconds = report.nodeid.partition("::")[0], times["teardown"] - times["begin"]
            tests[report.nodeid] = seconds
            files[file] += seconds
            if "slow" not in report.keywords:
                unmarked[file] += seconds
                unmarked[report.nodeid] = times.get("call", 0.0) - times["setup"]
    slow = {
        name: seconds
        for name, seconds in unmarked.items()
        if seconds > (SLOW_TEST if "::" in name else SLOW_FILE)
    }
    terminalreporter.section(f"{files.total():.0f} s of CPU time")
    for title, rows in (("files", files), ("tests", tests), ("slow without the mark", slow)):
        terminalreporter.write_line(f"{title}:")
        for name, seconds in Counter(rows).most_common(SHOWN):
            terminalreporter.write_line(f"{seconds:8.2f} s  {name}")
