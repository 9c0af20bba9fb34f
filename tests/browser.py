"""What a script finds in a page that headless Chromium shows."""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

_NOTE_FAULTS = """<script>
window.faults = [];
addEventListener("error", e => faults.push(e.message || e.target.outerHTML.slice(0, 100)), true);
addEventListener("unhandledrejection", e => faults.push(String(e.reason)));
for (const kind of ["error", "warn"]) console[kind] = (...all) => faults.push(all.join(" "));
</script>"""

_FRAME = """<!doctype html><body style="margin: 0">
<iframe src="/page" style="border: 0; height: 900px"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", async () => {
  let found;
  try {
    found = await (async (page, frame) => { SCRIPT })(frame.contentWindow, frame);
  } catch (error) {
    found = {error: String(error)};
  }
  fetch("/found", {method: "POST", body: JSON.stringify(found)});
});
</script>"""


def examine(page, script, folder, seconds=180):
    """Return what a script finds in a page.

    Args:
        page: The text of the page; ``window.faults`` in it has all errors and warnings.
        script: Body of an asynchronous function of ``page``, its window, and of ``frame``, the
            element that it is in.
        folder: For Chromium.
        seconds: That it may take.
    """
    found, done = [], threading.Event()
    files = {
        "/": _FRAME.replace("SCRIPT", script),
        "/page": page.replace("<head>", f"<head>{_NOTE_FAULTS}", 1),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path in files
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(files.get(self.path, "").encode())

        def do_POST(self):
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
               "--no-first-run", "--disable-background-networking"]  # fmt: skip
    address = f"http://127.0.0.1:{server.server_port}/"
    browser = subprocess.Popen([CHROMIUM, *options, address], stderr=subprocess.DEVNULL)
    try:
        assert done.wait(seconds), "Chromium has not said what it found"
    finally:
        browser.terminate()
        browser.wait(30)
        server.shutdown()
        server.server_close()
    return found[0]
