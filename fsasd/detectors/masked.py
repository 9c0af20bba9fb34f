"""A masked autoencoder of spectrograms: what is hidden is guessed from what is seen.

He et al., "Masked autoencoders are scalable vision learners" (CVPR 2022), on log-mels as images.
"""

from __future__ import annotations

import torch
from torch import nn

from fsasd.detectors.shares import rand


class MaskedAutoencoder(nn.Module):
    """Transformers that encode the patches that are seen and guess those that are hidden.

    Args:
        bands: Of the spectrogram; a multiple of ``patch``.
        frames: Of the spectrogram; a multiple of ``patch``.
        patch: Bands and frames of a patch.
        dim: Of the encoder.
        depth: Blocks of the encoder; the decoder has half of its size and of its depth.
        heads: Of each block's attention.

    Raises:
        ValueError: Patches do not fill the spectrogram.

    >>> network = MaskedAutoencoder(32, 48, patch=16, dim=8, depth=2, heads=2)
    >>> seen = torch.tensor([[0, 4]])
    >>> states, guessed = network(torch.zeros(1, 32, 48), seen)
    >>> states.shape, guessed.shape
    (torch.Size([1, 2, 8]), torch.Size([1, 6, 256]))
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self, bands: int, frames: int, *, patch: int, dim: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        if bands % patch or frames % patch:
            raise ValueError(f"patches of {patch} x {patch} do not fill {bands} x {frames}")
        self.patch = patch
        self.n_patches = (bands // patch) * (frames // patch)
        inner = dim // 2
        self.embed = nn.Linear(patch * patch, dim)
        self.encoder = _transformer(dim, depth, heads)
        self.narrow = nn.Linear(dim, inner)
        self.hidden = nn.Parameter(torch.zeros(inner))
        self.decoder = _transformer(inner, max(depth // 2, 1), heads)
        self.guess = nn.Linear(inner, patch * patch)
        self.place = nn.Parameter(0.02 * torch.randn(self.n_patches, dim))
        self.place_inner = nn.Parameter(0.02 * torch.randn(self.n_patches, inner))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def patches(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Return (batch, patches, patch²), standardised, those of the lowest bands first."""
        scaled = (spectrograms - self.mean) / self.spread
        grid = scaled.unfold(1, self.patch, self.patch).unfold(2, self.patch, self.patch)
        return grid.flatten(3).flatten(1, 2)

    def encode(self, patches: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return (batch, seen, dim) states of the patches of those numbers, (batch, seen)."""
        visible = patches.gather(1, seen[..., None].expand(-1, -1, patches.shape[2]))
        return self.encoder(self.embed(visible) + self.place[seen])

    def forward(
        self, spectrograms: torch.Tensor, seen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states of the patches that are seen, and all patches as they are guessed."""
        states = self.encode(self.patches(spectrograms), seen)
        known = self.narrow(states)
        full = self.hidden.expand(len(seen), self.n_patches, -1)
        full = full.scatter(1, seen[..., None].expand_as(known), known.to(full.dtype))
        return states, self.guess(self.decoder(full + self.place_inner))

    def seen_at_random(self, batch: int, share: float, device: torch.device) -> torch.Tensor:
        """Return (batch, seen) numbers of patches, drawn anew for each spectrogram."""
        count = max(round(share * self.n_patches), 1)
        return rand(batch, self.n_patches).argsort(dim=1)[:, :count].to(device)

    def seen_in_turn(self, share: float) -> list[torch.Tensor]:
        """Return (1, seen) numbers so that each patch is seen once and otherwise hidden."""
        order = torch.randperm(self.n_patches, generator=torch.Generator().manual_seed(0))
        return [part[None] for part in order.chunk(max(round(1 / share), 2))]


def hidden_error(guessed: torch.Tensor, patches: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return (batch,) mean squared errors of the patches that were hidden.

    >>> hidden_error(torch.ones(1, 3, 4), torch.zeros(1, 3, 4), torch.tensor([[0]]))
    tensor([1.])
    """
    weight = torch.ones(patches.shape[:2], device=patches.device).scatter(1, seen, 0.0)
    errors = (guessed - patches).square().mean(dim=2)
    return (weight * errors).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _transformer(dim: int, depth: int, heads: int) -> nn.TransformerEncoder:
    block = nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
