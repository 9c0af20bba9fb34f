"""Downloads from a server on this machine that can be as bad as servers are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from fsasd.cli.download import main
from fsasd.data.download.archive import unpack
from fsasd.data.download.catalogue import FOLDERS, Archive, archives, editions
from fsasd.data.download.download import download
from fsasd.data.download.folder import UNPACKED, DataFolder
from fsasd.data.download.transfer import DownloadError, StoppedError, Zenodo
from fsasd.data.metadata import read_clips
from fsasd.data.names import MetadataError

BYTES = bytes(range(256)) * 2048
"""A file of half a megabyte: several chunks."""


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Mirror(ThreadingHTTPServer):
    """Zenodo's paths on loopback, with the faults that a test asks for.

    Attributes:
        files: By record and name.
        faults: By path, what to do with its next requests instead of answering them well.
        requests: Path and headers of all requests so far.
        ranges: Whether parts of files can be asked for.
        tags: Form of the files' ETag, empty for none.
        released: Ends the stalls.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[tuple[int, str], bytes] = {}
        self.faults: dict[str, list[Callable[[Answer], None]]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ranges = True
        self.tags = '"{}"'
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, archive: Archive, content: bytes) -> Archive:
        """Serve an archive, and return what is known of it then."""
        self.files[archive.record, archive.name] = content
        return replace(archive, md5=md5(content), size=len(content))

    def fail(self, archive: Archive, *faults: Callable[[Answer], None]) -> None:
        self.faults[f"/records/{archive.record}/files/{archive.name}"] = list(faults)

    def asked(self, name: str) -> list[str | None]:
        """The ranges that were asked for of a file."""
        return [headers.get("Range") for path, headers in self.requests if path.endswith(name)]

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is what several tests are about."""


class Answer(BaseHTTPRequestHandler):
    """One request to a ``Mirror``."""

    server: Mirror
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append((self.path, dict(self.headers)))
        if faults := self.server.faults.get(self.path):
            faults.pop(0)(self)
        elif match := re.fullmatch(r"/api/records/(\d+)", self.path):
            self.describe(int(match[1]))
        elif match := re.fullmatch(r"/records/(\d+)/files/(.+)", self.path):
            self.send_file(self.server.files.get((int(match[1]), match[2])))
        else:
            self.refuse(404)

    def describe(self, record: int) -> None:
        files = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{md5(content)}",
            }
            for (of, name), content in self.server.files.items()
            if of == record
        ]
        self.send(json.dumps({"id": record, "files": files}).encode()) if files else self.refuse(
            404
        )

    def send_file(self, content: bytes | None, cut: int | None = None) -> None:
        if content is None:
            self.refuse(404)
            return
        tag = self.server.tags.format(md5(content))
        start, headers = 0, {"ETag": tag} if tag else {}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(wanted[1])
            if start >= len(content):
                self.refuse(416)
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(content[start:], 206 if "Content-Range" in headers else 200, headers, cut)

    def refuse(self, status: int, **headers: str) -> None:
        self.send(b"no", status, {key.replace("_", "-"): v for key, v in headers.items()})

    def send(self, body: bytes, status=200, headers=None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])

    def log_message(self, *args) -> None:
        """Say nothing."""


def refuses(status: int, **headers: str) -> Callable[[Answer], None]:
    return lambda answer: answer.refuse(status, **headers)


def breaks_after(count: int) -> Callable[[Answer], None]:
    """The connection ends after so many bytes of what should come."""

    def fault(answer: Answer) -> None:
        match = re.fullmatch(r"/records/(\d+)/files/(.+)", answer.path)
        answer.send_file(answer.server.files[int(match[1]), match[2]], cut=count)

    return fault


def stalls_after(count: int) -> Callable[[Answer], None]:
    """The connection stays open after so many bytes, and nothing more comes."""

    def fault(answer: Answer) -> None:
        breaks_after(count)(answer)
        answer.wfile.flush()
        answer.server.released.wait(30)

    return fault


def sends(content: bytes, status: int = 200, **headers: str) -> Callable[[Answer], None]:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda answer: answer.send(content, status, named)


@pytest.fixture
def mirror(monkeypatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def waits() -> list[float]:
    """The seconds that were to be waited."""
    return []


@pytest.fixture
def zenodo(mirror, waits) -> Zenodo:
    return Zenodo(mirror.url, wait=waits.append, timeout=(5, 5))


@pytest.fixture
def fan(mirror) -> Archive:
    """An archive on the mirror; its content is no zip, which only unpacking minds."""
    return mirror.add(Archive("dcase2023", "dev", "fan", 1, "dev_fan.zip"), BYTES)


# What there is


def test_every_edition_is_known():
    assert editions() == [f"dcase{year}" for year in range(2020, 2027)]
    for edition in editions():
        listed = archives(edition)
        assert {archive.part for archive in listed} == set(FOLDERS)
        assert len({archive.name for archive in listed}) == len(listed)
        assert all(archive.machine in archive.name for archive in listed)
        trained = {a.machine for a in listed if a.part == "eval_train"}
        assert trained == {a.machine for a in listed if a.part == "eval_test"}
        for archive in listed:
            assert archive.md5 is None or re.fullmatch("[0-9a-f]{32}", archive.md5)


def test_records_are_those_of_the_reference(shared):
    known = json.loads((shared / "reference" / "zenodo" / "records.json").read_text())
    names = {"dev": "dev", "eval_train": "add_train", "eval_test": "eval"}
    for year, records in known["records_other_years"].items():
        for archive in archives(year):
            assert archive.record == records.get(names[archive.part], 20437238)
    md5 = {n: m for files in known["dcase2023"]["records"].values() for n, m in files.items()}
    assert {a.name: a.md5 for a in archives("2023")} == md5
    sizes = known["dcase2020_size_md5"]["files"]
    assert {a.name: {"bytes": a.size, "md5": a.md5} for a in archives("2020") if a.size} == sizes
    urls = " ".join(path.read_text() for path in (shared / "reference/zenodo").glob("*.yaml"))
    for archive in (a for edition in editions() for a in archives(edition)):
        if (archive.edition, archive.part) != ("dcase2026", "eval_test"):
            assert re.search(rf"/records?/{archive.record}/files/{archive.name}\s", f"{urls} ")


def test_machines_and_parts_choose_archives():
    chosen = archives("dcase2020", ["eval_test", "dev"], ["pump", "fan"])
    assert [(a.part, a.machine) for a in chosen] == [
        ("dev", "fan"),
        ("dev", "pump"),
        ("eval_test", "fan"),
        ("eval_test", "pump"),
    ]
    assert {a.machine for a in archives("2023", machines=["fan", "shaker"])} == {"fan", "shaker"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dcase2032"], r"'dcase2032' is not among the editions: .*Did you mean 'dcase20\d\d'"),
        (["2023", ["eval_trian"]], "not among the parts: .*Did you mean 'eval_train'"),
        (["2023", None, ["toycar"]], r"machines of dcase2023 \(dev, .*Did you mean 'ToyCar'"),
        (["2023", ["dev"], ["bandsaw"]], r"'bandsaw' is not among the machines of dcase2023 \(dev"),
    ],
)
def test_a_typo_suggests_the_near_miss(arguments, message):
    with pytest.raises(MetadataError, match=message):
        archives(*arguments)


# Records


def test_what_is_not_known_is_asked_from_the_record(mirror, zenodo, fan):
    assert zenodo.describe([replace(fan, md5=None, size=None)]) == [fan]
    assert zenodo.describe([fan]) == [fan]
    assert [path for path, _ in mirror.requests] == ["/api/records/1"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([{"key": "dev_pump.zip"}], "expected a file dev_fan.zip, found dev_pump.zip"),
        ([{"key": "dev_fan.zip", "size": 3}], "expected a size and a checksum md5:.*found 3"),
        ([{"key": "dev_fan.zip", "size": 0, "checksum": "md5:aa"}], "found 0 and md5:aa"),
        ([{"key": "dev_fan.zip", "size": 3, "checksum": "sha256:aa"}], "found 3 and sha256:aa"),
        ([{"key": "dev_fan.zip", "size": 3, "checksum": "md5:aa"}], "has md5 aa, this version"),
    ],
)
def test_a_record_that_does_not_fit_is_named(mirror, zenodo, fan, files, message):
    mirror.faults["/api/records/1"] = [sends(json.dumps({"files": files}).encode())]
    with pytest.raises(DownloadError, match=rf"/api/records/1: .*{message}"):
        zenodo.describe([replace(fan, size=None)])


@pytest.mark.parametrize("body", [b"<html>Sign in", b"[1, 2]", b'{"title": "x"}', b'{"files": 3}'])
def test_an_answer_that_is_no_record_is_shown(mirror, zenodo, fan, body):
    mirror.faults["/api/records/1"] = [sends(body)]
    with pytest.raises(DownloadError, match=rf"expected a record's.*{re.escape(body.decode())}"):
        zenodo.describe([replace(fan, md5=None)])


def test_an_answer_that_is_compressed_is_not_decompressed(mirror, zenodo, fan):
    body = gzip.compress(b" " * 100_000 + b'{"files": []}')
    mirror.faults["/api/records/1"] = [sends(body, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match="expected a record's description in JSON"):
        zenodo.describe([replace(fan, md5=None)])


def test_a_busy_record_is_asked_again(mirror, zenodo, fan, waits):
    cut = lambda answer: answer.send(b'{"files": []}', cut=5)  # noqa: E731
    mirror.faults["/api/records/1"] = [refuses(503), refuses(429, Retry_After="7"), cut]
    assert zenodo.describe([replace(fan, md5=None)]) == [fan]
    assert waits == [1, 7, 4]


# Transfer


def fetched(zenodo: Zenodo, archive: Archive, folder: Path) -> bytes:
    """Fetch, and check that nothing but the file is left."""
    path = folder / archive.name
    zenodo.fetch(archive, path)
    assert list(folder.iterdir()) == [path]
    return path.read_bytes()


def test_a_file_arrives(tmp_path, zenodo, mirror, fan):
    done = []
    zenodo.fetch(fan, tmp_path / "x.zip", done.append)
    assert (tmp_path / "x.zip").read_bytes() == BYTES
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == len(BYTES)
    (_, headers), *_ = mirror.requests
    assert headers["User-Agent"].startswith("fsasd/")
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("tags", ['"{}"', 'W/"{}"', ""])
def test_a_broken_connection_goes_on_where_it_broke(tmp_path, zenodo, mirror, fan, waits, tags):
    mirror.tags = tags
    mirror.fail(fan, breaks_after(100_000), breaks_after(50_000))
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert mirror.asked("dev_fan.zip") == [None, "bytes=100000-", "bytes=150000-"]
    assert waits == [1, 1]
    # A weak tag does not tell one version from another byte by byte.
    assert ("If-Range" in mirror.requests[-1][1]) == tags.startswith('"')


def test_an_interrupted_download_goes_on_in_the_next_call(tmp_path, zenodo, mirror, fan):
    mirror.fail(fan, breaks_after(200_000), *[refuses(503)] * 8)
    with pytest.raises(DownloadError, match=r"dev_fan.zip: the server answers 503 .*, 8 times"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert (tmp_path / "dev_fan.zip.partial").read_bytes() == BYTES[:200_000]
    assert not (tmp_path / "dev_fan.zip").exists()
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert mirror.asked("dev_fan.zip")[-1] == "bytes=200000-"


def test_a_server_that_ignores_ranges_sends_all_anew(tmp_path, zenodo, mirror, fan):
    mirror.ranges = False
    mirror.fail(fan, breaks_after(100_000))
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert mirror.asked("dev_fan.zip") == [None, "bytes=100000-"]


@pytest.mark.parametrize("second", [100_000, 50_000])
def test_a_server_that_never_gets_further_is_given_up(tmp_path, zenodo, mirror, fan, second):
    mirror.ranges = False
    mirror.fail(fan, *[breaks_after(100_000), breaks_after(second)] * 10)
    with pytest.raises(DownloadError, match=r"the connection broke .*, 8 times in a row"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert len(mirror.requests) == 9


def test_a_server_that_always_breaks_further_on_is_not(tmp_path, zenodo, mirror, fan):
    mirror.fail(fan, *[breaks_after(30_000)] * 17)
    assert fetched(zenodo, fan, tmp_path) == BYTES


def test_a_file_that_changed_meanwhile_is_begun_anew(tmp_path, zenodo, mirror, fan):
    mirror.files[1, "dev_fan.zip"] = BYTES[::-1]
    mirror.fail(fan, breaks_after(100_000))
    changed = lambda answer: (mirror.files.update({(1, "dev_fan.zip"): BYTES}), answer.do_GET())  # noqa: E731
    mirror.faults["/records/1/files/dev_fan.zip"].append(changed)
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert mirror.asked("dev_fan.zip")[:2] == [None, "bytes=100000-"]
    assert mirror.requests[1][1]["If-Range"] == f'"{md5(BYTES[::-1])}"'


def test_a_change_that_nothing_tells_of_is_found_by_the_checksum(tmp_path, zenodo, mirror, fan):
    mirror.tags = ""
    (tmp_path / "dev_fan.zip.partial").write_bytes(b"\0" * 100_000)
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert mirror.asked("dev_fan.zip") == ["bytes=100000-", None]


def test_wrong_bytes_are_deleted_and_asked_for_once_more(tmp_path, zenodo, mirror, fan):
    mirror.fail(fan, sends(BYTES[::-1]))
    assert fetched(zenodo, fan, tmp_path) == BYTES
    wrong = md5(BYTES[::-1])
    mirror.fail(fan, sends(BYTES[::-1]), sends(BYTES[::-1]))
    with pytest.raises(DownloadError, match=rf"expected md5 {fan.md5}, found {wrong}, twice"):
        zenodo.fetch(fan, tmp_path / "again.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["dev_fan.zip"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (sends(b"<html>Sign in</html>"), "expected 524288 bytes, the server has 20"),
        (sends(BYTES, 206, Content_Range="bytes 7-8/9"), r"from 0 on, found .*'bytes 7-8/9'"),
        (sends(BYTES, 206), "expected bytes from 0 on, found Content-Range ''"),
        (sends(BYTES, 206, Content_Range="bytes 0-9/10"), "the server has 10"),
        (refuses(416), "expected 524288 bytes, the server has no more than 0"),
    ],
)
def test_another_file_is_not_taken_for_it(tmp_path, zenodo, mirror, fan, fault, message):
    mirror.fail(fan, fault, fault)
    with pytest.raises(DownloadError, match=f"dev_fan.zip: .*{message}, twice; what came was del"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert list(tmp_path.iterdir()) == []


def test_more_than_was_announced_is_not_written(tmp_path, zenodo, mirror, fan):
    def endless(answer: Answer) -> None:
        answer.send_response(200)
        answer.end_headers()
        answer.wfile.write(BYTES + BYTES)

    mirror.fail(fan, endless, endless)
    with pytest.raises(DownloadError, match="expected 524288 bytes, found more, twice"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")


def test_a_partial_file_that_is_too_long_is_begun_anew(tmp_path, zenodo, mirror, fan):
    (tmp_path / "dev_fan.zip.partial").write_bytes(BYTES + b"x")
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert mirror.asked("dev_fan.zip") == [None]


def test_a_partial_file_that_is_whole_needs_no_server(tmp_path, fan):
    (tmp_path / "dev_fan.zip.partial").write_bytes(BYTES)
    assert fetched(Zenodo("http://127.0.0.1:9"), fan, tmp_path) == BYTES


def test_a_file_that_one_has_is_verified(tmp_path, zenodo, mirror, fan):
    (tmp_path / "dev_fan.zip").write_bytes(BYTES)
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert not mirror.requests
    (tmp_path / "dev_fan.zip").write_bytes(b"other")
    with pytest.raises(DownloadError, match=f"expected md5 {fan.md5}, found .*: delete it"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(tmp_path, zenodo, mirror, fan, waits, status):
    mirror.fail(fan, refuses(status))
    url = re.escape(f"{mirror.url}/records/1/files/dev_fan.zip")
    with pytest.raises(DownloadError, match=f"^{url}: the server answers {status}"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert waits == []


def test_a_busy_server_is_given_more_and_more_time(tmp_path, zenodo, mirror, fan, waits):
    mirror.fail(fan, *[refuses(503)] * 7)
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert waits == [1, 2, 4, 8, 16, 32, 60]


def test_a_server_may_say_how_long_to_wait(tmp_path, zenodo, mirror, fan, waits):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    # The last is in a time zone that is none.
    said = ["30", date, past.replace("GMT", "-0000"), past.replace("GMT", "+99999999999999")]
    mirror.fail(fan, *(refuses(429, Retry_After=value) for value in said))
    assert fetched(zenodo, fan, tmp_path) == BYTES
    assert waits[0] == 30
    assert 90 < waits[1] <= 100
    assert waits[2:] == [0, 8]


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path, zenodo, mirror, fan, waits):
    mirror.fail(fan, refuses(429, Retry_After="3600"))
    with pytest.raises(DownloadError, match=r"429 .*, and asks to wait 3600 s: try again after"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert waits == []


def test_no_server_is_named(tmp_path, mirror, fan, waits):
    zenodo = Zenodo("http://127.0.0.1:9", attempts=3, wait=waits.append)
    with pytest.raises(DownloadError, match=r"127.0.0.1:9/.*: no connection .*, 3 times in a row"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert waits == [1, 2]


def test_a_url_that_is_none_is_named(tmp_path, fan, waits):
    with pytest.raises(DownloadError, match=r"ftp://there/records/1/files/dev_fan.zip: "):
        Zenodo("ftp://there", wait=waits.append).fetch(fan, tmp_path / "dev_fan.zip")
    assert waits == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_no_final_name(tmp_path, zenodo, fan):
    (tmp_path / "dev_fan.zip.partial").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"partial: No space left.*kept: put the cause right"):
        zenodo.fetch(fan, tmp_path / "dev_fan.zip")
    assert not (tmp_path / "dev_fan.zip").exists()


def test_a_stalled_transfer_can_be_stopped(tmp_path, mirror, fan):
    zenodo = Zenodo(mirror.url)
    mirror.fail(fan, stalls_after(100_000))
    raised = []

    def run() -> None:
        with pytest.raises(StoppedError) as caught:
            zenodo.fetch(fan, tmp_path / "dev_fan.zip")
        raised.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: mirror.requests)
    time.sleep(0.1)
    zenodo.stop()
    thread.join(5)
    assert raised
    assert not (tmp_path / "dev_fan.zip").exists()


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# Zip files


@pytest.fixture(scope="module")
def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, [0.0] * 160, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


@pytest.mark.parametrize("above", ["", "fan/", "dev_data/fan/", "./fan/", "raw\\fan\\"])
def test_the_machines_folder_is_found(tmp_path, above):
    names = ["train/a.wav", "test/b.flac", "attributes_00.csv"]
    (tmp_path / "x.zip").write_bytes(zipped({f"{above}{name}": name.encode() for name in names}))
    unpack(tmp_path / "x.zip", tmp_path / "out", "fan")
    assert tree(tmp_path / "out") == set(names)
    assert (tmp_path / "out" / "train" / "a.wav").read_bytes() == b"train/a.wav"


def test_folders_are_renamed_and_what_macos_adds_is_left_out(tmp_path):
    members = {
        "fan/": b"",
        "fan/train/a.wav": b"a",
        "fan/source_test/b.wav": b"b",
        "fan/target_test/c.wav": b"c",
        "fan/train/._a.wav": b"",
        "__MACOSX/fan/train/a.wav": b"",
    }
    (tmp_path / "x.zip").write_bytes(zipped(members))
    renamed = {"source_test": "test", "target_test": "test"}
    unpack(tmp_path / "x.zip", tmp_path / "out", "fan", renamed)
    assert tree(tmp_path / "out") == {"train/a.wav", "test/b.wav", "test/c.wav"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "an absolute name"),
        ("\\\\server\\share\\x", "an absolute name"),
        ("C:/x.wav", "an absolute name"),
        ("../x.wav", "a name that leads out of the folder"),
        ("fan/train/../../../x.wav", "a name that leads out of the folder"),
        ("fan\\..\\..\\x.wav", "a name that leads out of the folder"),
    ],
)
def test_a_name_that_leads_elsewhere_unpacks_nothing(tmp_path, name, message):
    (tmp_path / "x.zip").write_bytes(zipped({"fan/train/a.wav": b"a", name: b"bad"}))
    with pytest.raises(DownloadError, match=rf"x.zip: expected .*, found {message}"):
        unpack(tmp_path / "x.zip", tmp_path / "in" / "out", "fan")
    assert tree(tmp_path) == {"x.zip"}


@given(
    parts=st.lists(
        st.sampled_from(["..", ".", "fan", "x", "train", "a.wav", "/", "\\"]), min_size=1
    )
)
def test_no_name_whatsoever_leads_out(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("zip")
    (folder / "x.zip").write_bytes(zipped({"fan/train/0.wav": b"a", "/".join(parts): b"b"}))
    try:
        unpack(folder / "x.zip", folder / "in" / "out", "fan")
    except DownloadError:
        assert tree(folder) == {"x.zip"}
    else:
        assert all(name == "x.zip" or name.startswith("in/out/") for name in tree(folder))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_not_made(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("fan/train/a.wav", b"a")
        info = zipfile.ZipInfo("fan/train/b.wav")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DownloadError, match=r"found a link or a device: 'fan/train/b.wav'"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")


def test_an_encrypted_file_is_named(tmp_path):
    content = bytearray(zipped({"fan/train/a.wav": b"a"}))
    # The flags of the central directory's entry.
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DownloadError, match=r"found an encrypted file: 'fan/train/a.wav'"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")


def test_a_file_that_would_overwrite_another_is_named(tmp_path):
    members = {"fan/source_test/a.wav": b"1", "fan/target_test/a.wav": b"2"}
    (tmp_path / "x.zip").write_bytes(zipped(members))
    renamed = {"source_test": "test", "target_test": "test"}
    with pytest.raises(DownloadError, match=r"source_test/a.wav and .*both to become test/a.wav"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan", renamed)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_a_folder_too_is_named(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped({"fan/train": b"", "fan/train/a.wav": b"a"}))
    with pytest.raises(DownloadError, match="expected a file or a folder, found both called train"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")


def test_a_bomb_is_known_by_what_it_declares(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("fan/train/a.wav", b"a")
        archive.filelist[0].file_size = 2**60
    with pytest.raises(DownloadError, match=rf"unpacks to {2**60:,} bytes, and .* are free in"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")
    assert not tree(tmp_path / "out")


def test_a_bomb_that_declares_less_unpacks_to_no_more(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fan/train/a.wav", bytes(10_000_000))
        archive.filelist[0].file_size = 1000
    with pytest.raises(DownloadError, match=r"x.zip: expected a zip file, found damage"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")
    assert (tmp_path / "out" / "train" / "a.wav").stat().st_size <= 1000


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"not a zip",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"sound", b"sOund"),
    ],
)
def test_a_damaged_zip_is_named(tmp_path, damage):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("fan/train/a.wav", b"sound")
    (tmp_path / "x.zip").write_bytes(damage(file.getvalue()))
    with pytest.raises(DownloadError, match=r"x.zip: expected a zip file, found damage"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")


@pytest.mark.parametrize(
    "members",
    [{}, {"readme.md": b""}, {"fan/a.wav": b""}, {"pump/train/a.wav": b""}, {"train/x/a.wav": b""}],
)
def test_an_archive_of_something_else_is_named(tmp_path, members):
    (tmp_path / "x.zip").write_bytes(zipped(members))
    shown = "|".join(members) or "nothing"
    with pytest.raises(DownloadError, match=f"recordings in fan/train or fan/test, found {shown}"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "fan")


# The data set


def publish(mirror: Mirror, edition: str, wav: bytes, machines: list[str]) -> list[Archive]:
    """Put an edition's archives of some machines on the mirror, in the form of the real ones."""
    old = edition == "dcase2021"
    published = []
    for archive in archives(edition, machines=machines):
        top = f"{archive.machine}/"
        domains = ("source", "target")
        train = [f"train/section_00_{d}_train_normal_0000_v_1.wav" for d in domains]
        tests = {
            "dev": [
                f"{f'{d}_test' if old else 'test'}/section_00_{d}_test_{y}_0000_v_1.wav"
                for d in domains
                for y in ("normal", "anomaly")
            ],
            "eval_test": ["test/section_00_0000.wav", "test/section_00_0001.wav"],
            "eval_train": [],
        }[archive.part]
        names = ([] if archive.part == "eval_test" else train) + tests
        members = {top: b"", **{top + name: wav for name in names}}
        if archive.part != "eval_test":
            rows = "".join(f"{archive.machine}/{name},load,7\n" for name in names)
            members[f"{top}attributes_00.csv"] = f"file_name,d1p,d1v\n{rows}".encode()
        published.append(mirror.add(archive, zipped(members)))
    return published


