"""Trains detectors' networks with so many processes; run by test_shares.py."""

import json
import sys
from pathlib import Path

import torch
from safetensors.numpy import save_file
from torch import nn

from fsasd.data.clips import Clips
from fsasd.data.metadata import read_clips
from fsasd.detectors.clp_scf import Contrast
from fsasd.detectors.cmae import CMAE
from fsasd.detectors.embedding import Classifier, Recordings, train
from fsasd.detectors.fkie import FKIE
from fsasd.detectors.heads import ArcFace, SubClusterAdaCos
from fsasd.detectors.pretrained import Pretrained

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


class Small(nn.Module):
    """Waveforms -> embeddings, each example by itself: there is no batch normalisation."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, waveforms):
        return self.layers(waveforms.unflatten(1, (-1, 64)).square().mean(dim=1).log1p())


class ByDescent(Contrast):
    """Adam would make steps of what rounding leaves of gradients that are nothing."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def classifiers(n_classes, encoder):
    torch.manual_seed(0)
    options = {"learning_rate": 1e-2}
    masked = {"mask_bins": 16, "mask_frames": 20, "rank": 2, "learning_rate": 1e-3}
    return {
        "arcface": Classifier(Small(), ArcFace(8, n_classes), mixup=0.5, **options),
        "adacos": Classifier(Small(), SubClusterAdaCos(8, n_classes, 4), mixup=1.0, **options),
        "contrast": ByDescent(
            Small(), ArcFace(8, n_classes), 1, temperature=0.1, mixup=0.5, **options
        ),
        "pretrained": Pretrained(encoder, dim=8, seconds=0.4, **masked).classifier(0, n_classes),
        "normalised": FKIE(dim=8, channels=2, clusters=2, seconds=0.4).classifier(0, n_classes),
    }


def main(root: Path, folder: Path, encoder: str, devices: int) -> None:
    """Train each for two epochs of batches of 8; leave weights, and what each step was given."""
    torch.set_num_threads(1)
    trainer = {**QUIET, "devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
    clips = Clips(read_clips(root)).where(split="train")[:21]
    examples = Recordings(clips, "machine+section+attributes", 0.4)
    for name, classifier in classifiers(len(examples.classes), encoder).items():
        given = []
        classifier.network.register_forward_pre_hook(
            lambda module, args, given=given: given.append(args[0].double().sum(dim=1).tolist())
        )
        classifier.set_examples(examples, batch_size=8, seed=3)
        train(classifier, folder / name, 2, trainer)
        rank = classifier.trainer.global_rank
        (folder / f"{name}-{rank}.json").write_text(json.dumps(given))
        if rank == 0:
            save_file(classifier.weights(), folder / f"{name}.safetensors")
    cmae = CMAE(frames=32, dim=16, depth=2, heads=2, epochs=1, class_epochs=1, batch_size=8)
    cmae.prepare(clips, folder / "cmae", trainer)
    if rank == 0:
        (network,) = (folder / "cmae" / "shared").glob("*.safetensors")
        network.rename(folder / "cmae" / "network.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
