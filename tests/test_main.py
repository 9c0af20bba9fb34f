"""The command: every config composes, stages hand over files, what is there is used again."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import hydra
import lightning as L
import numpy as np
import pandas as pd
import pytest
import several_ranks
import soundfile
import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from run_folders import write_status
from runs import Run
from small_systems import EACH
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

import fsasd.cli.run as app
from fsasd.cli import configure as configured
from fsasd.cli.plain import resolved
from fsasd.data.audio_files import path_of
from fsasd.data.captions import Captions
from fsasd.data.metadata import read_clips
from fsasd.detectors.cmae import CMAE
from fsasd.evaluation.submission import evaluate
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.prompts import Wording
from fsasd.generation.synthesis import SynthesisFolder
from fsasd.generation.synthetic_clips import read_table
from fsasd.generation.transforms import FaultTransforms
from fsasd.pipeline.plan import plan
from fsasd.pipeline.preflight import check_config
from fsasd.pipeline.trainers import callbacks, fitting_trainer
from fsasd.selection.settings import row_of
from fsasd.settings.code import package_code

pytestmark = pytest.mark.slow

CONF = Path(__file__).parents[1] / "conf"
CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))

REPORTED = ["experiment=tiny", "trainer.enable_progress_bar=false"]
TINY = [*REPORTED, "stages=[finetune,synthesise,train,detect]"]
"""Without a report, whose pictures take as long as detection."""
SCORED = [*TINY, "objective=official"]


def configure(*overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group, name):
    if group == "search":
        pytest.importorskip(name)
    cfg = configure(f"{group}={name}")
    assert cfg.stages
    check_config(resolved(cfg))


@pytest.mark.parametrize("name", [name for group, name in CHOICES if group == "detector"])
def test_every_detector_has_the_parameters_that_its_grid_names(name):
    cfg = configure(f"detector={name}")
    detector = hydra.utils.instantiate(cfg.detector)
    selector = hydra.utils.instantiate(cfg.selection, _convert_="all")
    selector.check(detector)
    assert selector.settings()
    assert all(row_of(b, selector.settings()) is not None for b in selector.baselines)


TABLES = [f"table{number}" for number in range(2, 7)]


@pytest.mark.parametrize("name", ["paper", *TABLES])
def test_the_papers_experiments_train_the_real_model_for_long(name):
    cfg = configure(f"experiment={name}")
    assert (cfg.trainer.max_steps, cfg.data.batch_size, cfg.generator.warmup_steps) == (
        10_000,
        32,
        500,
    )
    assert (cfg.generator.checkpoint, cfg.data.num_workers) == ("cvssp/audioldm-s-full-v2", 4)
    assert (cfg.detector.covariance, cfg.selection.abstain) == ("full", False)
    # What is said on the command line counts.
    other = configure(f"experiment={name}", "generator=transforms", "detector=knn")
    assert hydra.utils.instantiate(other.generator, _convert_="all").derived
    assert list(cfg.tables) == [int(name[-1])] if name in TABLES else not cfg.tables


@pytest.mark.parametrize("size", ["nano", "s", "m", "l"])
def test_lora_has_a_learning_rate_of_its_own(size):
    asked = [f"generator=audioldm_{size}"]
    lora = [*asked, "generator/train=lora"]
    assert configure(*asked).generator.learning_rate == (3e-4 if size == "nano" else 3e-5)
    assert configure(*lora).generator.learning_rate == 1e-4
    assert configure(*lora, "generator.learning_rate=2e-4").generator.learning_rate == 2e-4
    assert configure(*asked, "generator/train=components").generator.learning_rate != 1e-4


def test_the_s_configuration_instantiates():
    cfg = configure("generator=audioldm_s", "generator.checkpoint=random:s")
    model = hydra.utils.instantiate(cfg.generator)
    assert isinstance(model, AudioLDM)
    assert model.unconditional.shape == (512,)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """One run of everything, and the store that it filled."""
    root = tmp_path_factory.mktemp("chain")
    store = f"store={root / 'store'}"
    score = Run(configure(*REPORTED, "objective=official", store), root / "run")()
    return root, store, score


def artifacts(root):
    store = root / "store"
    return {
        (path.relative_to(store).parts[0], path.parent.name): path.stat().st_mtime_ns
        for path in store.rglob("provenance.json")
    }


def test_a_run_leaves_what_the_design_lists(chain):
    root, _, score = chain
    folder = root / "run"
    for name in ("captions", "selection", "metrics", "clips", "settings", "synthetic/manifest"):
        assert len(pd.read_csv(folder / f"{name}.csv"))
    assert (folder / "report.html").is_file()
    # Model and log of the fine-tuning stay in the store.
    (model,) = (root / "store" / "finetune").glob("*/model")
    assert (folder / "model").resolve() == model.resolve()
    assert (folder / "log" / "finetune" / "version_0" / "metrics.csv").is_file()
    training = json.loads((folder / "training.json").read_text())
    assert training["step"] in (1, 2)
    assert training["val/loss"] > 0
    assert (folder / "models/pump/section_00/detector.safetensors").is_file()
    metrics = pd.read_csv(folder / "metrics.csv")
    assert score == metrics["official_score"].iloc[-1]
    assert (
        metrics.loc[metrics.machine == "pump", "auc_source"].item()
        == pytest.approx(_from_submission(root).metrics["pump", "00"].auc_source)
    )  # fmt: skip


def _from_submission(root):
    (truth,) = (root / "store" / "factory").glob("*/data/ground_truth")
    return evaluate(root / "run" / "scores", truth, bootstrap=0)


@pytest.mark.parametrize("name", [name for group, name in CHOICES if group == "callbacks"])
def test_what_an_experiment_says_of_a_callback_that_is_not_chosen_is_nothing(chain, name):
    root, store, _ = chain
    run = Run(configure(*TINY, store, f"callbacks={name}"), root / "run")
    assert set(run.experiment.callbacks) <= set(configure(f"callbacks={name}").callbacks)
    assert all(isinstance(callback, L.Callback) for callback in callbacks(run.experiment))


@pytest.mark.parametrize("name", ["tiny", "demo", "first_shot", "validate", "detectors", "table2"])
def test_an_experiment_runs_on_other_data_than_its_own(factory, tmp_path, name):
    cfg = configure(f"experiment={name}", "data=dcase", f"data.root={factory}")
    assert Run(cfg, tmp_path).data.targets == ["bearing"]


@pytest.fixture(scope="module")
def stereo(factory, tmp_path_factory):
    """The factory heard by two microphones, of which the far one hears more noise."""
    root = tmp_path_factory.mktemp("stereo") / "data"
    shutil.copytree(factory, root)
    rng = np.random.default_rng(0)
    for path in root.rglob("*.wav"):
        near, rate = soundfile.read(path)
        far = 0.5 * near + rng.normal(0, 0.01, len(near))
        soundfile.write(path, np.stack([near, far], axis=1), rate)
    return root


@pytest.mark.nightly
@pytest.mark.parametrize("channel", ["near", "far", "mean"])
def test_any_microphone_of_two_can_be_learnt_from(stereo, tmp_path, channel):
    data = ["data=dcase", f"data.root={stereo}", f"data.channel={channel}"]
    # Synthetic clips are mono, whichever it is.
    other = ["generator=transforms"] if channel != "far" else []
    run = Run(configure(*SCORED, *data, *other, f"store={tmp_path / 'store'}"), tmp_path / "run")
    assert 0 < run() < 1
    assert pd.read_csv(tmp_path / "run" / "selection.csv")["objective"].notna().all()


@pytest.mark.nightly
def test_half_precision_makes_sounds_as_any(chain):
    root, store, _ = chain
    run = Run(configure(*SCORED, store, "trainer.precision=bf16-mixed"), root / "half")
    assert 0 < run() < 1


def test_selection_curve_has_one_chosen_row_per_machine(chain):
    curve = pd.read_csv(chain[0] / "run" / "selection.csv")
    assert len(curve) == 111
    assert curve["argmax"].sum() == curve["chosen"].sum() == 1
    best = curve["objective"].max()
    assert curve.loc[curve["argmax"], "objective"].item() == pytest.approx(best)
    # Four clips of each label are no evidence.
    chosen = curve[curve["chosen"]].iloc[0]
    assert chosen["argmax"] or (chosen["param.r"] == 1.0 and "too few" in chosen["abstain_reason"])


def test_a_second_run_makes_nothing_anew(chain):
    root, store, score = chain
    before = artifacts(root)
    assert Run(configure(*SCORED, store), root / "again")() == score
    assert artifacts(root) == before


def test_another_detector_neither_trains_nor_synthesises(chain):
    root, store, _ = chain
    before = artifacts(root)
    Run(configure(*TINY, store, "detector=knn"), root / "knn")()
    new = set(artifacts(root)) - set(before)
    assert {stage for stage, _ in new} == {"curve", "rule", "detect"}
    assert {"param.k", "param.density", "param.representation__pool_by"} <= set(
        pd.read_csv(root / "knn" / "selection.csv").columns
    )


STGRAM = [
    "detector=stgram_mfn", "representation.width=0.125", "representation.training.seconds=0.5",
    "representation.training.epochs=1", "representation.training.batch_size=8",
]  # fmt: skip


def test_a_network_is_trained_once_for_all_detectors_that_score_it(chain):
    root, store, _ = chain
    before = set(artifacts(root))
    Run(configure(*TINY, store, *STGRAM), root / "stgram")()
    new = set(artifacts(root)) - before
    assert {stage for stage, _ in new} == {"train", "curve", "rule", "detect"}
    assert (root / "stgram/models/pump/section_00/detector.safetensors").is_file()
    assert set(pd.read_csv(root / "stgram" / "selection.csv")["param.use"]) > {
        "probability",
        "gmm",
    }
    score = ["detector=knn", "representation=stgram_mfn", "detector.density=2"]
    other = [*TINY, store, *STGRAM, *score, "selection.grid=null"]
    Run(configure(*other), root / "knn")()
    assert {stage for stage, _ in set(artifacts(root)) - before - new} == {"detect"}


def test_what_a_network_is_trained_on_is_in_its_key(chain):
    root, store, _ = chain
    keys = Run(configure(*TINY, store, *STGRAM), root / "x").keys("train")
    again = Run(configure(*TINY, store, *STGRAM, "trainer.max_steps=9", "seed=0"), root / "x")
    assert keys == again.keys("train")
    fewer = Run(configure(*TINY, store, *STGRAM, "data.factory.train_clips=11"), root / "x")
    assert fewer.keys("train") != keys
    exposed = Run(
        configure(*TINY, store, *STGRAM, "representation.training.outlier_exposure=true"),
        root / "x",
    )
    (stage,) = exposed.stages("train")
    assert set(stage.inputs) == {"synthesise pump section 00", "judge pump section 00"}
    (stage,) = Run(configure(*TINY, store, *STGRAM), root / "x").stages("train")
    assert not stage.inputs
    assert Run(configure(*TINY, store), root / "x").keys("train") == []


def test_where_a_network_is_trained_is_in_its_key_only_where_it_makes_a_difference(chain):
    """The batch is that of all devices, and GPUs normalise it together."""
    root, store, _ = chain

    def key(*settings):
        return Run(configure(*TINY, store, *STGRAM, *settings), root / "x").keys("train")

    one = key()
    for settings in (
        ["trainer=ddp", "trainer.devices=8", "trainer.precision=32-true"],
        ["trainer.accelerator=gpu", "trainer.devices=2", "trainer.strategy=ddp"],
        ["trainer.accumulate_grad_batches=4"],
        ["+trainer.max_time=00:01:00:00"],
    ):
        assert key(*settings) == one
    alone = ["trainer.accelerator=gpu", "trainer.devices=8", "+trainer.sync_batchnorm=false"]
    for settings in (
        ["trainer=ddp_cpu"],
        ["trainer.precision=bf16-mixed"],
        ["+trainer.limit_train_batches=2"],
        alone,
    ):
        assert key(*settings) != one


def test_a_batch_that_cannot_be_divided_is_refused_before_any_stage(tmp_path):
    size = "representation.training.batch_size"
    settings = ["trainer=ddp_cpu", f"{size}=6", f"store={tmp_path}"]
    run = Run(configure(*TINY, *STGRAM, *settings), tmp_path / "run")
    with pytest.raises(ValueError, match=f"{size}: expected a multiple of 4, found 6"):
        run()
    assert not (tmp_path / "run").exists()


def test_a_setting_of_training_that_nothing_heeds_is_refused(chain):
    root, store, _ = chain

    def check(*overrides, settings=()):
        run = Run(configure(*TINY, store, *settings), root / "x")
        groups = plan(configured.planners(run.cfg), run.experiment)
        app._check(run.cfg, run.experiment, groups, overrides)

    check("trainer.max_steps=9", "+trainer.max_time=00:00:01:00")
    networks = ["generator=transforms", *STGRAM]
    check("+trainer.max_time=00:00:01:00", "trainer.devices=1", settings=networks)
    for override in ("trainer.max_steps=9", "trainer.gradient_clip_val=0.5", "~trainer.max_epochs"):
        with pytest.raises(
            ValueError, match="is about fine-tuning a generator, and this one is not"
        ):
            check(override, settings=networks)
    for override in ("trainer.max_steps=9", "+trainer.max_time=00:00:01:00"):
        with pytest.raises(
            ValueError, match=r"trainer\.max_\w+ has no effect: the generator is not"
        ):
            check("trainer.devices=1", override, settings=["generator=none"])
        # Trained by fit, machine by machine.
        for detector in ("flow", "autoencoder"):
            with pytest.raises(
                ValueError, match="nor has the detector networks that are trained on"
            ):
                check(override, settings=["generator=none", f"detector={detector}"])


@pytest.mark.nightly
def test_outliers_that_a_network_hears_are_the_synthetic_anomalies(chain):
    root, store, _ = chain
    run = Run(
        configure(*TINY, store, *STGRAM, "representation.training.outlier_exposure=true"),
        root / "exposed",
    )
    run()
    assert "pump|00|anomaly" in (run.artifact("train") / "networks.json").read_text()
    none = Run(
        configure(
            *TINY, store, *STGRAM, "representation.training.outlier_exposure=true", "generator=none"
        ),
        root / "none",
    )
    with pytest.raises(ValueError, match=r"STgramMFN .* clips, too \(anomaly\): choose"):
        none()


SMALL = {
    "fkie": ["networks=1", "dim=4", "channels=2", "clusters=2"],
    "stgram_mfn": ["width=0.125"],
    "mdam": ["channels=4"],
    "thuee": ["channels=4"],
    "zeng": ["width=0.125", "first_epochs=1"],
    "clp_scf": ["width=0.125", "first_epochs=1"],
    "statex": ["networks=1", "dim=4", "channels=2", "clusters=2"],
    "ibm_confidence": ["width=0.125"],
}


@pytest.mark.parametrize("name", EACH)
def test_every_network_runs_by_name(chain, name):
    root, store, _ = chain
    training = [f"training.{setting}" for setting in ("seconds=0.5", "epochs=2", "batch_size=8")]
    settings = [*SMALL[name], *training]
    overrides = [f"detector={name}", *(f"representation.{setting}" for setting in settings)]
    score = Run(configure(*SCORED, store, *overrides), root / name)()
    assert 0 <= score <= 1
    assert pd.read_csv(root / name / "selection.csv")["chosen"].sum() == 1


CLASSICAL = {
    "autoencoder": ["training.epochs=1"],
    "cmae": ["frames=32", "dim=16", "depth=2", "training.epochs=1", "class_epochs=1"],
    "ensemble": ["folds=2"],
    "flow": ["blocks=1", "hidden=16", "training.epochs=1"],
    "gmm": [],
    "iforest": [],
    "lof": ["model.n_neighbors=2"],
    "mahalanobis": [],
    "ocsvm": [],
    "twfr_gmm_max": [],
    "twfr_gmm_mean": [],
    "twfr_gmm_smote": [],
}


FURTHER = (
    "cmae", "ensemble", "flow", "gmm", "iforest", "ocsvm", "twfr_gmm_max", "twfr_gmm_mean",
    "twfr_gmm_smote",
)  # fmt: skip
"""Other settings of the classes of lof and mahalanobis, and others whose fit trains a network."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.nightly if name in FURTHER else ())
        for name in CLASSICAL
    ],
)
def test_every_classical_detector_runs_by_name(chain, name):
    root, store, _ = chain
    overrides = [f"detector={name}", *(f"detector.{setting}" for setting in CLASSICAL[name])]
    score = Run(configure(*SCORED, store, *overrides), root / name)()
    assert 0 <= score <= 1
    assert pd.read_csv(root / name / "selection.csv")["chosen"].sum() == 1


