"""Data augmentation of training batches: mixup, SpecAugment, statistics and feature exchange.

Each function maps a batch of examples (batch, ...) and targets (batch, classes) to an augmented
batch. Random numbers come from PyTorch's state and are the same in any number of processes
(``shares``). An example's partner is the one at the mirrored place of the shuffled batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from fsasd.detectors.networks.shares import rand, randint, ranks, rows_of_rank


def mixup(
    examples: torch.Tensor, targets: torch.Tensor, probability: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix examples, each with some probability, with their partners, and the targets alike.

    Zhang et al., "mixup: Beyond empirical risk minimization" (ICLR 2018), with alpha = 1: the share
    is uniform on [0, 1].

    >>> x, y = mixup(torch.eye(2), torch.eye(2), probability=1.0)
    >>> bool((x == y).all()), y.sum(dim=1)
    (True, tensor([1., 1.]))
    """
    share = rand(len(examples)).to(examples.device)
    share = torch.where(_chosen(examples, probability), share, torch.ones_like(share))
    return _blend(examples, share), _blend(targets, share)


def spec_augment(
    spectrograms: torch.Tensor, mels: int, frames: int, probability: float = 1.0
) -> torch.Tensor:
    """Mask a band of up to ``mels`` bins and a stretch of up to ``frames`` with the mean.

    Park et al., "SpecAugment" (Interspeech 2019), one mask of each kind per example.

    Args:
        spectrograms: (batch, bins, frames).
        mels: Widest band.
        frames: Longest stretch.
        probability: Of an example to be masked.

    >>> masked = spec_augment(torch.rand(4, 8, 10), mels=0, frames=0)
    >>> masked.shape
    torch.Size([4, 8, 10])
    """
    fill = spectrograms.mean(dim=(1, 2), keepdim=True)
    masked = spectrograms
    for axis, widest in ((1, mels), (2, frames)):
        hidden = _stretch(masked, axis, widest) & _chosen(masked, probability)[:, None]
        masked = torch.where(hidden.unsqueeze(3 - axis), fill, masked)
    return masked


def exchange_statistics(
    spectrograms: torch.Tensor, targets: torch.Tensor, probability: float, axis: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give an example, with some probability, the partner's mean and deviation along an axis.

    Statistics exchange simulates anomalies from normal sounds: Chen et al., "An effective anomalous
    sound detection method based on representation learning with simulated anomalies" (ICASSP 2023).
    The targets are Wilkinghoff's, "Self-supervised learning for anomalous sound detection" (ICASSP
    2024, github.com/wilkinghoff/ssl4asd): N classes become 3 N, those of unchanged examples, and,
    with half the weight each, of the example whose statistics were replaced and of the partner.

    Args:
        spectrograms: (batch, bins, frames).
        targets: (batch, classes).
        probability: Of an example to be changed.
        axis: Over which statistics are taken: 2, the frames of each bin, or 1, the bins of each
            frame.

    Returns:
        Spectrograms, and (batch, 3 * classes) targets.

    >>> x = torch.arange(16.0).reshape(2, 2, 4)
    >>> changed, targets = exchange_statistics(x, torch.eye(2), probability=1.0)
    >>> torch.allclose(changed.mean(dim=2), x.flip(0).mean(dim=2)), targets[0].tolist()
    (True, [0.0, 0.0, 0.5, 0.0, 0.0, 0.5])
    """
    mean = spectrograms.mean(dim=axis, keepdim=True)
    deviation = spectrograms.std(dim=axis, keepdim=True, correction=0)
    exchanged = (spectrograms - mean) / (deviation + 1e-8) * deviation.flip(0) + mean.flip(0)
    chosen = _chosen(spectrograms, probability)
    return (
        torch.where(chosen[:, None, None], exchanged, spectrograms),
        _tripled(targets, chosen),
    )


def exchange_features(
    first: torch.Tensor, targets: torch.Tensor, probability: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace the embeddings of one of two branches, with some probability, by the partner's.

    Feature exchange (FeatEx), Wilkinghoff, "Self-supervised learning for anomalous sound detection"
    (ICASSP 2024): the other branch's embeddings stay, and the network learns to detect the
    mismatch.

    Args:
        first: (batch, dim) embeddings of the branch whose embeddings are exchanged.
        targets: (batch, classes).
        probability: Of an example to be changed.

    Returns:
        Embeddings, and (batch, 3 * classes) targets as in ``exchange_statistics``.

    >>> changed, targets = exchange_features(torch.eye(2), torch.eye(2), probability=1.0)
    >>> changed.tolist(), targets[1].tolist()
    ([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0, 0.0, 0.5, 0.5, 0.0])
    """
    chosen = _chosen(first, probability)
    return torch.where(chosen[:, None], first.flip(0), first), _tripled(targets, chosen)


