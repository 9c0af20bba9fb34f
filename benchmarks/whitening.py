"""What whitening the captions does: how close they are, and what a UNet learns of them.

python -m benchmarks.whitening                # about 8 minutes on one core
python -m benchmarks.whitening --steps 2      # that it runs at all

The UNet is the nano model's; its text encoder is the shipped one, or one with random weights, to
which all captions sound alike. Each is fine-tuned on the same clips of a simulated factory, with
and without ``whiten_captions``. Then each held-out clip is denoised with its own caption, with that
of the other label and with those of other machines: how often is its own the best?
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import lightning as L
import torch
from transformers import ClapTextConfig, ClapTextModelWithProjection

from fsasd.data.captions import anomalous, default_captions
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.draws import Draw
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import write_factory
from fsasd.generation.audioldm import AudioLDM, checkpoint, clap
from fsasd.generation.audioldm.nano import draw_clips
from fsasd.generation.diffusion.latents import Example, LatentExamples
from fsasd.generation.diffusion.validation_loss import fixed_noise

TIMESTEPS = torch.arange(150, 1000, 50)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    print(closeness_of_s())
    print("| text encoder | whitened | closest captions | own before other label's | "
          "own before other machines' |\n|---|---|---|---|---|")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = write_factory(
            folder / "data", references=("fan", "gearbox", "valve"), targets=("pump",),
            seconds=1.0, train_clips=40, target_domain_clips=10, test_clips=20,
        )  # fmt: skip
        starts = {"shipped": "nano", "random": str(with_random_encoder(folder / "random"))}
        for encoder, start in starts.items():
            for whiten in (False, True):
                told = learnt(root, start, whiten, steps)
                print(f"| {encoder} | {'yes' if whiten else 'no'} | {told}", flush=True)


def closeness_of_s() -> str:
    """Say how close captions are to the text encoder of S, M and L with random weights."""
    torch.manual_seed(0)
    tokenizer = checkpoint.load("nano").tokenizer
    encoder = ClapTextModelWithProjection(ClapTextConfig()).eval()
    texts = sorted({default_captions()(clip) for clip in draw_clips(default_captions(), 200)})
    before = clap.closeness(texts, clap.embed_captions(encoder, tokenizer, texts))
    clap.whiten(encoder, tokenizer, texts)
    after = clap.closeness(texts, clap.embed_captions(encoder, tokenizer, texts))
    return (
        f"S, M and L, random weights: cosine of the closest of {len(texts)} captions "
        f"{before.closest:.4f} -> {after.closest:.4f}; pairs above {clap.TOO_CLOSE}: "
        f"{before.too_close} -> {after.too_close}"
    )


def with_random_encoder(folder: Path) -> Path:
    """Write the nano model with a text encoder that has learnt nothing."""
    torch.manual_seed(0)
    parts = checkpoint.load("nano")
    parts.text_encoder = checkpoint.build_nano_text_encoder(len(parts.tokenizer)).eval()
    checkpoint.save(parts, folder)
    return folder


def learnt(root: Path, start: str, whiten: bool, steps: int) -> str:
    """Fine-tune, and return the rest of the row."""
    L.seed_everything(0, verbose=False)
    model = AudioLDM(
        start, crop_seconds=0.64, learning_rate=1e-3, warmup_steps=20, whiten_captions=whiten
    )
    data = FirstShotDataModule(read_clips(root), batch_size=16, val_share=0.25)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, limit_val_batches=0,
        gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root.parent,
    )  # fmt: skip
    trainer.fit(model, data)
    texts = sorted({data.captions(clip) for clip in data.captioned})
    closest = clap.closeness(texts, model.embed(texts)).closest
    with model.averaged_weights():
        other_label, other_machine = own_is_best(model.eval(), data)
    return f"{closest:.3f} | {other_label:.0%} | {other_machine:.0%} |"


@torch.no_grad()
def own_is_best(model: AudioLDM, data: FirstShotDataModule) -> tuple[float, float]:
    """Return in how many of the held-out clips the own caption denoises best.

    Returns:
        Of clips of reference machines, compared with the caption of the other label (chance: a
        half); of all, compared with a caption of each other machine (chance: 1 / machines).
    """
    clips = data.val_clips
    own = [data.captions(clip) for clip in clips]
    machines = sorted({clip.machine for clip in clips})
    said = {clip.machine: text for clip, text in zip(clips, own, strict=True)}
    labels, others = [], []
    for i, (clip, text) in enumerate(zip(clips, own, strict=True)):
        example = data.val_set[Draw(i, i)]
        switched = (
            anomalous(text) if clip.label == "normal" else text.replace("anomaly", "normal", 1)
        )
        foreign = [said[machine] for machine in machines if machine != clip.machine]
        losses = [denoise(model, example, caption) for caption in (text, switched, *foreign)]
        if clip.role == "reference":
            labels.append(losses[0] < losses[1])
        others.append(losses[0] < min(losses[2:]))
    return sum(labels) / len(labels), sum(others) / len(others)


def denoise(model: AudioLDM, example: Example, caption: str) -> float:
    """Return the mean loss of an example over all levels of noise, always the same noise."""
    n = len(TIMESTEPS)
    batch = LatentExamples.collate([example] * n)
    noise = fixed_noise(range(n), model._latent_shape(batch))
    embeddings = model.embed([caption]).expand(n, -1)
    return float(model.loss(batch, TIMESTEPS, noise, condition=embeddings).mean())


if __name__ == "__main__":
    main()
