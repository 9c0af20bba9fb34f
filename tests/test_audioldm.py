"""Fine-tuning: what is trained, what is kept, what is the same when done again."""

import json
import logging
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from small_pipelines import audioldm_pipeline

from fsasd.data.clips import Clips
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.draws import Draw
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import read_clips
from fsasd.data.recording import read
from fsasd.generation.audioldm import AudioLDM, checkpoint
from fsasd.generation.diffusion.adaptation import Lora, SelectedComponents
from fsasd.generation.diffusion.averaging import WeightAverage
from fsasd.generation.diffusion.finite import LossWatch, TrainingError
from fsasd.generation.diffusion.optimizing import optimizer_steps, warn_if_too_short
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.validation_loss import GroupLosses, fixed_noise, fixed_timesteps
from fsasd.generation.prompts import Prompt
from fsasd.testing.examples import example_recordings

pytestmark = pytest.mark.slow

CAPTIONS = ["This is the normal sound of a fan.", "This is the anomaly sound of a fan."]


@pytest.fixture
def data(factory, latents):
    return FirstShotDataModule(read_clips(factory), batch_size=4, val_share=0.2, cache=latents)


def trainer(folder, **options):
    options = {"max_steps": 2, "val_check_interval": 1, **options}
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def nano(**options):
    return AudioLDM("nano", crop_seconds=0.64, warmup_steps=1, **options)


def test_training_lowers_the_loss(data, tmp_path):
    model = nano(learning_rate=2e-3)
    # From scratch: fine-tuned weights have little left to gain in a few steps.
    torch.manual_seed(0)
    model.network.load_state_dict(checkpoint.build("nano").unet.state_dict())
    data.clips = Clips([c for c in data.clips if c.machine == "fan"])
    batch = examples(model, data)
    before = loss_of(model, batch)
    run = trainer(tmp_path, max_steps=30, val_check_interval=30, enable_checkpointing=False)
    run.fit(model, data)
    with model.averaged_weights():
        assert loss_of(model, batch) < 0.8 * before


def examples(model, data, n=8):
    clips = data.captioned[:n]
    examples = model.examples(clips, [data.captions(c) for c in clips], train=False)
    return examples.collate([examples[Draw(i, i)] for i in range(n)])