def test_frozen_embeddings_run_by_name(chain, tiny_encoders):
    root, store, _ = chain
    encoder = f"representation.front_end.checkpoint={tiny_encoders('ast')}"
    asked = ["detector=genrep", encoder, "selection.grid.representation__layer=[0,2]"]
    score = Run(configure(*SCORED, store, *asked, "representation.layer=2"), root / "genrep")()
    assert 0 <= score <= 1
    assert set(pd.read_csv(root / "genrep" / "selection.csv")["param.representation__layer"]) == {
        0,
        2,
    }


@pytest.mark.nightly
def test_normal_clips_that_a_network_hears_may_be_synthetic(chain, monkeypatch):
    root, store, _ = chain
    heard = []
    prepare = CMAE.prepare
    monkeypatch.setattr(
        CMAE,
        "prepare",
        lambda self, clips, *args: heard.append(clips) or prepare(self, clips, *args),
    )
    settings = [f"detector.{setting}" for setting in CLASSICAL["cmae"]]
    asked = [*TINY, store, "detector=cmae", "detector.synthetic_normals=true", *settings]
    run = Run(configure(*asked), root / "augmented")
    run()
    assert {clip.label for clip in heard[0]} == {"normal"}
    assert len(heard[0]) > len(heard[1]), "the stage detect finds it trained"
    assert {clip.machine for clip in heard[0][len(heard[1]) :]} == {"pump"}


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ast")
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_length=64, num_mel_bins=32,
    )  # fmt: skip
    for part in (ASTModel(config), ASTFeatureExtractor(num_mel_bins=32, max_length=64)):
        part.save_pretrained(folder)
    training = ["seconds=0.5", "epochs=1", "batch_size=8"]
    return [
        f"representation.encoder={folder}",
        *(f"representation.training.{setting}" for setting in training),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "anopatch", pytest.param("lv_huakong", marks=pytest.mark.nightly),
        pytest.param("guan_heu_attributes", marks=pytest.mark.nightly),
    ],
)  # fmt: skip
def test_every_pretrained_encoder_runs_by_name(chain, name, brief):
    root, store, _ = chain
    score = Run(configure(*SCORED, store, f"detector={name}", *brief), root / name)()
    assert 0 <= score <= 1
    assert pd.read_csv(root / name / "selection.csv")["chosen"].sum() == 1


