"""The nano AudioLDM, made from nothing: tokenizer, text encoder, VAE; the UNet follows by fitting.

It has the classes and the folder of the real model at 1/100 of its size, so that the whole method
runs, and is tested, on two CPU cores. ``fsasd experiment=pretrain_nano`` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import ClapTextModelWithProjection, RobertaTokenizer

from fsasd.data.audio import Clips
from fsasd.data.captions import Captions
from fsasd.data.metadata import Clip
from fsasd.generation import checkpoint as checkpoints
from fsasd.generation.checkpoint import Components
from fsasd.generation.latents import heard_mel
from fsasd.generation.vocoder import GriffinLim

VALUES = (
    *(str(n) for n in range(10)),
    *(f"{n:02d}" for n in range(0, 25, 4)),
    *(f"{letter}{n}" for letter in "ABCM" for n in (1, 2)),
    *"ABCDXYZ",
    *("28V", "31V", "1.5", "3.0", "0.03", "0.11", "150", "380"),
    *(str(n) for n in range(600, 3000, 150)),
)
"""Attribute values as data sets write them; text to learn to read, nothing else."""


def make_captions(captions: Captions, count: int = 4000, seed: int = 0) -> list[str]:
    """Draw captions of every machine that has a phrase, with attributes at random.

    >>> from fsasd.data.captions import default_captions
    >>> len(set(make_captions(default_captions(), 50))) > 40
    True
    """
    rng = np.random.default_rng(seed)
    machines, keys = sorted(captions.names), sorted(captions.attributes)
    drawn = []
    for _ in range(count):
        machine = str(rng.choice(machines))
        own = sorted({*keys, *captions.phrases[machine]})
        chosen = rng.choice(own, rng.integers(0, 4), replace=False)
        attributes = {str(key): str(rng.choice(VALUES)) for key in chosen}
        label = "normal" if rng.random() < 0.5 else "anomaly"
        drawn.append(captions(Clip(Path(), machine, label=label, attributes=attributes)))
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


@torch.no_grad()
def whiten(
    text_encoder: ClapTextModelWithProjection,
    tokenizer: RobertaTokenizer,
    captions: Sequence[str],
    floor: float = 1e-2,
) -> None:
    """Bake into the projection's last layer what makes embeddings of captions white.

    Captions differ in a few words of many: a random encoder gives them cosines of 0.998, and no
    UNet learns to listen to the rest. With mean m and covariance U diag(s) U' of the projections,
    W <- diag(s + floor * mean(s))^(-1/2) U' W and likewise for the bias, minus m. The checkpoint
    stays loadable everywhere.

    Args:
        text_encoder: Changed in place.
        tokenizer: Its tokenizer.
        captions: The captions to tell apart.
        floor: Keeps directions that hardly vary from being blown up.
    """
    projected = []
    for start in range(0, len(captions), 256):
        texts = list(captions[start : start + 256])
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        projected.append(text_encoder(**tokens).text_embeds)
    states = torch.cat(projected).double()
    variance, axes = torch.linalg.eigh(torch.cov(states.T))
    scale = (variance.clamp(min=0) + floor * variance.mean()).rsqrt()
    map_ = scale[:, None] * axes.T
    last = text_encoder.text_projection.linear2
    weight, bias = last.weight.double(), last.bias.double()
    last.weight.copy_(map_ @ weight)
    last.bias.copy_(map_ @ (bias - states.mean(0)))


class MelVAE(L.LightningModule):
    """Train the nano VAE to reconstruct log-mels.

    The loss is the absolute error plus a KL term small enough (1e-4) to keep detail; afterwards
    ``finish`` sets the scaling factor that gives latents unit variance.
    """

    def __init__(self, parts: Components, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.vae = parts.vae.requires_grad_(True).train()
        self.learning_rate = learning_rate

    def training_step(self, mel: torch.Tensor, batch_idx: int) -> torch.Tensor:
        posterior = self.vae.encode(mel).latent_dist
        error = F.l1_loss(self.vae.decode(posterior.sample()).sample, mel)
        loss = error + 1e-4 * posterior.kl().sum() / mel.numel()
        self.log("train/mel_error", error, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def finish(self, mels: torch.Tensor) -> None:
        """Freeze the VAE and set its scaling factor from the mels (batch, 1, frames, 64)."""
        self.vae.requires_grad_(False).eval()
        latents = self.vae.encode(mels).latent_dist.mean
        self.vae.register_to_config(scaling_factor=float(1 / latents.std()))


class MelCrops(Dataset[torch.Tensor]):
    """Random crops (1, frames, 64) of the clips' AudioLDM log-mels."""

    def __init__(self, clips: Clips, frames: int = 128) -> None:
        self.mels = [torch.from_numpy(heard_mel(clips.cache.read(clip))) for clip in clips]
        self.frames = frames

    def __len__(self) -> int:
        return len(self.mels)

    def __getitem__(self, index: int) -> torch.Tensor:
        mel = self.mels[index]
        repeats = -(-self.frames // len(mel))
        mel = mel.repeat(repeats, 1)
        start = int(torch.randint(len(mel) - self.frames + 1, ()))
        return mel[None, start : start + self.frames]


def pretrain_parts(
    captions: Captions, clips: Clips, steps: int, trainer_options: dict
) -> Components:
    """Make every part of the nano model but the UNet, which is left random.

    Args:
        captions: Gives the corpus that the tokenizer and the text encoder are made for.
        clips: What the VAE learns to reconstruct.
        steps: Of the VAE's training, 16 crops each.
        trainer_options: For the Lightning Trainer.
    """
    corpus = make_captions(captions)
    tokenizer = train_tokenizer(corpus)
    text_encoder = checkpoints.build_nano_text_encoder(len(tokenizer)).eval()
    whiten(text_encoder, tokenizer, corpus)
    sizes = checkpoints.SIZES["nano"]
    parts = Components(
        unet=checkpoints.build_unet(sizes),
        vae=checkpoints.build_vae(sizes),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        vocoder=GriffinLim(),
        scheduler=checkpoints.build_scheduler("v_prediction"),
    )
    crops = MelCrops(clips)
    mels = torch.stack([crops[i] for i in range(min(len(crops), 256))])
    with torch.no_grad():
        # Started at the mean, the decoder need not first learn how quiet sound is.
        parts.vae.decoder.conv_out.bias.fill_(mels.mean())
    module = MelVAE(parts)
    loader = DataLoader(crops, 16, sampler=torch.utils.data.RandomSampler(crops, True, steps * 16))
    L.Trainer(**trainer_options, max_steps=steps, enable_model_summary=False).fit(module, loader)
    module.finish(mels)
    return parts