def evaluators(folder: Path, machine: str = "3DPrinter") -> Path:
    """The evaluators' ground truth of a machine as ``publish`` makes it."""
    rows = {
        "data": ["0", "1"],
        "domain": ["0", "1"],
        "attributes": [
            "section_00_source_test_normal_0000_v_1.wav",
            "section_00_target_test_anomaly_0001_v_2.wav",
        ],
    }
    for kind, values in rows.items():
        path = folder / f"ground_truth_{kind}" / f"ground_truth_{machine}_section_00_test.csv"
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"section_00_000{i}.wav,{v}\n" for i, v in enumerate(values)))
    return folder


MACHINES = ["fan", "3DPrinter"]


def test_what_was_downloaded_can_be_read(tmp_path, mirror, zenodo, wav):
    published = publish(mirror, "dcase2024", wav, MACHINES)
    root = tmp_path / "data"
    truth = evaluators(tmp_path / "evaluator")
    assert download("2024", root, machines=MACHINES, ground_truth=truth, zenodo=zenodo) == published
    clips = read_clips(root)
    assert Counter((c.role, c.machine, c.split, c.label) for c in clips) == {
        ("reference", "fan", "train", "normal"): 2,
        ("reference", "fan", "test", "normal"): 2,
        ("reference", "fan", "test", "anomaly"): 2,
        ("target", "3DPrinter", "train", "normal"): 2,
        ("target", "3DPrinter", "test", "normal"): 1,
        ("target", "3DPrinter", "test", "anomaly"): 1,
    }
    assert clips[0].attributes == {"v": "1", "load": "7"}
    assert {c.attributes["v"] for c in clips if c.machine == "3DPrinter"} == {"1", "2"}
    # Nothing of the way there is left.
    assert tree(root / "archives") - {".lock"} == {
        "edition.txt",
        *(f"{archive.name}.json" for archive in published),
    }


