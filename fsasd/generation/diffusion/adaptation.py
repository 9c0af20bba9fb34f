"""Which weights of a network are fine-tuned: all, low-rank adapters, or components by name.

Every run imports this: diffusers and peft, which only adapters need, are imported where they do.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

if TYPE_CHECKING:
    from diffusers import ModelMixin

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINED = ("to_qkv", "to_kv", "to_out")
"""Layers of attention as some transformers have them."""

EVERYWHERE = (
    *ATTENTION,
    *("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "time_emb_proj", "class_embedding"),
)
"""All layers that LoRA can adapt; ``class_embedding`` is where the caption comes in."""


class Full:
    """Every weight of the network."""

    learning_rate = 3e-5

    def apply(self, network: ModelMixin) -> None:
        """Select the weights that are trained."""
        network.requires_grad_(True)

    def merged(self, network: ModelMixin) -> ModelMixin:
        """Return a network without adapters that computes the same."""
        return network

    def save_separately(self, network: ModelMixin, folder: Path) -> None:
        """Write the trained weights separately, where they can be loaded without the rest."""


class Untrained(Full):
    """None: clips are generated as the checkpoint does, and the fine-tuning is skipped."""

    def apply(self, network: ModelMixin) -> None:
        """Refuse to be trained.

        Raises:
            ValueError: Always.
        """
        raise ValueError("generator/train=none trains nothing: choose full, lora or components")


class SelectedComponents(Full):
    """The weights whose names match, e.g. ``class_embedding*``, ``*.attentions.*``.

    Args:
        names: Patterns; ``*`` stands for anything.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def apply(self, network: ModelMixin) -> None:
        """Select the weights that are trained.

        Raises:
            ValueError: A pattern matches nothing.
        """
        known = [name for name, _ in network.named_parameters()]
        for pattern in self.names:
            if not any(fnmatchcase(name, pattern) for name in known):
                blocks = sorted({name.split(".")[0] for name in known})
                raise ValueError(
                    f"no weight of the network is named '{pattern}': there are {', '.join(blocks)}"
                )
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in self.names))


class Lora(Full):
    """Low-rank adapters (Hu et al., 2022) beside frozen weights.

    Args:
        rank: Of each adapter's two matrices.
        alpha: The adapters' sum is scaled by alpha / rank.
        layers: ``attention``, ``all``, or the layers' names as peft matches them.
        learning_rate: The default of the generator that is trained so.
    """

    WEIGHTS = "pytorch_lora_weights.safetensors"

    def __init__(
        self,
        rank: int = 16,
        alpha: int = 16,
        layers: str | Sequence[str] = "all",
        learning_rate: float = 1e-4,
    ) -> None:
        if rank < 1:
            raise ValueError(f"LoRA needs a rank of at least 1, found {rank}")
        presets = {"attention": (*ATTENTION, *JOINED), "all": (*EVERYWHERE, *JOINED)}
        if isinstance(layers, str) and layers not in presets:
            raise ValueError(f"LoRA layers: expected attention, all or a list, found '{layers}'")
        self.rank = rank
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.layers = list(presets[layers] if isinstance(layers, str) else layers)

    def apply(self, network: ModelMixin) -> None:
        """Add adapters, whose output is 0 at first, and freeze all else."""
        from diffusers.loaders import PeftAdapterMixin
        from peft import LoraConfig, inject_adapter_in_model

        network.requires_grad_(False)
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=self._layers_of(network)
        )
        # Initialised alike in all processes.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if isinstance(network, PeftAdapterMixin):
                network.add_adapter(config)
            else:
                inject_adapter_in_model(config, network)
                # As diffusers keeps it, and peft looks for it.
                network.peft_config = {"default": config}

    def merged(self, network: ModelMixin) -> ModelMixin:
        """Return a network without adapters that computes the same."""
        from diffusers.loaders import PeftAdapterMixin

        if not _adapted(network):
            return network
        one = copy.deepcopy(network)
        if isinstance(network, PeftAdapterMixin):
            one.fuse_lora()
            one.unload_lora()
            return one
        for name in _adapted(one):
            layer = one.get_submodule(name)
            layer.merge()
            one.set_submodule(name, layer.get_base_layer())
        return one

    def save_separately(self, network: ModelMixin, folder: Path) -> None:
        """Write the adapters, for ``load_adapters`` and diffusers' ``load_lora_adapter``."""
        from diffusers.loaders import PeftAdapterMixin
        from diffusers.utils import logging
        from peft import get_peft_model_state_dict

        if not _adapted(network):
            return
        if not isinstance(network, PeftAdapterMixin):
            (folder / "lora").mkdir(parents=True, exist_ok=True)
            weights = get_peft_model_state_dict(network)
            save_file(weights, folder / "lora" / self.WEIGHTS, {"format": "pt"})
            network.peft_config["default"].save_pretrained(folder / "lora")
            return
        # It would warn of a list of modules that is empty here.
        level = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            network.save_lora_adapter(folder / "lora", safe_serialization=True)
        finally:
            logging.set_verbosity(level)

    def _layers_of(self, network: ModelMixin) -> list[str]:
        """Return the names, of those asked for, that a layer of the network has."""
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
        names = [f".{name}" for name, m in network.named_modules() if isinstance(m, kinds)]
        layers = [end for end in self.layers if any(n.endswith(f".{end}") for n in names)]
        if not layers:
            raise ValueError(
                f"LoRA layers: {type(network).__name__} has none that is called "
                f"{', '.join(self.layers)}: give names of its own in generator.train.layers"
            )
        return layers


def _adapted(network: ModelMixin) -> list[str]:
    """Return the names of layers that have adapters; before training there are none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [name for name, m in network.named_modules() if isinstance(m, BaseTunerLayer)]


def load_adapters(network: ModelMixin, folder: str | Path) -> None:
    """Load saved adapters into the network that they were trained on.

    Raises:
        FileNotFoundError: The folder holds none.
    """
    path = Path(folder) / Lora.WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no adapters ({Lora.WEIGHTS})")
    # Without the file's name diffusers looks for another; given the weights themselves, it would
    # forget their scale.
    network.load_lora_adapter(folder, prefix=None, weight_name=Lora.WEIGHTS)
