"""What is told of a training run: its cost, its numbers, its sounds."""

import logging
import re

import lightning as L
import pandas as pd
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.generation.audioldm import AudioLDM, checkpoint
from fsasd.generation.audioldm.model import AudioLDMModel
from fsasd.generation.diffusion import monitor
from fsasd.generation.diffusion.adaptation import Full, Lora, SelectedComponents
from fsasd.generation.diffusion.cost import memory_reductions, training_cost
from fsasd.generation.diffusion.monitor import CostReport, TrainingMonitor
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.runtime.memory import memory_advice

pytestmark = pytest.mark.slow


@pytest.fixture
def data(factory, latents):
    return FirstShotDataModule(read_clips(factory), batch_size=4, val_share=0.2, cache=latents)


def fit(folder, data, callbacks, logger=False, steps=4, **options):
    model = AudioLDM("nano", crop_seconds=0.64, sampler=Sampler(steps=1))
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, num_sanity_val_steps=0,
        check_val_every_n_epoch=None, val_check_interval=steps, logger=logger, callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        log_every_n_steps=2, default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(model, data)
    return model


# Cost


@pytest.mark.nightly
def test_flops_are_those_of_the_published_sizes():
    """A forward pass of 10.24 s: 103 GFLOP (S); training three times as many."""
    with torch.device("meta"):
        size_s = AudioLDMModel(checkpoint.build("s")), torch.zeros(512)
    cost = training_cost(*size_s, Full(), batch_size=1, frames=256)
    assert cost.flops / 1e9 == pytest.approx(3 * 103.4, rel=0.01)
    assert cost.trained / 1e6 == pytest.approx(185.0, abs=0.1)
    # Weights, gradients, two moments and the average: 20 bytes a parameter.
    assert cost.state / cost.trained == 20
    assert training_cost(*size_s, Full(), batch_size=2, frames=256).flops == 2 * cost.flops


@pytest.mark.nightly
def test_what_costs_less():
    nano = AudioLDMModel(checkpoint.build("nano")), torch.zeros(64)
    plain = training_cost(*nano, Full(), 4, 16)
    lora = training_cost(*nano, Lora(rank=4), 4, 16)
    frugal = training_cost(*nano, Full(), 4, 16, gradient_checkpointing=True)
    half = training_cost(*nano, Full(), 4, 16, half_precision=True, moment_bytes=2)
    assert lora.trained < 0.1 * plain.trained
    assert lora.state < 0.4 * plain.state
    assert frugal.activations < 0.5 * plain.activations
    assert frugal.flops > 1.2 * plain.flops
    assert half.activations == plain.activations // 2
    assert plain.state - half.state == 6 * plain.trained
    assert training_cost(*nano, SelectedComponents(["conv_out.*"]), 4, 16).flops < 0.8 * plain.flops
    assert re.search(r"2\.6 of 2\.6 million parameters.*TFLOP.*GiB", str(plain))


