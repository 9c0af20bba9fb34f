"""Encoders in the layout of the transformers library: a folder or a hub id."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoFeatureExtractor, AutoModel

from fsasd.data.encoder_inputs import encoder_inputs
from fsasd.detectors.encoders.loaded import Inputs, LoadedEncoder
from fsasd.detectors.encoders.weights import require_weights

_NOT_LEARNT = (
    "masked_spec_embed",  # of SpecAugment in pre-training, which is off
    "num_batches_tracked",
    "position_ids",
    "relative_position_index",
)


class TransformersEncoder(LoadedEncoder):
    """A network and a feature extractor of transformers, whose inputs are computed in batches."""

    def __init__(self, source: str) -> None:
        self.extractor = AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False)
        self.network = self._read_network(source)
        # Random skipping and masking of layers would differ between processes.
        self.network.config.update({"layerdrop": 0.0, "apply_spec_augment": False})
        self.rate = self.extractor.sampling_rate

    def _read_network(self, source: str) -> torch.nn.Module:
        return read_network(AutoModel, source)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        return encoder_inputs(self.extractor, waveforms)

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        return list(self.network(**inputs, output_hidden_states=True).hidden_states)


def read_network(kind: Any, source: str) -> torch.nn.Module:
    """Return a network of transformers with the weights of a checkpoint, in evaluation.

    transformers would draw what is missing at random. Heads beside the network are left out.

    Args:
        kind: A class with ``from_pretrained``.
        source: A hub id or a folder.

    Raises:
        ValueError: The checkpoint lacks weights, or has some that the network does not know.
    """
    network, about = kind.from_pretrained(source, trust_remote_code=False, output_loading_info=True)
    missing = [name for name in about["missing_keys"] if name.rpartition(".")[2] not in _NOT_LEARNT]
    prefix = f"{network.base_model_prefix}."
    inner = {name for name, _ in network.named_children()}
    surplus = [
        name
        for name in about["unexpected_keys"]
        if name.removeprefix(prefix).partition(".")[0] in inner
        and name.rpartition(".")[2] not in _NOT_LEARNT
    ]
    require_weights(source, missing, surplus)
    return network.eval()
