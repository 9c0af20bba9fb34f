"""Inspection of recordings: each is read once, and its measures are kept."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from fsasd.data.audio_files import printable
from fsasd.data.check.measures import BANDS, join, measure, require_full_scale
from fsasd.data.content import content_hashes
from fsasd.data.metadata import Clip
from fsasd.data.recording import (
    READER,
    AudioError,
    blocks,
    header,
    one_channel,
    require_finite,
)
from fsasd.runtime.ahead import map_ahead
from fsasd.runtime.threads import cores, thread_pool
from fsasd.store.locks import file_lock

log = logging.getLogger(__name__)

_VERSION = 1
"""To be raised when recordings get other measures, or other problems."""

_KNOWN = ["path", "machine", "section", "role", "split", "label", "domain"]
_MEASURED = [
    "seconds", "rate", "channels", "peak", "level", "silent", "clipped", *BANDS, "content",
    "problem",
]  # fmt: skip
_TEXT = {"key": str, "content": str, "problem": str}
_NUMBERS = ["seconds", "rate", "channels", "peak", "level", *BANDS]

Look = Callable[[Clip, "int | str | None"], dict[str, Any]]


def inspect(
    clips: Sequence[Clip], channel: int | str | None = None, headers_only: bool = False
) -> pd.DataFrame:
    """Read recordings, several at a time.

    Args:
        clips: Which.
        channel: What will be taken of those with several channels (see ``recording.read``).
        headers_only: Do not decode.

    Returns:
        ``Report.recordings``; a recording that cannot be read has a ``problem`` and no numbers.
    """
    measured = _look_at(clips, channel, _header if headers_only else _listen)
    return _table(clips, pd.DataFrame(measured, columns=_MEASURED))


def inspect_once(
    clips: Sequence[Clip],
    folder: Path | None,
    channel: int | str | None = None,
    again: bool = True,
) -> pd.DataFrame:
    """Inspect recordings, reading only those whose content was not inspected before.

    Measures are kept under a recording's content, wherever it lies. Of several processes, one reads
    and the others wait for its measures. Where the folder cannot be written, nothing is kept.

    Args:
        clips: Which.
        folder: Of the feature cache; without one, nothing is kept.
        channel: As in ``inspect``.
        again: Read those anew that could not be opened: disk or permissions may have been repaired.

    Returns:
        What ``inspect`` returns.
    """
    if folder is None or not len(clips):
        return inspect(clips, channel)
    keys = _keys(clips, channel, folder)
    path = folder / f"recordings-{READER}.{_VERSION}.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock(f"{path}.lock").acquire()
    except OSError:
        kept = _read_kept(path, again=False)
        if not set(keys) <= set(kept.index):
            return inspect(clips, channel)
        return _table(clips, kept.loc[keys, _MEASURED].reset_index(drop=True))
    with lock:
        kept = _read_kept(path, again)
        new = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in kept.index}
        if new:
            measured = pd.DataFrame(
                _look_at(list(new.values()), channel, _listen),
                index=pd.Index(new, name="key"),
                columns=[*_MEASURED, "passing"],
            )
            measured["passing"] = measured["passing"].eq(True)
            kept = pd.concat([kept, measured]) if len(kept) else measured
            _keep(kept, path)
    return _table(clips, kept.loc[keys, _MEASURED].reset_index(drop=True))


def _table(clips: Sequence[Clip], measured: pd.DataFrame) -> pd.DataFrame:
    known = pd.DataFrame(
        [[printable(clip.path), *(getattr(clip, name) for name in _KNOWN[1:])] for clip in clips],
        columns=_KNOWN,
    )
    return pd.concat([known, measured.astype(dict.fromkeys(_NUMBERS, float))], axis=1)


def _look_at(clips: Sequence[Clip], channel: int | str | None, look: Look) -> list[dict[str, Any]]:
    bar = Console(stderr=True)
    with thread_pool("inspection") as threads:
        measured = map_ahead(threads, lambda clip: _look(look, clip, channel), clips, 4 * cores())
        return list(
            track(
                measured,
                "Reading",
                len(clips),
                console=bar,
                transient=True,
                disable=not bar.is_terminal,
            )
        )


def _look(look: Look, clip: Clip, channel: int | str | None) -> dict[str, Any]:
    try:
        return look(clip, channel)
    except (AudioError, OSError) as error:
        problem = str(error).removeprefix(f"{printable(clip.path)}: ")
        passing = any(isinstance(e, OSError) for e in (error, error.__cause__))
        return {"problem": problem, "passing": passing}


def _header(clip: Clip, channel: int | str | None) -> dict[str, Any]:
    announced = header(clip.path)
    one_channel(np.empty((1, announced.channels)), channel, clip.path)
    return announced._asdict()


def _listen(clip: Clip, channel: int | str | None) -> dict[str, Any]:
    content, measures, lengths = hashlib.sha256(), [], []
    for samples, rate in blocks(clip.path):
        waveform = one_channel(samples, channel, clip.path)
        require_finite(waveform, clip.path)
        require_full_scale(waveform, clip.path)
        content.update(samples.data)
        measures.append(measure(waveform, rate))
        lengths.append(len(samples))
    return {
        "seconds": sum(lengths) / rate,
        "rate": rate,
        "channels": samples.shape[1],
        "content": content.hexdigest()[:32],
        **join(measures, lengths),
    }


def _keys(clips: Sequence[Clip], channel: int | str | None, folder: Path) -> list[str]:
    paths = [clip.path for clip in clips]
    contents = content_hashes(paths, folder, strict=False)
    # A file that cannot be read has no content hash.
    known = [content or f"{p}|absent" for content, p in zip(contents, paths, strict=True)]
    texts = (f"{content}|{channel}".encode(errors="surrogateescape") for content in known)
    return [hashlib.blake2b(text, digest_size=16).hexdigest() for text in texts]


def _read_kept(path: Path, again: bool) -> pd.DataFrame:
    """Return the rows that are kept; ``again`` leaves out files that could not be opened."""
    columns = ["key", *_MEASURED, "passing"]
    if path.is_file():
        try:
            types = _TEXT | {"passing": bool}
            kept = pd.read_csv(path, usecols=columns, dtype=types, index_col="key")
            return kept[~kept["passing"]] if again else kept
        except ValueError as error:
            log.warning("%s is damaged (%s): reading all recordings anew", path, error)
    return pd.DataFrame(columns=columns).set_index("key").astype({"passing": bool})


def _keep(table: pd.DataFrame, path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        table.to_csv(partial)
        partial.replace(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"measures of recordings could not be written to {path.parent} ({error.strerror}): "
            "make room, or give another folder as data.cache",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
