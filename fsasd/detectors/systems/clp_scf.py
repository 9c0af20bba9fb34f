"""CLP-SCF: contrastive pre-training by machine, then a classifier of machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fsasd.detectors.networks.classifier import Classifier, Training, TwoStage
from fsasd.detectors.networks.heads import supervised_contrastive
from fsasd.detectors.networks.shares import gathered
from fsasd.detectors.systems.stgram_mfn import STgramMFN


class Contrast(TwoStage):
    """A classifier that is trained with a contrastive loss first.

    Args:
        parts: See ``TwoStage``.
        temperature: Of the contrastive loss.
    """

    def __init__(self, *parts: Any, temperature: float) -> None:
        super().__init__(*parts)
        self.temperature = temperature

    def first_loss(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the supervised contrastive loss of the batch of all processes."""
        return supervised_contrastive(gathered(embeddings), gathered(targets), self.temperature)


@dataclass(eq=False, repr=False)
class CLPSCF(STgramMFN):
    """Contrastive learning pre-training and a self-supervised classifier's fine-tuning.

    Guan et al., "Anomalous sound detection using audio representation with machine ID based
    contrastive learning pretraining" (ICASSP 2023, arXiv 2304.03588): positives are clips of the
    same machine ID, not augmented copies of a clip. The score is -log p of the machine's class.

    Deviations: only abstract and introduction were available. The network is the group's
    STgram-MFN, the loss that of Khosla et al.; temperature, rates and epochs are inferred.

    Args:
        first_epochs: Of the epochs, those of contrastive pre-training.
        temperature: Of the contrastive loss.
        training: The learning rate falls to a tenth; see ``classifier.Training``. The other
            arguments are those of ``STgramMFN``.
    """

    first_epochs: int = 100
    temperature: float = 0.05
    training: Training = Training(
        classes="machine+section", epochs=300, batch_size=128, learning_rate=5e-4, final_rate=0.1
    )

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the network, trained in two stages."""
        components = self.components(n_classes)
        return Contrast(*components, self.first_epochs, temperature=self.temperature)
