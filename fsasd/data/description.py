"""Clips as part of keys: a description that changes with anything that a stage can know of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from itertools import groupby

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.data.content import content_hashes, digest
from fsasd.data.metadata import Clip

# The last four are of synthetic clips, which enter keys by what generates them.
_WITHOUT = ("path", "type", "site", "strength", "donor", "fault", "pair")
_FIELDS = [field.name for field in fields(Clip) if field.name not in _WITHOUT]


def describe_clips(clips: Clips, without: Collection[str] = ()) -> dict[str, str]:
    """Return a description of clips for the key of a result, and for messages about changes.

    Recordings enter by content, file name and everything that is known of them but their machine's
    type and site, never by folder or time; each file is read once (``content.content_hash``).

    Args:
        clips: In the order in which a stage is given them.
        without: Fields of ``Clip`` that the stage does not look at, such as ``role``.

    Returns:
        For each machine, section and split the number of clips and a digest of them; ``channel``,
        where one is taken; ``order``, a digest of the order in which these groups come.

    Raises:
        FileNotFoundError, AudioError: A recording cannot be read (see ``content.content_hash``).

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "a.wav")
    >>> _ = path.write_bytes(b"abc")
    >>> clips = Clips([Clip(path, "fan", section="00", split="train")])
    >>> describe_clips(clips)["fan 00 train"].partition(", ")[0]
    '1 clip'
    """
    known = [name for name in _FIELDS if name not in without]
    groups = clips.groups(_group)
    values = clips.groups(lambda clip: repr([getattr(clip, name) for name in known]))
    contents = content_hashes((clip.path for clip in clips), clips.cache.folder)
    rows: dict[str, list[str]] = {}
    for clip, group, value, content in zip(clips, groups, values, contents, strict=True):
        rows.setdefault(group, []).append(f"{content}|{printable(clip.path.name)}|{value}")
    description = {
        group: f"{len(texts)} clip{'s' * (len(texts) > 1)}, {digest(texts)[:16]}"
        for group, texts in rows.items()
    }
    if len(rows) > 1:
        description["order"] = digest(group for group, _ in groupby(groups))[:16]
    if clips.cache.channel is not None:
        description["channel"] = str(clips.cache.channel)
    return description


def _group(clip: Clip) -> str:
    return " ".join(filter(None, [clip.machine, clip.section, clip.split])) or "clips"
