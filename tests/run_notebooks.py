"""Execute every notebook; run by ``make test``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    """Execute each notebook in an empty folder; the first cell that raises ends it all."""
    notebooks = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
    assert notebooks, "no notebook found"
    for path in notebooks:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = nbformat.read(path, as_version=4)
            client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
            client.execute()
        print(f"{path.name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
