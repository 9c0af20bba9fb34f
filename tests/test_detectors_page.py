"""docs/reference/detectors.md follows the config group, the docstrings and the measured table."""

import re
from pathlib import Path

import fsasd.conf
import numpy as np
import pandas as pd
import pytest

from benchmarks import detectors
from benchmarks.detectors import Entry, measure, page
from fsasd.detectors import available

pytestmark = pytest.mark.slow

QUICK = ["experiment=tiny", "generator=none"]


@pytest.fixture(scope="module")
def text():
    """The page as it has to be, which takes seconds to write."""
    return page()


def test_the_page_is_up_to_date(text):
    assert detectors.PAGE.read_text() == text, "run python -m benchmarks.detectors"


def test_every_detector_is_named_below_each_title_and_has_a_section(text):
    for name in available():
        assert text.count(f"[{name}](#{name})") >= 2
        assert f"\n### {name}\n" in text


@pytest.mark.parametrize("name", sorted(set(available()) - {"auto", "ensemble"}))
def test_every_detector_has_a_source(name):
    assert re.fullmatch(
        r"scikit-learn|Zeng \(notes\)|\w.*\d{4}.* \([\w ]+\)", Entry.of(name).source
    )


def test_every_encoder_of_the_config_group_has_a_row():
    """Rows are the representations with a pretrained encoder."""
    rows = pd.read_csv(detectors.ENCODERS)["name"].tolist()
    folder = Path(fsasd.conf.__file__).parent / "representation"
    texts = {path.stem: path.read_text() for path in folder.glob("*.yaml")}
    assert sorted(rows) == sorted(name for name, text in texts.items() if "encoders.Layer" in text)


def test_a_section_is_of_the_yaml_and_the_docstrings():
    entry = Entry.of("autoencoder")
    assert entry.comment == "The baseline of DCASE 2023 Task 2."
    assert entry.source == "Harada et al., EUSIPCO 2023 (code)"
    assert "github.com/nttcslab/dcase2023_task2_baseline_ae" in entry.cited
    assert entry.about.startswith("Reconstruction error of an autoencoder")
    assert "Deviations: trained on all windows" in entry.about
    assert "Args" not in entry.about
    assert entry.grids == [{"scored_by": ["mse", "mahalanobis"]}]


def test_parameters_times_and_metrics_are_measured():
    row = measure(["detector=knn", *QUICK])
    assert row["parameters"] == 12 * 256
    assert row["training_seconds"] >= 0
    assert row["scoring_ms"] > 0
    assert 0 <= row["low"] <= row["official"] <= row["high"] <= 1
    assert measure(["detector=knn", *QUICK])["official"] == row["official"]


def test_networks_of_all_machines_are_prepared(monkeypatch):
    prepared_on = []
    prepare = detectors.Detector.prepare

    def noted(self, clips, folder, trainer=None):
        prepared_on.extend(clip.machine for clip in clips)
        return prepare(self, clips, folder, trainer)

    monkeypatch.setattr("fsasd.detectors.flow.Flow.prepare", noted)
    measure(["detector=flow", "detector.training.epochs=0", *QUICK])
    assert set(prepared_on) == {"fan", "pump"}


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


@pytest.mark.nightly
def test_memory_is_measured_apart_and_kept(tmp_path, monkeypatch):
    """Of a process of its own: k-NN keeps little, but reads recordings and computes log-mels."""
    monkeypatch.setattr(detectors, "TABLE", tmp_path / "detectors.csv")
    for name in ("knn", "lof"):
        detectors._keep({"data": "real", "detector": name, "seed": 0, "official": 0.5})
    detectors._keep_memory("real", "knn", QUICK)
    detectors._keep({"data": "real", "detector": "knn", "seed": 1, "official": 0.6})
    table = pd.read_csv(tmp_path / "detectors.csv").set_index("detector")["memory_mb"]
    first, second = table["knn"]
    assert first == second > 1
    assert np.isnan(table["lof"])


def test_a_choice_among_several_grids_is_said_as_one(text):
    section = text.partition("### auto\n")[2].partition("\n### ")[0]
    (said,) = re.findall(r"synthetic clips\*\*: (`use`.*)", section)
    assert said.startswith(
        "`use`: twfr_gmm; `twfr_gmm__r`: 0.0 to 1.1, 111 values; or `use`: knn; "
    )


def test_what_several_are_of_is_said_once_and_deviations_stand_out(text):
    assert text.count("An outlier or density model of scikit-learn") == 1
    assert "see [gmm](#gmm)" in text.partition("### lof\n")[2].partition("###")[0]
    assert "see [twfr_gmm](#twfr_gmm)" in text.partition("### guan_heu_system2\n")[2][:400]
    for name in ("fkie", "mdam", "stgram_mfn", "autoencoder"):
        assert "\n**Deviations**: " in text.partition(f"### {name}\n")[2].partition("\n### ")[0]


def row(detector, seed, official):
    return {
        "data": "real", "detector": detector, "seed": seed, "parameters": 6656,
        "training_seconds": 1.0 + seed, "scoring_ms": 4.0, "memory_mb": 48.0, "auc_source": 0.8,
        "auc_target": 0.7, "pauc": 0.6, "official": official, "low": 0.5, "high": 0.9,
    }  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    rows = [row("ocsvm", seed, official) for seed, official in enumerate((0.68, 0.70, 0.72))]
    rows += [row("lof", 0, 0.75) | {"note": "detector.k=2"}]
    rows += [{"data": "real", "detector": "genrep", "seed": 0, "note": detectors.NO_WEIGHTS}]
    table = tmp_path_factory.mktemp("measured") / "detectors.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "TABLE", table)
        written = page()
    return written.partition("## On real")[2].partition("## On the simulated")[0]


def test_the_table_has_means_over_seeds(measured):
    cells = "6,656 | 2.0 s | 4.0 ms | 48 MB | 80.0 | 70.0 | 60.0 | 70.0 ± 1.6 [50.0 to 90.0] | 3 |"
    assert f"| [ocsvm](#ocsvm) | scikit-learn | {cells}" in measured


def test_the_best_are_first_and_fewer_seeds_and_other_settings_are_marked(measured):
    assert measured.index("| [lof]") < measured.index("| [ocsvm]")
    assert "75.0 [50.0 to 90.0] | 1 † with detector.k=2 |" in measured
    assert "† Fewer than 3 seeds" in measured


def test_detectors_that_were_not_measured_are_listed_with_the_reason(measured):
    assert "| [genrep]" not in measured
    assert re.search(r"pretrained weights were not available .*: \[genrep\]\(#genrep\)\.", measured)
    assert re.search(r"Not yet measured: .*\[gmm\]\(#gmm\), ", measured)