@pytest.mark.nightly
def test_a_detector_within_an_ensemble_shares_its_networks_with_one_alone(chain, brief):
    root, store, _ = chain
    made = []
    for name in ("guan_heu", "guan_heu_attributes"):
        settings = [*brief, "representation.training.learning_rate=2e-5"]
        Run(configure(*TINY, store, f"detector={name}", *settings), root / f"shared_{name}")()
        made.append({name for stage, name in artifacts(root) if stage == "train"})
    assert made[0] == made[1]


def test_a_users_own_class_within_a_detector_is_in_its_key(chain, tmp_path, monkeypatch):
    root, store, _ = chain
    own = tmp_path / "own_representation.py"
    monkeypatch.syspath_prepend(tmp_path)

    def key(doc):
        own.write_text(
            f"from fsasd.detectors.representations import TimeStatistics\n\n\n"
            f"class Own(TimeStatistics):\n    '{doc}'\n"
        )
        package_code.cache_clear()
        target = "representation._target_=own_representation.Own"
        return Run(configure(*TINY, store, "detector=knn", target), root / "x").keys("detect")

    assert key("before") == key("before")
    assert key("before") != key("after")


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("judge", "synthesis.filters.scorer"),
        ("synthesise", "synthesis.prompts"),
        ("finetune", "callbacks.own"),
        ("rule", "selection"),
    ],
)
def test_a_users_own_code_is_in_the_key_of_the_stage_that_runs_it(
    chain, tmp_path, monkeypatch, stage, setting
):
    root, store, _ = chain
    own = tmp_path / "own_code.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    cfg = configure(*TINY, store)
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, setting, {"_target_": "own_code.Own"})

    def key(doc):
        own.write_text(
            "from fsasd.selection.selector import Selector\n\n\n"
            f"class Own(Selector):\n    '{doc}'\n"
        )
        # As in another process.
        package_code.cache_clear()
        return Run(cfg, root / "x").keys(stage)

    assert key("before") == key("before")
    assert key("before") != key("after")


