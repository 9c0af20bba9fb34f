"""How often is another setting taken when none is better, and when one is?

Scores of 56 settings that lie on a line, as time weights do: neighbours share most of their noise.
Anomalies lie 0.8 above normal clips in every setting, and in one place by a given shift more.
"""

from __future__ import annotations

import numpy as np

from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.selection.selector import Selector

SETTINGS, DEFAULT, TRIALS = 56, 50, 300


def main() -> None:
    """Print the share of trials in which another setting than the default is chosen."""
    r = np.linspace(0, 1, SETTINGS).round(4)
    selector, detector = Selector({"r": r.tolist()}), TWFRGMM(r=float(r[DEFAULT]))
    candidates = selector.candidates(detector)
    likeness = np.exp(-0.5 * ((r[:, None] - r) * 8) ** 2) + 1e-6 * np.eye(SETTINGS)
    mixing = np.linalg.cholesky(likeness)
    print("clips of each label, shift: one difference's interval, critical value")
    for clips in (16, 64):
        labels = np.repeat([0, 1], clips)
        for shift in (0.0, 0.2, 0.4, 0.8):
            better = 0.8 + shift * np.exp(-0.5 * ((r - 0.35) / 0.12) ** 2)
            taken, naive = 0, 0
            for trial in range(TRIALS):
                rng = np.random.default_rng(trial)
                noise = 0.6 * rng.standard_normal(2 * clips)
                noise = noise + 0.8 * mixing @ rng.standard_normal((SETTINGS, 2 * clips))
                scores = noise + better[:, None] * labels
                selection = selector.select(candidates, labels, scores)
                taken += selection.setting != candidates.settings[candidates.default]
                best = int(selection.curve["argmax"].to_numpy().argmax())
                difference = selection.resampled[best] - selection.resampled[DEFAULT]
                naive += np.quantile(difference, 0.025) > 0
            print(
                f"{clips:3d} {shift:.1f}: {naive / TRIALS:4.0%} {taken / TRIALS:4.0%}", flush=True
            )


if __name__ == "__main__":
    main()
