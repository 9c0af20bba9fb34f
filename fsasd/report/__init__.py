"""Results of a run on the terminal, as tables, and as one self-contained HTML page."""