def test_other_weights_of_an_encoder_under_the_same_name_are_in_the_keys(chain, brief):
    root, store, _ = chain
    run = Run(configure(*TINY, store, "detector=lv_huakong", *brief), root / "x")
    weights = next(Path(brief[0].partition("=")[2]).glob("*.safetensors"))
    content = weights.read_bytes()

    def keys():
        anew = Run(run.cfg, root / "x")
        return anew.keys("train"), anew.keys("detect")

    before = keys()
    os.utime(weights, (0, 0))
    touched = keys()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    altered = keys()
    weights.write_bytes(content)
    assert touched == before
    assert altered[0] != before[0]
    assert altered[1] != before[1]


def test_the_false_alarm_rate_is_in_the_key_of_what_it_decides(chain):
    root, store, _ = chain
    few, many = (
        Run(configure(*TINY, store, f"decision.false_alarm_rate={rate}"), root / "x")
        for rate in (0.02, 0.1)
    )
    assert few.keys("detect") != many.keys("detect")
    assert few.keys("synthesise") == many.keys("synthesise")


@pytest.mark.nightly
def test_how_long_the_parts_of_a_model_are_trained_is_in_its_key(chain):
    root, store, _ = chain
    one = [
        "data=factory_tiny",
        "data.factory.references=[fan]",
        "data.factory.targets=[pump]",
        "data.hold_out=[]",
    ]
    keys = [
        Run(configure("experiment=pretrain_nano", store, *one, *more), root / "x").keys("pretrain")
        for more in ([], ["pretrain.text_steps=5"], ["pretrain.vae_steps=5"])
    ]
    assert keys[0] != keys[1] != keys[2] != keys[0]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "trainer.val_check_interval=3",
            "val_check_interval=3: the first validation would be after step 3, and training ends",
        ),
        ("data.val_share=0.0", r"data\.val_share=0 keeps no clip back"),
        ("trainer.precision=bf16-true", "expected 32-true, bf16-mixed or 16-mixed"),
        (
            "decision.false_alarm_rate=10",
            r"false-alarm rate: expected the share of normal clips .*, in \(0, 1\), found 10",
        ),
        ("trainer.accumulate_grad_batches=3", "data.batch_size: expected a multiple of 3, found"),
        ("tables=[9]", "table 9: expected one of 2, 3"),
        ("+trainer.fast_dev_run=true", "fast_dev_run=True: expected it to be left out"),
        (
            "+selection.grid.probability__representation__training__epochs=[1,2]",
            "epochs=2.* changes what networks are trained with",
        ),
    ],
)
def test_what_must_fail_fails_before_anything_is_made(tmp_path, chain, override, told):
    cfg = configure(*TINY, *STGRAM, f"store={tmp_path / 'store'}", override)
    with pytest.raises(ValueError, match=told):
        Run(cfg, tmp_path / "run")()
    assert not (tmp_path / "store" / "finetune").exists()


@pytest.mark.parametrize("batches", [1, 4])
def test_validation_is_after_so_many_steps_of_any_number_of_batches(chain, tmp_path, batches):
    asked = ["callbacks=none", f"trainer.accumulate_grad_batches={batches}"]
    run = Run(configure(*TINY, chain[1], *asked), tmp_path / "run")
    assert fitting_trainer(run.experiment, tmp_path).val_check_interval == batches
    other = Run(configure(*TINY, chain[1], "callbacks=none"), tmp_path / "run")
    assert run.keys("finetune") == other.keys("finetune")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("detector.n_components=abc", "detector.n_components='abc': expected a whole number of 1"),
        ("detector.n_components=-3", "detector.n_components=-3: expected a whole number of 1 or"),
        ("+detector.n_componets=3", "TWFRGMM has no such argument. Did you mean 'n_components'"),
        (
            "+generator.learning_rte=1",
            "AudioLDM has no such argument. Did you mean 'learning_rate'",
        ),
        ("+trainer.max_stps=1", "trainer.max_stps: Trainer has no such argument"),
        ("+synthesis.clips=1", "synthesis.clips: there is no such setting"),
        ("synthesis.clips_per_label=-1", "synthesis.clips_per_label=-1: expected a whole number"),
        (
            "data.channel=middle",
            "data.channel='middle': expected one of near, far, mean or a whole",
        ),
        ("seed=abc", "seed='abc': expected a whole number from 0"),
        ("stages=detect", "stages='detect': expected a list"),
        ("trainer.devices=0", "trainer.devices=0: expected 1 or more"),
        ("trainer.accelerator=gpu", "torch .* finds no GPU on this machine. Use trainer=default"),
        ("callbacks.checkpoint.mode=mix", "`mode` can be min, max"),
        ("+selection.grid.n_components=[1,0]", "n_components=0: expected a whole number of 1"),
    ],
)
def test_what_nothing_takes_fails_before_any_stage(chain, monkeypatch, override, told):
    root, store, _ = chain
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = artifacts(root), set((root / "store").glob("*/*.partial"))
    cfg = configure(*TINY, store, override, "force=[finetune,detect]")
    with pytest.raises((ValueError, InstantiationException), match=told):
        Run(cfg, root / "refused")()
    assert (artifacts(root), set((root / "store").glob("*/*.partial"))) == before


