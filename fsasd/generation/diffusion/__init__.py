"""Latent diffusion: how a model is fine-tuned, and how latents are drawn or edited."""
