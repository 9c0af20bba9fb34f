"""What a stage would refuse is refused before the first."""

from importlib import resources

import lightning as L
import pytest
import torch
import yaml

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.pipeline.preflight import (
    SECTIONS,
    check_accelerator,
    check_added,
    check_config,
    check_continued,
    check_grid,
    check_training,
)
from fsasd.pipeline.training_length import first_validation, training_steps, validates_last
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
    with pytest.raises(ValueError, match=r"hides every GPU\. .*gpus_per_node=1.*num_gpus=1"):
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


# The steps of fine-tuning

SETTINGS = {
    "precision": "32-true", "accelerator": "cpu", "devices": 1, "max_steps": 6, "max_epochs": -1,
    "val_check_interval": 2, "check_val_every_n_epoch": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(factory_clips):
    """Six clips to train on, in batches of two, and as many to validate on."""
    clips = factory_clips.where(machine="fan", split="train", label="normal")[:12]
    return FirstShotDataModule(clips, batch_size=2, val_share=0.5, cache=None)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 6),
        ({"max_epochs": 1}, 3),
        ({"max_steps": -1, "max_epochs": 4}, 12),
        ({"max_steps": -1, "max_epochs": 4, "accumulate_grad_batches": 2}, 12),
        ({"max_steps": -1, "max_epochs": 4, "limit_train_batches": 2}, 8),
        ({"max_steps": -1, "max_epochs": 4, "limit_train_batches": 0.4}, 4),
    ],
)
def test_the_steps_of_a_training_are_known_before_it(data, settings, steps):
    assert training_steps({**SETTINGS, **settings}, data) == steps


@pytest.mark.parametrize(
    "settings",
    [
        {"val_check_interval": 6},
        {"max_epochs": 2, "check_val_every_n_epoch": 2, "val_check_interval": 1.0},
        {"max_epochs": 1, "check_val_every_n_epoch": 1, "val_check_interval": 0.5},
        {"limit_val_batches": 1},
        {"limit_val_batches": 0.4},
    ],
)
def test_a_training_whose_best_checkpoint_will_be_known_is_taken(data, settings):
    check_training({**SETTINGS, **settings}, ["val/loss"], data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": -1}, "max_steps=-1, trainer.max_epochs=-1: expected a number for one"),
        ({"val_check_interval": 7}, "=7: the first validation would be after step 7, and tr"),
        ({"max_epochs": 1, "val_check_interval": 4}, "after step 4, and training ends after 3"),
        (
            {"max_epochs": 2, "check_val_every_n_epoch": 3, "val_check_interval": 1.0},
            "would be after step 9, and training ends after 6",
        ),
        ({"max_steps": 2, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}, "after step 3"),
        ({"limit_val_batches": 0}, "limit_val_batches=0: no checkpoint can be the best by val/"),
        ({"limit_val_batches": 0.1}, "limit_val_batches=0.1: no checkpoint can be the best"),
        (
            {"max_epochs": 2, "limit_train_batches": 0.1},
            "limit_train_batches=0.1: expected a batch at least of the 3",
        ),
    ],
)
def test_a_training_whose_best_checkpoint_would_not_be_known_is_refused(data, settings, message):
    with pytest.raises(ValueError, match=message):
        check_training({**SETTINGS, **settings}, ["val/loss"], data)


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({}, True),
        ({"max_steps": 5}, False),
        ({"max_epochs": 1}, False),
        ({"max_steps": 5, "accumulate_grad_batches": 2, "val_check_interval": 5}, True),
        ({"check_val_every_n_epoch": 1, "val_check_interval": 1.0}, True),
        ({"max_steps": 5, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}, False),
        # Batches are rounded down: one is validated after each.
        ({"max_steps": 5, "check_val_every_n_epoch": 1, "val_check_interval": 0.5}, True),
        ({"max_steps": 1, "check_val_every_n_epoch": 1, "val_check_interval": 0.5}, True),
        ({"max_epochs": 1, "check_val_every_n_epoch": 2, "val_check_interval": 1.0}, False),
    ],
)
def test_whether_the_last_step_is_validated_is_known_as_lightning_does_it(
    data, settings, validated
):
    trainer = {**SETTINGS, **settings}
    options = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    accumulated = trainer.get("accumulate_grad_batches", 1)
    made = dict(trainer)
    if isinstance(made["val_check_interval"], int):
        # As ``trainers.fitting_trainer`` does.
        made["val_check_interval"] *= accumulated
    model = Counting()
    batches = len(data.split()[0]) // data.batch_size * accumulated
    loader = torch.utils.data.DataLoader(torch.zeros(batches, 1))
    fit = L.Trainer(**{**made, **options})
    fit.fit(model, loader, torch.utils.data.DataLoader(torch.zeros(1, 1)))
    assert fit.global_step == training_steps(trainer, data)
    assert (fit.global_step in model.validated) == validated
    assert validates_last(trainer, data) == validated
    if model.validated:
        assert first_validation(trainer, data) == model.validated[0]


class Counting(L.LightningModule):
    """Notes after which steps it is validated."""

    def __init__(self):
        super().__init__()
        self.weight, self.validated = torch.nn.Linear(1, 1), []

    def training_step(self, batch, _):
        return self.weight(batch).sum()

    def validation_step(self, batch, _):
        self.validated.append(self.global_step)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_without_a_best_checkpoint_no_validation_is_needed(data):
    for settings in ({"limit_val_batches": 0}, {"val_check_interval": 7}):
        check_training({**SETTINGS, **settings}, [], data)


@pytest.mark.parametrize(
    ("steps", "kept", "message"),
    [
        (6, True, "continue_from=6: expected the trainer.max_steps of the .*, from 1 to 5"),
        (0, True, "continue_from=0: expected the trainer.max_steps of the"),
        (3, True, "continue_from=3: expected a multiple of trainer.val_check_interval=2"),
        (4, False, "continue_from=4 needs keep_checkpoints=true"),
    ],
)
def test_a_training_that_cannot_be_continued_so_is_refused(steps, kept, message):
    check_continued(SETTINGS, 4, keep_checkpoints=True)
    with pytest.raises(ValueError, match=message):
        check_continued(SETTINGS, steps, kept)