def test_code_planted_in_the_store_is_not_run(chain):
    root, store, _ = chain
    run = Run(configure(*TINY, store, "seed=77", "stages=[finetune]"), root / "planted")
    folder = run.artifact("finetune").with_suffix(".partial")
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": Planted()}, folder / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt: expected a checkpoint .*could run code"):
        run()
    anew = configure(*TINY, store, "seed=77", "stages=[finetune]", "force=[finetune]")
    Run(anew, root / "planted")()
    assert not folder.exists()


class Planted:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code of a checkpoint was run",)


def test_a_misspelt_objective_is_refused_at_once(tmp_path):
    run = Run(configure(*TINY, "selection.objective=auk", f"store={tmp_path}"), tmp_path)
    with pytest.raises(InstantiationException, match="objective 'auk': expected one of"):
        run()


def test_a_target_without_test_clips_is_told_at_once(factory, tmp_path):
    root = shutil.copytree(factory, tmp_path / "data")
    for path in root.rglob("bearing/test/*.wav"):
        path.unlink()
    cfg = configure(*TINY, "data=dcase", f"data.root={root}", f"store={tmp_path / 'store'}")
    with pytest.raises(ValueError, match=r"bearing section 00: expected .* test clips, found 16"):
        Run(cfg, tmp_path / "run")()
    assert not (tmp_path / "store" / "finetune").exists()


def test_without_validation_the_last_checkpoint_is_used(chain):
    root, store, _ = chain
    last = ["data.val_share=0.0", "callbacks.checkpoint.monitor=null", "~callbacks.evaluation"]
    run = Run(configure(*TINY, store, *last, "stages=[finetune]"), root / "unvalidated")
    run()
    assert (run.artifact("finetune") / "model").is_dir()


def test_a_run_without_a_target_machine_says_that_nothing_is_detected(tmp_path, caplog):
    asked = ["data.factory.targets=[]", "generator=none", "stages=[detect]"]
    Run(configure(*TINY, *asked, f"store={tmp_path / 'store'}"), tmp_path / "run")()
    assert re.search(
        r"no target machine, of 1: nothing is detected. data.targets=\[\w+\] would", caplog.text
    )


@pytest.mark.nightly
def test_a_report_alone_keeps_the_table_of_what_artifacts_took(chain):
    root, store, _ = chain
    folder = root / "reported"
    Run(configure(*REPORTED, store), folder)()
    before = (folder / "artifacts.csv").read_bytes()
    (folder / "report.html").unlink()
    Run(configure(*TINY, store, "stages=[report]"), folder)()
    assert (folder / "artifacts.csv").read_bytes() == before
    assert 'id="cost"' in (folder / "report.html").read_text()


@pytest.mark.nightly
def test_a_run_in_the_folder_of_another_leaves_nothing_of_it(chain):
    root, store, _ = chain
    folder = root / "twice"
    Run(configure(*REPORTED, store, "tables=[5]"), folder)()
    assert (folder / "synthetic").is_dir()
    assert (folder / "table5.csv").is_file()
    own = folder / "notes.txt"
    own.write_text("mine")
    Run(configure(*REPORTED, store, "generator=none", "detector=knn"), folder)()
    left = {path.name for path in folder.iterdir()}
    assert not {"synthetic", "selection.csv", "settings.csv", "table5.csv"} & left
    assert {"metrics.csv", "models", "report.html", "notes.txt"} <= left


def test_a_report_of_nothing_is_an_error(chain, tmp_path):
    run = Run(configure(*TINY, chain[1], "stages=[report]"), tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="expected what synthesis or detection left there"):
        run()


def test_networks_of_detectors_are_whole_on_each_device(chain, monkeypatch):
    root, store, _ = chain
    limits = ["+trainer.max_time=00:00:01:00", "+trainer.deterministic=true", "trainer.max_steps=9"]
    run = Run(configure(*TINY, store, *STGRAM, "trainer=fsdp", *limits), root / "x")
    asked = {}
    monkeypatch.setattr(
        type(run.detector.to_prepare()[0]),
        "prepare",
        lambda *args: asked.update(args[-1]) or args[0],
    )
    (stage,) = run.stages("train")
    stage.build(root, {})
    assert asked["strategy"] == "ddp"
    assert asked["max_time"] == "00:00:01:00"
    assert asked["deterministic"] is True
    assert not {"max_steps", "gradient_clip_val"} & set(asked)


def test_detection_without_its_networks_names_the_stage(chain):
    root, store, _ = chain
    run = Run(
        configure(*TINY, store, *STGRAM, "representation.training.seed=9", "stages=[detect]"),
        root / "alone",
    )
    with pytest.raises(FileNotFoundError, match="result of stage 'train' is not in the store"):
        run()


def test_where_it_runs_does_not_change_what_is_computed(chain):
    root, store, _ = chain

    def keys(*settings):
        run = Run(configure(*TINY, store, *settings), root / "x")
        return [run.keys(name) for name in ("finetune", "synthesise", "detect")]

    here = keys()
    assert keys("trainer.accelerator=cpu", "trainer.devices=2", "logger=wandb") == here
    assert keys("~callbacks.monitor", "synthesis.encoders=null")[0] == here[0]
    assert keys("generator.learning_rate=1e-5")[0] != here[0]
    guided = keys("generator.sampler.guidance=1.0")
    assert guided[0] == here[0]
    assert guided[1] != here[1]


def test_where_the_data_lie_does_not_change_what_is_computed(factory, tmp_path):
    moved = shutil.copytree(factory, tmp_path / "moved")

    def keys(root, *settings):
        data = ["data=dcase", f"data.root={root}", f"store={tmp_path / 'store'}"]
        run = Run(configure(*TINY, *data, *settings), tmp_path / "run")
        return [run.keys(name) for name in ("finetune", "synthesise", "curve", "detect")]

    here = keys(factory)
    assert keys(moved) == here
    assert keys(os.path.relpath(moved)) == here
    truth = shutil.move(moved / "ground_truth", tmp_path / "truth")
    assert keys(moved, f"data.ground_truth={truth}") == here


