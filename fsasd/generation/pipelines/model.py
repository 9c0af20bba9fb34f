"""A latent diffusion model whose components are those of a pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from torch import nn

from fsasd.generation.diffusion.latent_diffusion import LatentDiffusion
from fsasd.generation.diffusion.model import Model, fingerprint
from fsasd.generation.pipelines.folder import (
    forget_origins,
    load_pipeline,
    originals,
    put_back,
)


class PipelineModel(Model):
    """A model that is loaded from, and saved in, the folder of its pipeline.

    Args:
        source: The folder, or its id on the Hugging Face hub.
        allow: Names of weights that may be missing, superfluous or of another shape.

    Attributes:
        kind: The pipeline's class.
        network_name: Component that is trained.
        instead: Schedulers in the place of those of diffusers, by their classes' names; what is
            saved names the latter.
        pipeline: With all components.
    """

    kind: ClassVar[type[DiffusionPipeline]]
    network_name: ClassVar[str]
    instead: ClassVar[Mapping[str, type]] = {}

    def __init__(self, source: str, allow: Sequence[str] = ()) -> None:
        self.pipeline: Any = load_pipeline(source, self.kind, allow, self.instead)
        self._originals = originals(source, self.instead)
        self.network = self.pipeline.components[self.network_name]
        self.scheduler = self.pipeline.scheduler
        for module in self.frozen():
            module.requires_grad_(False)

    def frozen(self) -> Sequence[nn.Module]:
        components = self.pipeline.components.items()
        modules = [(name, one) for name, one in components if isinstance(one, nn.Module)]
        return [module for name, module in modules if name != self.network_name]

    def save(self, network: Any, folder: Path) -> None:
        components = {**self.pipeline.components, self.network_name: network}
        level = logging.get_verbosity()
        # It would warn of what only a network with adapters has.
        logging.set_verbosity_error()
        try:
            self.kind(**components).save_pretrained(folder)
            forget_origins(folder)
            put_back(folder, self._originals)
        finally:
            logging.set_verbosity(level)

    def fingerprint(self) -> str:
        return f"{type(self).__name__}, {fingerprint(self.pipeline.vae)}"

    @property
    def device(self) -> torch.device:
        """Where the frozen components are."""
        return next(self.pipeline.vae.parameters()).device


class PipelineDiffusion(LatentDiffusion):
    """A ``PipelineModel`` as a LightningModule: its network is fine-tuned on captioned clips.

    Attributes:
        model_class: The family's model, which is loaded from the checkpoint.
    """

    model_class: ClassVar[type[PipelineModel]]

    def load_model(self, checkpoint: str, allow: Sequence[str]) -> PipelineModel:
        """Load a folder in the layout of the family's pipeline."""
        return self.model_class(checkpoint, allow)
