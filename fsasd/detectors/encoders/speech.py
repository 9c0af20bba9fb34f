"""Encoders of speech: wav2vec 2.0, HuBERT, WavLM and data2vec of transformers, or of torchaudio."""

from __future__ import annotations

import torch
import torchaudio

from fsasd.detectors.encoders.huggingface import TransformersEncoder
from fsasd.detectors.encoders.loaded import Inputs, LoadedEncoder


class Speech(TransformersEncoder):
    """A convolutional stem and a transformer; steps of time."""


class TorchaudioSpeech(LoadedEncoder):
    """A pipeline of torchaudio; its layers begin with the output of the first block.

    Raises:
        ValueError: torchaudio has no such encoder.
    """

    def __init__(self, name: str) -> None:
        bundle = getattr(torchaudio.pipelines, name, None)
        if not isinstance(bundle, torchaudio.pipelines.Wav2Vec2Bundle):
            raise ValueError(
                f"torchaudio has no encoder {name!r}: expected one such as HUBERT_BASE"
            )
        self.network = bundle.get_model().eval()
        self.rate = int(bundle.sample_rate)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        return {"waveforms": waveforms}

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        return self.network.extract_features(**inputs)[0]