def test_other_weights_under_the_same_name_are_fine_tuned_anew(chain, tmp_path):
    root, store, _ = chain
    folder = shutil.copytree(checkpoints.NANO, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"

    def keys(folder=folder):
        cfg = configure(*TINY, store, f"generator.checkpoint={folder}")
        return Run(cfg, root / "x").keys("finetune")

    before = keys()
    os.utime(weights, (0, 0))
    assert keys() == before
    assert keys(shutil.copytree(folder, tmp_path / "elsewhere")) == before
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert keys() != before


def test_an_interrupted_synthesis_goes_on(chain, monkeypatch):
    root, store, _ = chain
    more = [*TINY, store, "synthesis.clips_per_label=6", "synthesis.batch_size=4"]
    generate, calls = AudioLDM.generate, []

    def fail_on_the_second(self, prompts):
        calls.append([prompt.wav for prompt in prompts])
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return generate(self, prompts)

    monkeypatch.setattr(AudioLDM, "generate", fail_on_the_second)
    with pytest.raises(RuntimeError, match="power cut"):
        Run(configure(*more), root / "cut")()
    Run(configure(*more), root / "cut")()
    done, lost, *rest = calls
    assert not set(done) & {wav for batch in rest for wav in batch}
    assert set(lost) <= {wav for batch in rest for wav in batch}
    assert len(pd.read_csv(root / "cut" / "synthetic" / "manifest.csv")) == 12


def test_detectors_run_without_a_generator(chain):
    root, store, _ = chain
    Run(configure(*TINY, store, "generator=none"), root / "none")()
    assert not (root / "none" / "selection.csv").exists()
    assert (root / "none" / "metrics.csv").is_file()


def test_a_stage_that_lacks_its_input_names_the_stage(chain):
    root, store, _ = chain
    run = Run(configure(*TINY, store, "seed=7", "stages=[detect]"), root / "alone")
    with pytest.raises(FileNotFoundError, match="result of stage 'synthesise' is not in the store"):
        run()


def test_a_stage_with_a_typo_is_suggested(chain):
    root, store, _ = chain
    with pytest.raises(ValueError, match="Did you mean 'synthesise'"):
        Run(configure(*TINY, store, "stages=[synthesize]"), root / "typo")()


@pytest.mark.nightly
def test_the_papers_rule_is_one_switch_away(chain):
    root, store, _ = chain
    Run(configure(*TINY, store, "selection.abstain=false"), root / "paper")()
    curve = pd.read_csv(root / "paper" / "selection.csv")
    assert (curve["argmax"] == curve["chosen"]).all()
    assert "argmax" not in pd.read_csv(root / "paper" / "settings.csv")["setting"].tolist()


def test_reference_machines_play_the_target(chain, caplog):
    root, store, _ = chain
    caplog.set_level("INFO")
    options = [*TINY, store, "synthesis.references=true", "synthesis.clips_per_label=6"]
    Run(configure(*options), root / "valid")()
    manifest = pd.read_csv(root / "valid" / "synthetic" / "manifest.csv")
    assert manifest["machine"].value_counts().to_dict() == {"fan": 12, "pump": 12}
    table = pd.read_csv(root / "valid" / "validation.csv")
    assert table["machine"].tolist() == ["fan", "mean"]
    assert str(table["strict"][0]) == "False"
    assert "reference fan section 00:" in caplog.text
    assert "not validated" not in caplog.text
    assert "too few synthetic clips were kept" not in caplog.text
    assert set(pd.read_csv(root / "valid" / "selection.csv")["machine"]) == {"pump"}
    assert set(pd.read_csv(root / "valid" / "validation" / "selection.csv")["machine"]) == {"fan"}


@pytest.mark.nightly
def test_a_reference_that_cannot_play_the_target_is_told(chain, caplog):
    root, store, _ = chain
    options = [*TINY, store, "synthesis.references=true", "generator=transforms", "detector=knn"]
    Run(configure(*options, "selection.grid.k=[1,64]"), root / "idle")()
    assert "fan section 00: not validated, since" in caplog.text
    assert not (root / "idle" / "validation.csv").exists()


@pytest.mark.nightly
def test_a_machine_whose_anomalies_are_held_out_is_validated_strictly(chain):
    root, store, _ = chain
    options = [*TINY, store, "synthesis.references=true"]
    hidden = "data.hold_out=[{machine: fan, label: anomaly}]"
    run = Run(configure(*options, hidden), root / "strict")
    assert not run.data.captioned.labels.any()
    run()
    table = pd.read_csv(root / "strict" / "validation.csv")
    assert str(table["strict"][0]) == "True"


def test_prompts_are_made_of_training_clips_alone(chain):
    root, store, _ = chain
    for references, roles in ((False, {"target"}), (True, {"target", "reference"})):
        run = Run(configure(*TINY, store, f"synthesis.references={references}"), root / "x")
        normal = [clip for clips in run.experiment.synthesised().values() for clip in clips]
        assert {clip.role for clip in normal} == roles
        assert {(clip.split, clip.label) for clip in normal} == {("train", "normal")}


def test_without_usable_synthetic_clips_a_run_goes_on_and_says_why(chain, monkeypatch, caplog):
    root, store, _ = chain
    silence = torch.zeros(8000)
    monkeypatch.setattr(AudioLDM, "generate", lambda self, prompts: [silence] * len(prompts))
    run = Run(configure(*TINY, store, "synthesis.clips_per_label=3"), root / "silent")
    run()
    assert "pump section 00: too few synthetic clips were kept to choose a setting" in caplog.text
    assert "'silent': 6" in caplog.text
    (row,) = pd.read_csv(root / "silent" / "selection.csv").to_dict("records")
    assert (row["param.r"], row["chosen"]) == (1.0, True)
    assert row["abstain_reason"].startswith(
        "no synthetic clips of both labels to choose on: 0 normal"
    )
    settings = pd.read_csv(root / "silent" / "settings.csv").set_index("setting")
    assert settings["param.r"]["synthetic"] == 1.0


def test_transforms_need_neither_training_nor_a_trainer(chain):
    root, store, _ = chain
    before = artifacts(root)
    transforms = [*TINY, store, "generator=transforms"]
    run = Run(configure(*transforms), root / "transforms")
    run()
    # Where the same setting is kept, the detections are those of another generator's run.
    new = {stage for stage, _ in set(artifacts(root)) - set(before)}
    assert not {"finetune", "train"} & new
    quality = pd.read_csv(root / "transforms" / "synthetic" / "quality.csv")
    assert quality["label"].tolist() == ["normal", "anomaly"]
    # Its normal clips are real ones, its anomalous ones are not.
    assert quality["fad"][0] < quality["fad"][1]
    longer = Run(configure(*transforms, "trainer.max_steps=9"), root / "x")
    assert longer.keys("synthesise") == run.keys("synthesise")
    gentler = Run(configure(*transforms, "generator.at_most=1"), root / "x")
    assert gentler.keys("synthesise") != run.keys("synthesise")


def test_every_stage_works_with_five_clips_and_no_reference(chain, caplog):
    root, store, _ = chain
    five = [*TINY, store, "data.factory.train_clips=5", "data.factory.target_domain_clips=1"]
    alone = [*five, "data.factory.references=[]", "synthesis.clips_per_label=8"]
    Run(configure(*alone, "generator=transforms"), root / "five")()
    manifest = pd.read_csv(root / "five" / "synthetic" / "manifest.csv")
    assert manifest[manifest["kept"]].groupby("label").size().to_dict() == {
        "anomaly": 8, "normal": 5,
    }  # fmt: skip
    assert (root / "five" / "metrics.csv").is_file()
    assert "no reference machine" not in caplog.text
    curve = pd.read_csv(root / "five" / "selection.csv")
    assert curve.loc[curve["chosen"], "param.r"].tolist() == [1.0]
    assert (
        "5 real and 5 synthetic, at least 13" in curve.loc[curve["chosen"], "abstain_reason"].item()
    )


@pytest.mark.nightly
def test_names_that_are_not_utf_8_are_names_like_others(factory, tmp_path):
    for n, clip in enumerate(read_clips(factory)):
        label = (tmp_path / "plant").joinpath(clip.machine, clip.split, clip.label)
        label.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, label / os.fsdecode(b"L\xfcfter %d.wav" % n))
    data = ["data=folder", f"data.root={tmp_path / 'plant'}", "data.targets=[bearing]"]
    tiny = [*REPORTED, *data, "generator=transforms", f"store={tmp_path / 'store'}"]
    Run(configure(*tiny), tmp_path / "run")()
    run = tmp_path / "run"
    files = pd.read_csv(run / "clips.csv")["file"]
    assert files.str.contains(r"L\xfcfter ", regex=False).all()
    assert pd.read_csv(run / "captions.csv")["path"].str.contains(r"L\xfc", regex=False).all()
    sources = set(read_table(run / "synthetic")["source"])
    assert sources
    assert all(path_of(source).is_file() for source in sources)
    assert (run / "report.html").is_file()


