"""Conformance: what every part that can be swapped must do, for our tests and for plug-ins'."""

from fsasd.testing.detectors import (
    ConformanceError,
    DetectorCase,
    check_detector,
    detector_checks,
)
from fsasd.testing.generators import check_generator

__all__ = [
    "ConformanceError",
    "DetectorCase",
    "check_detector",
    "check_generator",
    "detector_checks",
]
