"""Cost of a training step, counted on a copy of the network on the meta device."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from fsasd.generation.diffusion.adaptation import Full
from fsasd.generation.diffusion.model import Condition, Model, map_condition

GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """Cost of a training step on one device.

    Attributes:
        trained: Parameters that are trained.
        total: Parameters of the network, adapters included.
        flops: Floating-point operations, forward and backward, of a step.
        state: Bytes of weights, gradients, moments of the optimizer, and the weights' average.
        activations: Bytes that the forward pass keeps for the backward pass.
    """

    trained: int
    total: int
    flops: float
    state: int
    activations: int

    @property
    def memory(self) -> int:
        """Bytes at least, without kernels' workspaces and fragmentation."""
        return self.state + self.activations

    def __str__(self) -> str:
        return (
            f"{self.trained / 1e6:.1f} of {self.total / 1e6:.1f} million parameters are trained; "
            f"a step is {self.flops / 1e12:.3g} TFLOP and needs about {self.memory / GIB:.1f} GiB "
            f"({self.state / GIB:.1f} for weights, gradients, optimizer and average, "
            f"{self.activations / GIB:.1f} for activations)"
        )


def training_cost(
    model: Model,
    unconditional: Condition,
    train: Full,
    batch_size: int,
    frames: int,
    *,
    gradient_checkpointing: bool = False,
    half_precision: bool = False,
    moment_bytes: int = 8,
) -> Cost:
    """Count what a training step costs, without computing one.

    Args:
        model: Only the configuration of its network is read, with or without adapters.
        unconditional: Condition of one clip.
        train: Which of its weights are trained.
        batch_size: On one device.
        frames: Of a latent.
        gradient_checkpointing: Whether activations are computed anew in the backward pass.
        half_precision: Whether activations take two bytes a number rather than four.
        moment_bytes: Of the optimizer, per trained parameter: 8 for AdamW, 2 for its 8-bit form.

    >>> from fsasd.generation.audioldm import AudioLDM
    >>> nano = AudioLDM("random:nano")
    >>> cost = training_cost(nano.model, nano.unconditional, Full(), batch_size=16, frames=64)
    >>> cost.trained == cost.total, round(cost.flops / 1e9)
    (True, 34)
    """
    with torch.device("meta"):
        copy = type(model.network).from_config(model.network.config).train()
        train.apply(copy)
        if gradient_checkpointing:
            copy.enable_gradient_checkpointing()
        latents = torch.zeros(batch_size, *model.latent_shape(frames))
        timesteps = torch.zeros(batch_size)
    condition = map_condition(
        lambda one: torch.zeros((batch_size, *one.shape), dtype=one.dtype, device="meta"),
        unconditional,
    )
    weights = {p.untyped_storage()._cdata for p in copy.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model.predict(copy, latents, timesteps, condition)
        activations = sum(kept.values())
        output.sum().backward()
    total = sum(p.numel() for p in copy.parameters())
    trained = sum(p.numel() for p in copy.parameters() if p.requires_grad)
    return Cost(
        trained=trained,
        total=total,
        flops=counter.get_total_flops(),
        # Four bytes each for a weight, and for a trained one its gradient and its average.
        state=4 * total + (4 + 4 + moment_bytes) * trained,
        activations=activations // 2 if half_precision else activations,
    )


def measured_flops(device: str | torch.device, half_precision: bool = False) -> float:
    """Return the floating-point operations per second of a matrix product on a device.

    A training step reaches a part of it, a quarter to a half as a rule.

    >>> measured_flops("cpu") > 1e8
    True
    """
    on_gpu = torch.device(device).type == "cuda"
    size = 8192 if on_gpu else 1024
    dtype = torch.bfloat16 if half_precision else torch.float32
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    matrix @ matrix
    best = math.inf
    for _ in range(3):
        if on_gpu:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        product = matrix @ matrix
        # Reading a value waits for the product.
        product[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def memory_reductions(batch_size: int, accumulate: int = 1) -> str:
    """Return what fine-tuning needs less memory with (see ``fsasd.runtime.memory``).

    Args:
        batch_size: ``data.batch_size``, the examples of a step.
        accumulate: Batches that they are divided into.
    """
    return (
        f"the examples of a batch by raising trainer.accumulate_grad_batches (now {accumulate}): "
        f"it divides the {batch_size} of a step, and the result is the same; "
        "generator.gradient_checkpointing=true; trainer.precision=bf16-mixed; "
        "generator/train=lora; generator.optimizer=adamw_8bit; generator.crop_seconds"
    )
