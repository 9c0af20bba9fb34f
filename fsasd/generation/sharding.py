"""Weights, gradients and optimizer states divided among processes (FSDP2)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all processes; checkpoints are one file, as with DDP."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        """Divide the data among all processes, not only among nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(unet: UNet2DConditionModel, mesh: DeviceMesh) -> None:
    """Divide a UNet's weights, gathered again for one level at a time."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        fully_shard(block, mesh=mesh)
    # Divided again after each pass: the weights' average is put in their place between passes.
    fully_shard(unet, mesh=mesh, reshard_after_forward=True)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU, gathered from all processes if it is divided among them."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def shard_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor where and as the other is."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
    return tensor.to(other.device)
