"""Pretrained encoders, fine-tuned to classify attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torchaudio
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, ClapAudioModel

from fsasd.data.encoder_inputs import encoder_inputs
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.augment import spec_augment
from fsasd.detectors.discriminative import BackEnd, Discriminative
from fsasd.detectors.embedding import Classifier
from fsasd.detectors.encoders import reading
from fsasd.detectors.heads import ArcFace

AST = "audio-spectrogram-transformer"
FAMILIES = {
    AST: AutoModel,
    "clap": ClapAudioModel,
    "clap_audio_model": ClapAudioModel,
    "data2vec-audio": AutoModel,
    "hubert": AutoModel,
    "wav2vec2": AutoModel,
    "wavlm": AutoModel,
}
"""Model types of the transformers library that can be encoders, and their classes."""

POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(dim=1),
    "max": lambda states: states.amax(dim=1),
    "mean+std": lambda states: torch.cat([states.mean(dim=1), states.std(dim=1)], dim=1),
}
TUNINGS = ("lora", "full")
_ATTENTION = r".*\.(q_proj|k_proj|v_proj|query|key|value)"


class TrainableEncoder(nn.Module):
    """A pretrained encoder in batches: waveforms (batch, samples) at 16 kHz -> (batch, dim).

    Args:
        source: A hub id or a folder of the transformers library (see ``FAMILIES``), with the
            settings of its feature extractor.
        seconds: Length of the waveforms.
        layer: Index of the hidden states that are pooled: 0 is the input of the first layer.
        pool: ``mean``, ``max`` or ``mean+std`` over the steps; ``bands``, of an AST: the mean over
            time of each of its frequency bands.
        masks: Largest numbers of bins and of frames that are masked in training, of an AST.

    Raises:
        FileNotFoundError: There is no such encoder, or the hub cannot be reached.
        ValueError: Its model type or its length of input is not supported.
    """

    def __init__(
        self,
        source: str,
        seconds: float,
        layer: int = -1,
        pool: str = "mean",
        masks: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        if pool not in [*POOLS, "bands"]:
            raise ValueError(f"pool '{pool}': expected one of {', '.join([*POOLS, 'bands'])}")
        self.source = source
        self.layer = layer
        self.pool = pool
        self.masks = masks
        self.model, self.extractor = _read(source)
        self.is_ast = self.model.config.model_type == AST
        if pool == "bands" and not self.is_ast:
            raise ValueError(
                f"pool 'bands': expected an AST, found {self.model.config.model_type} ({source})"
            )
        self._require_length(source, seconds)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim)."""
        inputs = self._inputs(waveforms)
        if self.is_ast and self.training and any(self.masks):
            spectrograms = inputs["input_values"].transpose(1, 2)
            inputs["input_values"] = spec_augment(spectrograms, *self.masks).transpose(1, 2)
        states = self.model(**inputs, output_hidden_states=True).hidden_states[self.layer]
        if states.ndim == 4:
            # CLAP's states are maps.
            states = states.flatten(2).transpose(1, 2)
        return self._bands(states) if self.pool == "bands" else POOLS[self.pool](states)

    def _inputs(self, waveforms: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast(waveforms.device.type, enabled=False):
            rate = self.extractor.sampling_rate
            resampled = torchaudio.functional.resample(waveforms.float(), SAMPLE_RATE, rate)
        return encoder_inputs(self.extractor, resampled)

    def _bands(self, states: torch.Tensor) -> torch.Tensor:
        # Two tokens for the clip, then the patches of each band.
        config = self.model.config
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        batch, _, dim = states.shape
        return states[:, 2:].reshape(batch, bands, -1, dim).mean(dim=2).flatten(1)

    def _require_length(self, source: str, seconds: float) -> None:
        # Feature extractors crop longer inputs, some of them at random.
        limit = getattr(self.extractor, "max_length_s", None)
        if self.is_ast:
            limit = 0.01 * self.extractor.max_length
        if limit is not None and seconds > limit:
            raise ValueError(
                f"seconds={seconds:g}: expected at most the {limit:g} seconds of {source}'s input"
            )


class FineTuned(Classifier):
    """A classifier whose saved weights are only the trained ones, of a pretrained encoder.

    Args:
        encoder: The pretrained encoder.
        dim: Of the embeddings, after a linear layer.
        n_classes: Number of classes.
        tuning: ``lora`` (adapters of the attention) or ``full``.
        rank: Of the low-rank adaptation.
        seconds: Length of its input.
        options: See ``Classifier``.
    """

    network: nn.Sequential

    def __init__(
        self,
        encoder: TrainableEncoder,
        dim: int,
        n_classes: int,
        *,
        tuning: str,
        rank: int,
        seconds: float,
        **options: Any,
    ) -> None:
        encoder.requires_grad_(tuning == "full")
        if tuning == "lora":
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_ATTENTION)
            inject_adapter_in_model(config, encoder)
        size = _freeze_unused(encoder, round(seconds * SAMPLE_RATE))
        if not any(p.requires_grad for p in encoder.parameters()):
            raise ValueError(
                f"tuning={tuning} would train no weight of {encoder.source}: its attention does "
                "not call the layers that are adapted. Use tuning=full"
            )
        network = nn.Sequential(encoder, nn.Linear(size, dim))
        super().__init__(network, ArcFace(dim, n_classes), **options)
        self.train()
        self._fixed = set() if tuning == "full" else _fixed(self)
        self._tuning = tuning

    def on_train_start(self) -> None:
        """Switch off the dropout of a frozen encoder."""
        if self._tuning != "full":
            self.network.get_submodule("0.model").eval()

    def weights(self) -> dict[str, np.ndarray]:
        """Return the trained arrays by name."""
        return {k: v for k, v in super().weights().items() if k not in self._fixed}


