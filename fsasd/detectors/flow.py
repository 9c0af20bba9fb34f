"""A normalising flow of a machine's frames, with other machines' sounds as outliers.

After Dohi et al., "Flow-based self-supervised density estimation for anomalous sound detection"
(ICASSP 2021), of which the abstract was available.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional as F

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.base import Detector, Params
from fsasd.detectors.networks.training import NetworkTraining, arrays, train, with_arrays
from fsasd.detectors.networks.windows import Windows, windows


class MaskedLinear(nn.Linear):
    """A linear layer with masked weights.

    Args:
        mask: (out, in), 0 where a weight is masked.
    """

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class AutoregressiveBlock(nn.Module):
    """An affine transform of each dimension by the dimensions before it (MADE).

    Germain et al., "MADE: Masked autoencoder for distribution estimation" (ICML 2015).

    Args:
        size: Dimensions.
        hidden: Units of the hidden layer.

    >>> u, log_det = AutoregressiveBlock(3, 8)(torch.zeros(5, 3))
    >>> u.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        place = torch.arange(size)
        reach = torch.arange(hidden) % max(size - 1, 1)
        self.inner = MaskedLinear(reach[:, None] >= place)
        self.shift = MaskedLinear(place[:, None] > reach)
        self.scale = MaskedLinear(place[:, None] > reach)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the transformed x, (n, size), and (n,) log-determinants."""
        hidden = F.relu(self.inner(x))
        # Scales are at most e^3, so that silence has finite scores.
        log_scale = 3 * torch.tanh(self.scale(hidden) / 3)
        return (x - self.shift(hidden)) * log_scale.exp(), log_scale.sum(dim=1)


class MaskedAutoregressiveFlow(nn.Module):
    """A sequence of MADEs, each with the order of the dimensions reversed.

    Papamakarios et al., "Masked autoregressive flow for density estimation" (NeurIPS 2017).

    Args:
        size: Dimensions.
        blocks: Number of MADEs.
        hidden: Units of the hidden layer of each.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, size: int, blocks: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AutoregressiveBlock(size, hidden) for _ in range(blocks))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n,) negative log densities of x, (n, size), in nats per dimension."""
        u = (x - self.mean) / self.spread
        log_det = -self.spread.log().sum()
        for block in self.blocks:
            u, change = block(u.flip(1))
            log_det = log_det + change
        squares = u.square().sum(dim=1)
        return (0.5 * squares - log_det) / u.shape[1] + 0.5 * math.log(2 * math.pi)


class FlowTraining(L.LightningModule):
    """Maximum likelihood of normal frames, and a classifier of other machines' frames.

    Args:
        flow: The flow.
        outliers: Windows of other machines; ``None`` for likelihood only.
        share: Weight of the classification loss.
        learning_rate: Of Adam.
    """

    def __init__(
        self,
        flow: MaskedAutoregressiveFlow,
        outliers: Windows | None,
        share: float,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.outliers = outliers
        self.share = share
        self.learning_rate = learning_rate
        self.border = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        normal = self.flow(batch.flatten(1))
        loss = normal.mean()
        if self.outliers is not None:
            drawn = torch.randint(len(self.outliers), (len(batch),)).tolist()
            others = self.flow(self.outliers.__getitems__(drawn).flatten(1).to(batch.device))
            # With log p as logit the loss is bounded, unlike log p of outliers.
            apart = (
                F.softplus(normal - self.border).mean() + F.softplus(self.border - others).mean()
            )
            loss = loss + self.share * apart
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.learning_rate)


class Flow(Detector):
    """Mean negative log-likelihood of a clip's frames under a masked autoregressive flow.

    Normal clips of other machines, if ``prepare`` was given some, are outliers in training: the
    negative log-likelihood is the logit of a classifier of outliers and the machine's clips.
    ``fit`` trains the flow, on one machine and in one process: settings of the trainer do not apply
    to it.

    Deviations: the paper's loss, its sizes and its Glow were not available. Its outliers are other
    machines of the same type; a first-shot task has none, and all other machines are outliers.

    Args:
        frames: Of a window.
        blocks: Of the flow.
        hidden: Units of a block.
        outliers: Weight of the classification of outliers; 0 for none.
        sampling_rate: At which recordings are read, in Hz; mel bands reach up to half of it.
        training: Settings of the training, of which a batch is of windows; by Adam.
    """

    trained_by_fit: ClassVar[bool] = True

    trains_network: ClassVar[bool] = True

    def __init__(
        self,
        frames: int = 2,
        blocks: int = 4,
        hidden: int = 256,
        outliers: float = 1.0,
        sampling_rate: int = SAMPLE_RATE,
        training: NetworkTraining = NetworkTraining(epochs=20),
    ) -> None:
        self.frames = frames
        self.blocks = blocks
        self.hidden = hidden
        self.outliers = outliers
        self.sampling_rate = sampling_rate
        self.training = training

    def network_spec(self) -> dict[str, Any]:
        """Return the class, if clips of other machines are used."""
        return (
            {"class": f"{type(self).__module__}.{type(self).__qualname__}"} if self.outliers else {}
        )

    def prepare(self, clips: Clips, folder: Path, trainer: Params | None = None) -> Self:
        """Store the clips of all machines as outliers; ``fit`` trains a flow for each machine."""
        self._prepared = clips[[clip.label != "anomaly" for clip in clips]]
        return self

    def fit(self, clips: Clips) -> Self:
        """Train the flow.

        Raises:
            TooFewClipsError: There are no clips.
        """
        examples = Windows(clips, self._front_end, self.frames)
        outliers = self._outliers(clips)
        with isolate_rng():
            torch.manual_seed(self.training.seed)
            flow = self._flow()
        # Of frames, so that the frames of a window are scaled alike.
        mean, spread = _moments(examples)
        flow.mean.copy_(mean.repeat(self.frames))
        flow.spread.copy_(spread.repeat(self.frames))
        rate = self.training.learning_rate
        train(FlowTraining(flow, outliers, self.outliers, rate), examples, self.training)
        self.flow_ = arrays(flow)
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the mean negative log-likelihoods, in nats per dimension."""
        check_is_fitted(self)
        flow = self._fitted_network()
        with torch.inference_mode():
            rows = (windows(x, self.frames).flatten(1) for x in clips.features(self._front_end))
            return np.array([float(flow(x).double().mean()) for x in rows])

    def n_parameters(self) -> int:
        """Return the number of weights of the flow."""
        check_is_fitted(self)
        return sum(parameter.numel() for parameter in self._fitted_network().parameters())

    @property
    def _front_end(self) -> LogMel:
        return LogMel.twfr(sampling_rate=self.sampling_rate)

    def _fitted_network(self) -> MaskedAutoregressiveFlow:
        return with_arrays(self._flow, self.flow_)

    def _flow(self) -> MaskedAutoregressiveFlow:
        return MaskedAutoregressiveFlow(
            self.frames * self._front_end.n_mels, self.blocks, self.hidden
        )

    def _outliers(self, clips: Clips) -> Windows | None:
        prepared: Clips | None = self._prepared
        if not self.outliers or prepared is None or not len(clips):
            return None
        others = prepared[[clip.machine != clips[0].machine for clip in prepared]]
        return Windows(others, self._front_end, self.frames) if len(others) else None


def _moments(examples: Windows) -> tuple[torch.Tensor, torch.Tensor]:
    frames = examples.__getitems__(range(len(examples)))[:, 0].double()
    return frames.mean(dim=0).float(), frames.std(dim=0, correction=0).clamp(min=1e-3).float()
