"""Every argument of ``lightning.Trainer``: part of the key, of the machine, or refused."""

import inspect

import lightning as L
import pytest

from fsasd.pipeline.trainers import REFUSED, RESULT, RUNTIME, check_arguments, training_settings

ARGUMENTS = inspect.signature(L.Trainer).parameters


def test_every_argument_of_lightning_was_decided_on():
    """Fails where Lightning gains or loses one: decide what it does to results and keys."""
    decided = [*RESULT, *RUNTIME - {"_target_"}, *REFUSED]
    assert sorted(decided) == sorted(ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "value", "way_out"),
    [
        ("fast_dev_run", True, "experiment=tiny"),
        ("fast_dev_run", 3, "trainer.max_steps=1"),
        ("overfit_batches", 2, "a smaller data set"),
        ("overfit_batches", 0.5, "a smaller data set"),
        ("barebones", True, "benchmarks.gpu_audioldm"),
        ("enable_checkpointing", False, "resumed from its checkpoints"),
        ("limit_predict_batches", 1, "synthesis.clips_per_label"),
        ("limit_test_batches", 1, "limited by data"),
        ("reload_dataloaders_every_n_epochs", 1, "a function of seed and step"),
        ("use_distributed_sampler", False, "by itself"),
        ("logger", True, "logger=csv"),
        ("callbacks", [], r"callbacks=\.\.\."),
        ("default_root_dir", "x", r"store=\.\.\."),
        ("model_registry", "x", r"store=\.\.\."),
    ],
)
def test_what_would_leave_half_a_result_is_refused(name, value, way_out):
    with pytest.raises(
        ValueError, match=rf"trainer\.{name}=.*: expected it to be left .*{way_out}"
    ):
        check_arguments({name: value})


def test_every_refusal_is_tested():
    (mark,) = test_what_would_leave_half_a_result_is_refused.pytestmark
    assert {case[0] for case in mark.args[1]} == REFUSED.keys()


def test_the_defaults_of_what_is_refused_are_taken_and_in_no_key():
    usual = {name: ARGUMENTS[name].default for name in REFUSED}
    for settings in (usual, {"enable_checkpointing": True}):
        check_arguments(settings)
        assert training_settings(settings) == {}


@pytest.mark.parametrize("name", ["max_steps", "max_epochs", "limit_train_batches"])
def test_a_training_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=rf"trainer\.{name}=0: expected 1 or more"):
        check_arguments({name: 0})


@pytest.mark.parametrize("interval", ["00:00:10:00", {"minutes": 10}])
def test_validations_by_the_clock_are_refused(interval):
    with pytest.raises(ValueError, match=r"val_check_interval=.*expected a number of steps"):
        check_arguments({"val_check_interval": interval})


def test_a_limit_of_time_is_in_no_key():
    settings = {"max_steps": 9, "max_time": "00:01:00:00", "detect_anomaly": True}
    assert training_settings(settings) == {"max_steps": 9}
