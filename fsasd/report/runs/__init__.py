"""Runs and sweeps beside each other: their state, their metrics, what differs and by how much."""
