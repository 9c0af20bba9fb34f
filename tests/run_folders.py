"""Folders as runs and sweeps leave them, with scores that are drawn."""

import json

import numpy as np
import pandas as pd

from fsasd.evaluation.metrics import known_domains, metrics_table, section_metrics
from fsasd.report.runs.status import Status, Sweep

STARTED = "2026-01-01T00:00:00+00:00"


def write_run(
    folder, overrides, shift=1.0, seed=0, machines=("pump",), labels=True, domains=True, clips=80
):
    """A run whose anomalies score higher by ``shift``; returns its official score.

    The clips of a machine are the same in all runs: part of their scores, too.
    """
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    tables, metrics = [], {}
    for machine in machines:
        label = np.tile([0, 1], clips // 2)
        domain = np.repeat(["source", "target"], clips // 2)
        common = np.random.default_rng(len(machine)).normal(size=clips)
        score = common + 0.3 * np.random.default_rng(seed).normal(size=clips) + shift * label
        tables.append(
            pd.DataFrame({
                "machine": machine, "section": "00",
                "file": [f"section_00_{i:04d}.wav" for i in range(clips)],
                "label": np.where(label, "anomaly", "normal") if labels else None,
                "domain": domain if domains else None, "score": score,
            })
        )  # fmt: skip
        known = known_domains(tables[-1]["domain"])
        metrics[machine, "00"] = section_metrics(label, known, score)
    pd.concat(tables).to_csv(folder / "clips.csv", index=False)
    costs = pd.DataFrame({"machine": machines, "section": "00", "parameters": 100 + seed,
                          "fit_seconds": 0.25, "score_ms": 4.0})  # fmt: skip
    costs.to_csv(folder / "costs.csv", index=False)
    if not labels:
        return None
    table = metrics_table(metrics, (0.4, 0.8))
    table.to_csv(folder / "metrics.csv", index=False)
    return table["official_score"].iloc[-1]


def write_status(folder, number=0, state="done", sweep=STARTED, overrides=(), **more):
    """The state of a job; one that runs is in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    status = Status.begin(sweep, number, overrides)
    if state != "running":
        status = status.ending(state, **more)
    status.write(folder)
    return status


def write_sweep(folder, jobs, overrides=(), n_jobs=None, started=STARTED):
    """The list of a sweep's jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    n_jobs = len(jobs) if n_jobs is None else n_jobs
    sweep = Sweep(started, list(overrides), n_jobs, jobs)
    sweep.write(folder)
    return sweep


def write_finetuned(folder, store, overrides, losses, seconds=12.0, key="0123456789abcdef"):
    """A run that fine-tuned: ``losses`` by step, of which the log counts from 0."""
    artifact = store / key
    (artifact / "model").mkdir(parents=True)
    (artifact / "provenance.json").write_text(json.dumps({"key": key, "seconds": seconds}))
    log = artifact / "log" / "version_0"
    log.mkdir(parents=True)
    rows = [{"step": step - 1, "train/loss": 1.0} for step in range(1, max(losses) + 1)]
    rows += [{"step": step - 1, "val/loss": loss} for step, loss in losses.items()]
    pd.DataFrame(rows).to_csv(log / "metrics.csv", index=False)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    (folder / "model").symlink_to(artifact / "model")


def failed_section(folder, machine="fan"):
    """A section of the run without a result."""
    row = {"machine": machine, "section": "00", "stage": "detect", "reason": "no training clips"}
    pd.DataFrame([row]).to_csv(folder / "failed.csv", index=False)
