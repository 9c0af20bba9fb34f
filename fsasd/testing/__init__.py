"""Conformance: what every part that can be swapped must do, for our tests and for plug-ins'."""

from fsasd.testing.generators import check_generator

__all__ = ["check_generator"]
