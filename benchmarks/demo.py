"""``fsasd experiment=demo`` from an empty store: seconds of the whole process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time


def main() -> None:
    """Print the time of the first run, and of a second one that finds everything made."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):
            started = time.perf_counter()
            command = [sys.executable, "-m", "fsasd.cli.main", "experiment=demo"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            print(f"{name} run: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