def test_the_second_call_asks_for_nothing(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, MACHINES)
    download("2024", tmp_path, machines=MACHINES, zenodo=zenodo)
    before, times = len(mirror.requests), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.wav")}
    assert download("2024", tmp_path, machines=MACHINES, zenodo=zenodo) == []
    assert len(mirror.requests) == before
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.wav")}


def test_the_test_clips_of_2021_come_together(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2021", wav, ["fan"])
    download("2021", tmp_path, parts=["dev"], machines=["fan"], zenodo=zenodo)
    clips = [clip for clip in read_clips(tmp_path) if clip.split == "test"]
    assert {(c.domain, c.label) for c in clips} == {
        (d, y) for d in ("source", "target") for y in ("normal", "anomaly")
    }
    assert {c.path.parent.name for c in clips} == {"test"}


def test_parts_can_come_one_after_another(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, MACHINES)
    for part in ("eval_test", "eval_train", "dev"):
        (machine,) = {"fan"} if part == "dev" else {"3DPrinter"}
        assert len(download("2024", tmp_path, parts=[part], machines=[machine], zenodo=zenodo)) == 1
    assert len(read_clips(tmp_path)) == 10


def test_what_was_deleted_is_downloaded_again(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, ["fan"])
    download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    whole = tree(tmp_path)
    (clip, *_) = sorted((tmp_path / "dev_data" / "fan" / "train").iterdir())
    clip.unlink()
    (archive,) = download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    assert archive.name == "dev_fan.zip"
    assert tree(tmp_path) == whole


def test_what_is_other_than_downloaded_is_not_overwritten(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, ["fan"])
    table = tmp_path / "dev_data" / "fan" / "attributes_00.csv"
    table.parent.mkdir(parents=True)
    table.write_text("mine")
    with pytest.raises(DownloadError, match=r"attributes_00.csv is there already, with other cont"):
        download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    assert table.read_text() == "mine"
    # Nothing was lost, so the archive need not be downloaded again.
    table.unlink()
    before = len(mirror.asked("dev_fan.zip"))
    download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    assert len(mirror.asked("dev_fan.zip")) == before
    assert len(read_clips(tmp_path)) == 6


def test_what_was_changed_is_named(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, ["fan"])
    download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    (clip, *_) = sorted((tmp_path / "dev_data" / "fan" / "train").iterdir())
    clip.write_bytes(wav[:100])
    with pytest.raises(DownloadError, match=f"{clip.name} is there already, with other content"):
        download("2024", tmp_path, machines=["fan"], zenodo=zenodo)


def test_an_interrupted_unpacking_is_not_taken_for_done(tmp_path, mirror, zenodo, wav):
    (archive,) = publish(mirror, "dcase2024", wav, ["fan"])
    folder = DataFolder(tmp_path, "dcase2024")
    with folder.claimed():
        # As a process leaves it that was killed while it unpacked, and while it moved.
        folder.zip(archive).write_bytes(mirror.files[archive.record, archive.name])
        half = tmp_path / "archives" / "dev_fan.zip.unpacking" / "train"
        half.mkdir(parents=True)
        (half / "section_00_source_train_normal_0000_v_1.wav").write_bytes(wav[:20])
        there = tmp_path / "dev_data" / "fan" / "train"
        there.mkdir(parents=True)
        (there / "section_00_source_train_normal_0000_v_1.wav").write_bytes(wav)
        assert not folder.has(archive)
    download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    assert mirror.asked("dev_fan.zip") == []
    assert folder.has(archive)
    assert len(read_clips(tmp_path)) == 6
    assert {p.stat().st_size for p in tmp_path.rglob("*.wav")} == {len(wav)}


@pytest.mark.parametrize(
    "receipt", ["", "[]", "{}", '{"record": 10902294, "files": 3}', '{"record": 1, "files": {}}']
)
def test_a_receipt_that_says_nothing_is_none(tmp_path, mirror, zenodo, wav, receipt):
    publish(mirror, "dcase2024", wav, ["fan"])
    (archive,) = download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    (tmp_path / "archives" / "dev_fan.zip.json").write_text(receipt)
    assert not DataFolder(tmp_path, "dcase2024").has(archive)
    assert download("2024", tmp_path, machines=["fan"], zenodo=zenodo) == [archive]


def test_a_disk_that_fills_up_leaves_no_half_folder(tmp_path, mirror, zenodo, wav):
    archive = Archive("dcase2024", "dev", "fan", 1, "dev_fan.zip")
    big = {f"fan/train/section_00_source_train_normal_{i:04}_v_1.wav": wav for i in range(9)}
    archive = mirror.add(archive, zipped({**big, "fan/test/z.wav": bytes(1_000_000)}))
    folder = DataFolder(tmp_path, "dcase2024")
    with folder.claimed():
        zenodo.fetch(archive, folder.zip(archive))
        # A limit on the size of files stands for a disk without room: both fail a write.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            with pytest.raises(DownloadError, match=r"File too large. .*dev_fan.zip is whole and"):
                folder.install(archive)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not folder.has(archive)
        assert not (tmp_path / "dev_data").exists()
        assert tree(tmp_path / "archives") - {".lock"} == {"edition.txt", "dev_fan.zip"}
        folder.install(archive)
        assert folder.has(archive)


def test_room_is_checked_before_the_first_byte(tmp_path, mirror, zenodo, wav):
    (archive,) = publish(mirror, "dcase2024", wav, ["fan"])
    size = 10**18
    file = {"key": archive.name, "size": size, "checksum": f"md5:{archive.md5}"}
    answer = json.dumps({"files": [file]}).encode()
    mirror.faults[f"/api/records/{archive.record}"] = [sends(answer)]
    with pytest.raises(DownloadError, match=r"2.5 EB are needed .*, and [\d.]+ .B are free"):
        download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    assert mirror.asked(archive.name) == []


def test_what_is_there_need_not_fit_again(tmp_path):
    archive = Archive("dcase2024", "dev", "fan", 1, "dev_fan.zip", "0", 1000)
    folder = DataFolder(tmp_path, "dcase2024")
    assert folder.needed([archive, archive]) == 2 * (1000 + UNPACKED * 1000)
    with folder.claimed():
        (tmp_path / "archives" / "dev_fan.zip.partial").write_bytes(bytes(400))
    assert folder.needed([archive]) == 600 + UNPACKED * 1000
    assert DataFolder(tmp_path / "not" / "yet", "dcase2024").free() > 0


def test_real_recordings_unpack_to_no_more_than_is_reckoned_with(real):
    for machine in (folder for folder in real.glob("*_data/*") if folder.is_dir()):
        clips = [path.read_bytes() for path in sorted(machine.glob("train/*.wav"))[:4]]
        packed = zipped({f"{i}.wav": clip for i, clip in enumerate(clips)})
        assert 1 < sum(map(len, clips)) / len(packed) < UNPACKED


def test_one_failure_does_not_keep_the_others(tmp_path, mirror, zenodo, wav):
    published = publish(mirror, "dcase2024", wav, ["fan", "bearing", "3DPrinter"])
    lost = [archive for archive in published if archive.part == "eval_test"]
    mirror.fail(lost[0], refuses(404))
    chosen = ["fan", "bearing", "3DPrinter"]
    with pytest.raises(DownloadError) as caught:
        download("2024", tmp_path, machines=chosen, zenodo=zenodo, jobs=2)
    message = str(caught.value)
    assert f"/files/{lost[0].name}: the server answers 404" in message
    assert "the same command goes on from here" in message
    assert {clip.machine for clip in read_clips(tmp_path)} == set(chosen)
    assert download("2024", tmp_path, machines=chosen, zenodo=zenodo) == lost


def test_archives_come_at_the_same_time(tmp_path, mirror, zenodo, wav):
    machines = ["fan", "bearing", "valve"]
    together = threading.Barrier(3, timeout=10)

    def meet(answer: Answer) -> None:
        together.wait()
        answer.do_GET()

    for archive in publish(mirror, "dcase2024", wav, machines):
        mirror.fail(archive, meet)
    assert len(download("2024", tmp_path, machines=machines, zenodo=zenodo, jobs=3)) == 3


def test_two_downloads_do_not_share_a_folder(tmp_path, zenodo):
    with (
        DataFolder(tmp_path, "dcase2024").claimed(),
        pytest.raises(DownloadError, match="another fsasd-download is at work here"),
    ):
        download("2024", tmp_path, machines=["fan"], zenodo=zenodo)


def test_two_editions_do_not_share_a_folder(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, ["fan"])
    download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    with pytest.raises(DownloadError, match="holds dcase2024, and dcase2023 has machines of the"):
        download("2023", tmp_path, machines=["fan"], zenodo=zenodo)


def test_an_edition_that_brought_nothing_holds_no_folder(tmp_path, mirror, zenodo, wav):
    publish(mirror, "dcase2024", wav, ["fan"])
    with pytest.raises(DownloadError, match="/api/records/15097779: the server answers 404"):
        download("2025", tmp_path, machines=["fan"], zenodo=zenodo)
    download("2024", tmp_path, machines=["fan"], zenodo=zenodo)
    assert (tmp_path / "archives" / "edition.txt").read_text() == "dcase2024\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, zenodo):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"file/data: .*: choose another --root"):
        download("2024", tmp_path / "file" / "data", machines=["fan"], zenodo=zenodo)


# Ground truth


def test_ground_truth_joins_what_is_there(tmp_path, mirror, zenodo, wav, caplog):
    publish(mirror, "dcase2024", wav, ["3DPrinter"])
    root = tmp_path / "data"
    download("2024", root, machines=["3DPrinter"], zenodo=zenodo)
    assert {c.label for c in read_clips(root) if c.split == "test"} == {None}
    truth = evaluators(tmp_path / "evaluator")
    for _ in range(2):
        assert not download("2024", root, machines=["3DPrinter"], ground_truth=truth, zenodo=zenodo)
    assert {c.label for c in read_clips(root) if c.split == "test"} == {"normal", "anomaly"}
    assert "ground_truth_domain says nothing of AirCompressor, BrushlessMotor," in caplog.text


def test_the_real_ground_truth_of_2024_joins(tmp_path, shared):
    folder = DataFolder(tmp_path, "dcase2024")
    targets = {a.machine for a in archives("2024", ["eval_test"])}
    with folder.claimed():
        source = shared / "reference" / "scores" / "ground_truth_2024"
        assert folder.join_ground_truth(source, targets) == 27
    assert len(tree(tmp_path / "ground_truth")) == 27


def test_ground_truth_of_2020_and_2022_joins(tmp_path):
    source, rows = tmp_path / "source", "file_name,d1p,d1v,file_name_with_full_attributes\n"
    names = [
        "ground_truth_data/ground_truth_fan_section_03_test.csv",
        "ground_truth_domain/ground_truth_fan_section_03_test.csv",
        "ground_truth_attributes/fan/attributes_03.csv",
        "eval_data_list.csv",
    ]
    for name in (*names, "ground_truth_attributes/__MACOSX/attributes_03.csv", "README.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(rows)
    folder = DataFolder(tmp_path / "data", "dcase2022")
    with folder.claimed():
        assert folder.join_ground_truth(source, {"fan"}) == 4
    there = tmp_path / "data/ground_truth"
    found = [path.relative_to(there).as_posix() for path in there.rglob("*.csv")]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder, "expected ground_truth_data/ground_truth_<machine>.*found nothing"),
        (lambda folder: evaluators(folder / "deeper").parent, "found deeper"),
        (lambda folder: evaluators(folder, "shaker"), "found shaker: is it the ground truth of an"),
    ],
)
def test_ground_truth_of_something_else_is_named(tmp_path, zenodo, prepare, message):
    source = prepare(tmp_path / "evaluator")
    with pytest.raises(DownloadError, match=message):
        download("2024", tmp_path / "data", machines=["fan"], ground_truth=source, zenodo=zenodo)


