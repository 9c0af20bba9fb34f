"""Conformance checks of detectors, generators and sources of evidence, for plug-ins, too."""

from fsasd.testing.detector_case import ConformanceError, DetectorCase
from fsasd.testing.detectors import check_detector, detector_checks
from fsasd.testing.export import check_export
from fsasd.testing.generators import check_generator
from fsasd.testing.sources import check_source

__all__ = [
    "ConformanceError",
    "DetectorCase",
    "check_detector",
    "check_export",
    "check_generator",
    "check_source",
    "detector_checks",
]
