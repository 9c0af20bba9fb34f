"""The simulated factory: seconds of sound made per second of one core, machine by machine."""

from __future__ import annotations

import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from fsasd.data.simulate import MACHINES, Defect, simulate

SECONDS = 10.0


def main() -> None:
    """Print the median over a machine's conditions, and the slowest machine."""
    speeds = {}
    with threadpool_limits(1):
        for name in MACHINES:
            speeds[name] = statistics.median(_speeds(name))
            print(f"{name:12} {speeds[name]:4.0f} x real time")
    slowest = min(speeds, key=speeds.__getitem__)
    print(f"slowest: {slowest}, {speeds[slowest]:.0f} x real time per core (aim: 50)")


def _speeds(name: str) -> list[float]:
    point = MACHINES[name].operating_point("source", 0)
    conditions = ["normal", *(Defect(fault, 1.0) for fault in MACHINES[name].faults)]
    simulate(name, point, "normal", np.random.default_rng(0), SECONDS)
    speeds = []
    for seed in range(3):
        for condition in conditions:
            started = time.process_time()
            simulate(name, point, condition, np.random.default_rng(seed), SECONDS)  # type: ignore[arg-type]
            speeds.append(SECONDS / (time.process_time() - started))
    return speeds


if __name__ == "__main__":
    main()
