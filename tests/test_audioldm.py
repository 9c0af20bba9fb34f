"""Fine-tuning: what is trained, what is kept, what is the same when done again."""

import lightning as L
import numpy as np
import pytest
import torch

from fsasd.data.audio import Clips, LogMel, read
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.generation import checkpoint
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.latents import VaeMoments, embed_captions, heard_mel, normalise
from fsasd.generation.prompts import Prompt
from fsasd.generation.sampling import Sampler
from fsasd.generation.vocoder import GriffinLim

CAPTIONS = ["This is the normal sound of a fan.", "This is the anomaly sound of a fan."]


@pytest.fixture
def data(factory):
    return FirstShotDataModule(read_clips(factory), batch_size=4, val_share=0.2)


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
    model.unet.load_state_dict(checkpoint.build("nano").unet.state_dict())
    data.clips = Clips([c for c in data.clips if c.machine == "fan"])
    batch = examples(model, data)
    before = loss_of(model, batch)
    run = trainer(tmp_path, max_steps=30, val_check_interval=30, enable_checkpointing=False)
    run.fit(model, data)
    with model.averaged_weights():
        assert loss_of(model, batch) < 0.8 * before


def examples(model, data, n=8):
    clips = data.captioned[:n]
    made = model.examples(clips, [data.captions(c) for c in clips], train=False)
    return torch.utils.data.default_collate([made[i] for i in range(n)])


