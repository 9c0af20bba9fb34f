"""The detector of one's own in docs/how-to/detector.md: found, checked and swept with fsasd's."""

import importlib
import os
import re
import sys
from pathlib import Path

import commands
import pandas as pd
import pytest

from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.classifier import Training
from fsasd.testing import check_detector

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "detector.md"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A folder with the files that the page shows, under the names that they begin with."""
    folder = tmp_path_factory.mktemp("plugin")
    blocks = re.findall(r"```(?:python|yaml)\n# (my_\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, text in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert [name for name, _ in blocks] == [
        "my_package/loudness.py",
        "my_conf/detector/loudness.yaml",
        "my_package/bands.py",
        "my_conf/representation/bands.yaml",
    ]
    return folder


def test_it_keeps_every_rule(plugin, factory_clips, monkeypatch):
    clips = factory_clips.where(machine="bearing")
    # The process that agrees, or does not, has started before the package can be found.
    check_detector(KNN(), clips)
    monkeypatch.syspath_prepend(plugin)
    loudness = importlib.import_module("my_package.loudness")
    check_detector(loudness.Loudness(), clips, [{"quantile": 0.1}])


def test_a_learned_representation_of_ones_own_is_scored_by_any_detector(
    plugin, factory_clips, monkeypatch, tmp_path
):
    monkeypatch.syspath_prepend(plugin)
    bands = importlib.import_module("my_package.bands")
    training = Training(seconds=0.5, epochs=5, batch_size=16)
    representation = bands.Bands(dim=8, training=training)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    representation.prepare(factory_clips.where(split="train"), tmp_path, quiet)
    detector = KNN(representation, metric="cosine")
    check_detector(detector, factory_clips.where(machine="bearing"), [{"k": 2}, {"density": 2}])


@pytest.mark.slow
def test_a_learned_representation_of_ones_own_is_chosen_by_name(plugin):
    done = commands.run(
        [
            *[sys.executable, "-m", "fsasd.cli.main", "--config-dir", "my_conf"],
            *["detector=knn", "representation=bands", "experiment=tiny", "generator=none"],
            *["representation.training.epochs=1", "hydra.run.dir=learned"],
            *["trainer.enable_progress_bar=false"],
        ],
        cwd=plugin,
        env=os.environ | {"PYTHONPATH": str(plugin)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (plugin / "learned/models/pump/section_00/detector.json").is_file()
    assert len(list((plugin / "learned/models/shared").iterdir())) == 1


@pytest.mark.nightly
@pytest.mark.slow
def test_it_is_swept_together_with_ours(plugin):
    done = commands.run(
        [
            *[sys.executable, "-m", "fsasd.cli.main", "-m", "--config-dir", "my_conf"],
            *["detector=knn,loudness", "experiment=tiny", "generator=transforms"],
            *["hydra.sweep.dir=sweep", "trainer.enable_progress_bar=false"],
        ],
        cwd=plugin,
        env=os.environ | {"PYTHONPATH": str(plugin)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    knn, loudness = (pd.read_csv(plugin / f"sweep/{job}/selection.csv") for job in (0, 1))
    assert {"param.k", "param.density"} <= set(knn.columns)
    assert loudness["param.quantile"].tolist() == [0.1, 0.5, 0.9]
    assert (plugin / "sweep/1/models/pump/section_00/detector.json").is_file()
    made = list((plugin / "outputs/store/synthesise").glob("*/*/provenance.json"))
    assert len(made) == 1, "both choose on the same synthetic clips"
