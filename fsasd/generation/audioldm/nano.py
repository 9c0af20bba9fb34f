"""Pre-training of the nano AudioLDM: tokenizer, text encoder, VAE; the UNet by ``fitting``.

It has the classes and the folder of the real model at 1/100 of its size, so that the whole method
runs, and is tested, on two CPU cores. ``fsasd experiment=pretrain_nano`` trains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset
from transformers import ClapTextModelWithProjection, RobertaTokenizer

from fsasd.data.captions import Captions
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.audioldm.checkpoint import Components
from fsasd.generation.audioldm.mel import normalised_mel
from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.runtime.resuming import fit

_VALUES = (
    *(str(n) for n in range(10)),
    *(f"{n:02d}" for n in range(0, 25, 4)),
    *(f"{letter}{n}" for letter in "ABCM" for n in (1, 2)),
    *"ABCDXYZ",
    *("28V", "31V", "1.5", "3.0", "0.03", "0.11", "150", "380"),
    *(str(n) for n in (660, 720, 840, *range(600, 3000, 150), *range(3000, 7500, 600))),
)
VALUES = tuple(dict.fromkeys(_VALUES))
"""Attribute values as data sets write them, to train the text encoder on."""


def draw_clips(captions: Captions, count: int, seed: int = 0) -> list[Clip]:
    """Draw the metadata of clips: any machine that has a phrase, up to three attributes.

    >>> from fsasd.data.captions import default_captions
    >>> len({default_captions()(clip) for clip in draw_clips(default_captions(), 50)}) > 40
    True
    """
    rng = np.random.default_rng(seed)
    machines, keys = sorted(captions.names), sorted(captions.attributes)
    drawn = []
    for _ in range(count):
        machine = str(rng.choice(machines))
        possible = sorted({*keys, *captions.phrases[machine]})
        chosen = rng.choice(possible, rng.integers(0, 4), replace=False)
        attributes = {str(key): str(rng.choice(VALUES)) for key in chosen}
        label = "normal" if rng.random() < 0.5 else "anomaly"
        drawn.append(Clip(Path(), machine, label=label, attributes=attributes))
    return drawn


def train_tokenizer(captions: Sequence[str], vocabulary: int = 1000) -> RobertaTokenizer:
    """Train CLAP's kind of tokenizer, byte-level BPE, on captions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    # vocab_file and merges_file would be ignored, in silence, by transformers 5.
    return RobertaTokenizer(
        vocab=tokenizer.get_vocab(), merges=merges, model_max_length=120, pad_token="<pad>"
    )


