"""A stand-in for the Hugging Face hub on this machine: repositories that are folders."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does; ``server`` says what there is, and notes what is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/models/"):
            self.about(path.removeprefix("api/models/").split("/"))
        elif "/resolve/" in path:
            name, _, rest = path.partition("/resolve/")
            self.file(name, *rest.split("/", 1))
        else:
            self.answer(b"")

    do_HEAD = do_GET  # noqa: N815

    def about(self, parts):
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.server.folders.get(name)
        if folder is None:
            return self.refuse(404, "RepoNotFound")
        if len(rest) > 1 and rest[1] not in ("main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if rest[:1] == ["tree"]:
            return self.json([
                {"type": "file", "path": file.relative_to(folder).as_posix(), "oid": _oid(file),
                 "size": file.stat().st_size}
                for file in files
            ])  # fmt: skip
        names = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
        return self.json(
            {"id": name, "modelId": name, "sha": COMMIT, "siblings": names, "tags": []}
        )

    def file(self, name, revision, inner):
        folder = self.server.folders.get(name)
        if folder is None:
            return self.refuse(404, "RepoNotFound")
        if name in self.server.gated:
            return self.refuse(403, "GatedRepo")
        path = folder / inner
        if not path.is_file():
            return self.refuse(404, "EntryNotFound")
        return self.answer(path.read_bytes(), ETag=f'"{_oid(path)}"')

    def json(self, value):
        self.answer(json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def refuse(self, status, code):
        self.answer(b"", status, **{"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(folders, gated=()):
    """Serve folders, by their ids, until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folders = {name: Path(folder) for name, folder in folders.items()}
    server.gated, server.asked = set(gated), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _oid(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()
