"""Fine-tunes and synthesises with so many processes; run by test_processes.py."""

import json
import sys
from pathlib import Path

import lightning as L
import torch

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.detection.callback import DetectorEvaluation
from fsasd.detectors.knn import KNN
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm2 import AudioLDM2
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.sharding import FullySharded
from fsasd.generation.pipelines.stable_audio3 import StableAudio3
from fsasd.generation.pipelines.stable_audio_open import StableAudioOpen
from fsasd.generation.prompts import make_prompts
from fsasd.generation.synthesis import synthesise
from fsasd.selection.selector import Selector

GLOBAL_BATCH = 8
STEPS = 4


class Curve(L.Callback):
    """The loss of every step, and metrics and weights at the end."""

    def __init__(self, folder):
        self.folder, self.losses, self.computed = folder, [], 0

    def on_train_batch_end(self, trainer, *_):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_fit_end(self, trainer, module):
        # Before the module's hook, which gathers what is divided.
        module.on_fit_end()
        if trainer.is_global_zero:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            (self.folder / "losses.json").write_text(json.dumps([self.losses, metrics]))
            weights = {name: p.detach() for name, p in module.network.named_parameters()}
            torch.save([weights, module.ema.shadow_params], self.folder / "weights.pt")


class Halt(L.Callback):
    """Saves a checkpoint and ends the run."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "half.ckpt")
            trainer.should_stop = True


def tuned(checkpoint="nano"):
    options = {"crop_seconds": 0.64, "learning_rate": 1e-3, "warmup_steps": 1}
    # Pipelines of the other families are in folders of their names (small_pipelines).
    families = {
        "audioldm2": AudioLDM2,
        "stable_audio3": StableAudio3,
        "stable_audio_open": StableAudioOpen,
    }
    if family := families.get(Path(checkpoint).name):
        return family(checkpoint, **options)
    return AudioLDM(**options, sampler=Sampler(steps=2))


class Judge(DetectorEvaluation):
    """Writes down which machines each process has evaluated."""

    def __init__(self, folder):
        selector = Selector({"k": [1, 2]}, abstain=False, max_gap=None)
        super().__init__(clips_per_label=4, max_seconds=0.64, detector=KNN(), selector=selector)
        self.folder = folder

    def _evaluate_share(self, generator, data, share=(0, 1)):
        results = super()._evaluate_share(generator, data, share)
        (self.folder / f"judged-{share[0]}").write_text(" ".join(machine for machine, _ in results))
        return results


def trainer(folder, devices, strategy, **options):
    return L.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy,
        max_steps=STEPS, max_epochs=-1, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        val_check_interval=STEPS, log_every_n_steps=1, logger=False,
        enable_progress_bar=False, gradient_clip_val=1.0,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder, **options,
    )  # fmt: skip


def fit(folder, devices, strategy, checkpoint, data, *callbacks, stop_at=None, **options):
    """Fine-tune into a folder; with ``stop_at``, in two trainings, of which one resumes the other.

    Where weights are sharded, the strategy is ``FullySharded``, one for each training.
    """
    folder.mkdir(exist_ok=True)
    curve, resumed = Curve(folder), {}

    def make(*more):
        chosen = strategy if isinstance(strategy, str) else strategy()
        return trainer(folder, devices, chosen, callbacks=[curve, *more], **options)

    if stop_at is not None:
        make(Halt(stop_at)).fit(tuned(checkpoint), data)
        resumed = {"ckpt_path": folder / "half.ckpt", "weights_only": True}
    make(*callbacks).fit(tuned(checkpoint), data, **resumed)


def main(root: Path, folder: Path, devices: int, checkpoint: str = "nano") -> None:
    # Both know how many threads an idle machine of two cores would give them.
    torch.set_num_threads(2 // devices)
    data = FirstShotDataModule(
        read_clips(root),
        batch_size=GLOBAL_BATCH,
        val_share=0.2,
        cache=folder / "features",
    )
    strategy = "ddp" if devices > 1 else "auto"
    nano = checkpoint == "nano"
    if not (folder / "synthetic").exists():
        judge = [Judge(folder)] if nano else []
        fit(folder / "whole", devices, strategy, checkpoint, data, *judge)
        if devices > 1:
            fit(folder / "resumed", devices, strategy, checkpoint, data, stop_at=2)
            fit(folder / "sharded", devices, FullySharded, checkpoint, data, stop_at=2)
            fit(folder / "bf16", devices, strategy, checkpoint, data, precision="bf16-mixed")
    if not nano:
        return
    model = AudioLDM(sampler=Sampler(steps=2))
    normal = data.captioned.where(machine="bearing", label="normal")
    prompts = make_prompts(normal, [data.captions(clip) for clip in normal], 6)
    prompts = [p._replace(seconds=0.5 + 0.25 * (i % 3 == 0)) for i, p in enumerate(prompts)]
    out = folder / "synthetic"
    synthesise(model, prompts, out, trainer(folder, devices, strategy), batch_size=3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
