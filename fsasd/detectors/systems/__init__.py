"""Learned representations of published systems: each a network, its head and its training."""
