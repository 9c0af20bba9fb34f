"""Checks of a data set: its contents, and errors in it, before hours of training are spent.

Every recording is read once: decoded in full, or only its header. An *error* spoils a run or its
numbers; a *warning* may be as it should be.
"""

from fsasd.data.check.findings import Finding, find_in_recordings, log_findings
from fsasd.data.check.inspection import inspect, inspect_once
from fsasd.data.check.report import Report, check

__all__ = [
    "Finding",
    "Report",
    "check",
    "find_in_recordings",
    "inspect",
    "inspect_once",
    "log_findings",
]
