"""The number that a search optimises, read from a run's folder, and runs that will lack it."""

import math
import shutil

import pandas as pd
import pytest
from hydra import compose, initialize_config_module

from fsasd.cli import configure, resolvers
from fsasd.generation.training import Training
from fsasd.pipeline.objective import check_objective
from fsasd.pipeline.plan import chosen, plan
from fsasd.report.objective import DIRECTIONS, objective

pytestmark = pytest.mark.slow


@pytest.fixture
def check(factory, tmp_path):
    """Check an objective in the configuration with some overrides."""
    resolvers.register()

    def of(name, *overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose(
                "config",
                ["experiment=tiny", "data=dcase", f"data.root={factory}", f"store={tmp_path}",
                 *overrides],
            )  # fmt: skip
        run = configure.experiment(cfg)
        check_objective(name, run, chosen(plan(configure.planners(cfg), run), cfg.stages))

    return of


REFERENCES = "synthesis.references=true"
STEPS = ["trainer.max_steps=5"]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("official", ["generator=none"]),
        ("synthetic/objective", ["generator=transforms"]),
        ("validation/objective", ["generator=transforms", REFERENCES]),
        ("val/loss", ["stages=[finetune]"]),
        ("val/loss", [*STEPS, "trainer.val_check_interval=2"]),
        ("val/loss", ["callbacks=none", *STEPS, "trainer.val_check_interval=5"]),
        # The model is found in the store.
        ("val/loss", ["stages=[detect]"]),
    ],
)
def test_a_run_that_will_have_its_objective_is_accepted(check, name, overrides):
    check(name, *overrides)


@pytest.mark.parametrize(
    ("name", "overrides", "problem"),
    [
        ("official", ["stages=[synthesise]"], "nothing is detected. Add detect to stages"),
        ("synthetic/objective", ["generator=none"], "Set a generator, e.g. generator=transforms"),
        ("synthetic/objective", ["stages=[synthesise]"], "no setting is chosen. Add detect"),
        ("synthetic/objective", ["selection.grid=null"], "no settings to choose from. Set select"),
        ("validation/objective", ["generator=transforms"], "Set synthesis.references=true"),
        ("validation/objective", ["data.targets=[fan,valve,bearing]", REFERENCES],
         "no reference machine has normal training clips and test clips of both labels"),
        ("validation/objective", [REFERENCES, "stages=[synthesise]"], "Add detect to stages"),
        ("val/loss", ["generator=transforms"], "Set one that is, e.g. generator=audioldm_nano"),
        ("val/loss", ["stages=[train]"], "Add finetune to stages"),
        ("val/loss", ["data.val_share=0"], "data.val_share=0 keeps no clip back"),
        ("val/loss", ["+trainer.limit_val_batches=0"], "Leave limit_val_batches"),
        ("val/loss", ["+trainer.limit_val_batches=0.01"], "Leave limit_val_batches"),
        ("val/loss", ["trainer.val_check_interval=9"], "ends after step 2, before the first"),
        ("val/loss", ["callbacks=none", *STEPS, "trainer.val_check_interval=2"],
         "5, are kept, and they are not validated. Set trainer.val_check_interval to a divisor"),
        ("val/loss", ["callbacks.checkpoint.monitor=null", *STEPS, "trainer.val_check_interval=4"],
         "last step, 5, are kept"),
        ("val/loss", ["trainer.max_steps=-1", "trainer.max_epochs=1",
                      "trainer.val_check_interval=99999"], "before the first validation"),
    ],
)  # fmt: skip
def test_a_run_without_its_objective_is_refused_with_what_to_set(check, name, overrides, problem):
    with pytest.raises(ValueError, match=rf"^objective={name}: .*{problem}"):
        check(name, *overrides)


def test_without_labels_there_is_no_official_score(check, factory, tmp_path):
    unlabelled = tmp_path / "unlabelled"
    shutil.copytree(factory, unlabelled)
    shutil.rmtree(unlabelled / "ground_truth")
    with pytest.raises(ValueError, match=r"clips that are labelled\. Set objective=synthetic/obj"):
        check("official", f"data.root={unlabelled}")
    check("synthetic/objective", f"data.root={unlabelled}")


def test_the_objective_that_is_by_test_labels_says_so(check, caplog):
    check("official", "generator=none")
    assert "on the test labels of target machines" in caplog.text


@pytest.fixture
def run(tmp_path):
    """What runs of two targets and two references leave."""
    validation = pd.DataFrame(
        {"machine": ["fan", "valve", "mean"], "section": ["00", "00", ""],
         "objective": [0.5, 0.75, 0.625]}
    )  # fmt: skip
    validation.to_csv(tmp_path / "validation.csv", index=False)
    curve = pd.DataFrame(
        {"machine": ["pump", "pump", "saw", "saw"], "section": "00", "param.r": [0.5, 1] * 2,
         "objective": [0.9, 0.7, 0.8, 0.6], "chosen": [False, True, True, False]}
    )  # fmt: skip
    curve.to_csv(tmp_path / "selection.csv", index=False)
    Training(4, 0.25).write(tmp_path)
    return tmp_path


EXPECTED = {"validation/objective": 0.625, "synthetic/objective": 0.75, "val/loss": 0.25}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_number_is_read_from_the_runs_folder(run, name):
    assert objective(name, run) == EXPECTED[name]


def test_a_failed_section_leaves_no_number_but_that_of_the_training(run):
    row = {"machine": "pump", "section": "00", "stage": "detect", "reason": "disk full"}
    pd.DataFrame([row]).to_csv(run / "failed.csv", index=False)
    assert {name for name in EXPECTED if math.isfinite(objective(name, run))} == {"val/loss"}


def test_a_curve_that_is_not_defined_leaves_no_number(run):
    table = pd.read_csv(run / "selection.csv")
    table.loc[table["machine"] == "saw", "objective"] = math.nan
    table.to_csv(run / "selection.csv", index=False)
    assert math.isnan(objective("synthetic/objective", run))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_an_empty_folder_has_no_number(tmp_path, name):
    assert math.isnan(objective(name, tmp_path))


def test_without_validation_there_is_no_loss(tmp_path):
    Training(4, None).write(tmp_path)
    assert math.isnan(objective("val/loss", tmp_path))
