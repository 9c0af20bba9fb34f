"""AST, the audio spectrogram transformer (Gong et al., Interspeech 2021)."""

from __future__ import annotations

from typing import ClassVar

from fsasd.detectors.encoders.huggingface import TransformersEncoder
from fsasd.detectors.encoders.loaded import Steps


class AST(TransformersEncoder):
    """A transformer of patches: two tokens of the clip, then the patches of each band."""

    spectrogram: ClassVar[str | None] = "input_values"

    def __init__(self, source: str) -> None:
        super().__init__(source)
        # Frames of 25 ms, 10 ms apart.
        self.window = (self.extractor.max_length - 1) * self.rate // 100 + self.rate // 40
        bands, _ = self.network.embeddings.get_shape(self.network.config)
        self.steps = Steps(tokens=2, bands=bands)
