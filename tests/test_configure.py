"""From the configuration to the objects that stages are planned from."""

import pytest
from hydra import compose, initialize_config_module

from fsasd.cli import configure, resolvers
from fsasd.detectors.knn import KNN


@pytest.fixture
def experiment(factory, tmp_path):
    resolvers.register()

    def of(*overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose(
                "config",
                ["experiment=tiny", "data=dcase", f"data.root={factory}", f"store={tmp_path}",
                 *overrides],
            )  # fmt: skip
        return configure.experiment(cfg)

    return of


def test_groups_of_the_configuration_are_objects_or_what_makes_them(experiment):
    run = experiment("detector=knn", "detector.k=3", "seed=7", "synthesis.clips_per_label=5")
    assert isinstance(run.detector, KNN)
    assert (run.detector.k, run.seed, run.synthesis.clips_per_label) == (3, 7, 5)
    assert run.trainer(logger=False).max_steps == 2
    assert run.trains_generator
    assert set(run.synthesis.encoders) == {"log-mel statistics"}


def test_nothing_is_made_of_groups_that_are_not_chosen(experiment):
    run = experiment("generator=none", "~callbacks.evaluation", "synthesis.encoders=null")
    assert (run.generator, run.pretrain) == (None, {})
    assert "evaluation" not in run.callbacks
    assert not run.synthesis.encoders
    assert not run.trains_generator


@pytest.mark.parametrize(
    "overrides", [["generator/train=none"], ["generator=pipeline", "generator.checkpoint=x"]]
)
def test_a_generator_that_is_not_trained_is_chosen_so(experiment, overrides):
    assert not experiment(*overrides).trains_generator


def test_settings_of_a_callback_that_is_not_chosen_make_none(experiment):
    run = experiment("callbacks=none", "++callbacks.monitor.samples=1")
    assert "monitor" not in run.callbacks