def test_other_ground_truth_is_not_overwritten(tmp_path, zenodo):
    folder = DataFolder(tmp_path / "data", "dcase2024")
    with folder.claimed():
        folder.join_ground_truth(evaluators(tmp_path / "first"), {"3DPrinter"})
        second = evaluators(tmp_path / "second")
        next((second / "ground_truth_data").iterdir()).write_text("section_00_0000.wav,1\n")
        with pytest.raises(DownloadError, match=r"3DPrinter_section_00_test.csv is there already"):
            folder.join_ground_truth(second, {"3DPrinter"})
    assert not (tmp_path / "data" / "archives" / "ground_truth.copying").exists()


# The command


@pytest.fixture
def command(mirror) -> Callable[..., int]:
    return lambda *arguments: main([*map(str, arguments), "--base-url", mirror.url])


def test_the_command_downloads_and_says_so(tmp_path, mirror, wav, command, capsys):
    publish(mirror, "dcase2024", wav, MACHINES)
    arguments = ["dcase2024", "--root", tmp_path, "--machines", *MACHINES]
    assert command(*arguments, "--jobs", 2) == 0
    captured = capsys.readouterr()
    assert captured.out == f"3 archives downloaded, 0 existed; all are in {tmp_path}\n"
    assert f"dev_fan.zip is in {tmp_path / 'dev_data' / 'fan'}" in captured.err
    assert command(*arguments) == 0
    assert capsys.readouterr().out.startswith("0 archives downloaded, 3 existed")
    assert len(read_clips(tmp_path)) == 10


