"""Fine-tuning in one call: the best weights, what is left of it, and how it is resumed."""

import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer

from fsasd.data.clips import Clips
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.detection.callback import DetectorEvaluation
from fsasd.generation import fitting
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.diffusion.monitor import CostReport, TrainingMonitor
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.fitting import changes_result, finetune
from fsasd.generation.training import Training
from fsasd.runtime.progress import StepProgress
from fsasd.runtime.signals import Stopped

pytestmark = pytest.mark.slow


class Watcher(L.Callback):
    only_watches = True


class Changer(L.Callback):
    """Of a user, who does not know of the attribute."""


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        *((known, False) for known in (CostReport, TrainingMonitor, StepProgress)),
        *((known, False) for known in (LearningRateMonitor, Timer, Watcher)),
        *((known, True) for known in (ModelCheckpoint, EarlyStopping, Changer)),
        (DetectorEvaluation, True),
        (type("Derived", (LearningRateMonitor,), {}), True),
    ],
)
def test_a_callback_changes_the_result_unless_it_only_watches(callback, expected):
    assert changes_result(callback) == expected


LEFT = {"model", "training.json", "caption_cosines.csv"}


@pytest.fixture
def data(factory_clips):
    """Four clips of a reference machine, one of them anomalous, and two of a target."""
    fan = factory_clips.where(machine="fan")
    clips = [
        *fan.where(split="train")[:3],
        *fan.where(label="anomaly")[:1],
        *factory_clips.where(machine="bearing", split="train")[:2],
    ]
    return FirstShotDataModule(clips, batch_size=2, val_share=0.5, cache=None)


def generator():
    return AudioLDM(
        "nano", crop_seconds=0.64, learning_rate=1e-2, warmup_steps=0, sampler=Sampler(steps=1)
    )


def trainer(folder, callbacks=(), **options):
    settings = {
        "accelerator": "cpu", "devices": 1, "max_epochs": -1, "max_steps": 2,
        "val_check_interval": 1, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0,
        "logger": False, "enable_progress_bar": False, "enable_model_summary": False, **options,
    }  # fmt: skip
    return L.Trainer(default_root_dir=folder, callbacks=list(callbacks), **settings)


def best(**options):
    return ModelCheckpoint(monitor="val/loss", filename="best", **options)


def weight(model):
    return next(model.network.parameters()).detach().clone()


