"""Sources of evidence for a setting: each says what every setting is worth, before any label is."""

ALL = "all"
"""Source in ``sources.csv`` that stands for all of them together."""
