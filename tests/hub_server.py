"""A stand-in for the Hugging Face hub on this machine: repositories that are folders.

It answers what ``huggingface_hub`` asks to download files, and to upload them as it does where
``HF_HUB_DISABLE_XET`` is set: weights by the protocol of Git LFS, the rest in the commit.
"""

import base64
import contextlib
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import commands

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_stand_in"


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

    def do_POST(self):
        self.server.asked.append(self.path)
        body = self.body()
        path = unquote(urlsplit(self.path).path).strip("/")
        if path == "api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        if path == "api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.lfs(json.loads(body))
        name, kind, revision = path.removeprefix("api/models/").rsplit("/", 2)
        if name not in self.server.folders:
            return self.refuse(404, "RepoNotFound")
        if kind == "branch":
            self.server.branches.append(revision)
            return self.json({})
        if revision not in ("main", *self.server.branches):
            return self.refuse(404, "RevisionNotFound")
        return self.upload_modes(json.loads(body)) if kind == "preupload" else self.commit(
            name, revision, [json.loads(line) for line in body.splitlines()]
        )  # fmt: skip

    def do_PUT(self):
        content = self.body()
        assert hashlib.sha256(content).hexdigest() == self.path.removeprefix("/lfs/")
        self.server.objects[self.path.removeprefix("/lfs/")] = content
        self.answer(b"", ETag="x")

    def body(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.folders:
            return self.refuse(409, "Conflict")
        if asked["organization"] not in self.server.owners:
            return self.refuse(403, "Forbidden")
        self.server.folders[name] = self.server.place / name
        self.server.folders[name].mkdir(parents=True)
        if asked.get("visibility") == "private" or asked.get("private"):
            self.server.private.add(name)
        return self.json({"url": f"{self.server.address}/{name}"})

    def lfs(self, asked):
        return self.json({
            "transfer": "basic",
            "objects": [
                one | {"actions": {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}}}
                for one in asked["objects"]
            ],
        })  # fmt: skip

    def upload_modes(self, asked):
        self.json({
            "files": [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in asked["files"]
            ]
        })  # fmt: skip

    def commit(self, name, revision, lines):
        """Write a commit into the folder of the repository, whatever its branch."""
        folder = self.server.folders[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append((name, revision, value["summary"]))
                continue
            path = folder / value["path"]
            if line["key"] == "deletedFile":
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            is_lfs = line["key"] == "lfsFile"
            path.write_bytes(
                self.server.objects[value["oid"]] if is_lfs else base64.b64decode(value["content"])
            )
        self.json(
            {"commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    @property
    def revisions(self):
        return ("main", "v1", COMMIT, *self.server.branches)

    def about(self, parts):
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.server.folders.get(name)
        if folder is None:
            return self.refuse(404, "RepoNotFound")
        if len(rest) > 1 and rest[1] not in self.revisions:
            return self.refuse(404, "RevisionNotFound")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if rest[:1] == ["tree"]:
            return self.json([
                {"type": "file", "path": file.relative_to(folder).as_posix(), "oid": _oid(file),
                 "size": file.stat().st_size}
                for file in files
            ])  # fmt: skip
        names = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
        private = name in self.server.private
        return self.json({
            "id": name, "modelId": name, "sha": COMMIT, "siblings": names, "tags": [],
            "private": private,
        })  # fmt: skip

    def file(self, name, revision, inner):
        folder = self.server.folders.get(name)
        if folder is None:
            return self.refuse(404, "RepoNotFound")
        if name in self.server.gated:
            return self.refuse(403, "GatedRepo")
        if revision not in self.revisions:
            return self.refuse(404, "RevisionNotFound")
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
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(folders=(), gated=(), place=None, owners=()):
    """Serve folders, by their ids, until the end of the block.

    Args:
        folders: By the ids of their repositories.
        gated: Ids of those whose licence has to be accepted.
        place: Gets the repositories that are created.
        owners: For whom ``TOKEN`` may create them.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folders = {name: Path(folder) for name, folder in dict(folders).items()}
    server.gated, server.asked = set(gated), []
    server.place, server.owners, server.private = place, owners, set()
    server.branches, server.commits, server.objects = [], [], {}
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _oid(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


SETTINGS = """
import importlib, json, os, sys

from huggingface_hub import constants, hf_api

# It read the environment when it was imported, before this process was forked.
os.environ.update(json.loads(sys.argv[1]))
importlib.reload(constants)
hf_api.api.endpoint = constants.ENDPOINT
"""


def client(code, server, cache, *arguments, **environment):
    """Run code in a process of its own, with the hub's address and cache; arguments from 2 on."""
    settings = json.dumps({"HF_ENDPOINT": server.address, "HF_HOME": str(cache), **environment})
    return commands.run(
        [sys.executable, "-c", SETTINGS + code, settings, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
