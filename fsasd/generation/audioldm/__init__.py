"""AudioLDM (Liu et al., 2023): its checkpoints, CLAP, mel spectrogram and vocoder, and a small one.

``AudioLDM`` is the generator.
"""

from fsasd.generation.audioldm.generator import AudioLDM

__all__ = ["AudioLDM"]
