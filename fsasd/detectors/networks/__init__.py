"""Training of networks: their layers, heads and losses, examples and batches, checkpoints."""
