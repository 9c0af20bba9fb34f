"""Systems whose networks are trained on all machines, small enough to be trained here."""

from dataclasses import replace

import pytest
from sklearn.covariance import LedoitWolf

from fsasd.detectors.centres import Centres
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.knn import KNN
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.pooled import Pooled
from fsasd.detectors.systems.clp_scf import CLPSCF
from fsasd.detectors.systems.fkie import FKIE
from fsasd.detectors.systems.ibm_confidence import IBMConfidence
from fsasd.detectors.systems.mdam import MDAM
from fsasd.detectors.systems.statex import StatEx
from fsasd.detectors.systems.stgram_mfn import STgramMFN
from fsasd.detectors.systems.thuee import THUEE
from fsasd.detectors.systems.zeng import Zeng

ALL = "machine+section+attributes+domain"


def brief(kind, training=None, **settings):
    """A representation with short clips and few epochs."""
    short = {"seconds": 0.5, "batch_size": 16, "epochs": 6, **(training or {})}
    return kind(**settings, training=replace(kind.training, **short))


TWO = {"networks": 2, "dim": 8, "channels": 2, "clusters": 2}
SMALL = {
    "fkie": brief(FKIE, **TWO),
    "stgram_mfn": brief(STgramMFN, {"learning_rate": 1e-3, "classes": ALL}, width=0.125),
    "mdam": brief(MDAM, channels=4, dim=8),
    "thuee": brief(THUEE, channels=4, dim=8),
    "zeng": brief(Zeng, width=0.125, dim=8, first_epochs=3),
    "clp_scf": brief(CLPSCF, {"classes": ALL}, width=0.125, first_epochs=3),
    "statex": brief(StatEx, **TWO),
    "ibm_confidence": brief(IBMConfidence, {"classes": ALL}, width=0.125),
}
"""The representations."""

EACH = [
    pytest.param(name, marks=() if name == "stgram_mfn" else pytest.mark.nightly) for name in SMALL
]
"""All of them, for what takes long and is the same for each; ``make test`` has one."""


def nearest(representation):
    return KNN(representation, metric="cosine")


def mahalanobis(representation):
    return Outliers(LedoitWolf(), representation, domains="centred", unit=True)


def centres(representation):
    return Pooled(Centres(representation, k=4))


def confidence(representation):
    return Pooled(Confidence(representation, "confidence"))


SCORED = {
    "fkie": centres, "stgram_mfn": Confidence, "mdam": nearest, "thuee": nearest,
    "zeng": mahalanobis, "clp_scf": Confidence, "statex": centres, "ibm_confidence": confidence,
}  # fmt: skip
"""What scores each of them in the config group ``detector``."""
