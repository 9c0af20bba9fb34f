"""``make bench``: every measurement of speed and memory, each in a process of its own."""

import subprocess
import sys

MODULES = (
    "startup",
    "data",
    "features",
    "simulate",
    "gap",
    "selection",
    "sources",
    "detection",
    "sections",
    "scoring",
    "deployment",
    "export",
    "networks",
    "encoders",
    "audioldm",
    # Its own sizes take most of an hour.
    "scaling --machines 10 30 --clips 100 1000 10000",
    "demo",
)

if __name__ == "__main__":
    for module in MODULES:
        name, *options = module.split()
        print(f"\n== {module}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=True)
