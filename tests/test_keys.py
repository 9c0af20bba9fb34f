"""Which stages a change of the configuration, or of the data, computes anew, leaf by leaf."""

import pytest
from hydra import compose, initialize_config_module
from runs import Run

pytestmark = pytest.mark.slow

STAGES = ("finetune", "synthesise", "judge", "train", "curve", "rule", "detect")
TRAINED = set(STAGES) - {"train"}
"""What depends on a generator that is trained; a detector's networks do not."""
CLIPS = TRAINED - {"finetune"}
"""What depends on synthetic clips."""
CHOICE = {"curve", "rule", "detect"}

TRAINING = "representation.training"
STGRAM = ["detector=stgram_mfn", "representation.width=0.125", f"{TRAINING}.epochs=1"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    store = tmp_path_factory.mktemp("keys")

    def run(*overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose("config", ["experiment=tiny", f"store={store}", *overrides])
        return Run(cfg, store / "run")

    def of(*overrides):
        asked = run(*overrides)
        return {name: asked.keys(name) for name in STAGES}

    of.run = run
    return of


@pytest.fixture(scope="module")
def before(keys):
    return {"twfr": keys(), "stgram": keys(*STGRAM)}


def changed(before, after):
    return {name for name in STAGES if before[name] != after[name]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1", TRAINED),
        ("trainer.max_steps=3", TRAINED),
        ("trainer.gradient_clip_val=0.5", TRAINED),
        ("trainer.precision=bf16-mixed", TRAINED),
        ("trainer.devices=2", set()),
        ("trainer.accelerator=cpu", set()),
        ("trainer.accumulate_grad_batches=2", set()),
        ("trainer.log_every_n_steps=5", set()),
        ("trainer.enable_progress_bar=false", set()),
        ("data.batch_size=8", TRAINED),
        ("data.val_share=0.2", TRAINED),
        ("data.balance=1.0", TRAINED),
        ("data.num_workers=1", set()),
        ("data.cache=null", set()),
        ("data.hold_out=[{machine: fan, label: anomaly}]", TRAINED),
        ("generator.learning_rate=1e-5", TRAINED),
        ("generator.gradient_checkpointing=true", set()),
        ("generator.sampler.guidance=1.0", CLIPS),
        ("callbacks.monitor.samples=1", set()),
        ("~callbacks.cost", set()),
        ("callbacks.checkpoint.mode=max", TRAINED),
        ("logger=tensorboard", set()),
        ("keep_checkpoints=true", set()),
        ("continue_from=1", TRAINED),
        ("tables=[5]", set()),
        ("force=[detect]", set()),
        ("prompts=contrast", CLIPS),
        ("synthesis.clips_per_label=5", CLIPS),
        ("synthesis.max_seconds=0.4", CLIPS),
        ("synthesis.candidates=2", CLIPS),
        ("synthesis.per_caption=balanced", CLIPS),
        ("synthesis.cleaning.silence_db=null", CLIPS),
        ("synthesis.filters.too_near=0.1", CLIPS - {"synthesise"}),
        ("synthesis.encoders=null", CLIPS - {"synthesise"}),
        ("detector.n_components=1", CHOICE),
        ("detector.seed=3", CHOICE),
        ("selection.calibrate=true", CHOICE),
        ("selection.abstain=false", {"rule", "detect"}),
        ("selection.objective=auc", {"rule", "detect"}),
        ("selection.max_gap=0.9", {"rule", "detect"}),
        ("selection.baselines=[]", set()),
        ("decision.false_alarm_rate=0.2", {"detect"}),
    ],
)
def test_a_setting_computes_anew_what_depends_on_it(keys, before, override, expected):
    # Where no value is known, the rule's key stands for the setting that it chooses.
    assert changed(before["twfr"], keys(override)) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"{TRAINING}.epochs=2", {"train", *CHOICE}),
        (f"{TRAINING}.seconds=0.6", {"train", *CHOICE}),
        ("detector.detectors.knn.k=3", CHOICE),
        ("detector=knn", CHOICE),
        ("trainer.max_steps=3", TRAINED),
        ("trainer.precision=bf16-mixed", {"train", *TRAINED}),
        ("trainer.devices=2", {"train", *CHOICE}),
    ],
)
def test_a_setting_of_a_network_trains_it_anew(keys, before, override, expected):
    asked = [*STGRAM, override] if "epochs" not in override else [*STGRAM[:-1], override]
    if override == "detector=knn":
        # The network is the same, whatever scores its embeddings.
        asked = ["representation=stgram_mfn", override, *STGRAM[1:]]
    assert changed(before["stgram"], keys(*asked)) == expected


def test_clips_that_a_checkpoint_is_chosen_by_are_in_its_key(keys):
    # Anomalies of a reference that are held out of training are still what it is judged by.
    hidden = "data.hold_out=[{machine: fan, label: anomaly}]"
    by_sounds = ["callbacks.checkpoint.monitor=first_shot/auc", "callbacks.checkpoint.mode=max"]
    (stage,) = keys.run(hidden).stages("finetune")
    assert "evaluated" not in stage.spec()
    (stage,) = keys.run(hidden, *by_sounds).stages("finetune")
    assert "fan 00 test" in stage.spec()["evaluated"]
