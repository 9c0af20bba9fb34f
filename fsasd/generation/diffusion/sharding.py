"""Weights, gradients and optimizer states sharded over processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all processes; checkpoints are one file, as with DDP."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        """Share the data among all processes, not only among nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a network's weights, to be gathered for one block at a time."""
    for block in blocks(network):
        fully_shard(block, mesh=mesh)
    # Sharded again after each pass: between passes the weights are swapped with their average.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Return the blocks of a network: members of its lists, and what has lists of its own.

    >>> network = nn.Module()
    >>> network.layers = nn.ModuleList([nn.Linear(1, 2), nn.Linear(2, 1)])
    >>> network.head = nn.Linear(1, 1)
    >>> len(list(blocks(network)))
    2
    """
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif any(isinstance(module, nn.ModuleList) for module in child.modules()):
            yield child


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU, gathered from all processes if it is sharded."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def shard_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the device of another and sharded like it."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
    return tensor.to(other.device)
