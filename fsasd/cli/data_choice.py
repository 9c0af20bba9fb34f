"""``data=`` from a path: the choice of the group that reads what is there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

_CONFIGURATION = ("--config-dir", "-cd", "hydra.searchpath")


def data_at(place: str) -> list[str]:
    """Return the overrides that read a manifest, a folder, or an edition.

    Args:
        place: A path, or a choice of the group ``data``.

    >>> data_at("plant/clips.csv"), data_at("dcase2023")
    (['data=manifest', "data.manifest='plant/clips.csv'"], ['data=dcase2023'])
    """
    from fsasd.data.metadata import ROLES

    path, quoted = Path(place), "'" + place.replace("'", "\\'") + "'"
    if path.suffix and not path.is_dir():
        return ["data=manifest", f"data.manifest={quoted}"]
    if path.is_dir() or len(path.parts) > 1:
        layout = "dcase" if any((path / part).is_dir() for part in ROLES) else "folder"
        return [f"data={layout}", f"data.root={quoted}"]
    return [f"data={place}"]


def with_data(arguments: Sequence[str]) -> list[str]:
    """Write ``data=<path>`` as the overrides that it stands for.

    A choice of the group is none, and neither are several values, which are a sweep.

    Args:
        arguments: Of ``fsasd`` or ``fsasd-check``.

    >>> with_data(["data=plant/clips.csv", "seed=1"])
    ['data=manifest', "data.manifest='plant/clips.csv'", 'seed=1']
    >>> with_data(["-m", "data=factory,factory_tiny"])
    ['-m', 'data=factory,factory_tiny']
    """
    further = any(argument.startswith(_CONFIGURATION) for argument in arguments)
    written: list[str] = []
    for argument in arguments:
        name, _, place = argument.partition("=")
        is_path = name == "data" and _is_path(place, further)
        written += data_at(place) if is_path else [argument]
    return written


def _is_path(place: str, further: bool) -> bool:
    """Whether it is none of the choices; a bare name may be one of a further configuration."""
    if (resources.files("fsasd.conf") / "data" / f"{place}.yaml").is_file():
        return False
    is_sweep = place[:1] in "[{" or (("," in place or "(" in place) and not Path(place).exists())
    path = Path(place)
    named = "/" in place or bool(path.suffix) or (path.is_dir() and not further)
    return named and not is_sweep
