"""The front end that is left of a trained classifier: waveform -> embedding."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from fsasd.data.front_ends import FrontEnd
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.networks.classifier import PARTS, Classifier, fixed_length


class Embedding:
    """A front end: waveform -> (dim,) embedding by a trained classifier.

    Args:
        classifier: The trained classifier.
        classes: Names of its classes, in the order of the logits.
        settings: Settings that determine the embeddings beside the weights.

    Attributes:
        together: Embeddings of the same ensemble (see ``front_ends.compute_together``).
    """

    together: Sequence[FrontEnd] = ()

    def __init__(self, classifier: Classifier, classes: Sequence[str], settings: str = "") -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classifier = classifier.eval().requires_grad_(False)
        self.classes = list(classes)
        self.seconds = classifier.settings.seconds
        self._name = _digest(classifier, settings)
        self.classifier.to(self.device)
        # In single precision, probabilities close to 1 would all be equal.
        self._head = copy.deepcopy(classifier.head).double()

    def __repr__(self) -> str:
        return f"Embedding({self._name}, {self.seconds})"

    @property
    def max_seconds(self) -> float:
        """Clips are decoded up to here, and repeated where they are shorter."""
        return self.seconds

    @torch.inference_mode()
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (dim,) float32 of a (samples,) waveform."""
        samples = fixed_length(waveform, round(self.seconds * SAMPLE_RATE))
        batch = torch.from_numpy(samples).to(self.device, torch.float32)[None]
        return self.classifier(batch)[0].float().cpu().numpy()

    @torch.inference_mode()
    def surprisal(self, embeddings: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return (n,) -log p of some classes together, by the classifier's head.

        Args:
            embeddings: (n, dim).
            classes: (classes,) booleans.
        """
        points, mask = (
            torch.from_numpy(array).to(self.device, torch.float64)
            for array in (embeddings, classes)
        )
        return self._head.surprisal(points, mask).cpu().numpy()

    def n_parameters(self) -> int:
        """Return the number of parameters of the network, without the head."""
        return sum(p.numel() for p in self.classifier.network.parameters())


def _digest(classifier: Classifier, settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    digest.update(repr(classifier.network).encode())
    for name, tensor in sorted(classifier.state_dict().items()):
        if name.startswith(PARTS):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
