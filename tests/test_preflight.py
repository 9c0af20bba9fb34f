"""What a stage would refuse is refused before the first."""

from importlib import resources

import pytest
import torch
import yaml

from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.pipeline.preflight import (
    SECTIONS,
    check_accelerator,
    check_added,
    check_config,
    check_grid,
)
from fsasd.selection.selector import Selector

KNOWN = ["stages", "detector", "data", "callbacks", "trainer", "hydra/launcher"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("+detecto=knn", r"\+detecto=knn: nothing is called so. Did you mean 'detector'\?"),
        ("+foo=1", r"\+foo=1: nothing is called so\. There are callbacks, data, detector, stages"),
        ("++foo.bar=1", r"\+\+foo\.bar=1: nothing is called so"),
        ("+callbacks.evaluaton.every=2", "no callback is called so. Did you mean 'evaluation'"),
    ],
)
def test_what_nothing_looks_at_is_refused(override, told):
    callbacks = {"evaluation": {"_target_": "a.B"}, "evaluaton": {"every": 2}}
    with pytest.raises(ValueError, match=told):
        check_added([override], {"callbacks": callbacks}, KNOWN)


@pytest.mark.parametrize(
    "override",
    [
        "stages=[detect]",
        "foo=1",
        "+detector.mine.k=1",
        "+hydra/launcher=joblib",
        "+lowest_r=0",
        "+callbacks.mine._target_=a.B",
        "~callbacks.evaluation",
    ],
)
def test_what_something_looks_at_is_taken(override):
    config = {
        "callbacks": {"mine": {"_target_": "a.B"}},
        "selection": {"grid": {"r": "${fsasd.grid:${lowest_r},1,0.1}"}},
    }
    check_added([override], config, KNOWN)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"seed": "abc"}, "seed='abc': expected a whole number from 0"),
        ({"stages": "detect"}, r"stages='detect': expected a list, \[\.\.\.\]"),
        ({"tables": 5}, "tables=5: expected a list"),
        (
            {"synthesis": {"clips_per_label": -1}},
            "synthesis.clips_per_label=-1: expected a whole number of 1 or more",
        ),
        (
            {"synthesis": {"clips_per_lable": 4}},
            "synthesis.clips_per_lable: there is no such setting. Did you mean 'clips_per_label'",
        ),
        ({"synthesis": {"per_caption": "alike"}}, "expected one of proportional, balanced"),
        ({"decision": {"false_alarm_rate": "some"}}, "false_alarm_rate='some': expected a number"),
        ({"check": {"json": "yes"}}, "check.json='yes': expected true or false"),
    ],
)
def test_sections_that_are_of_no_class_are_checked(config, told):
    with pytest.raises(ValueError, match=told):
        check_config(config)


def test_sections_are_those_of_the_configuration():
    text = (resources.files("fsasd.conf") / "config.yaml").read_text()
    config = yaml.safe_load(text)
    for section in ("check", "decision", "synthesis"):
        assert config[section].keys() == SECTIONS[section].keys()
    groups = {"defaults", "hydra", *SECTIONS}
    assert config.keys() - groups == SECTIONS[""].keys()


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        ({"accelerator": "gpu"}, r"trainer\.accelerator=gpu: torch .* finds no GPU .*trainer=def"),
        ({"accelerator": "cuda", "devices": -1}, "finds no GPU"),
        ({"devices": 0}, r"trainer\.devices=0: expected 1 or more, or -1"),
        ({"devices": []}, r"trainer\.devices=\[\]: expected 1 or more"),
    ],
)
def test_devices_that_are_not_there_are_told(monkeypatch, trainer, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ValueError, match=told):
        check_accelerator(trainer)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_that_a_launcher_hides_are_told(monkeypatch, visible):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ValueError, match=r"hides every GPU\. .*gpus_per_node=1 .*num_gpus=1"):
        check_accelerator({"accelerator": "gpu"})


def test_more_devices_than_there_are_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_accelerator({"accelerator": "gpu", "devices": 1})
    with pytest.raises(ValueError, match=r"devices=4: this machine has 1 GPU"):
        check_accelerator({"accelerator": "gpu", "devices": 4})


def test_values_of_a_grid_are_checked():
    check_grid(TWFRGMM(), Selector({"n_components": [1, 2]}))
    told = r"selection\.grid: n_components=0: n_components=0: expected a whole number of 1"
    with pytest.raises(ValueError, match=told):
        check_grid(TWFRGMM(), Selector({"n_components": [1, 0]}))
