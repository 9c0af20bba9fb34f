"""A stand-in for the server of Weights & Biases on this machine, whose network can be lost.

It answers what the client asks to begin a run and to send it, and keeps nothing.
"""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"id": "project", "name": "fsasd", "entity": {"id": "entity", "name": "somebody"}}


class Wandb(BaseHTTPRequestHandler):
    """Answers as the server does until a run has begun; then, if it is to, to nothing any more."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        if self.server.lost.is_set():
            self.close_connection = True
        elif self.path == "/graphql":
            asked = json.loads(body)
            self.answer({"data": self.data(asked["query"], asked.get("variables") or {})})
        else:
            self.answer({})

    do_PUT = do_GET = do_POST  # noqa: N815

    def data(self, query, variables):
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)[1]
        if name == "Viewer":
            return {"viewer": {"id": "1", "entity": "somebody", "flags": "{}",
                               "teams": {"edges": []}}}  # fmt: skip
        if name == "UpsertBucket":
            if self.server.is_lost_after_the_beginning:
                self.server.lost.set()
            run = {"id": "run", "name": variables["name"], "displayName": "run", "config": "{}",
                   "historyLineCount": 0, "project": PROJECT}  # fmt: skip
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": self.server.url} for f in variables["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        return {}

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def wandb_server(lost=False):
    """Serve; where it is to be ``lost``, until a run has begun."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Wandb) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.asked, server.lost = [], threading.Event()
        server.is_lost_after_the_beginning = lost
        server.handle_error = lambda request, client: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