def test_a_terminal_sees_bars(tmp_path, mirror, wav, command, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    (archive,) = publish(mirror, "dcase2024", wav, ["fan"])

    def slow(answer: Answer) -> None:
        time.sleep(0.3)
        answer.do_GET()

    mirror.fail(archive, slow)
    assert command("2024", "--root", tmp_path, "--machines", "fan") == 0
    err = re.sub(r"\x1b\[[\d;?]*\w", "", capsys.readouterr().err)
    assert re.search(r"dev_fan.zip +━+ +0.0/1.7 kB", err)
    assert f"dev_fan.zip is in {tmp_path / 'dev_data' / 'fan'}" in err


def test_a_failure_exits_with_code_1(tmp_path, mirror, wav, command, capsys):
    (archive,) = publish(mirror, "dcase2024", wav, ["fan"])
    mirror.fail(archive, refuses(404))
    assert command("2024", "--root", tmp_path, "--machines", "fan") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "goes on from here" in captured.err


def test_a_dry_run_writes_nothing(tmp_path, mirror, wav, command, capsys):
    published = publish(mirror, "dcase2024", wav, MACHINES)
    root = tmp_path / "data"
    assert command("2024", "--root", root, "--machines", *MACHINES, "--dry-run") == 0
    out = capsys.readouterr().out
    assert all(archive.name in out for archive in published)
    assert re.search(rf"0 of 3 archives are in {root}; [\d.]+ kB needed, [\d.]+ .B free", out)
    assert not root.exists()
    assert not any("/files/" in path for path, _ in mirror.requests)


def test_the_list_needs_no_network(capsys):
    assert main(["--list"]) == 0
    everything = capsys.readouterr().out.splitlines()
    assert len(everything) == sum(len(archives(edition)) for edition in editions())
    assert main(["2020", "--list", "--machines", "fan", "--parts", "dev", "eval_test"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["dcase2020", "dev", "fan", "1.4", "GB", "dev_data_fan.zip"]
    assert "size unknown" in second


def test_a_list_may_be_read_in_part():
    script = "import sys; from fsasd.cli.commands import download; sys.exit(download())"
    command = [sys.executable, "-c", script, "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2023", "--root", "x", "--machines", "Fan"], "Did you mean 'fan'?"),
        (["2023", "--root", "x", "--parts", "devv"], "Did you mean 'dev'?"),
        (["dcase2019", "--root", "x"], "not among the editions: dcase2020"),
        (["2023"], "expected an EDITION and --root DIR"),
        (["--root", "x"], "expected an EDITION and --root DIR"),
        (["2023", "--root", "x", "--jobs", "0"], "--jobs: expected 1 or more, found 0"),
    ],
)
def test_wrong_arguments_exit_with_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_documented(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for option in (
        "EDITION",
        "--root DIR",
        "--parts",
        "--machines",
        "--ground-truth",
        "--base-url",
    ):
        assert option in out


def test_ctrl_c_leaves_what_there_is_and_says_how_to_go_on(tmp_path, mirror, wav, command):
    (archive,) = publish(mirror, "dcase2024", wav, ["fan"])
    content = zipped({"fan/train/section_00_source_train_normal_0000.wav": os.urandom(400_000)})
    archive = mirror.add(archive, content)
    mirror.fail(archive, stalls_after(200_000))
    arguments = ["2024", "--root", str(tmp_path), "--machines", "fan", "--base-url", mirror.url]
    code = "import sys; from fsasd.cli.download import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores it, and so would what we start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    partial = tmp_path / "archives" / "dev_fan.zip.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size > 100_000)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == "Interrupted. What is there is kept: the same command goes on from here.\n"
    have = partial.stat().st_size
    assert 0 < have <= 200_000
    assert not (tmp_path / "dev_data").exists()
    assert command(*arguments[:-2]) == 0
    assert mirror.asked("dev_fan.zip")[-1] == f"bytes={have}-"
