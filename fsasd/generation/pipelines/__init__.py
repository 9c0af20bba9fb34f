"""Latent diffusion models in the folders of diffusers' pipelines, one family per file."""