def test_counted_flops_are_those_of_its_largest_layer():
    """One convolution by hand: the count is of multiplications and additions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        F.conv2d(torch.zeros(2, 3, 8, 8), torch.zeros(5, 3, 3, 3), padding=1)
    assert counter.get_total_flops() == 2 * 2 * 5 * 8 * 8 * 3 * 3 * 3


def test_the_cost_is_logged_before_training_and_the_hours_once_measured(data, tmp_path, caplog):
    report = CostReport(steps=3)
    with caplog.at_level(logging.INFO, "fsasd.generation.diffusion.monitor"):
        fit(tmp_path, data, [report], steps=8, accumulate_grad_batches=2)
    counted, measured = (r.getMessage() for r in caplog.records if r.name.endswith("monitor"))
    assert "2.6 of 2.6 million parameters are trained" in counted
    assert "on each of 1 devices" in counted
    assert "8 steps of 4 examples (2 x 1 devices x 2 accumulated)" in counted
    seconds, clips, teraflops = map(
        float, re.findall(r"([\d.e-]+) (?:s a batch|clips/s|TFLOP/s)", measured)
    )
    assert clips == pytest.approx(2 / seconds, rel=0.02)
    assert teraflops == pytest.approx(report.cost.flops / seconds / 1e12, rel=0.02)
    assert report.hours == pytest.approx(16 * seconds / 3600, rel=0.02)


def test_an_error_of_too_little_memory_names_the_settings_that_need_less():
    advice = r"accumulate_grad_batches \(now 1\): it divides the 64 .*gradient_checkpointing"
    with pytest.raises(ValueError, match=advice), memory_advice(memory_reductions(64)):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    with pytest.raises(RuntimeError, match="else"), memory_advice(memory_reductions(64)):
        raise RuntimeError("something else")


# Numbers


def test_numbers_are_logged(data, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="log")
    fit(tmp_path, data, [TrainingMonitor(0)], logger, steps=4, gradient_clip_val=1e-3)
    rows = pd.read_csv(tmp_path / "log" / "metrics.csv")
    for name in ("gradient_norm", "learning_rate", "clips_per_second", "loss"):
        assert rows[f"train/{name}"].notna().sum() == 2, name
    # The norm is that before clipping.
    assert (rows["train/gradient_norm"].dropna() > 0.01).all()
    assert (rows["train/clips_per_second"].dropna() > 0).all()
    assert (tmp_path / "log" / "hparams.yaml").read_text().count("learning_rate") == 1


# Sounds


def sounds(tmp_path, data, logger):
    fit(tmp_path, data, [TrainingMonitor(2, samples=2)], logger, steps=2)


def test_sounds_go_to_files_beside_the_csv(data, tmp_path):
    sounds(tmp_path, data, CSVLogger(tmp_path, name="", version="log"))
    folder = tmp_path / "log" / "samples" / "000002"
    rows = pd.read_csv(folder / "captions.csv")
    assert rows["wav"].tolist() == ["bearing/normal_0000.wav", "bearing/anomaly_0000.wav"]
    assert rows["caption"][0].startswith("This is the normal sound of a bearing")
    for wav in rows["wav"]:
        waveform, rate = soundfile.read(folder / wav)
        assert (rate, len(waveform)) == (16_000, 16_000)
        assert (folder / wav).with_suffix(".png").stat().st_size > 500


def test_sounds_are_cut_off_where_a_file_would(data, tmp_path, monkeypatch):
    monkeypatch.setattr(AudioLDM, "generate", lambda *_: [torch.tensor([-3.0, 0.5, 3.0])] * 2)
    given = []
    monkeypatch.setattr(monitor, "log_samples", lambda *result: given.append(result))
    sounds(tmp_path, data, CSVLogger(tmp_path))
    ((_, _, waveforms, _, _),) = given
    assert [list(waveform) for waveform in waveforms] == [[-1, 0.5, 1]] * 2


def test_sounds_go_to_tensorboard(data, tmp_path):
    sounds(tmp_path, data, TensorBoardLogger(tmp_path, name="", version="log"))
    result = EventAccumulator(str(tmp_path / "log"), size_guidance={"audio": 0, "images": 0})
    tags = result.Reload().Tags()
    names = {"samples/bearing/normal_0000", "samples/bearing/anomaly_0000"}
    assert set(tags["audio"]) == set(tags["images"]) == names
    (audio,) = result.Audio("samples/bearing/normal_0000")
    assert (audio.sample_rate, audio.length_frames, audio.step) == (16_000, 16_000, 2)
    assert any("normal sound of a bearing" in str(result.Tensors(t)) for t in tags["tensors"])


def test_sounds_go_to_wandb_without_an_account(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    logger = WandbLogger(project="fsasd", save_dir=tmp_path)
    sounds(tmp_path, data, logger)
    logger.experiment.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert len(list(run.rglob("*.wav"))) == 2
    assert len(list(run.rglob("*.png"))) == 2


def test_one_of_several_that_share_the_weights_cannot_generate():
    model = AudioLDM("nano")
    model.sharded = True
    with pytest.raises(ValueError, match=r"no samples .*samples_every_n_steps=0"):
        TrainingMonitor(500).on_train_start(None, model)
    TrainingMonitor(0).on_train_start(None, model)
    with pytest.raises(ValueError, match="divides the weights among processes"):
        model.generate([])


def test_training_goes_on_as_if_nobody_had_listened(data, tmp_path):
    """Neither the weights nor what is random depend on what is told of them."""
    silent = fit(tmp_path, data, [], steps=4)
    logger = CSVLogger(tmp_path, name="", version="log")
    watched = fit(tmp_path, data, [TrainingMonitor(2), CostReport(1)], logger, steps=4)
    assert watched.network.training
    for one, other in zip(silent.network.parameters(), watched.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
