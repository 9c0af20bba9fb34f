"""Pretrained audio encoders, one family a file, frozen as front ends or to be fine-tuned.

An encoder maps waveforms to the hidden states of each of its layers (``loaded.LoadedEncoder``).
``loading.load`` reads one; ``frozen`` pools its states into features
that are cached, ``trainable`` into embeddings through which gradients pass. No weights ship with
the package.
"""

from fsasd.detectors.encoders.frozen import Encoder, ExportedEncoder, Layer
from fsasd.detectors.encoders.trainable import TrainableEncoder

__all__ = ["Encoder", "ExportedEncoder", "Layer", "TrainableEncoder"]
