"""Do thresholds withstand odd training clips, and are clips of clean samples left alone?

Held-out scores of normal, gamma and lognormal distributions. Outliers lie at 4 to 12, 1e3 or 1e9
robust standard deviations above the median.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsasd.evaluation.oddness import odd_scores
from fsasd.evaluation.thresholds import gamma_threshold

TRIALS = 100
DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "gamma, shape 5": lambda rng, n: rng.gamma(5.0, size=n),
    "gamma, shape 2": lambda rng, n: rng.gamma(2.0, size=n),
    "lognormal, sigma 0.5": lambda rng, n: rng.lognormal(0.0, 0.5, n),
}
DISTANCES = (4, 6, 8, 12, 1e3, 1e9)


def main() -> None:
    """Print shares of clean samples with an odd clip, and of thresholds moved 1.5 times."""
    print("clean samples in which a clip is odd")
    for n in (16, 50, 100, 990):
        shares = []
        for draw in DRAWS.values():
            trials = TRIALS if n < 500 else TRIALS // 5
            clean = (draw(np.random.default_rng(trial), n) for trial in range(trials))
            shares.append(np.mean([_odd(scores).any() for scores in clean]))
        print(f"{n:4d} clips: " + "  ".join(f"{share:4.0%}" for share in shares), flush=True)
    print("thresholds beyond 1.5 times (or 1 / 1.5) that without outliers: official rule, fsasd")
    for n, k in ((16, 1), (50, 2), (100, 5)):
        for far in DISTANCES:
            row = [_moved(draw, n, k, far) for draw in DRAWS.values()]
            cells = "  ".join(f"{official:4.0%} {ours:4.0%}" for official, ours in row)
            print(f"{k} of {n} at {far:g}: {cells}", flush=True)


def _moved(draw, n: int, k: int, far: float) -> tuple[float, float]:
    moved = []
    for trial in range(TRIALS // 4):
        rng = np.random.default_rng(trial)
        clean = draw(rng, n - k)
        median = np.median(clean)
        spread = 1.4826 * np.median(abs(clean - median))
        scores = np.append(clean, median + far * spread * (1 + 0.1 * rng.random(k)))
        expected = _height(clean)
        ratios = np.array([_height(scores), _height(scores[~_odd(scores)])]) / expected
        moved.append((ratios > 1.5) | (ratios < 1 / 1.5))
    official, ours = np.mean(moved, axis=0)
    return float(official), float(ours)


def _odd(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    return odd_scores(scores, ["source"] * len(scores), [None] * len(scores))


def _height(scores: NDArray[np.float64]) -> float:
    return gamma_threshold(scores, warn=False) - float(np.median(scores))


if __name__ == "__main__":
    main()
