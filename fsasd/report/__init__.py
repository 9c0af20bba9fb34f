"""Runs to tables on the screen and to one HTML page that needs nothing else."""

from fsasd.report.console import console
from fsasd.report.page import write_report
from fsasd.report.tables import write_tables

__all__ = ["console", "write_report", "write_tables"]
