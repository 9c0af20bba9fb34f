"""Whole runs with other generators than AudioLDM, as the command does them."""

import json

import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run
from small_pipelines import audioldm2, stable_audio3

FAMILIES = {
    "zero_shot": (audioldm2, 16_000, ["generator=pipeline", "generator.steps=2"]),
    "audioldm2": (audioldm2, 16_000, ["generator=audioldm2", "generator/train=none"]),
    "stable_audio3": (stable_audio3, 44_100, ["generator=stable_audio3"]),
}


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_with_another_generator_ends_with_a_score(family, tmp_path):
    write, rate, chosen = FAMILIES[family]
    overrides = [
        "experiment=tiny", "objective=official", "trainer.enable_progress_bar=false", *chosen,
        f"generator.checkpoint={write(tmp_path / 'pipeline')}", f"store={tmp_path / 'store'}",
    ]  # fmt: skip
    if family != "zero_shot":
        overrides += ["generator.sampler.steps=2", "generator.crop_seconds=0.64"]
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        run = Run(compose("config", overrides), tmp_path / "run")
    assert 0 < run() < 1
    manifest = pd.read_csv(tmp_path / "run/synthetic/manifest.csv")
    assert sorted(manifest["label"]) == ["anomaly"] * 4 + ["normal"] * 4
    for wav in manifest["wav"]:
        assert soundfile.info(tmp_path / "run/synthetic" / wav).samplerate == rate
    trained = [*tmp_path.glob("store/finetune/*/model/model_index.json")]
    assert len(trained) == (family == "stable_audio3")
    (artifact,) = tmp_path.glob("store/synthesise/*/*/provenance.json")
    spec = json.loads(artifact.read_text())["spec"]
    # What the pipeline's folder holds, not where it is.
    assert str(tmp_path) not in json.dumps(spec)
