"""Pretrained encoders, fine-tuned to classify attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.encoders.trainable import TrainableEncoder
from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import ArcFace

TUNINGS = ("lora", "full")
_ATTENTION = r".*\.(q_proj|k_proj|v_proj|query|key|value|qkv)"


class FineTuned(Classifier):
    """A classifier whose saved weights are only the trained ones, of a pretrained encoder.

    Args:
        encoder: The pretrained encoder.
        dim: Of the embeddings, after a linear layer.
        n_classes: Number of classes.
        training: See ``Classifier``.
        tuning: ``lora`` (adapters of the attention) or ``full``.
        rank: Of the low-rank adaptation.
    """

    network: nn.Sequential

    def __init__(
        self,
        encoder: TrainableEncoder,
        dim: int,
        n_classes: int,
        training: Training,
        *,
        tuning: str,
        rank: int,
    ) -> None:
        encoder.requires_grad_(tuning == "full")
        if tuning == "lora":
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_ATTENTION)
            inject_adapter_in_model(config, encoder)
        size = _freeze_unused(encoder, round(training.seconds * SAMPLE_RATE))
        if not any(p.requires_grad for p in encoder.parameters()):
            raise ValueError(
                f"tuning={tuning} would train no weight of {encoder.source}: its attention does "
                "not call the layers that are adapted. Use tuning=full"
            )
        network = nn.Sequential(encoder, nn.Linear(size, dim))
        super().__init__(network, ArcFace(dim, n_classes), training)
        self.train()
        self._fixed = set() if tuning == "full" else _fixed(self)
        self._tuning = tuning

    def on_train_start(self) -> None:
        """Switch off the dropout of a frozen encoder."""
        if self._tuning != "full":
            self.network.get_submodule("0.model").eval()

    def weights(self) -> dict[str, np.ndarray]:
        """Return the trained arrays by name."""
        return {k: v for k, v in super().weights().items() if k not in self._fixed}


@dataclass(eq=False, repr=False)
class Pretrained(Discriminative):
    """A pretrained encoder, fine-tuned to classify attributes.

    With nearest neighbours it follows Lv_HUAKONG's successors: AnoPatch (arXiv
    2406.11364), and low-rank adaptation with SpecAugment (arXiv 2409.07016). With a Gaussian
    mixture it is the attribute classifier in Guan_HEU's ensemble.

    Deviations: those systems' encoder is mostly BEATs, whose checkpoint is not on the hub: by
    default it is AST, also a transformer of patches trained on AudioSet, and BEATs where
    ``encoder`` is its file. Attentive pooling is left out. A saved
    detector holds the adapters; the encoder's weights are read from ``encoder``.

    Args:
        encoder: A hub id, a folder or a file (see ``TrainableEncoder``).
        revision: Of the hub's repository: a commit, a tag or a branch; its main branch by default.
            A commit keeps what a saved detector reads.
        layer: Index of the hidden states that are pooled; -1 is the last.
        steps: Pooling of the states: ``mean``, ``max``, ``mean+std``, ``bands``.
        tuning: ``lora`` (the attention's projections) or ``full``.
        rank: Of the low-rank adaptation.
        dim: Of the embeddings.
        mask_bins: Largest number of bins that SpecAugment masks, of spectrograms.
        mask_frames: Largest number of frames that it masks.
        training: The learning rate falls to 0; see ``classifier.Training``.
    """

    # 2: masks in low-rank adaptation, too. 3: draws do not depend on the number of processes.
    version: ClassVar[int] = 3
    reads_weights: ClassVar[bool] = True

    encoder: str = "MIT/ast-finetuned-audioset-10-10-0.4593"
    revision: str | None = None
    layer: int = -1
    steps: str = "mean"
    tuning: str = "lora"
    rank: int = 16
    dim: int = 256
    mask_bins: int = 0
    mask_frames: int = 0
    training: Training = Training(epochs=20, batch_size=16, learning_rate=1e-4, final_rate=0.0)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the encoder with adapters or trainable weights, and ArcFace.

        Raises:
            ValueError: ``tuning`` is unknown or not possible for the encoder.
        """
        if self.tuning not in TUNINGS:
            raise ValueError(f"tuning '{self.tuning}': expected one of {', '.join(TUNINGS)}")
        masks = self.mask_bins, self.mask_frames
        seconds = self.training.seconds
        return FineTuned(
            TrainableEncoder(
                self.encoder, seconds, self.layer, self.steps, masks, revision=self.revision
            ),
            self.dim,
            n_classes,
            self.training,
            tuning=self.tuning,
            rank=self.rank,
        )


def _freeze_unused(encoder: TrainableEncoder, samples: int) -> int:
    # DDP would wait for gradients of the layers after the one that is pooled.
    embeddings = encoder.eval()(torch.zeros(1, samples))
    if embeddings.requires_grad:
        embeddings.sum().backward()
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return embeddings.shape[1]


def _fixed(classifier: Classifier) -> set[str]:
    trained = {name for name, p in classifier.named_parameters() if p.requires_grad}
    # The encoder's buffers do not change either.
    return {k for k in classifier.state_dict() if k.startswith("network.0.")} - trained
