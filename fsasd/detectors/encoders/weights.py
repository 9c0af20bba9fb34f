"""Files of weights that are read without running code, and whether they fit a network."""

from __future__ import annotations

from collections.abc import Iterable


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


def _listed(names: list[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
