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

from hydra import compose, initialize_config_module

from benchmarks.timing import seconds_and_work
from fsasd.cli import configure, resolvers
from fsasd.pipeline.execute import build, ready
from fsasd.pipeline.plan import Lookup
from fsasd.pipeline.presence import Presence
from fsasd.store.store import Store

CHOICES = {
    "synthetic clips alone": "synthetic",
    "synthetic, references, prior": "combined",
    "all five sources": "combined selection/sources=[synthetic,references,transfer,normals,prior]",
}

REFERENCES = ("fan", "gearbox", "valve", "slider", "motor", "grinder")


def main() -> None:
    """Print the processor time of each choice, and how many times that of the first it is."""
    logging.disable(logging.WARNING)
    resolvers.register()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = folder / "before"
        _choose("bearing", CHOICES["all five sources"], before)
        first = None
        for title, selection in CHOICES.items():
            store = folder / selection.replace("/", "-")
            shutil.copytree(before, store)
            _, work = seconds_and_work(_choose, "pump", selection, store)
            first = first or work
            print(f"{title:30} {work:6.1f} s = {work / first:.2f} x", flush=True)


def _choose(target: str, selection: str, store: Path) -> None:
    references = ",".join(REFERENCES)
    overrides = [
        f"data.factory.references=[{references}]", "data.factory.targets=[bearing,pump]",
        f"data.machines=[{target},{references}]", "generator=transforms",
        f"store={store}", "trainer.enable_progress_bar=false", *f"selection={selection}".split(),
    ]  # fmt: skip
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", overrides)
    run = configure.experiment(cfg)
    asked, unreadable = ready(run, configure.planners(cfg), ["synthesise", "detect"], store / "run")
    with Presence(store / "run") as commands:
        build(run, asked, Lookup(Store(cfg.store)), commands, unreadable)


if __name__ == "__main__":
    main()
