"""Quality of synthetic clips: distances between distributions, adherence, diversity.

Every number is of a section, a label and an encoder, and comes with the numbers of clips. For clips
that are distributed like the real ones, distances are 0 and ratios 1, up to the error of few clips,
which the same distance between random halves of the real clips estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist

from fsasd.data.front_ends import FrontEnd
from fsasd.generation.encoder_space import ENCODER, Neighbourhood, Pooled, RealClips
from fsasd.generation.filters import recordings, rows_by_section
from fsasd.generation.synthetic_clips import sources_of_derived

QUALITY = "quality.csv"
HALVINGS = 10
"""Random halvings of the real clips that distances between real clips are averaged over."""


def quality_table(
    manifest: pd.DataFrame,
    folder: str | Path,
    real: RealClips,
    encoders: Mapping[str, FrontEnd | Pooled] | None = None,
) -> pd.DataFrame:
    """Compare the synthetic clips that were kept with real ones.

    Args:
        manifest: Of ``synthetic_clips.read_table``, with the verdict of all filters.
        folder: Where its recordings are.
        real: Labelled, captioned recordings. Synthetic clips are compared with the section's
            normal training clips and, where its anomalies are known, with these.
        encoders: Name to front end, or to one with its own pooling (see ``embed``); log-mel
            statistics by default.

    Returns:
        One row per machine, section, label, kind of real clips (``against``) and encoder:
        ``synthetic`` and ``real`` (how many), ``fad`` and ``kid`` (``frechet_distance`` and
        ``kernel_distance``), ``fad_real`` and ``kid_real`` (between halves of the real clips),
        ``adherence`` (share of
        clips whose nearest real normal clip has the caption of their source), ``chance`` (adherence
        of clips that do not depend on their caption), ``diversity`` (mean
        distance between synthetic clips, as a multiple of that between real ones), ``front_end``.
        Undefined is NaN: distances of fewer than two clips, adherence to a single caption.
    """
    rows = []
    for section, in_section in rows_by_section(manifest):
        kept = manifest[in_section & manifest["kept"]]
        normals = real.normals(section)
        if not len(normals.clips):
            continue
        anomalies = real.anomalies(section)
        for name, front_end in (encoders or {"log-mel statistics": ENCODER}).items():
            around = Neighbourhood(normals, front_end)
            others = {"normal": around.points}
            if len(anomalies.clips):
                others["anomaly"] = around.place(anomalies.clips)
            for label, clips in kept.groupby("label", sort=False):
                points = around.place(recordings(clips, Path(folder)))
                for kind, theirs in others.items():
                    rows.append(
                        {
                            "machine": section.machine,
                            "section": section.section,
                            "label": label,
                            "against": kind,
                            "encoder": name,
                            **_compared(points, theirs),
                            **(_adherence(around, points, clips) if kind == "normal" else {}),
                            "front_end": repr(front_end),
                        }
                    )
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *("machine", "section", "label", "against", "encoder", "synthetic", "real", "fad", "fad_real"),
    *("kid", "kid_real", "adherence", "chance", "diversity", "front_end"),
]


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Frechet distance between Gaussians fitted to two sets of points, (n, d), (m, d).

    ``|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))``: FID (Heusel et al., 2017), of audio
    FAD (Kilgour et al., 2019). Biased upwards by few points, the more the more dimensions there
    are: compare only what was taken from as many. NaN for fewer than two points.

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> round(frechet_distance(x, x + [1, 0, 2]), 6)
    5.0
    """
    if min(len(x), len(y)) < 2:
        return np.nan
    cov_x, cov_y = np.atleast_2d(np.cov(x.T)), np.atleast_2d(np.cov(y.T))
    # tr (C_x C_y)^(1/2) is the sum of the singular values of C_x^(1/2) C_y^(1/2): both roots are of
    # symmetric matrices, so that few points in many dimensions do no harm.
    overlap = np.linalg.norm(_root(cov_x) @ _root(cov_y), ord="nuc")
    shift = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    return float(shift + np.trace(cov_x) + np.trace(cov_y) - 2 * overlap)


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets of points, (n, d), (m, d).

    With the polynomial kernel ``(x.y / d + 1)^3`` it is KID (Binkowski et al., 2018): 0 on average
    for sets from one distribution, whatever their sizes, so that it can be negative. NaN for fewer
    than two points.

    >>> round(kernel_distance(np.zeros((2, 1)), np.ones((2, 1))), 6)
    7.0
    """
    if min(len(x), len(y)) < 2:
        return np.nan

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def _compared(points: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    rng = np.random.default_rng(0)
    halves = [np.array_split(rng.permutation(theirs), 2) for _ in range(HALVINGS)]
    apart = {
        "synthetic": float(pdist(points).mean()) if len(points) > 1 else np.nan,
        "real": float(pdist(theirs).mean()) if len(theirs) > 1 else np.nan,
    }
    return {
        "synthetic": len(points),
        "real": len(theirs),
        "fad": frechet_distance(points, theirs),
        "fad_real": float(np.mean([frechet_distance(*half) for half in halves])),
        "kid": kernel_distance(points, theirs),
        "kid_real": float(np.mean([kernel_distance(*half) for half in halves])),
        "diversity": apart["synthetic"] / apart["real"] if apart["real"] else np.nan,
    }


def _adherence(around: Neighbourhood, points: np.ndarray, clips: pd.DataFrame) -> dict[str, float]:
    theirs = np.array(around.captions)
    if len(set(around.captions)) < 2:
        return {"adherence": np.nan, "chance": np.nan}
    distances = around.distances(points, sources_of_derived(clips))
    sources = [around.row[source] for source in clips["source_sha256"]]
    same = theirs == theirs[sources][:, None]
    candidates = np.isfinite(distances)
    return {
        "adherence": float(np.mean(same[np.arange(len(points)), distances.argmin(axis=1)])),
        "chance": float(np.mean((same & candidates).sum(axis=1) / candidates.sum(axis=1))),
    }
