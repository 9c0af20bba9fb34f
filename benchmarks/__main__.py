"""``make bench``: every measurement of speed and memory, each in a process of its own."""

import subprocess
import sys

MODULES = (
    "startup",
    "data",
    "features",
    "simulate",
    "selection",
    "detection",
    "sections",
    "scoring",
    "networks",
    "encoders",
    "audioldm",
    "demo",
)

if __name__ == "__main__":
    for name in MODULES:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
