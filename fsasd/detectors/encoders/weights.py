"""Files of weights that are read without running code, and whether they fit a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn


def read_checkpoint(path: Path) -> Any:
    """Return what ``torch.save`` or safetensors wrote, of tensors and plain values only.

    Raises:
        Exception: One of ``runtime.hub.UNREADABLE``: the file is damaged, of another kind, or holds
            code.
    """
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def fill(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    source: str,
    *,
    apart: tuple[str, ...] = (),
) -> nn.Module:
    """Put weights into a network without any, and return it in evaluation.

    Args:
        network: Made on the device ``meta``, so that nothing is drawn.
        weights: Name to values; they are converted to single precision.
        source: Where they are from, for messages.
        apart: How the names of weights begin that are for other networks.

    Raises:
        ValueError: Weights are missing, surplus or of another shape.
    """
    known = network.state_dict()
    kept = {name: w for name, w in weights.items() if name in known or not name.startswith(apart)}
    require_weights(source, known.keys() - kept.keys(), kept.keys() - known.keys())
    for name, values in kept.items():
        if values.shape != known[name].shape:
            raise ValueError(
                f"encoder '{source}' does not fit its network: expected {name} of shape "
                f"{tuple(known[name].shape)}, as its settings say, found {tuple(values.shape)}"
            )
    floats = {name: w.float() if w.is_floating_point() else w for name, w in kept.items()}
    network.load_state_dict(floats, assign=True)
    # Networks are trained where they are not frozen, whatever the checkpoint's were.
    return network.requires_grad_().eval()


def require_settings(source: str, settings: Mapping[str, Any], only: Mapping[str, Any]) -> None:
    """Raise unless settings have the only values that are known, where they have them.

    Raises:
        ValueError: Names the setting.

    >>> require_settings("beats.pt", {"layer_norm_first": True}, {"layer_norm_first": False})
    Traceback (most recent call last):
    ...
    ValueError: encoder 'beats.pt': expected layer_norm_first=False, as all published ones of its \
family have, found True. Export it, and use representation=exported
    """
    for name, value in only.items():
        if settings.get(name, value) != value:
            raise ValueError(
                f"encoder '{source}': expected {name}={value}, as all published ones of its family "
                f"have, found {settings[name]}. Export it, and use representation=exported"
            )


def require_weights(source: str, missing: Iterable[str], surplus: Iterable[str]) -> None:
    """Raise unless a checkpoint has the weights of its network, and no other.

    Raises:
        ValueError: Names the weights.

    >>> require_weights("beats.pt", ["layer_norm.bias"], [])
    Traceback (most recent call last):
    ...
    ValueError: encoder 'beats.pt' does not fit its network: it lacks 1 weight (layer_norm.bias). \
Expected a whole checkpoint of this family
    """
    faults = [
        f"{verb} {len(names)} weight{'s' * (len(names) > 1)} ({_listed(names)})"
        for verb, names in (("it lacks", sorted(missing)), ("it has another", sorted(surplus)))
        if names
    ]
    if faults:
        raise ValueError(
            f"encoder '{source}' does not fit its network: {' and '.join(faults)}. "
            "Expected a whole checkpoint of this family"
        )


def _listed(names: Collection[str]) -> str:
    return ", ".join([*list(names)[:3], *(["..."] if len(names) > 3 else [])])
