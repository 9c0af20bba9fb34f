"""The audio side of CLAP (Wu et al., ICASSP 2023): a Swin transformer, and its projection."""

from __future__ import annotations

import torch
from transformers import AutoConfig, ClapAudioModel, ClapAudioModelWithProjection

from fsasd.detectors.encoders.huggingface import TransformersEncoder, read_network
from fsasd.detectors.encoders.loaded import Inputs


class Clap(TransformersEncoder):
    """The states are maps of the stages, which differ in size: frozen, the projection is the layer.

    A checkpoint of ``ClapAudioModel`` has no projection, and can be fine-tuned only.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.source = source
        # Its extractor would cut longer ones at random.
        self.window = self.extractor.nb_max_samples

    def _read_network(self, source: str) -> torch.nn.Module:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        alone = config.architectures == [ClapAudioModel.__name__]
        return read_network(ClapAudioModel if alone else ClapAudioModelWithProjection, source)

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        network = getattr(self.network, "audio_model", self.network)
        maps = network(**inputs, output_hidden_states=True).hidden_states
        return [stage.flatten(2).transpose(1, 2) for stage in maps]

    def features(self, waveforms: torch.Tensor) -> list[torch.Tensor]:
        """Return the projected embedding.

        Raises:
            ValueError: The checkpoint has no projection.
        """
        if isinstance(self.network, ClapAudioModel):
            raise ValueError(
                f"encoder '{self.source}' is CLAP's audio model alone: expected one with its "
                "projection (ClapModel or ClapAudioModelWithProjection) to use it frozen"
            )
        inputs = self.inputs(waveforms)
        # Its extractor sets the same for a single clip.
        inputs["is_longer"].fill_(self.extractor.truncation == "fusion")
        return [self.network(**inputs).audio_embeds[:, None]]