@torch.no_grad()
def loss_of(model, batch):
    n = len(batch["moments"])
    noise = torch.randn(n, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return model.loss(batch, torch.arange(n) * 1000 // n, noise).mean()


def test_only_the_unet_is_trained_and_saved(data, tmp_path):
    model = nano(learning_rate=1e-3)
    frozen = [p.clone() for module in model.components.frozen() for p in module.parameters()]
    unet = [p.clone() for p in model.network.parameters()]
    run = trainer(tmp_path)
    run.fit(model, data)
    after = [p for module in model.components.frozen() for p in module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(unet, model.network.parameters(), strict=True))
    saved = torch.load(run.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    assert {key.split(".")[0] for key in saved} == {"network"}


class StopAt(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step


def test_a_resumed_run_goes_on_where_it_stopped(data, tmp_path):
    def fit(model, checkpoint=None, **options):
        run = trainer(tmp_path, max_steps=4, enable_checkpointing=False, **options)
        run.fit(model, data, ckpt_path=checkpoint, weights_only=True)
        return run

    stopped, resumed = nano(learning_rate=1e-3), nano(learning_rate=1e-3)
    run = fit(stopped, callbacks=[StopAt(2)])
    assert run.global_step == 2
    run.save_checkpoint(tmp_path / "last.ckpt")
    average = [weight.clone() for weight in stopped.ema.shadow_params]
    assert fit(resumed, tmp_path / "last.ckpt").global_step == 4
    assert resumed.ema.optimization_step == 4
    # From the pre-trained weights, two steps of this size would not get as far as four.
    moved = distance(resumed.ema.shadow_params, nano().network.parameters())
    assert distance(resumed.ema.shadow_params, average) < moved


def distance(one, other):
    return sum(float((a - b).detach().square().sum()) for a, b in zip(one, other, strict=True))


def test_the_average_follows_the_weights_and_gives_them_back(data):
    model = nano(ema_decay=0.5)
    model.begin_training()
    weight = next(model.network.parameters()).detach()
    with torch.no_grad():
        for value in (1.0, 3.0):
            weight.fill_(value)
            model.ema.step(model.network.parameters())
    with model.averaged_weights():
        assert weight.unique().numel() == 1
        assert 1.0 < float(weight.flatten()[0]) < 3.0
    assert float(weight.flatten()[0]) == 3.0


def test_saved_weights_are_the_averaged_ones(tmp_path):
    model = nano(ema_decay=0.5)
    model.begin_training()
    weight = next(model.network.parameters()).detach()
    with torch.no_grad():
        model.ema.step(model.network.parameters())
        before = weight.clone()
        weight.add_(1.0)
        model.ema.step(model.network.parameters())
    model.save(tmp_path / "model")
    loaded = AudioLDM(str(tmp_path / "model"))
    moved = next(loaded.network.parameters()).detach() - before
    assert 0 < float(moved.mean()) < 1


def test_nan_free_at_every_timestep(data):
    model = nano()
    batch = examples(model, data, 8)
    timesteps = torch.tensor([0, 1, 5, 50, 200, 500, 900, 999])
    losses = model.loss(batch, timesteps, torch.randn(8, 4, 16, 16))
    assert torch.isfinite(losses).all()


# Condition


def test_the_empty_caption_is_the_unconditional_embedding():
    model = nano()
    torch.testing.assert_close(model.embed([""])[0], model.unconditional)


def test_without_its_caption_an_example_is_unconditional(data):
    model = nano()
    batch = examples(model, data, 4)
    timesteps, noise = torch.full((4,), 500), torch.zeros(4, 4, 16, 16)
    everything = model.unconditional.expand(4, -1)
    dropped = model.loss(batch, timesteps, noise, condition=everything)
    assert not torch.allclose(model.loss(batch, timesteps, noise), dropped)


def test_recordings_can_be_a_condition(data, tmp_path, whole_clap):
    model = nano(audio_clap=str(whole_clap), audio_share=0.5)
    examples = model.examples(data.captioned[:3], ["a", "b", "c"], train=True)
    batch = examples.collate([examples[Draw(i, i)] for i in range(3)])
    clips = data.captioned[:3]
    wanted = torch.stack([torch.from_numpy(model.audio(clips.cache.read(c))) for c in clips])
    torch.testing.assert_close(batch["audio"], wanted)
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(model, data)


def test_a_clap_of_another_text_space_is_refused_before_anything_is_computed(data, whole_clap):
    model = nano(audio_clap=str(whole_clap))
    with torch.no_grad():
        model.components.text_encoder.text_projection.linear2.weight.mul_(-1)
    with pytest.raises(ValueError, match=r"audio_clap=.*whose text branch the checkpoint has"):
        model.examples(data.captioned[:2], ["a fan", "a pump"], train=True)


def test_captions_that_move_away_from_recordings_are_refused(whole_clap):
    with pytest.raises(ValueError, match=r"whiten_captions moves .* choose one of the two"):
        nano(audio_clap=str(whole_clap), whiten_captions=True)


def test_whitened_captions_are_saved_with_the_model(data, tmp_path):
    model = nano(whiten_captions=True)
    plain = model.embed(["This is the normal sound of a fan."])
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(model, data)
    spread = model.embed(["This is the normal sound of a fan."])
    assert not torch.allclose(plain, spread, atol=0.1)
    torch.testing.assert_close(model.unconditional, model.embed([""])[0])
    model.save(tmp_path / "model")
    again = AudioLDM(str(tmp_path / "model"), whiten_captions=True)
    result = again.embed(["This is the normal sound of a fan."])
    torch.testing.assert_close(result, spread, atol=1e-5, rtol=0)


# The same in any number of processes


def test_batches_that_are_accumulated_are_one_batch(data, tmp_path):
    """Half a batch at a time, as two processes would have it: the same losses and weights."""
    data.clips = Clips([c for c in data.clips if c.machine == "fan"][:32])

    def fit(**options):
        model = nano(learning_rate=1e-3, noise_offset=0.1)
        part = FirstShotDataModule(data.clips, batch_size=8, val_share=0)
        losses = LossCurve()
        options = {"callbacks": [losses], "limit_val_batches": 0, **options}
        run = trainer(tmp_path, enable_checkpointing=False, **options)
        run.fit(model, part)
        return model, losses.curve

    whole, curve = fit(max_steps=3)
    parts, halves = fit(max_steps=3, accumulate_grad_batches=2)
    assert len(curve) == 3
    means = [sum(halves[i : i + 2]) / 2 for i in range(0, 6, 2)]
    assert curve == pytest.approx(means, rel=1e-5)
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


class LossCurve(L.Callback):
    def __init__(self):
        self.curve = []

    def on_train_batch_end(self, trainer, *_):
        self.curve.append(float(trainer.callback_metrics["train/loss"]))


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_a_resumed_run_ends_where_one_without_a_stop_does(data, tmp_path, optimizer):
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes", reason="needs the extra 8bit")

    def fit(model, **options):
        run = trainer(tmp_path, max_steps=4, enable_checkpointing=False, **options.pop("with_", {}))
        run.fit(model, data, weights_only=True, **options)
        return run

    whole, first, second = (nano(learning_rate=1e-3, optimizer=optimizer) for _ in range(3))
    state = fit(whole).optimizers[0].state
    moments = {
        kept.dtype
        for of_parameter in state.values()
        for kept in of_parameter.values()
        if isinstance(kept, torch.Tensor) and kept.numel() > 1e5
    }
    assert moments == {torch.float32 if optimizer == "adamw" else torch.uint8}
    fit(first, with_={"callbacks": [StopAt(2)]}).save_checkpoint(tmp_path / "last.ckpt")
    fit(second, ckpt_path=tmp_path / "last.ckpt")
    for one, other in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    for one, other in zip(whole.ema.shadow_params, second.ema.shadow_params, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


# Validation


def test_a_rate_that_is_not_given_is_that_of_what_is_trained():
    assert nano().learning_rate == 3e-5
    assert nano(train=Lora()).learning_rate == 1e-4
    assert nano(train=Lora(), learning_rate=0.0).learning_rate == 0


@pytest.mark.parametrize(
    ("steps", "clips", "warmup", "expected"),
    [
        (400, 13_860, 200, ["400 steps of 16 clips are 0.46 passes over the 13860"]),
        (400, 1280, 201, ["warmup_steps=201 is cut to 200, half of trainer.max_steps=400"]),
        (400, 1280, 200, []),
        (2, 100, 50, ["raise trainer.max_steps to 32", "cut to 1"]),
    ],
)
def test_a_training_that_is_too_short_is_warned_of(caplog, steps, clips, warmup, expected):
    warn_if_too_short(steps, 16, clips, warmup)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(expected)
    assert all(text in message for text, message in zip(expected, messages, strict=True))


def test_a_run_warns_that_it_is_too_short(data, tmp_path, caplog):
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(nano(), data)
    assert "1 steps of 4 clips are 0." in caplog.text


def test_validation_is_split_by_machine_label_and_role(data, tmp_path):
    model = nano(learning_rate=1e-3)
    run = trainer(tmp_path, max_steps=2, val_check_interval=2, enable_checkpointing=False)
    run.fit(model, data)
    result = {name: float(value) for name, value in run.callback_metrics.items()}
    counts = Counter(clip.machine for clip in data.val_clips)
    assert set(counts) == {"fan", "valve", "bearing"}
    for kind in ("val", "val_raw"):
        total = sum(n * result[f"{kind}/machine/{name}"] for name, n in counts.items())
        assert total / sum(counts.values()) == pytest.approx(result[f"{kind}/loss"])
    assert result["val/role/target"] == pytest.approx(result["val/machine/bearing"])
    assert {"val/label/normal", "val/label/anomaly", "val/role/reference"} <= result.keys()
    # After one step of this size the weights have left their average behind.
    assert result["val/loss"] != result["val_raw/loss"]


def test_a_clip_that_two_processes_had_counts_once(data):
    clips = data.captioned[:3]
    alone, one, two = (GroupLosses(clips, ["val"]) for _ in range(3))
    alone.add("val", [0, 1, 2], torch.tensor([1.0, 2.0, 4.0]))
    one.add("val", [0, 2], torch.tensor([1.0, 4.0]))
    two.add("val", [1, 0], torch.tensor([2.0, 1.0]))
    one.sums += two.sums
    assert one.means() == pytest.approx(alone.means())
    assert one.means()["val/loss"] == pytest.approx(7 / 3)


class InValidation(L.Callback):
    """Does something with the trainer after the first batch of the second pass."""

    def __init__(self, do):
        self.do = do

    def on_validation_batch_end(self, trainer, module, outputs, batch, index, dataloader_idx=0):
        if dataloader_idx == 1 and index == 0:
            self.do(trainer)


def test_a_validation_exchanges_the_weights_once(data, tmp_path, monkeypatch):
    times = []
    swap = WeightAverage.swap
    monkeypatch.setattr(WeightAverage, "swap", lambda *args: times.append(1) or swap(*args))
    monkeypatch.setattr(WeightAverage, "store", None)
    model = nano(learning_rate=1e-3)
    run = trainer(tmp_path, max_steps=2, val_check_interval=2, enable_checkpointing=False)
    run.fit(model, data)
    batches = list(data.val_dataloader()[0])
    assert len(times) == 2 < len(batches)
    result = {name: float(value) for name, value in run.callback_metrics.items()}

    def mean():
        losses = []
        for batch in batches:
            indices = [draw.clip for draw in batch["draws"]]
            noise = fixed_noise(indices, model._latent_shape(batch))
            losses.append(model.loss(batch, fixed_timesteps(indices, 1000), noise))
        return float(torch.cat(losses).mean())

    with torch.no_grad():
        assert result["val_raw/loss"] == mean()
        with model.averaged_weights():
            assert result["val/loss"] == mean()


def test_a_checkpoint_that_is_saved_within_a_validation_holds_the_weights(data, tmp_path):
    model, (before, within) = nano(learning_rate=1e-3), (tmp_path / "before", tmp_path / "within")
    callbacks = [
        L.pytorch.callbacks.LambdaCallback(
            on_train_batch_end=lambda trainer, *_: trainer.save_checkpoint(before)
        ),
        InValidation(lambda trainer: trainer.save_checkpoint(within)),
    ]
    run = trainer(
        tmp_path, max_steps=2, val_check_interval=2, enable_checkpointing=False,
        callbacks=callbacks,
    )  # fmt: skip
    run.fit(model, data)
    one, two = (torch.load(path, weights_only=True) for path in (before, within))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, weight in one["state_dict"].items():
        assert torch.equal(weight, two["state_dict"][name])
    for weight, other in zip(one["ema"]["shadow_params"], two["ema"]["shadow_params"], strict=True):
        assert torch.equal(weight, other)
    assert distance(one["ema"]["shadow_params"], one["state_dict"].values()) > 0


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_weights_are_put_back_where_a_validation_is_cut(data, tmp_path, error):
    model, kept = nano(learning_rate=1e-3), []

    def cut(trainer):
        raise error

    callbacks = [
        L.pytorch.callbacks.LambdaCallback(
            on_validation_start=lambda *_: kept.extend(w.clone() for w in model.trained_weights())
        ),
        InValidation(cut),
    ]
    run = trainer(
        tmp_path, max_steps=2, val_check_interval=2, enable_checkpointing=False,
        callbacks=callbacks,
    )  # fmt: skip
    with pytest.raises((error, SystemExit)):
        run.fit(model, data)
    assert not model.ema.swapped
    assert distance(model.ema.shadow_params, kept) > 0
    assert distance(model.trained_weights(), kept) == 0


def test_validation_asks_the_same_at_every_step(data, tmp_path):
    model = nano(learning_rate=0.0)
    losses = []
    keep = L.pytorch.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, _: losses.append(
            float(trainer.callback_metrics["val/loss"])
        )
    )
    trainer(tmp_path, max_steps=2, enable_checkpointing=False, callbacks=[keep]).fit(model, data)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    # Not by chance: batches of another size ask the same, too.
    data = FirstShotDataModule(data.clips, batch_size=7, val_share=0.2)
    trainer(tmp_path, max_steps=1, enable_checkpointing=False, callbacks=[keep]).fit(model, data)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


# Attention heads


@pytest.fixture
def eight_heads(tmp_path):
    """The nano model as the hub would describe it: eight heads at every level."""
    parts = checkpoint.load("nano")
    parts.unet.register_to_config(attention_head_dim=8)
    checkpoint.save(parts, tmp_path / "eight")
    return str(tmp_path / "eight")


def test_the_heads_that_denoise_better_are_chosen_and_logged(data, tmp_path, eight_heads, caplog):
    model = AudioLDM(eight_heads, crop_seconds=0.64)
    assert checkpoint.heads_of(model.network) == (8, 8, 8)
    with caplog.at_level(logging.INFO, "fsasd.generation.audioldm.checkpoint"):
        run = trainer(tmp_path, max_steps=1, enable_checkpointing=False)
        run.fit(model, data)
    assert checkpoint.heads_of(model.network) == (1, 2, 3)
    (message,) = [r.getMessage() for r in caplog.records if "attention heads per level" in r.msg]
    assert message.count("denoising loss") == 1
    assert "the checkpoint says (8, 8, 8)" in message
    assert message.endswith("using (1, 2, 3)")
    model.save(tmp_path / "model")
    assert checkpoint.heads_of(checkpoint.load(tmp_path / "model").unet) == (1, 2, 3)


def test_heads_can_be_configured(eight_heads):
    original = AudioLDM(eight_heads, attention_heads="original")
    assert checkpoint.heads_of(original.network) == (1, 2, 3)
    assert checkpoint.heads_of(AudioLDM(eight_heads, attention_heads="checkpoint").network)[0] == 8


def test_a_model_without_an_original_has_no_original_heads(tmp_path):
    parts = checkpoint.load("nano")
    sizes = checkpoint.SIZES["nano"]
    parts.unet = checkpoint.build_unet(checkpoint.Size(**{**vars(sizes), "channels": (32, 32, 64)}))
    checkpoint.save(parts, tmp_path / "model")
    with pytest.raises(checkpoint.CheckpointError, match=r"no original .* channels \[32, 32, 64\]"):
        AudioLDM(str(tmp_path / "model"), attention_heads="original")


# What is trained


@pytest.mark.nightly
def test_adapters_are_all_that_a_checkpoint_holds_and_go_on_from_it(data, tmp_path):
    def model():
        return nano(learning_rate=1e-2, train=Lora(rank=2, alpha=8))

    first, second, whole = model(), model(), model()
    trainer(tmp_path, max_steps=4, enable_checkpointing=False).fit(whole, data)
    run = trainer(tmp_path, max_steps=4, enable_checkpointing=False, callbacks=[StopAt(2)])
    run.fit(first, data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(".lora_" in name for name in kept["state_dict"])
    assert len(kept["ema"]["shadow_params"]) == len(kept["state_dict"])
    trainer(tmp_path, max_steps=4, enable_checkpointing=False).fit(
        second, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    for one, other in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_adapters_are_saved_merged_and_alone(data, tmp_path):
    model = nano(learning_rate=1e-2, train=Lora(rank=2, alpha=8))
    trainer(tmp_path, max_steps=3, enable_checkpointing=False).fit(model, data)
    batch = examples(model, data)
    with model.averaged_weights():
        wanted = loss_of(model, batch)
    model.save(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model" / "lora").iterdir()] == [Lora.WEIGHTS]
    merged = AudioLDM(str(tmp_path / "model"), crop_seconds=0.64)
    assert not any("lora" in name for name in merged.network.state_dict())
    torch.testing.assert_close(loss_of(merged, batch), wanted, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(loss_of(nano(), batch), wanted, rtol=1e-4)


def test_only_the_components_that_are_named_are_trained(data, tmp_path):
    model = nano(learning_rate=1e-2, train=SelectedComponents(["class_embedding.*"]))
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    trainer(tmp_path, max_steps=2, enable_checkpointing=False).fit(model, data)
    moved = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"class_embedding.weight", "class_embedding.bias"}


def test_less_memory_by_gradient_checkpointing_and_the_same_step(data, tmp_path):
    plain, frugal = nano(learning_rate=1e-3), nano(learning_rate=1e-3, gradient_checkpointing=True)
    for model in (plain, frugal):
        trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(model, data)
    assert frugal.network.is_gradient_checkpointing
    for one, other in zip(plain.network.parameters(), frugal.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_half_precision_trains(data, tmp_path):
    model = nano(learning_rate=1e-3)
    # A fused optimizer would not let its gradients be clipped.
    options = {"precision": "bf16-mixed", "gradient_clip_val": 1.0, "enable_checkpointing": False}
    run = trainer(tmp_path, **options)
    run.fit(model, data)
    assert not getattr(run.optimizers[0], "_step_supports_amp_scaling", False)
    assert float(run.callback_metrics["val/loss"]) < 2
    assert next(model.network.parameters()).dtype == torch.float32


LEVELS = {
    "as it is": lambda waveform: waveform,
    "loud": lambda waveform: waveform * 2**31,
    "silent": lambda waveform: 0 * waveform,
    "constant": lambda waveform: 0 * waveform + 0.5,
    "faint": lambda waveform: waveform * 1e-30,
    "one sample": lambda waveform: waveform[:1],
}


def test_recordings_of_any_level_can_be_trained_on(tmp_path):
    """A gain changes nothing; what has no sound is as silence."""
    clips, losses = example_recordings(tmp_path), {}
    for name, change in LEVELS.items():
        changed = []
        for clip in clips[:2]:
            path = tmp_path / f"{name} {clip.path.name}"
            soundfile.write(path, change(read(clip.path)), 16_000, subtype="FLOAT")
            changed.append(replace(clip, path=path))
        run = trainer(
            tmp_path, max_steps=1, val_check_interval=None, limit_val_batches=0,
            enable_checkpointing=False,
        )  # fmt: skip
        torch.manual_seed(0)
        run.fit(nano(), FirstShotDataModule(changed, batch_size=2, val_share=0))
        losses[name] = float(run.callback_metrics["train/loss"])
    assert losses["loud"] == pytest.approx(losses["as it is"], rel=1e-4)
    assert losses["as it is"] != pytest.approx(losses["silent"], rel=1e-2)
    for name in ("constant", "faint", "one sample"):
        assert losses[name] == pytest.approx(losses["silent"], rel=1e-4)


def test_whole_clips_can_be_trained_on(data, tmp_path):
    model = AudioLDM("nano", crop_seconds=None)
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(model, data)
    assert data.train_set[Draw(0, 0)]["moments"].shape == (8, 25, 16)


@pytest.mark.parametrize("seconds", [0.7, 0.05])
def test_a_crop_of_any_length_can_be_trained_on(data, tmp_path, seconds):
    model = AudioLDM("nano", crop_seconds=seconds)
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(model, data)
    assert data.train_set[Draw(0, 0)]["moments"].shape[1] == int(seconds / 0.04)


def test_a_crop_that_is_no_frame_is_an_error():
    with pytest.raises(ValueError, match=r"crop_seconds must be 0\.04 or more, found 0\.01"):
        AudioLDM("nano", crop_seconds=0.01)


def test_the_average_is_that_of_the_original(data, tmp_path):
    """min(0.9999, (1 + n) / (10 + n)) for the n-th step after the first."""
    model = nano()
    model.begin_training()
    for n in (1, 10, 1000, 10**6):
        assert model.ema.get_decay(n + 1) == min(0.9999, (1 + n) / (10 + n))


def test_the_learning_rate_rises_and_falls(data, tmp_path):
    rates = []
    watch = L.pytorch.callbacks.LambdaCallback(
        on_train_batch_start=lambda run, *_: rates.append(run.optimizers[0].param_groups[0]["lr"])
    )
    model = AudioLDM("nano", crop_seconds=0.64, learning_rate=1e-3, warmup_steps=2)
    options = {"max_steps": 6, "limit_val_batches": 0, "enable_checkpointing": False}
    trainer(tmp_path, callbacks=[watch], **options).fit(model, data)
    wanted = [0, 0.5, 1, *(0.5 + 0.5 * np.cos(np.pi * n / 4) for n in (1, 2, 3))]
    assert rates == pytest.approx([1e-3 * share for share in wanted])


def test_the_loss_can_be_weighted_and_its_noise_shifted(data, tmp_path):
    models = [nano(), nano(min_snr=None, noise_offset=0.0), nano(min_snr=5.0), nano(noise_offset=1)]
    batch = examples(models[0], data, 4)
    for model in models:
        model.log = lambda *_, **__: None
        model.trainer = SimpleNamespace(global_step=0, log_every_n_steps=50, world_size=1)
    plain, both_off, weighted, shifted = (float(m.training_step(batch, 0).detach()) for m in models)
    assert plain == both_off
    assert 0 < weighted < plain
    # Noise that is alike all over is nothing that the model has heard.
    assert shifted > plain


def test_compiling_leaves_the_names_of_the_weights(monkeypatch):
    """`torch.compile(unet)` would put `_orig_mod.` before each, and the checkpoint load nowhere."""
    model = nano(compile_network=True, channels_last=True)
    names = list(model.network.state_dict())
    monkeypatch.setattr(AudioLDM, "device", torch.device("cuda"))
    model.attention_heads = "checkpoint"
    model.begin_training()
    model.ema.to = lambda *_: None
    model.on_fit_start()
    assert model.network._compiled_call_impl is not None
    assert list(model.network.state_dict()) == names
    weight = model.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert model.ema.shadow_params[0].stride() == next(model.network.parameters()).stride()


# What goes wrong


def test_a_loss_that_is_no_number_stops_training_and_names_the_batch(data, tmp_path):
    class Breaks(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.global_step == 2:
                batch["moments"][:] = float("nan")

    run = trainer(tmp_path, max_steps=4, callbacks=[Breaks()])
    with pytest.raises(TrainingError) as error:
        run.fit(nano(), data)
    message = str(error.value)
    assert message.startswith("the loss became nan with the batch of ")
    named = message.partition(" of ")[2].partition(". Training stopped")[0].split(", ")
    assert len(named) == data.batch_size
    assert set(named) <= {str(clip.path) for clip in data.train_clips}
    assert "learning_rate" in message
    (kept,) = tmp_path.rglob("*.ckpt")
    state = torch.load(kept, weights_only=True)
    assert state["global_step"] == 2
    assert all(torch.isfinite(weight).all() for weight in state["state_dict"].values())


def test_weights_that_one_step_has_spoilt_are_not_kept(data, tmp_path):
    """The loss of that step was fine, and so would be the checkpoint's; only validation tells."""
    run = trainer(tmp_path, max_steps=4, callbacks=[StopAt(4)])
    model = AudioLDM("nano", crop_seconds=0.64, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(TrainingError, match=r"val/loss became nan\. .*checkpoint: none yet"):
        run.fit(model, data)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_losses_on_an_accelerator_are_looked_at_together():
    clips = [SimpleNamespace(path=f"{i}.wav") for i in range(8)]
    run = SimpleNamespace(datamodule=SimpleNamespace(train_clips=clips), checkpoint_callbacks=[])
    watch = LossWatch(several=3)

    class OnAccelerator(torch.Tensor):
        device = torch.device("cuda")

    losses = [torch.tensor(x).as_subclass(OnAccelerator) for x in (1.0, float("nan"), 2.0)]
    for i, loss in enumerate(losses[:2]):
        watch.add(loss, [Draw(i, 0)], run)
    with pytest.raises(TrainingError, match=r"became nan with the batch of 1\.wav\. Training"):
        watch.add(losses[2], [Draw(2, 0)], run)
    assert watch.unchecked == []


def test_nothing_is_saved_that_is_not_finite(data, tmp_path):
    model = nano()
    run = trainer(tmp_path, max_steps=1, enable_checkpointing=False)
    run.fit(model, data)
    model._watch.unchecked = [(torch.tensor(float("inf")), [Draw(0, 0)])]
    with pytest.raises(
        TrainingError, match=r"the loss became inf .*last good checkpoint: none yet"
    ):
        run.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


def test_an_optimizer_that_is_not_there(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    run = trainer(tmp_path, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: pip install 'fsasd\[8bit\]'"):
        run.fit(nano(optimizer="adamw_8bit"), data)
    with pytest.raises(ValueError, match="'adamw' or 'adamw_8bit', found 'sgd'"):
        run.fit(nano(optimizer="sgd"), data)


def test_training_without_an_end_is_an_error(data, tmp_path):
    with pytest.raises(ValueError, match=r"set trainer\.max_steps or trainer\.max_epochs"):
        trainer(tmp_path, max_steps=-1, enable_checkpointing=False).fit(nano(), data)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": 2, "max_steps": -1}, 2 * 16),
        ({"max_epochs": 2, "max_steps": 9}, 9),
        ({"max_epochs": 2, "max_steps": -1, "accumulate_grad_batches": 3}, 2 * 6),
        ({"max_epochs": 2, "max_steps": -1, "limit_train_batches": 5}, 10),
        ({"max_epochs": 2, "max_steps": -1, "limit_train_batches": 0.5}, 16),
    ],
)
def test_the_learning_rate_falls_to_zero_at_the_last_step(options, steps):
    run = L.Trainer(
        **{"max_epochs": -1, **options}, logger=False, enable_checkpointing=False, accelerator="cpu"
    )
    run.datamodule = type("Data", (), {"batches_per_epoch": 16})
    assert optimizer_steps(run) == steps


# What is left


def test_the_model_card_lists_the_training_clips(data, tmp_path):
    model = nano(learning_rate=1e-3)
    run = trainer(tmp_path, max_steps=1)
    run.fit(model, data)
    state = torch.load(run.checkpoint_callback.best_model_path, weights_only=True)
    model.on_load_checkpoint(state)
    model.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| fan | reference | anomaly | 8 |" in card
    assert "| bearing | target | normal | 16 |" in card
    assert "This is the normal sound of a bearing" in card
    settings = json.loads(card.partition("```json")[2].partition("```")[0])
    assert settings["learning_rate"] == 0.001
    assert (settings["steps"], settings["batch_size"], settings["seed"]) == (1, 4, 0)
    assert "| step | 1 |" in card
    assert f"| val/loss | {state['metrics']['val/loss']:.5g} |" in card
    assert "MIT licence" in card
    # Griffin-Lim is nothing that the pipeline of diffusers could use.
    assert "AudioLDMPipeline" not in card
    assert str(tmp_path) not in card


def test_a_card_tells_no_paths_of_the_machine_and_the_hubs_licence(tmp_path, whole_clap):
    parts = checkpoint.load("nano")
    checkpoint.save(parts, tmp_path / "start")
    model = AudioLDM(str(tmp_path / "start"), audio_clap=str(whole_clap))
    model.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert str(tmp_path) not in card
    assert str(whole_clap) not in card
    assert '"audio_clap": "a local folder"' in card
    assert "Start: a local checkpoint" in card
    assert "license: cc-by-nc-sa-4.0" in card


def test_a_fine_tuned_model_loads_in_the_pipeline_of_diffusers(data, tmp_path):
    model = nano(learning_rate=1e-3)
    model.components.vocoder = checkpoint.build_hifigan(channels=64).eval()
    trainer(tmp_path, max_steps=2, enable_checkpointing=False).fit(model, data)
    model.save(tmp_path / "model")
    pipeline = audioldm_pipeline().from_pretrained(tmp_path / "model", local_files_only=True)
    assert "AudioLDMPipeline.from_pretrained" in (tmp_path / "model" / "README.md").read_text()
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["vocoder"] == ["transformers", "SpeechT5HifiGan"]
    with model.averaged_weights():
        state = model.network.state_dict()
    averaged = load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert state.keys() == averaged.keys() == pipeline.unet.state_dict().keys()
    assert all(torch.equal(averaged[key], w) for key, w in pipeline.unet.state_dict().items())


# Negative prompts


def asked(*negatives):
    return [
        Prompt(f"{n}.wav", "fan", None, None, "anomaly", CAPTIONS[1], 0.64, 1.0, n, negative=text)
        for n, text in enumerate(negatives)
    ]


def test_a_negative_prompt_takes_the_place_of_the_empty_caption():
    model, seen = nano(sampler=Sampler(steps=1)), []
    denoise = model.denoise
    model.denoise = lambda latents, t, embeddings: (
        seen.append(embeddings) or denoise(latents, t, embeddings)
    )
    model.generate(asked(CAPTIONS[0], ""))
    led_away_from, led_to = seen[0].chunk(2)
    torch.testing.assert_close(led_away_from[0], model.embed([CAPTIONS[0]])[0])
    assert torch.equal(led_away_from[1], model.unconditional)
    torch.testing.assert_close(led_to, model.embed([CAPTIONS[1]] * 2))


def test_a_negative_prompt_changes_the_clip():
    model = nano(sampler=Sampler(steps=2, guidance=4.0))
    without, within = (model.generate(asked(text))[0] for text in ("", CAPTIONS[0]))
    apart = LogMel.twfr()(without.numpy()) - LogMel.twfr()(within.numpy())
    assert np.abs(apart).mean() > 0.5


def test_the_caption_itself_as_negative_prompt_leads_nowhere_else():
    # Guidance is c + (w - 1) (c - n): with n = c, nothing but c is left, whatever its weight.
    def log_mel(guidance, negative):
        model = nano(sampler=Sampler(steps=2, guidance=guidance))
        return LogMel.twfr()(model.generate(asked(negative))[0].numpy())

    assert np.abs(log_mel(4.0, CAPTIONS[1]) - log_mel(1.0, "")).mean() < 0.5


def test_without_guidance_a_negative_prompt_is_an_error():
    model = nano(sampler=Sampler(steps=1, guidance=1.0))
    with pytest.raises(ValueError, match="a sampler with guidance 1 has none: raise generator"):
        model.generate(asked(CAPTIONS[0]))
    assert len(model.generate(asked(""))) == 1
