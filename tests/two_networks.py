"""Trains detectors' networks with so many processes; run by test_shares.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.numpy import save_file
from torch import nn

from fsasd.data.clips import Clips
from fsasd.data.metadata import read_clips
from fsasd.detectors.cmae import CMAE
from fsasd.detectors.networks.classifier import Classifier, Recordings, Training, train
from fsasd.detectors.networks.heads import ArcFace, SubClusterAdaCos
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.systems.clp_scf import Contrast
from fsasd.detectors.systems.fkie import FKIE
from fsasd.detectors.systems.pretrained import Pretrained

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
    brief = {"seconds": 0.4, "epochs": 2, "batch_size": 8}
    half, all_mixed = (Training(**brief, learning_rate=1e-2, mixup=mixed) for mixed in (0.5, 1.0))
    masked = {"mask_bins": 16, "mask_frames": 20, "rank": 2}
    slow = Training(**brief, learning_rate=1e-3, final_rate=0.0)
    fkie = FKIE(dim=8, channels=2, clusters=2, training=replace(FKIE.training, **brief))
    return {
        "arcface": Classifier(Small(), ArcFace(8, n_classes), half),
        "adacos": Classifier(Small(), SubClusterAdaCos(8, n_classes, 4), all_mixed),
        "contrast": ByDescent(Small(), ArcFace(8, n_classes), half, 1, temperature=0.1),
        "pretrained": Pretrained(encoder, dim=8, **masked, training=slow).classifier(0, n_classes),
        "normalised": fkie.classifier(0, n_classes),
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
        classifier.set_examples(examples, seed=3)
        train(classifier, folder / name, trainer)
        rank = classifier.trainer.global_rank
        (folder / f"{name}-{rank}.json").write_text(json.dumps(given))
        if rank == 0:
            save_file(classifier.weights(), folder / f"{name}.safetensors")
    cmae = CMAE(
        frames=32, dim=16, depth=2, heads=2, class_epochs=1, training=NetworkTraining(1, 8, 5e-4)
    )
    cmae.prepare(clips, folder / "cmae", trainer)
    if rank == 0:
        (network,) = (folder / "cmae" / "shared").glob("*.safetensors")
        network.rename(folder / "cmae" / "network.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
