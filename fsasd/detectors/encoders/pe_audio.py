"""PE-A-Frame, Meta's perception encoder of audio (Vyas et al., 2025, arXiv 2512.19687)."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import AutoModel

from fsasd.detectors.encoders.huggingface import TransformersEncoder, read_network
from fsasd.detectors.encoders.loaded import Inputs, Steps


class PerceptionEncoder(TransformersEncoder):
    """A token of the clip, then steps of 40 ms; the last layer is normalised and projected.

    The convolutional codec before the first block stays as it is in fine-tuning.
    """

    steps = Steps(tokens=1)

    def _read_network(self, source: str) -> torch.nn.Module:
        whole = read_network(AutoModel, source)
        # Without the text model.
        return getattr(whole, "audio_encoder", whole)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        missing = -waveforms.shape[1] % self.extractor.hop_length
        return {"input_values": F.pad(waveforms[:, None], (0, missing), mode="reflect")}

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        output = self.network(**inputs, output_hidden_states=True)
        token = output.pooler_output[:, None]
        return [*output.hidden_states[:-1], torch.cat([token, output.last_hidden_state], dim=1)]
