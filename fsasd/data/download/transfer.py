"""Files over HTTP: resumed, retried and verified before they appear in place."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import requests
import urllib3

from fsasd.data.download.catalogue import ZENODO, Archive
from fsasd.settings.files import parse_json

CHUNK = 1 << 16
LONGEST_PAUSE = 60.0
"""Seconds between attempts if the server sets no time."""
LONGEST_ORDER = 600.0
"""Longest wait in seconds that a server may ask for; beyond, the download fails."""

_PLAIN = {"Accept-Encoding": "identity"}
"""What a server compresses has another length, and ranges of its own."""
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

T = TypeVar("T")
log = logging.getLogger(__name__)


class DownloadError(RuntimeError):
    """Something could not be downloaded or unpacked; the message says what is left to do."""


class StoppedError(DownloadError):
    """The download was stopped; partial files stay."""


class _TransientError(Exception):
    """A failure that may pass: a broken connection, a busy server."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class _WrongBytesError(Exception):
    """The file is not the one that the record describes."""


class Zenodo:
    """Records and files of Zenodo, or of a mirror with the same paths.

    Args:
        base_url: Has ``/records/<id>/files/<name>`` and ``/api/records/<id>``.
        attempts: Tries in a row that bring nothing before giving up.
        wait: Called with the seconds to wait between tries; by default it waits, until
            ``stop`` is called.
        timeout: Seconds to wait for a connection, and for the next bytes.
    """

    def __init__(
        self,
        base_url: str = ZENODO,
        *,
        attempts: int = 8,
        wait: Callable[[float], object] | None = None,
        timeout: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.attempts = attempts
        self.timeout = timeout
        self._stopped = threading.Event()
        self._open_ones: set[requests.Response] = set()
        self._wait = wait or self._stopped.wait

    def stop(self) -> None:
        """Make all transfers, in whatever thread, end with ``StoppedError``."""
        self._stopped.set()
        for response in list(self._open_ones):
            # Wakes the thread that waits for the next bytes; another one may just have ended.
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                response.raw.shutdown()

    def url(self, archive: Archive) -> str:
        """Where an archive is.

        >>> Zenodo().url(Archive("dcase2023", "dev", "fan", 7882613, "dev_fan.zip"))
        'https://zenodo.org/records/7882613/files/dev_fan.zip'
        """
        return f"{self.base_url}/records/{archive.record}/files/{archive.name}"

    def describe(self, archives: Iterable[Archive]) -> list[Archive]:
        """Look up the sizes and checksums that are not known in the records.

        Raises:
            DownloadError: A record does not answer, lacks a file, or gives another checksum than
                the one known.
        """
        archives = list(archives)
        asked = {a.record for a in archives if a.md5 is None or a.size is None}
        records = {record: self._record(record) for record in sorted(asked)}
        return [self._complete(a, records[a.record]) if a.record in asked else a for a in archives]

    def fetch(
        self, archive: Archive, path: Path, progress: Callable[[int], object] = lambda done: None
    ) -> None:
        """Download an archive to ``path``, which appears when it is whole and verified.

        Until then the bytes are in ``<path>.partial``, which the next call goes on with.

        Args:
            archive: With ``md5`` and ``size``, see ``describe``.
            path: The final name, in a folder that exists. A file that is there is verified only.
            progress: Called with the number of bytes there are.

        Raises:
            DownloadError: The server refuses, or brings nothing so many times in a row; the file
                has another checksum twice; the disk is full; ``path`` is another file.
            StoppedError: ``stop`` was called.
        """
        url, partial, mark = self.url(archive), _beside(path, ".partial"), _beside(path, ".etag")
        problem = ""
        try:
            if path.exists():
                _verify_present(path, archive.md5)
                return
            for _ in range(2):
                try:
                    self._bring(archive, partial, mark, progress)
                except _WrongBytesError as error:
                    problem = f"{url}: {error}"
                    log.warning("%s; deleted", problem)
                    partial.unlink(missing_ok=True)
                    mark.unlink(missing_ok=True)
                else:
                    partial.replace(path)
                    mark.unlink(missing_ok=True)
                    return
        except OSError as error:
            raise DownloadError(
                f"{error.filename or partial}: {error.strerror}. What is there is kept: put the "
                "cause right (a full disk: make room), and run the same command again"
            ) from error
        raise DownloadError(
            f"{problem}, twice; what came was deleted. If {self.base_url} is a mirror, try another"
        )

    def _bring(
        self, archive: Archive, partial: Path, mark: Path, progress: Callable[[int], object]
    ) -> None:
        """Complete ``partial`` in as many requests as needed, and verify it."""
        url, size = self.url(archive), archive.size or 0
        if _size(partial) > size:
            partial.unlink()
        if _size(partial) != size:
            self._insist(
                url,
                lambda: self._append(url, partial, mark, size, progress),
                lambda: _size(partial),
            )
        _verify(partial, archive.md5)

    def _record(self, record: int) -> dict[str, dict[str, Any]]:
        url = f"{self.base_url}/api/records/{record}"

        def ask() -> dict[str, dict[str, Any]]:
            with self._open(url, _PLAIN) as response:
                try:
                    # What is compressed may become any size, and is none that was asked for.
                    content = b"".join(response.raw.stream(CHUNK, decode_content=False))
                except urllib3.exceptions.HTTPError as error:
                    raise _TransientError(f"the connection broke ({_short(error)})") from error
                try:
                    return {file["key"]: file for file in parse_json(content)["files"]}
                except (ValueError, KeyError, TypeError) as error:
                    raise DownloadError(
                        f"{url}: expected a record's description in JSON with its files, found "
                        f"{content[:80].decode(errors='replace')!r}"
                    ) from error

        return self._insist(url, ask)

    def _complete(self, archive: Archive, files: dict[str, dict[str, Any]]) -> Archive:
        where = f"{self.base_url}/api/records/{archive.record}"
        if archive.name not in files:
            raise DownloadError(
                f"{where}: expected a file {archive.name}, found {', '.join(sorted(files))}"
            )
        kind, _, digest = str(files[archive.name].get("checksum")).partition(":")
        size = files[archive.name].get("size")
        if kind != "md5" or not digest or not isinstance(size, int) or size < 1:
            raise DownloadError(
                f"{where}: expected a size and a checksum md5:... of {archive.name}, found "
                f"{size} and {kind}:{digest}"
            )
        if archive.md5 not in (None, digest):
            raise DownloadError(
                f"{where}: {archive.name} has md5 {digest}, this version of fsasd knows "
                f"{archive.md5}: the record has changed, or {self.base_url} is not a true mirror"
            )
        return replace(archive, md5=digest, size=size)

    def _insist(self, url: str, once: Callable[[], T], there: Callable[[], int] = lambda: 0) -> T:
        """Call ``once`` until it succeeds, or ``attempts`` times in a row brought nothing new."""
        most, vain = there(), 0
        while True:
            try:
                return once()
            except _TransientError as error:
                now = there()
                vain = 0 if now > most else vain + 1
                most = max(most, now)
                if vain >= self.attempts:
                    raise DownloadError(f"{url}: {error}, {vain} times in a row") from error
                pause = min(2.0 ** max(vain - 1, 0), LONGEST_PAUSE)
                if error.pause is not None:
                    pause = error.pause
                if pause > LONGEST_ORDER:
                    raise DownloadError(
                        f"{url}: {error}, and asks to wait {pause:.0f} s: try again after that"
                    ) from error
                log.warning("%s: %s; trying again in %.0f s", url, error, pause)
            self._wait(pause)
            self._heed()

    def _heed(self) -> None:
        if self._stopped.is_set():
            raise StoppedError("stopped")

    def _append(
        self, url: str, partial: Path, mark: Path, size: int, progress: Callable[[int], object]
    ) -> None:
        """Append the bytes of one request to ``partial``."""
        self._heed()
        have = _size(partial)
        headers = dict(_PLAIN)
        if have:
            headers["Range"] = f"bytes={have}-"
            if mark.exists():
                headers["If-Range"] = mark.read_text("utf-8")
        with self._open(url, headers) as response:
            start = _start(response, have, size)
            if not start:
                _remember(response, mark)
            try:
                with partial.open("ab" if start else "wb") as file:
                    progress(done := start)
                    # What there is, not a whole chunk: when the connection breaks, nothing of what
                    # came is lost.
                    while chunk := response.raw.read1(CHUNK):
                        self._heed()
                        done += len(chunk)
                        if done > size:
                            raise _WrongBytesError(f"expected {size} bytes, found more")
                        file.write(chunk)
                        progress(done)
            except urllib3.exceptions.HTTPError as error:
                self._heed()
                raise _TransientError(f"the connection broke ({_short(error)})") from error
        if done < size:
            raise _TransientError(f"the connection ended after {done} of {size} bytes")

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        try:
            response = requests.get(
                url,
                headers={"User-Agent": f"fsasd/{version('fsasd')}", **headers},
                stream=True,
                timeout=self.timeout,
            )
        except requests.RequestException as error:
            # A URL that cannot be one is a ValueError as well.
            if isinstance(error, ValueError):
                raise DownloadError(f"{url}: {error}") from error
            raise _TransientError(f"no connection ({_short(error)})") from error
        with response:
            status = f"{response.status_code} {response.reason}"
            if response.status_code in _TRANSIENT:
                raise _TransientError(f"the server answers {status}", _retry_after(response))
            if response.status_code >= 400 and response.status_code != 416:
                raise DownloadError(f"{url}: the server answers {status}")
            self._open_ones.add(response)
            try:
                self._heed()
                yield response
            finally:
                self._open_ones.discard(response)


def _start(response: requests.Response, have: int, size: int) -> int:
    """The first byte that the server sends; 0 if it ignores ranges or has another file."""
    start, total = 0, response.headers.get("Content-Length", "")
    if response.status_code == 416:
        raise _WrongBytesError(f"expected {size} bytes, the server has no more than {have}")
    if response.status_code == 206:
        value = response.headers.get("Content-Range", "")
        if not (match := _CONTENT_RANGE.fullmatch(value)) or int(match[1]) not in (0, have):
            raise _WrongBytesError(f"expected bytes from {have} on, found Content-Range {value!r}")
        start, total = int(match[1]), match[2]
    if total.isdecimal() and int(total) != size:
        raise _WrongBytesError(f"expected {size} bytes, the server has {total}")
    return start


def _remember(response: requests.Response, mark: Path) -> None:
    """Keep the tag that identifies this version of the file; a weak tag does not (RFC 9110)."""
    tag = response.headers.get("ETag", "")
    tag = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    if tag:
        mark.write_text(tag, "utf-8")
    else:
        mark.unlink(missing_ok=True)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, which it may give as a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A date in "-0000", UTC without saying where, has no zone.
    until = until.replace(tzinfo=until.tzinfo or UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _verify(path: Path, md5: str | None) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if digest != md5:
        raise _WrongBytesError(f"expected md5 {md5}, found {digest}")


def _verify_present(path: Path, md5: str | None) -> None:
    try:
        _verify(path, md5)
    except _WrongBytesError as error:
        raise DownloadError(f"{path}: {error}: delete it, and run the same command") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _short(error: Exception) -> str:
    cause = getattr(error.args[0] if error.args else error, "reason", error)
    return f"{type(cause).__name__}"
