"""Saved detectors in use: scores of recordings and streams, alarms, drift, new fits."""