def mix_statistics(maps: torch.Tensor, probability: float, alpha: float = 0.1) -> torch.Tensor:
    """Move each channel's mean and deviation, with some probability, towards the partner's.

    Domains differ in such statistics, and a mixture simulates an unseen domain: Zhou et al.,
    "Domain generalization with MixStyle" (ICLR 2021).

    Args:
        maps: (batch, channels, bins, frames).
        probability: Of an example to be changed.
        alpha: The partner's share is drawn from Beta(alpha, alpha).

    >>> mix_statistics(torch.rand(2, 3, 4, 5), probability=1.0).shape
    torch.Size([2, 3, 4, 5])
    """
    mean = maps.mean(dim=(2, 3), keepdim=True).detach()
    deviation = (maps.var(dim=(2, 3), keepdim=True, correction=0) + 1e-6).sqrt().detach()
    drawn = torch.distributions.Beta(alpha, alpha).sample((len(maps) * ranks(),))
    share = rows_of_rank(drawn).to(maps.device)
    share = torch.where(_chosen(maps, probability), share, torch.ones_like(share))
    mixed = (_blend(values, share) for values in (deviation, mean))
    return (maps - mean) / deviation * next(mixed) + next(mixed)


def transform(waveforms: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Apply to each waveform the transform of ``TRANSFORMS`` with the number in ``kinds``.

    >>> same = transform(torch.ones(2, 8), torch.tensor([0, 0]))
    >>> bool((same == 1).all())
    True
    """
    changed = waveforms.clone()
    seeds = randint(2**62, len(waveforms))
    for number, change in enumerate(TRANSFORMS.values()):
        asked = kinds == number
        if asked.any():
            changed[asked] = change(waveforms[asked], seeds[asked.cpu()])
    return changed


def _faster(waveforms: torch.Tensor, rate: float) -> torch.Tensor:
    # Played at another speed, which shifts the pitch as well; repeated where it ends too early.
    length = waveforms.shape[1]
    played = F.interpolate(waveforms[:, None], size=round(length / rate), mode="linear")[:, 0]
    return torch.cat([played] * (length // played.shape[1] + 1), dim=1)[:, :length]


def _noisy(waveforms: torch.Tensor, seeds: torch.Tensor, decibels: float) -> torch.Tensor:
    level = waveforms.std(dim=1, keepdim=True) * 10 ** (-decibels / 20)
    noise = torch.empty_like(waveforms)
    for row, seed in zip(noise, seeds.tolist(), strict=True):
        row.normal_(generator=torch.Generator(row.device).manual_seed(seed))
    return waveforms + level * noise


def _band(waveforms: torch.Tensor, low: float, high: float) -> torch.Tensor:
    # As shares of the Nyquist frequency.
    spectrum = torch.fft.rfft(waveforms)
    place = torch.linspace(0, 1, spectrum.shape[1], device=waveforms.device)
    return torch.fft.irfft(spectrum * ((place >= low) & (place <= high)), n=waveforms.shape[1])


TRANSFORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "none": lambda waveforms, seeds: waveforms,
    "faster": lambda waveforms, seeds: _faster(waveforms, 1.15),
    "slower": lambda waveforms, seeds: _faster(waveforms, 1 / 1.15),
    "backwards": lambda waveforms, seeds: waveforms.flip(1),
    "noisy": lambda waveforms, seeds: _noisy(waveforms, seeds, 5.0),
    "low-pass": lambda waveforms, seeds: _band(waveforms, 0.0, 0.3),
    "high-pass": lambda waveforms, seeds: _band(waveforms, 0.1, 1.0),
}
"""Transforms of waveforms, given their seeds; a network is trained to classify which was
applied."""


def _chosen(examples: torch.Tensor, probability: float) -> torch.Tensor:
    return rand(len(examples)).to(examples.device) < probability


def _blend(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    share = share.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values.flip(0)


def _tripled(targets: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    none = torch.zeros_like(targets)
    unchanged = torch.cat([targets, none, none], dim=1)
    exchanged = torch.cat([none, 0.5 * targets, 0.5 * targets.flip(0)], dim=1)
    return torch.where(changed[:, None], exchanged, unchanged)


def _stretch(values: torch.Tensor, axis: int, widest: int) -> torch.Tensor:
    # (batch, length): True inside a stretch of random width at a random place.
    batch, length = len(values), values.shape[axis]
    width = randint(min(widest, length) + 1, batch, 1)
    start = (rand(batch, 1) * (length - width + 1)).long()
    place = torch.arange(length)
    return ((place >= start) & (place < start + width)).to(values.device)
