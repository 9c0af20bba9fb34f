"""Results of a run on the terminal and as one self-contained HTML page."""

from fsasd.report.console import console
from fsasd.report.headline import objective
from fsasd.report.page import write_report
from fsasd.report.results import mark_submission
from fsasd.report.tables import paper_table, write_tables

__all__ = [
    "console", "mark_submission", "objective", "paper_table", "write_report", "write_tables",
]  # fmt: skip