@dataclass(eq=False, repr=False)
class Pretrained(Discriminative):
    """A pretrained encoder, fine-tuned to classify attributes, and nearest neighbours.

    With nearest neighbours it follows Lv_HUAKONG's successors: AnoPatch (arXiv
    2406.11364), and low-rank adaptation with SpecAugment (arXiv 2409.07016). With a Gaussian
    mixture it is the attribute classifier in Guan_HEU's ensemble.

    Deviations: those systems' encoder is mostly BEATs, which is not in transformers; AST, also a
    transformer of patches trained on AudioSet, replaces it. Attentive pooling is left out. A saved
    detector holds the adapters; the encoder's weights are read from ``encoder``.

    Args:
        encoder: A hub id or a folder (see ``TrainableEncoder``).
        layer: Index of the hidden states that are pooled; -1 is the last.
        steps: Pooling of the states: ``mean``, ``max``, ``mean+std``, ``bands``.
        tuning: ``lora`` (the attention's projections) or ``full``.
        rank: Of the low-rank adaptation.
        dim: Of the embeddings.
        mask_bins: Largest number of bins that SpecAugment masks, for an AST.
        mask_frames: Largest number of frames that it masks.
        learning_rate: Of Adam, falling to 0 along a cosine.
        classes, seconds, epochs, batch_size, outlier_exposure, back_end, k, seed: See
            ``Discriminative``.
    """

    # 2: masks in low-rank adaptation, too. 3: draws do not depend on the number of processes.
    version: ClassVar[int] = 3

    encoder: str = "MIT/ast-finetuned-audioset-10-10-0.4593"
    layer: int = -1
    steps: str = "mean"
    tuning: str = "lora"
    rank: int = 16
    dim: int = 256
    mask_bins: int = 0
    mask_frames: int = 0
    learning_rate: float = 1e-4
    classes: str = "machine+section+attributes+domain"
    seconds: float = 10.0
    epochs: int = 20
    batch_size: int = 16
    outlier_exposure: bool = False
    back_end: BackEnd = "knn"
    k: int = 1
    seed: int = 0

    def classifier(self, member: int, n_classes: int) -> Classifier:
        """Return the encoder with adapters or trainable weights, and ArcFace.

        Raises:
            ValueError: ``tuning`` is unknown or not possible for the encoder.
        """
        if self.tuning not in TUNINGS:
            raise ValueError(f"tuning '{self.tuning}': expected one of {', '.join(TUNINGS)}")
        masks = self.mask_bins, self.mask_frames
        return FineTuned(
            TrainableEncoder(self.encoder, self.seconds, self.layer, self.steps, masks),
            self.dim,
            n_classes,
            tuning=self.tuning,
            rank=self.rank,
            seconds=self.seconds,
            learning_rate=self.learning_rate,
            final_rate=0.0,
        )


def _freeze_unused(encoder: TrainableEncoder, samples: int) -> int:
    # DDP would wait for gradients of the layers after the one that is pooled.
    embeddings = encoder.eval()(torch.zeros(1, samples))
    if embeddings.requires_grad:
        embeddings.sum().backward()
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return embeddings.shape[1]


def _fixed(classifier: Classifier) -> set[str]:
    trained = {name for name, p in classifier.named_parameters() if p.requires_grad}
    # The encoder's buffers do not change either.
    return {k for k in classifier.state_dict() if k.startswith("network.0.")} - trained


def _read(source: str) -> tuple[Any, Any]:
    with reading(source):
        kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        if kind not in FAMILIES:
            raise ValueError(
                f"{source} is a model of kind '{kind}': expected one of {', '.join(FAMILIES)}"
            )
        model = FAMILIES[kind].from_pretrained(source)
        # Random skipping and masking of layers would differ between processes.
        model.config.update({"layerdrop": 0.0, "apply_spec_augment": False})
        return model, AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False)
