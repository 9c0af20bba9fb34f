"""Programs that users exported, of ``torch.export.save`` or ``torch.jit.save``."""

from __future__ import annotations

from pathlib import Path

import torch

from fsasd.detectors.encoders.loaded import Inputs, LoadedEncoder
from fsasd.detectors.encoders.programs import load_program


class Exported(LoadedEncoder):
    """A function of (1, samples) waveforms, called clip by clip.

    Args:
        path: File (``.pt2`` or ``.pt``) of a program that returns (1, dim), (1, frames, dim) or
            (1, layers, frames, dim).
        rate: Sampling rate of its input, Hz.
        seconds: Length of its input, if it was exported with a fixed shape.
        device: Where it computes.

    Raises:
        ValueError: The file holds no such program, or the program returns something else.
    """

    def __init__(self, path: Path, rate: int, seconds: float | None, device: str) -> None:
        if path.suffix == ".pt2":
            self.network = load_program(path).module().to(device)
        else:
            self.network = _load_scripted(path, device)
        self.path = path
        self.rate = rate
        self.window = None if seconds is None else round(seconds * rate)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        return {"waveforms": waveforms}

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        clips = [self._layers(waveform[None]) for waveform in inputs["waveforms"]]
        return [torch.stack(layer) for layer in zip(*clips, strict=True)]

    def _layers(self, waveform: torch.Tensor) -> torch.Tensor:
        states = self.network(waveform)
        if not isinstance(states, torch.Tensor) or not 2 <= states.ndim <= 4 or len(states) != 1:
            shape = tuple(states.shape) if isinstance(states, torch.Tensor) else type(states)
            raise ValueError(
                f"{self.path}: expected (1, dim), (1, frames, dim) or (1, layers, frames, dim) of "
                f"(1, samples), found {shape}"
            )
        return states[0] if states.ndim == 4 else states.reshape(1, -1, states.shape[-1])


def _load_scripted(path: Path, device: str) -> torch.nn.Module:
    try:
        # TorchScript has its own interpreter and runs no Python.
        return torch.jit.load(path, map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: expected what torch.jit.save wrote ({str(error).partition(chr(10))[0]})"
        ) from error
