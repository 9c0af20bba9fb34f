"""Several data sets read as one: which of them may have clips of the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fsasd.data.audio_files import printable
from fsasd.data.clip import Clip
from fsasd.data.names import MetadataError


def join(data_sets: Iterable[tuple[Path, Sequence[Clip]]]) -> list[Clip]:
    """Return the clips of several data sets, in their order.

    Data sets may complement each other (training clips in one, test clips or other sections in
    another), but two that have clips of one section and split may each mean another machine by the
    same name, whose clips must not be mixed.

    Args:
        data_sets: Where each lies, and its clips.

    Raises:
        MetadataError: Two have clips of one machine, section and split; names both.

    >>> train, test = Clip(Path("a/1.wav"), "fan", split="train"), Clip(Path("b/1.wav"), "fan")
    >>> len(join([(Path("a"), [train]), (Path("b"), [test])]))
    2
    """
    clips: list[Clip] = []
    place_of: dict[tuple[str, str, str], Path] = {}
    for place, some in data_sets:
        for machine, section, split in sorted(
            {(clip.machine, clip.section or "00", clip.split or "") for clip in some}
        ):
            other = place_of.setdefault((machine, section, split), place)
            if other != place:
                raise MetadataError(
                    f"{machine} section {section}: {split} clips in both {printable(other)} and "
                    f"{printable(place)}. If they are of two machines, rename one or give it "
                    "another section; if they are of one, put them into one folder or table"
                )
        clips += some
    return clips


def machine_values(clips: Iterable[Clip], field: str) -> dict[str, str]:
    """Return a field that all clips of a machine share, such as its role, for each machine with it.

    Raises:
        MetadataError: Clips of one machine contradict each other; names two.

    >>> machine_values([Clip(Path("a.wav"), "fan", site="north"), Clip(Path("b.wav"), "m")], "site")
    {'fan': 'north'}
    """
    values: dict[str, str] = {}
    first: dict[str, Path] = {}
    for clip in clips:
        value = getattr(clip, field)
        if not value:
            continue
        path = first.setdefault(clip.machine, clip.path)
        if values.setdefault(clip.machine, value) != value:
            raise MetadataError(
                f"{clip.machine}: expected one {field} for all of its clips, found "
                f"{values[clip.machine]} for {printable(path)} and {value} for "
                f"{printable(clip.path)}"
            )
    return values


def listed(places: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return one place, or a list of them, as a list.

    >>> listed("a") == listed(["a"]) == [Path("a")]
    True
    """
    several = [places] if isinstance(places, (str, Path)) else places
    return [Path(place) for place in several]