def test_fine_tuning_leaves_the_model_alone(data, tmp_path):
    tuned = generator()
    before = weight(tuned)
    finetune(tuned, data, trainer(tmp_path, [best()]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == LEFT
    assert not torch.equal(weight(tuned), before)


def test_checkpoints_stay_where_they_are_asked_for(data, tmp_path):
    finetune(generator(), data, trainer(tmp_path, [best()]), tmp_path, keep_checkpoints=True)
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["optimizer_states"]
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_weights_are_taken(data, tmp_path, mode):
    class Logs(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append(weight(pl_module))

        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("rank", float(trainer.global_step))

        def on_validation_end(self, trainer, pl_module):
            losses[trainer.global_step] = trainer.callback_metrics["val/loss"].item()

    seen, losses = [], {}
    kept = ModelCheckpoint(monitor="rank", mode=mode, filename="best")
    tuned = generator()
    finetune(tuned, data, trainer(tmp_path, [Logs(), kept], max_steps=3), tmp_path)
    assert torch.equal(weight(tuned), seen[0 if mode == "min" else -1])
    step = 1 if mode == "min" else 3
    assert Training.read(tmp_path) == Training(step, losses[step])
    assert len(set(losses.values())) == 3


def test_without_a_validation_there_is_no_best_checkpoint(data, tmp_path):
    never = trainer(tmp_path, [best()], val_check_interval=3)
    with pytest.raises(ValueError, match="no checkpoint was kept: 'val/loss' was never logged"):
        finetune(generator(), data, never, tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_saved_model_is_not_trained_again(data, tmp_path, monkeypatch):
    """Killed between saving the model and removing the checkpoints."""
    finetune(generator(), data, trainer(tmp_path, [best()]), tmp_path, keep_checkpoints=True)
    monkeypatch.setattr(fitting, "fit", None)
    finetune(generator(), data, trainer(tmp_path, [best()]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == LEFT


@pytest.mark.nightly
def test_a_model_that_was_not_saved_whole_is_saved_again(data, tmp_path, monkeypatch):
    """The disk was full, or the process killed; training has a checkpoint of its last step."""
    tuned = generator()

    def half(path):
        path.mkdir()
        (path / "model_index.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuned, "save", half)
    with pytest.raises(OSError, match="No space left"):
        finetune(tuned, data, trainer(tmp_path, [best()]), tmp_path)
    assert not (tmp_path / "model").exists()
    steps = []
    monkeypatch.setattr(AudioLDM, "training_step", lambda *args: steps.append(args))
    again = generator()
    finetune(again, data, trainer(tmp_path, [best()]), tmp_path)
    assert not steps
    assert torch.equal(weight(again), weight(tuned))
    assert {path.name for path in tmp_path.iterdir()} == LEFT


@pytest.mark.parametrize("val_share", [0.5, 0.0])
def test_a_killed_training_goes_on_from_the_last_validation_not_from_the_best(
    data, tmp_path, val_share
):
    class Killed(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4:
                raise RuntimeError("killed")

        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("rank", float(trainer.global_step))

    def run(callbacks):
        first = ModelCheckpoint(monitor="rank" if val_share else None, mode="min", filename="best")
        clips = FirstShotDataModule(data.clips, batch_size=2, val_share=val_share)
        finetune(
            generator(), clips, trainer(tmp_path, [first, *callbacks], max_steps=5), tmp_path,
            keep_checkpoints=True,
        )  # fmt: skip

    with pytest.raises(RuntimeError, match="killed"):
        run([Killed()])
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4
    starts = []

    class Starts(Killed):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            starts.append(trainer.global_step)

    run([Starts()])
    assert starts == [4]
    # The loss of the weights that are kept was measured before the kill.
    training = Training.read(tmp_path)
    assert training.step == (1 if val_share else 5)
    assert (training.loss is not None) == bool(val_share)


@pytest.mark.parametrize(
    "options",
    [
        {"limit_val_batches": 0, "max_steps": -1, "max_epochs": 1, "limit_train_batches": 1},
        {"detect_anomaly": True, "inference_mode": False, "num_sanity_val_steps": 1, "min_steps": 1,
         "deterministic": True, "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
        {"check_val_every_n_epoch": 1, "val_check_interval": 1.0, "max_steps": -1,
         "max_epochs": 2, "accumulate_grad_batches": 2},
    ],
)  # fmt: skip
@pytest.mark.nightly
def test_any_argument_of_the_trainer_leaves_a_model_that_is_whole(data, tmp_path, options):
    validated = options.get("limit_val_batches") != 0
    tuned = generator()
    before = weight(tuned)
    run = trainer(tmp_path, [best()] if validated else [], **options)
    finetune(tuned, data, run, tmp_path, keep_checkpoints=True)
    steps = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps == run.global_step > 0
    assert not torch.equal(weight(tuned), before)
    # Of the weights' moving average.
    assert not torch.equal(weight(AudioLDM(str(tmp_path / "model"))), before)


@pytest.mark.nightly
def test_a_training_that_was_ended_has_the_validations_of_one_that_was_not(data, tmp_path):
    """Also that which is due after the step at which it was ended."""
    validated = {}

    class Validated(L.Callback):
        only_watches = True

        def __init__(self, name, end=None):
            self.steps, self.end = validated.setdefault(name, []), end

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step + 1 == self.end:
                os.kill(os.getpid(), signal.SIGTERM)

        def on_validation_end(self, trainer, pl_module):
            self.steps.append((trainer.global_step, float(trainer.callback_metrics["val/loss"])))

    def run(name, end=None):
        tuned = generator()
        callbacks = [Validated(name, end), best()]
        options = {"max_steps": 4, "val_check_interval": 2}
        finetune(tuned, data, trainer(tmp_path / name, callbacks, **options), tmp_path / name)
        return weight(tuned)

    whole = run("whole")
    with pytest.raises(Stopped):
        run("ended", 2)
    assert torch.equal(run("ended"), whole)
    assert validated["ended"] == validated["whole"]


def test_without_real_anomalies_fine_tuning_warns(data, tmp_path, caplog):
    normal = FirstShotDataModule(
        Clips([clip for clip in data.clips if clip.label == "normal"]), batch_size=2, val_share=0.5
    )
    finetune(generator(), normal, trainer(tmp_path, max_steps=1), tmp_path)
    assert "the generator cannot learn what 'anomaly' sounds like" in caplog.text