@torch.no_grad()
def loss_of(model, batch):
    n = len(batch["moments"])
    noise = torch.randn(n, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return model.loss(batch, torch.arange(n) * 1000 // n, noise).mean()


def test_only_the_unet_is_trained_and_saved(data, tmp_path):
    model = nano(learning_rate=1e-3)
    frozen = [p.clone() for module in model.parts.frozen() for p in module.parameters()]
    unet = [p.clone() for p in model.unet.parameters()]
    run = trainer(tmp_path)
    run.fit(model, data)
    after = [p for module in model.parts.frozen() for p in module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(unet, model.unet.parameters(), strict=True))
    saved = torch.load(run.checkpoint_callback.best_model_path, weights_only=False)["state_dict"]
    assert {key.split(".")[0] for key in saved} == {"unet"}


def test_validation_is_the_same_when_done_again(data, tmp_path):
    model = nano()
    run = trainer(tmp_path, max_steps=1, enable_checkpointing=False)
    run.fit(model, data)
    first = float(run.callback_metrics["val/loss"])
    batch = next(iter(data.val_dataloader()))
    logged = []
    model.log = lambda name, value, **_: logged.append(float(value))
    with torch.no_grad():
        model.validation_step(batch, 0)
        model.validation_step(batch, 0)
    assert logged[0] == logged[1]
    assert first > 0


class StopAt(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step


def test_a_resumed_run_goes_on_where_it_stopped(data, tmp_path):
    def fit(model, checkpoint=None, **options):
        run = trainer(tmp_path, max_steps=4, enable_checkpointing=False, **options)
        run.fit(model, data, ckpt_path=checkpoint, weights_only=False)
        return run

    stopped, resumed = nano(learning_rate=1e-3), nano(learning_rate=1e-3)
    run = fit(stopped, callbacks=[StopAt(2)])
    assert run.global_step == 2
    run.save_checkpoint(tmp_path / "last.ckpt")
    average = [weight.clone() for weight in stopped.ema.shadow_params]
    assert fit(resumed, tmp_path / "last.ckpt").global_step == 4
    assert resumed.ema.optimization_step == 4
    # From the pre-trained weights, two steps of this size would not get as far as four.
    moved = distance(resumed.ema.shadow_params, nano().unet.parameters())
    assert distance(resumed.ema.shadow_params, average) < moved


def distance(one, other):
    return sum(float((a - b).detach().square().sum()) for a, b in zip(one, other, strict=True))


def test_the_average_follows_the_weights_and_gives_them_back(data):
    model = nano(ema_decay=0.5)
    model.setup("fit")
    weight = next(model.unet.parameters()).detach()
    with torch.no_grad():
        for value in (1.0, 3.0):
            weight.fill_(value)
            model.ema.step(model.unet.parameters())
    with model.averaged_weights():
        assert weight.unique().numel() == 1
        assert 1.0 < float(weight.flatten()[0]) < 3.0
    assert float(weight.flatten()[0]) == 3.0


def test_saved_weights_are_the_averaged_ones(tmp_path):
    model = nano(ema_decay=0.5)
    model.setup("fit")
    weight = next(model.unet.parameters()).detach()
    with torch.no_grad():
        model.ema.step(model.unet.parameters())
        before = weight.clone()
        weight.add_(1.0)
        model.ema.step(model.unet.parameters())
    model.save(tmp_path / "model")
    loaded = AudioLDM(str(tmp_path / "model"))
    moved = next(loaded.unet.parameters()).detach() - before
    assert 0 < float(moved.mean()) < 1


def test_condition_dropout_gives_the_unconditional_embedding(data):
    model = nano()
    batch = examples(model, data, 4)
    timesteps, noise = torch.full((4,), 500), torch.zeros(4, 4, 16, 16)
    dropped = model.loss(batch, timesteps, noise, keep_condition=torch.zeros(4, dtype=bool))
    empty = {**batch, "embedding": model.unconditional.expand(4, -1)}
    torch.testing.assert_close(dropped, model.loss(empty, timesteps, noise))
    kept = model.loss(batch, timesteps, noise, keep_condition=torch.ones(4, dtype=bool))
    assert not torch.allclose(kept, dropped)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_has_no_loss(data, prediction):
    model = nano()
    model.parts.scheduler = checkpoint.build_scheduler(prediction)
    batch, noise = examples(model, data, 4), torch.randn(4, 4, 16, 16)
    timesteps = torch.tensor([10, 300, 600, 990])
    alpha = model.parts.scheduler.alphas_cumprod[timesteps].reshape(4, 1, 1, 1)
    latents = batch["moments"].chunk(2, dim=1)[0] * model.parts.vae.config.scaling_factor
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    model.denoise = lambda *_: noise if prediction == "epsilon" else velocity
    assert float(model.loss(batch, timesteps, noise).max()) < 1e-9


def test_the_empty_caption_is_the_unconditional_embedding():
    model = nano()
    torch.testing.assert_close(model.embed([""])[0], model.unconditional)


def test_embeddings_do_not_depend_on_padding():
    parts = checkpoint.load("nano")
    together = embed_captions(parts.text_encoder, parts.tokenizer, [*CAPTIONS, "A fan."])
    alone = embed_captions(parts.text_encoder, parts.tokenizer, ["A fan."])
    torch.testing.assert_close(together[2], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_captions_that_differ_in_one_word_are_far_enough_apart():
    first, second = nano().embed(CAPTIONS)
    assert float(first @ second) < 0.98


def test_short_clips_are_repeated_and_never_padded_with_silence():
    vae = checkpoint.load("nano").vae
    sound = np.sin(np.arange(8000) * 0.3).astype(np.float32)
    moments = VaeMoments(vae, 2.56)(sound)
    assert moments.shape == (8, 64, 16)
    whole = VaeMoments(vae, 0.1)(np.tile(sound, 6)[:40960])
    np.testing.assert_allclose(moments, whole, atol=1e-2)


def test_normalisation_removes_mean_and_gain_restores_the_level():
    sound = np.array([0.1, 0.3, 0.1, -0.1], np.float32)
    heard, gain = normalise(sound)
    assert np.abs(heard).max() == pytest.approx(0.5)
    np.testing.assert_allclose(heard / gain, sound - 0.1, atol=1e-7)


def test_griffin_lim_gives_back_the_mel_it_was_given(factory):
    path = next((factory / "dev_data" / "fan" / "train").glob("*.wav"))
    mel = heard_mel(read(path))
    waveform = GriffinLim()(torch.from_numpy(mel)[None])[0].numpy()
    again = LogMel.audioldm()(waveform).T
    assert len(waveform) == len(mel) * 160
    assert np.abs(again - mel[: len(again)]).mean() < 0.25


def test_decoded_latents_sound_like_the_clip(factory):
    parts = checkpoint.load("nano")
    path = next((factory / "dev_data" / "fan" / "train").glob("*.wav"))
    mel = torch.from_numpy(heard_mel(read(path)))[None, None, :96]
    with torch.no_grad():
        latents = parts.vae.encode(mel).latent_dist.mean
        error = (parts.vae.decode(latents).sample - mel).abs().mean()
    assert float(error) < 0.6
    assert float((latents * parts.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.5)


def test_nan_free_at_every_timestep(data):
    model = nano()
    batch = examples(model, data, 8)
    timesteps = torch.tensor([0, 1, 5, 50, 200, 500, 900, 999])
    losses = model.loss(batch, timesteps, torch.randn(8, 4, 16, 16))
    assert torch.isfinite(losses).all()


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


def test_a_negative_prompt_is_heard():
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
