"""Classification heads and their losses: softmax, ArcFace, sub-cluster AdaCos.

A head maps embeddings (batch, dim) to class logits and to losses. Targets are (batch, classes) with
rows that sum to one: one-hot, or mixed (see ``augment.mixup``).
"""

from __future__ import annotations

import abc
import math

import torch
from torch import nn
from torch.nn import functional as F

from fsasd.detectors.networks.shares import gathered


class Head(nn.Module, abc.ABC):
    """Logits of classes, and the cross-entropy that trains them."""

    @abc.abstractmethod
    def logits(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return (batch, classes) logits.

        Args:
            embeddings: (batch, dim).
            targets: (batch, classes) or (classes,), positive for the classes of an example; heads
                with a margin apply it to these.
        """

    def forward(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the (batch,) cross-entropies of (batch, classes) targets."""
        return -(targets * self.logits(embeddings, targets).log_softmax(dim=1)).sum(dim=1)

    def surprisal(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return (batch,) -log of the total probability of the classes in ``targets``."""
        log_p = self.logits(embeddings, targets).log_softmax(dim=1)
        return -log_p.masked_fill(targets <= 0, -torch.inf).logsumexp(dim=1)


class Softmax(Head):
    """A linear layer.

    >>> head = Softmax(4, 3)
    >>> head(torch.ones(2, 4), torch.eye(3)[:2]).shape
    torch.Size([2])
    """

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, n_classes)

    def logits(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return W x + b, whatever the targets."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.linear(embeddings.to(self.linear.weight.dtype))


class ArcFace(Head):
    """Cosine similarities to learned class centres, with an angular margin for the target class.

    Deng et al., "ArcFace: Additive angular margin loss for deep face recognition" (CVPR 2019),
    equation 3: the logit of the target class is s cos(theta + m), of the others s cos(theta).
    Beyond theta = pi - m, where cos(theta + m) would rise again, it is cos(theta) - m sin(m), as in
    the authors' code. Of several centres per class the nearest counts ("Sub-center ArcFace",
    ECCV 2020). For mixed examples the margin applies to both classes.

    Args:
        dim: Of the embeddings.
        n_classes: Classes.
        margin: m, radians.
        scale: s.
        centres: Per class.

    >>> head = ArcFace(2, 2, margin=0.0, scale=1.0)
    >>> head.centres.data = torch.eye(2).reshape(2, 1, 2)
    >>> head.logits(torch.tensor([[3.0, 0.0]]), torch.tensor([1.0, 0.0])).tolist()
    [[1.0, 0.0]]
    """

    def __init__(
        self,
        dim: int,
        n_classes: int,
        margin: float = 0.5,
        scale: float = 30.0,
        centres: int = 1,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.scale = scale
        self.centres = nn.Parameter(torch.empty(n_classes, centres, dim))
        nn.init.xavier_uniform_(self.centres.data.view(-1, dim))

    def logits(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scaled cosines, with the margin for the target classes."""
        cosines = _cosines(embeddings, self.centres).amax(dim=2)
        squares = 1 - cosines.square()
        # The gradient of the root is infinite at 0: clamped to the smallest positive number, whose
        # root is negligible, it is 0.
        sines = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
        narrowed = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        beyond = cosines - self.margin * math.sin(self.margin)
        narrowed = torch.where(cosines > -math.cos(self.margin), narrowed, beyond)
        return self.scale * torch.where(targets > 0, narrowed, cosines)


class SubClusterAdaCos(Head):
    """Cosine similarities to several centres per class, with a scale that adapts to the batch.

    Wilkinghoff, "Sub-cluster AdaCos: Learning representations for anomalous sound detection"
    (IJCNN 2021) and github.com/wilkinghoff/DCASE2023_task2; AdaCos is Zhang et al. (CVPR 2019). A
    class's probability is the sum of those of its sub-clusters, under a softmax over all of them.
    The scale starts at sqrt(2) log(C S - 1), and each training step sets it to

        s <- log(B) / cos(min(pi/4, median theta)),  B = mean over examples of sum exp(s cos theta),

    where the sum runs over all sub-clusters of all classes (AdaCos omits the target class; the
    published code of sub-cluster AdaCos does not) and theta is an example's angle to its class.

    Deviations: theta is the mean over the class's sub-clusters, weighted by the targets; the
    original's sum over them always exceeds pi/4. With 16 random frozen centres in 256 dimensions
    so does the mean, and both use cos(pi/4).

    Args:
        dim: Of the embeddings.
        n_classes: C.
        clusters: S, centres per class.
        frozen: Keep the centres at their random initialisation, which prevents embeddings from
            collapsing onto few directions.
    """

    scale: torch.Tensor
    centres: torch.Tensor

    def __init__(self, dim: int, n_classes: int, clusters: int = 16, frozen: bool = True) -> None:
        super().__init__()
        centres = torch.empty(n_classes, clusters, dim)
        nn.init.xavier_uniform_(centres.view(-1, dim))
        if frozen:
            self.register_buffer("centres", centres)
        else:
            self.centres = nn.Parameter(centres)
        # With a single class of one cluster the formula is undefined; nothing is trained there.
        start = math.sqrt(2) * math.log(max(n_classes * clusters - 1, 2))
        self.register_buffer("scale", torch.tensor(start))

    def logits(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return logits whose softmax sums sub-clusters, whatever the targets."""
        return (self.scale * _cosines(embeddings, self.centres)).logsumexp(dim=2)

    def forward(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the (batch,) cross-entropies; in training, adapt the scale first."""
        if self.training:
            self._adapt(embeddings.detach(), targets)
        return super().forward(embeddings, targets)

    @torch.no_grad()
    def _adapt(self, embeddings: torch.Tensor, targets: torch.Tensor) -> None:
        cosines = _cosines(embeddings, self.centres)
        # Over the batch of all processes.
        log_sums = gathered((self.scale * cosines).flatten(1).logsumexp(dim=1))
        log_mean = log_sums.logsumexp(dim=0) - math.log(len(log_sums))
        angles = gathered((targets * cosines.clamp(-1, 1).acos().mean(dim=2)).sum(dim=1))
        median = angles.quantile(0.5).clamp(max=math.pi / 4)
        self.scale.copy_(log_mean / median.cos())


def supervised_contrastive(
    embeddings: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the supervised contrastive loss.

    Khosla et al., "Supervised contrastive learning" (NeurIPS 2020), equation 2; examples without
    another of their class in the batch are no anchors.

    Args:
        embeddings: (batch, dim).
        targets: (batch, classes), one-hot.
        temperature: tau.

    >>> pairs, classes = torch.eye(2).repeat(2, 1), torch.eye(2).repeat(2, 1)
    >>> round(supervised_contrastive(pairs, classes, temperature=0.1).item(), 4)
    0.0001
    """
    unit = F.normalize(_precise(embeddings), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    with torch.autocast(unit.device.type, enabled=False):
        similar = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_p = (similar - similar.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
    positive = ((targets @ targets.T) > 0) & ~itself
    counts = positive.sum(dim=1)
    per_anchor = -(log_p * positive).sum(dim=1) / counts.clamp(min=1)
    return per_anchor.sum() / (counts > 0).sum().clamp(min=1)


def _cosines(embeddings: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    # (batch, classes, centres per class). At a scale of 30, the rounding of half precision is a
    # tenth of a nat.
    centres = F.normalize(_precise(centres), dim=2)
    unit = F.normalize(embeddings.to(centres.dtype), dim=1)
    with torch.autocast(unit.device.type, enabled=False):
        return torch.einsum("bd,csd->bcs", unit, centres)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    """Return float64 unchanged, other types as float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
