"""Runs to tables on the screen and to one HTML page that needs nothing else."""

from fsasd.report.console import console
from fsasd.report.page import write_report
from fsasd.report.tables import paper_table, write_tables

__all__ = ["console", "paper_table", "write_report", "write_tables"]
