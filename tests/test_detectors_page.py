"""docs/detectors.md says what the config group and the docstrings say, and what was measured."""

import pandas as pd
import pytest

from benchmarks import detectors
from benchmarks.detectors import Entry, measure, page
from fsasd.detectors import available

QUICK = ["experiment=tiny", "generator=none"]


def test_the_page_is_up_to_date():
    assert detectors.PAGE.read_text() == page(), "run python -m benchmarks.detectors"


def test_every_detector_has_a_row_in_each_table_and_a_section():
    text = page()
    for name in available():
        assert text.count(f"| [{name}](#{name}) |") == 2
        assert f"\n### {name}\n" in text


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("autoencoder", "Harada et al., EUSIPCO 2023"),
        ("cmae", "Zahedi et al., Algorithms 16(9), 2023"),
        ("genrep", "arXiv 2409.05035"),
        ("twfr_gmm_smote", "Guan et al., ICASSP 2023"),
        ("lof", ""),
    ],
)
def test_papers_are_found_where_they_are_cited(name, paper):
    assert Entry.of(name).paper == paper


def test_what_a_section_says_stands_in_the_yaml_and_the_docstrings():
    entry = Entry.of("autoencoder")
    assert entry.comment == "The baseline of DCASE 2023 Task 2."
    assert entry.about.startswith("How badly an autoencoder")
    assert "Deviations: trained on all windows" in entry.about
    assert "Args" not in entry.about
    assert entry.grid == {"scored_by": ["mse", "mahalanobis"]}


def test_parameters_times_and_metrics_are_measured():
    row = measure(["detector=knn", *QUICK])
    assert row["parameters"] == 12 * 256
    assert row["training_seconds"] >= 0
    assert row["scoring_ms"] > 0
    assert 0 <= row["low"] <= row["official"] <= row["high"] <= 1
    assert measure(["detector=knn", *QUICK])["official"] == row["official"]


def test_what_all_machines_share_is_prepared(monkeypatch):
    heard = []
    prepare = detectors.Detector.prepare

    def noted(self, clips, folder, trainer=None):
        heard.extend(clip.machine for clip in clips)
        return prepare(self, clips, folder, trainer)

    monkeypatch.setattr("fsasd.detectors.flow.Flow.prepare", noted)
    measure(["detector=flow", "detector.epochs=0", *QUICK])
    assert set(heard) == {"fan", "pump"}


def test_weights_that_are_not_at_hand_are_noted(tmp_path):
    missing = f"representation.front_end.checkpoint={tmp_path}/none"
    row = measure(["detector=genrep", missing, *QUICK])
    assert row == {"note": "its weights are not at hand"}


def test_rows_that_are_measured_anew_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(detectors, "TABLE", tmp_path / "detectors.csv")
    for official in (0.5, 0.7):
        detectors._keep({"data": "real", "detector": "knn", "seed": 0, "official": official})
    detectors._keep({"data": "real", "detector": "knn", "seed": 1, "official": 0.8})
    assert pd.read_csv(tmp_path / "detectors.csv")["official"].tolist() == [0.7, 0.8]


def test_the_table_has_means_over_seeds(tmp_path, monkeypatch):
    rows = [
        {
            "data": "real", "detector": "knn", "seed": seed, "parameters": 6656,
            "training_seconds": 1.0 + seed, "scoring_ms": 4.0, "auc_source": 0.8,
            "auc_target": 0.7, "pauc": 0.6, "official": official, "low": 0.5, "high": 0.9,
        }
        for seed, official in enumerate((0.68, 0.70, 0.72))
    ]  # fmt: skip
    rows.append({"data": "factory", "detector": "lof", "seed": 0, "note": "no weights"})
    monkeypatch.setattr(detectors, "TABLE", tmp_path / "detectors.csv")
    pd.DataFrame(rows).to_csv(tmp_path / "detectors.csv", index=False)
    text = page()
    cells = "6,656 | 2.0 s | 4.0 ms | 80.0 | 70.0 | 60.0 | 70.0 ± 1.6 (50.0 to 90.0) |"
    assert f"| [knn](#knn) |  | {cells}" in text
    assert "| [lof](#lof) |  | no weights |" in text
    assert "| [gmm](#gmm) |  | not yet measured |" in text