def test_the_log_takes_names_that_are_not_utf_8(tmp_path):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        composed = compose("config", return_hydra_config=True)
    handler = composed.hydra.job_logging.handlers.file
    assert handler["class"] == "logging.FileHandler"
    log = logging.FileHandler(tmp_path / "run.log", "w", handler.encoding, errors=handler.errors)
    log.handle(logging.makeLogRecord({"msg": os.fsdecode(b"L\xfcfter.wav: unlike the others")}))
    log.close()
    assert (tmp_path / "run.log").read_text() == "L\\udcfcfter.wav: unlike the others\n"


@pytest.mark.nightly
def test_without_real_anomalies_a_trained_generator_says_what_that_means(chain, caplog):
    root, store, _ = chain
    alone = [*TINY, store, "stages=[finetune]", "seed=8"]
    Run(configure(*alone), root / "heard")()
    assert "cannot learn what" not in caplog.text
    Run(configure(*alone, "data.factory.references=[]"), root / "alone")()
    assert "cannot learn what 'anomaly' sounds like" in caplog.text
    assert "generator=transforms needs none" in caplog.text


@pytest.mark.nightly
def test_captions_without_the_word_to_replace_are_told_before_training(chain, monkeypatch):
    root, store, _ = chain
    monkeypatch.setattr(Captions, "__call__", lambda self, clip: f"The hum of a {clip.machine}.")
    before = artifacts(root)
    run = Run(configure(*TINY, store, "trainer.max_steps=1"), root / "hum")
    with pytest.raises(ValueError, match=r"\.wav: caption has no word 'normal' .*hum of a pump"):
        run()
    assert artifacts(root) == before
    # A set of prompts of one's own may do without it.
    own = f"synthesis.prompts={{_target_: {__name__}.Broken}}"
    Run(configure(*TINY, store, "generator=transforms", own), root / "broken")()
    manifest = pd.read_csv(root / "broken" / "synthetic" / "manifest.csv")
    anomalous = manifest.loc[manifest["label"] == "anomaly", "caption"]
    assert anomalous.str.startswith("A broken pump, with").all()


def test_limits_without_real_clips_to_take_them_from_are_told_before_synthesis(chain):
    root, store, _ = chain
    alone = [*TINY, store, "generator=transforms", "data.factory.references=[]"]
    run = Run(configure(*alone, "synthesis.filters.too_far=0.9"), root / "far")
    before = artifacts(root)
    with pytest.raises(ValueError, match=r"pump: too_far needs .*synthesis\.filters\.too_far=null"):
        run()
    assert {stage for stage, _ in set(artifacts(root)) - set(before)} <= {"factory"}


class Broken:
    """A set of prompts of a user's own."""

    def __call__(self, clip, caption, rng):
        return Wording(f"A broken {clip.machine}.")


def test_prompts_and_what_is_kept_are_part_of_the_key(chain):
    root, store, _ = chain
    keys = [
        Run(configure(*TINY, store, *more), root / "x").keys("judge")
        for more in (
            [], ["prompts=contrast"], ["prompts=mixed"], ["synthesis.per_caption=balanced"],
            ["synthesis.filters.too_near=0.1"], ["synthesis.cleaning.silence_db=null"],
        )
    ]  # fmt: skip
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])


@pytest.mark.parametrize(
    ("generator", "expected"), [("audioldm_nano_fast", 0.4), ("transforms", 1)]
)
def test_synthetic_clips_are_cut_unless_they_are_made_of_real_ones(chain, generator, expected):
    root, store, _ = chain
    asked = [*TINY, store, f"generator={generator}", "synthesis.max_seconds=0.4"]
    run = Run(configure(*asked, "stages=[finetune,synthesise]"), root / generator)
    run()
    manifest = pd.read_csv(root / generator / "synthetic" / "manifest.csv")
    assert set(manifest["seconds"]) == {expected}


def test_prompts_candidates_and_filters_reach_the_manifest(chain):
    root, store, _ = chain
    Run(
        configure(
            *TINY, store, "stages=[synthesise]", "prompts=contrast", "synthesis.candidates=2",
            "synthesis.clips_per_label=2", "synthesis.filters.too_far=0.01",
            "synthesis.cleaning.match_duration=true",
        ),
        root / "options",
    )()  # fmt: skip
    manifest = pd.read_csv(root / "options" / "synthetic" / "manifest.csv")
    assert len(manifest) == 8
    anomalous = manifest[manifest["label"] == "anomaly"]
    assert anomalous["negative"].str.contains("the normal sound").all()
    reasons = manifest["reason"].dropna().str.split(" (", regex=False).str[0]
    assert set(reasons) <= {
        "farther from real clips than real anomalies of other machines",
        "another candidate was better",
    }
    # Two steps of a nano model are noise: next to nothing is as near as the nearest real anomaly.
    assert reasons.str.startswith("farther").sum() > 4


