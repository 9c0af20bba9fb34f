"""Conformance checks of detectors and generators, for the tests of fsasd and of plug-ins."""

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
