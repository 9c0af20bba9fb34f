"""A masked autoencoder of spectrograms: masked patches are reconstructed from visible ones.

He et al., "Masked autoencoders are scalable vision learners" (CVPR 2022), on log-mels as images.
"""

from __future__ import annotations

import torch
from torch import nn

from fsasd.detectors.networks.shares import rand


class MaskedAutoencoder(nn.Module):
    """An encoder of visible patches, and a decoder that reconstructs the masked ones.

    Args:
        bands: Of the spectrogram; a multiple of ``patch``.
        frames: Of the spectrogram; a multiple of ``patch``.
        patch: Bands and frames of a patch.
        dim: Of the encoder.
        depth: Blocks of the encoder; the decoder has half of its width and depth.
        heads: Attention heads of a block.

    Raises:
        ValueError: Patches do not fill the spectrogram.

    >>> network = MaskedAutoencoder(32, 48, patch=16, dim=8, depth=2, heads=2)
    >>> visible = torch.tensor([[0, 4]])
    >>> states, reconstructed = network(torch.zeros(1, 32, 48), visible)
    >>> states.shape, reconstructed.shape
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

    def encode(self, patches: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return (batch, visible, dim) states of the patches with indices (batch, visible)."""
        chosen = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[2]))
        return self.encoder(self.embed(chosen) + self.place[visible])

    def forward(
        self, spectrograms: torch.Tensor, visible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states of the visible patches, and the reconstruction of all patches."""
        states = self.encode(self.patches(spectrograms), visible)
        known = self.narrow(states)
        full = self.hidden.expand(len(visible), self.n_patches, -1)
        full = full.scatter(1, visible[..., None].expand_as(known), known.to(full.dtype))
        return states, self.guess(self.decoder(full + self.place_inner))

    def random_visible(self, batch: int, share: float, device: torch.device) -> torch.Tensor:
        """Return (batch, visible) indices of patches, drawn for each spectrogram."""
        count = max(round(share * self.n_patches), 1)
        return rand(batch, self.n_patches).argsort(dim=1)[:, :count].to(device)

    def visible_in_turn(self, share: float) -> list[torch.Tensor]:
        """Return several (1, visible) indices; each patch is visible in one of them."""
        order = torch.randperm(self.n_patches, generator=torch.Generator().manual_seed(0))
        return [indices[None] for indices in order.chunk(max(round(1 / share), 2))]


def masked_error(
    reconstructed: torch.Tensor, patches: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Return (batch,) mean squared errors of the masked patches.

    >>> masked_error(torch.ones(1, 3, 4), torch.zeros(1, 3, 4), torch.tensor([[0]]))
    tensor([1.])
    """
    weight = torch.ones(patches.shape[:2], device=patches.device).scatter(1, visible, 0.0)
    errors = (reconstructed - patches).square().mean(dim=2)
    return (weight * errors).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _transformer(dim: int, depth: int, heads: int) -> nn.TransformerEncoder:
    block = nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