def test_a_run_killed_after_its_last_clip_lists_what_it_has(chain, monkeypatch):
    root, store, _ = chain
    transforms = [*TINY, store, "generator=transforms", "stages=[synthesise]", "seed=5"]
    close = SynthesisFolder.close

    def fail(self, *args):
        raise RuntimeError("power cut")

    monkeypatch.setattr(SynthesisFolder, "close", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        Run(configure(*transforms), root / "late")()
    monkeypatch.setattr(SynthesisFolder, "close", close)
    monkeypatch.setattr(FaultTransforms, "generate", fail)
    Run(configure(*transforms), root / "late")()
    assert pd.read_csv(root / "late" / "synthetic" / "manifest.csv")["kept"].all()
    assert (root / "late" / "synthetic" / "quality.csv").is_file()


def test_synthesis_that_needs_too_much_memory_says_what_to_lower(chain, monkeypatch):
    root, store, _ = chain

    def large(self, prompts):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(FaultTransforms, "generate", large)
    transforms = [*TINY, store, "generator=transforms", "stages=[synthesise]", "seed=6"]
    with pytest.raises(ValueError, match=r"Lower synthesis\.batch_size \(now 16\)"):
        Run(configure(*transforms), root / "large")()


def command(*overrides, cwd, run=commands.run):
    program = [sys.executable, "-m", "fsasd.cli.main"]
    return run([*program, *overrides], cwd=cwd, capture_output=True, text=True)


def test_the_command_fails_with_one_line_and_a_code(tmp_path):
    found = command("data=dcase", "data.root=absent", cwd=tmp_path)
    assert found.returncode == 1
    # Libraries say on the other what they miss: bitsandbytes, where it is installed.
    said = [line for line in found.stderr.splitlines() if line]
    expected = "data root absent does not exist (fsasd-download fetches DCASE's)"
    assert said[-1].endswith(f"- {expected} (HYDRA_FULL_ERROR=1 shows where)")
    assert "Traceback" not in found.stdout + found.stderr


def test_a_sweep_over_detectors_shares_the_generator(tmp_path):
    store, folder = tmp_path / "store", tmp_path / "sweep"
    # A job of an earlier sweep that failed, and now is run again.
    write_status(folder / "1", 1, "failed", reason="weights are missing")
    found = command(
        *("-m", "detector=twfr_gmm,knn", *TINY, f"store={store}", f"hydra.sweep.dir={folder}"),
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    jobs = pd.read_csv(folder / "sweep.csv")
    assert jobs["detector"].tolist() == ["twfr_gmm", "knn"]
    assert jobs["reason"].isna().all()
    assert jobs["official"].notna().all()
    assert (jobs["scoring_ms"] > 0).all()
    assert len(list((store / "finetune").glob("*/model"))) == 1
    assert len(list((store / "detect").glob("*/*/scores.csv"))) == 2


def test_a_job_of_a_sweep_does_not_inherit_what_the_trainer_before_switched_on(tmp_path):
    options = ["data=factory_tiny", "stages=[check]", f"store={tmp_path}"]
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", options, return_hydra_config=True)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        L.Trainer(deterministic=True, logger=False)
        L.Trainer(benchmark=True, logger=False)
        assert torch.are_deterministic_algorithms_enabled()
        app.run_command(cfg, tmp_path, None)
        assert not torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
        HydraConfig.instance().cfg = before


@pytest.mark.nightly
def test_a_sweep_loses_only_the_detectors_that_cannot_run(tmp_path, monkeypatch):
    """Weights that are not at hand, which without a network those of most encoders are."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = command(
        *["-m", "experiment=detectors", "detector=anopatch,genrep,knn", "data=factory_tiny"],
        *[f"store={tmp_path / 'store'}", f"hydra.sweep.dir={tmp_path}"],
        cwd=tmp_path,
        run=subprocess.run,
    )
    assert found.returncode == 1
    assert (tmp_path / "2" / "metrics.csv").is_file()
    assert pd.read_csv(tmp_path / "sweep.csv")["detector"].tolist() == ["anopatch", "genrep", "knn"]
    assert "The sweep, the best first" in found.stdout
    _, failed = found.stderr.split("2 of 3 jobs have no result:")
    first, second = failed.strip().splitlines()
    assert "detector=anopatch" in first
    assert "encoder 'MIT/ast-finetuned-audioset-10-10-0.4593' could not be read" in first
    assert "detector=genrep" in second
    assert "without a network, give a folder (" in second
    assert "could not be read" in (tmp_path / "1" / "run.log").read_text()


@pytest.mark.nightly
def test_two_processes_share_one_run(tmp_path):
    store = tmp_path / "store"
    found = command(
        *TINY,
        "generator=transforms",
        "trainer=ddp_cpu",
        "data.factory.targets=[pump,bearing]",
        "runner.workers=2",
        f"store={store}",
        f"hydra.run.dir={tmp_path / 'run'}",
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    manifest = pd.read_csv(tmp_path / "run" / "synthetic" / "manifest.csv")
    assert len(manifest) == 16
    assert (tmp_path / "run" / "synthetic" / "quality.csv").is_file()
    assert all((tmp_path / "run" / "synthetic" / wav).is_file() for wav in manifest["wav"])
    assert not (store / "finetune").exists()
    assert not list(store.glob("*/*.partial"))
    machines = pd.read_csv(tmp_path / "run" / "metrics.csv")["machine"]
    assert {"pump", "bearing"} < {*machines}
    # By processes that rank 0 starts after torch.distributed has been initialised.
    assert found.stderr.count("2 sections are built in 2 processes") == 2


@pytest.mark.nightly
def test_two_processes_train_one_network(tmp_path):
    store = tmp_path / "store"
    asked = [
        *TINY, *STGRAM, "generator=none", "trainer=ddp_cpu", f"store={store}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    several_ranks.run_command([sys.executable, "-m", "fsasd.cli.main", *asked], cwd=tmp_path)
    (made,) = (store / "train").glob("*/networks.json")
    assert len(list((made.parent / "shared").glob("*.safetensors"))) == 1
    assert not list(store.glob("*/*.partial"))
    assert (tmp_path / "run" / "metrics.csv").is_file()