class CaptionReader(L.LightningModule):
    """Train the nano text encoder to keep the meaning of a caption in its embedding.

    From the embedding, linear heads predict the label, the machine and each attribute's value.
    A random encoder gives captions that differ in one word of twenty cosines of 0.998 and more, and
    no UNet learns to use the difference. Whitening its projection helps with captions of the
    training set, but hardly with new combinations of their words; an encoder whose embedding is a
    sum over them does (measured in docs/explanation/nano.md).

    Args:
        text_encoder: Trained in place.
        machines: Their number.
        keys: Number of attribute keys.
        learning_rate: Peak of the schedule.
        scale: Of the normalised embedding; the smaller, the farther apart the captions must be.
    """

    def __init__(
        self,
        text_encoder: ClapTextModelWithProjection,
        machines: int,
        keys: int,
        learning_rate: float = 4e-3,
        scale: float = 4.0,
    ) -> None:
        super().__init__()
        self.text_encoder = text_encoder.train()
        for module in self.text_encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        dim = text_encoder.config.projection_dim
        self.label = nn.Linear(dim, 2)
        self.machine = nn.Linear(dim, machines)
        # One head reads the values of all attributes.
        self.attribute = nn.Linear(dim, keys * 24)
        self.value = nn.Linear(24, len(VALUES) + 1)
        self.learning_rate = learning_rate
        self.scale = scale

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        ids, mask, labels, machines, values = batch
        embedding = self.text_encoder(input_ids=ids, attention_mask=mask).text_embeds
        scaled = self.scale * F.normalize(embedding, dim=-1)
        read = self.value(self.attribute(scaled).unflatten(1, (-1, 24)))
        # Of twenty attributes, most are not in a caption, which is easily learnt.
        weight = torch.ones(len(VALUES) + 1, device=self.device)
        weight[-1] = 0.1
        loss = (
            3 * F.cross_entropy(self.label(scaled), labels)
            + F.cross_entropy(self.machine(scaled), machines)
            + 3 * F.cross_entropy(read.flatten(0, 1), values.flatten(), weight=weight)
        )
        self.log("train/reading", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return _one_cycle(self, self.learning_rate)


def caption_dataset(
    clips: Sequence[Clip], captions: Captions, tokenizer: RobertaTokenizer
) -> tuple[TensorDataset, int, int]:
    """Return captions as tokens, their metadata as indices; how many machines and keys there are.

    The tensors are token ids and their mask, label, machine, and (keys,) values, of which the last
    index stands for an absent attribute.
    """
    machines = sorted({clip.machine for clip in clips})
    keys = sorted({key for clip in clips for key in clip.attributes})
    values = torch.full((len(clips), len(keys)), len(VALUES))
    for i, clip in enumerate(clips):
        for key, value in clip.attributes.items():
            values[i, keys.index(key)] = VALUES.index(value)
    tokens = tokenizer([captions(clip) for clip in clips], padding=True, return_tensors="pt")
    dataset = TensorDataset(
        tokens.input_ids,
        tokens.attention_mask,
        torch.tensor([clip.label == "anomaly" for clip in clips]).long(),
        torch.tensor([machines.index(clip.machine) for clip in clips]),
        values,
    )
    return dataset, len(machines), len(keys)


class MelVAE(L.LightningModule):
    """Train the nano VAE to reconstruct log-mels.

    The loss is the absolute error plus a KL term small enough (1e-4) to keep detail; afterwards
    ``finish`` sets the scaling factor that gives latents unit variance.
    """

    def __init__(self, vae: AutoencoderKL, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(True).train()
        self.learning_rate = learning_rate

    def training_step(self, mel: torch.Tensor, batch_idx: int) -> torch.Tensor:
        posterior = self.vae.encode(mel).latent_dist
        error = F.l1_loss(self.vae.decode(posterior.sample()).sample, mel)
        loss = error + 1e-4 * posterior.kl().sum() / mel.numel()
        self.log("train/mel_error", error, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return _one_cycle(self, self.learning_rate)

    @torch.no_grad()
    def finish(self, mels: torch.Tensor) -> None:
        """Freeze the VAE and set its scaling factor from the mels (batch, 1, frames, 64)."""
        self.vae.requires_grad_(False).eval()
        latents = self.vae.encode(mels).latent_dist.mean
        self.vae.register_to_config(scaling_factor=float(1 / latents.std()))


class MelCrops(Dataset[torch.Tensor]):
    """Random crops (1, frames, 64) of the clips' AudioLDM log-mels."""

    def __init__(self, clips: Clips, frames: int = 128) -> None:
        self.mels = [torch.from_numpy(normalised_mel(clips.cache.read(clip))) for clip in clips]
        self.frames = frames

    def __len__(self) -> int:
        return len(self.mels)

    def __getitem__(self, index: int) -> torch.Tensor:
        mel = self.mels[index]
        repeats = -(-self.frames // len(mel))
        mel = mel.repeat(repeats, 1)
        start = int(torch.randint(len(mel) - self.frames + 1, ()))
        return mel[None, start : start + self.frames]


def pretrain_components(
    captions: Captions,
    clips: Clips,
    text_steps: int,
    vae_steps: int,
    trainer_options: dict[str, Any],
) -> Components:
    """Pre-train all components of the nano model but the UNet, which stays random.

    Args:
        captions: Their phrases are what tokenizer and text encoder are trained on.
        clips: What the VAE is trained to reconstruct.
        text_steps: Of the text encoder's training, 128 captions each.
        vae_steps: Of the VAE's training, 16 crops each.
        trainer_options: For the Lightning Trainer.
    """
    corpus = draw_clips(captions, 6000)
    tokenizer = train_tokenizer([captions(clip) for clip in corpus])
    text_encoder = checkpoints.build_nano_text_encoder(len(tokenizer))
    dataset, machines, keys = caption_dataset(corpus, captions, tokenizer)
    reader = CaptionReader(text_encoder, machines, keys)
    train(reader, dataset, 128, text_steps, trainer_options)

    sizes = checkpoints.SIZES["nano"]
    vae = checkpoints.build_vae(sizes)
    crops = MelCrops(clips)
    mels = torch.stack([crops[i] for i in range(min(len(crops), 256))])
    with torch.no_grad():
        # Started at the mean, the decoder need not learn the level first.
        vae.decoder.conv_out.bias.fill_(mels.mean())
    module = MelVAE(vae)
    train(module, crops, 16, vae_steps, trainer_options)
    module.finish(mels)
    return Components(
        unet=checkpoints.build_unet(sizes),
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        vocoder=GriffinLim().eval(),
        scheduler=checkpoints.build_scheduler("v_prediction"),
    )


def train(
    module: L.LightningModule, dataset: Dataset, batch: int, steps: int, options: dict[str, Any]
) -> None:
    """Train a module for so many steps on batches drawn with replacement."""
    draws = RandomSampler(dataset, replacement=True, num_samples=steps * batch)  # type: ignore[arg-type]
    trainer = L.Trainer(**options, max_steps=steps, enable_model_summary=False)
    fit(trainer, module, DataLoader(dataset, batch, sampler=draws), None)


def _one_cycle(module: L.LightningModule, learning_rate: float) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(module.parameters(), learning_rate)
    steps = int(module.trainer.estimated_stepping_batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
