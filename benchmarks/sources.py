"""What more sources of evidence cost, where the curves of reference machines are in the store.

A machine's setting is chosen with ``selection=synthetic``, and with all five sources, of the same
clips: everything from synthesis to the rule, in processor time. The machines that are its
references were those of another machine before.

    python -m benchmarks.sources
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from benchmarks.stages import build_stages
from benchmarks.timing import seconds_and_work
from fsasd.data.simulate import write_factory

CHOICES = {
    "synthetic clips alone": "synthetic",
    "synthetic, references, prior": "combined",
    "all five sources": "combined selection/sources=[synthetic,references,transfer,normals,prior]",
}

REFERENCES = ("fan", "gearbox", "valve", "slider", "motor", "grinder")


def main() -> None:
    """Print the processor time of each choice, and how many times that of the first it is."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = write_factory(
            folder / "factory", references=REFERENCES, targets=["bearing", "pump"], seconds=4.0
        )
        before = folder / "before"
        _choose(root, "bearing", CHOICES["all five sources"], before)
        first = None
        for number, (title, selection) in enumerate(CHOICES.items()):
            copy = folder / str(number)
            shutil.copytree(before, copy)
            _, work = seconds_and_work(_choose, root, "pump", selection, copy)
            first = first or work
            print(f"{title:30} {work:6.1f} s = {work / first:.2f} x", flush=True)


def _choose(root: Path, target: str, selection: str, folder: Path) -> None:
    references = ",".join(REFERENCES)
    overrides = [
        "data=dcase", f"data.root={root}", f"data.machines=[{target},{references}]",
        f"data.targets=[{target}]", f"data.references=[{references}]", "generator=transforms",
        *f"selection={selection}".split(),
    ]  # fmt: skip
    build_stages(overrides, ["synthesise", "curve", "rule"], folder)


if __name__ == "__main__":
    main()
