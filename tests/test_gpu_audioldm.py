"""The benchmark for GPUs, run on a CPU: what it will do on one, and the table that it leaves."""

import json
import sys

import pytest
import torch

from benchmarks import gpu_audioldm
from benchmarks.training import seconds_per_call
from fsasd.generation.audioldm import checkpoint
from fsasd.generation.audioldm.model import AudioLDMModel
from fsasd.generation.diffusion.adaptation import Full, Lora
from fsasd.generation.diffusion.cost import training_cost

pytestmark = pytest.mark.slow


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Where its results go; each call is made once, and so measured."""
    monkeypatch.setattr(gpu_audioldm, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(
        gpu_audioldm,
        "seconds_per_call",
        lambda call, device, *_, **__: seconds_per_call(call, device, repeats=1, warm_up=0),
    )
    return tmp_path / "results"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_audioldm", *arguments])
    gpu_audioldm.main()


@pytest.mark.nightly
def test_everything_is_measured_and_written_down(results, monkeypatch, capsys):
    run(
        monkeypatch, "--device", "cpu", "--sizes", "nano", "--modes", "eager", "--batches", "1",
        "--clips", "1", "--seconds", "0.32", "--profile",
    )  # fmt: skip
    (path,) = results.glob("audioldm-*.json")
    result = json.loads(path.read_text())
    full, lora, cached = result["training"]
    assert (full["training"], lora["training"]) == ("full", "lora")
    nano = AudioLDMModel(checkpoint.build("nano")), torch.zeros(64)
    for row, trained in ((full, Full()), (lora, Lora())):
        assert row["clips_per_second"] == pytest.approx(1 / row["seconds"])
        done = row["share_of_matrix_rate"] * result["matrix_rate"] * row["seconds"]
        assert done == pytest.approx(training_cost(*nano, trained, 1, frames=256).flops)
    assert cached["cached_is_faster"] == pytest.approx(
        cached["uncached_seconds"] / cached["cached_seconds"]
    )
    (generated,) = result["generation"]
    assert generated["faster"] == pytest.approx(
        generated["clips_per_second"] / generated["pipeline_clips_per_second"]
    )
    assert path.with_suffix(".md").read_text() == gpu_audioldm.table(result)
    assert "Self CPU" in capsys.readouterr().out


def test_the_table_holds_what_was_found():
    case = {"size": "l", "training": "full", "mode": "compile", "batch": 64}
    text = gpu_audioldm.table(
        {
            "device": "A GPU",
            "torch": "2.14.1",
            "matrix_rate": 7.5e14,
            "training": [
                {**case, "size": "s", "seconds": 0.2, "clips_per_second": 320.0,
                 "share_of_matrix_rate": 0.312, "peak_gib": 41.26},
                {**case, "clips_per_second": None, "why": "out of memory"},
                {"size": "s", "batch": 16, "cached_seconds": 0.1, "uncached_seconds": 0.25,
                 "cached_is_faster": 2.5},
            ],
            "generation": [
                {"size": "s", "clips_together": 32, "clips_per_second": 12.3,
                 "pipeline_clips_per_second": 0.2, "faster": 61.5},
            ],
        }
    )  # fmt: skip
    for line in (
        "# AudioLDM on A GPU",
        "| s | full | compile | 64 | 320 | 31.2% | 41.3 |",
        "| l | full | compile | 64 | out of memory | | |",
        "| s | 0.1 s | 0.25 s | 2.50 x |",
        "| s | 32 | 12.3 | 0.2 | 61.5 x |",
    ):
        assert line in text.splitlines()
    assert "750 TFLOP/s" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [8] * 4 + [5] * 3 + [6] * 3


def test_a_step_that_memory_does_not_suffice_for_is_a_row_without_a_number(monkeypatch):
    def full(*_, **__):
        raise gpu_audioldm.torch.OutOfMemoryError

    monkeypatch.setattr(gpu_audioldm, "seconds_per_call", full)
    row = gpu_audioldm.train("nano", "full", "eager", 1, gpu_audioldm.torch.device("cpu"), 1e12)
    assert row["clips_per_second"] is None
    assert row["why"] == "out of memory"
