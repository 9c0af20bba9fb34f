"""Components of AudioLDM: built, loaded from folder, hub or the original's file, and saved."""

from fsasd.generation.audioldm.checkpoint.attention_heads import (
    heads_of,
    keep_better_heads,
    original_heads,
    require_original_heads,
    set_heads,
)
from fsasd.generation.audioldm.checkpoint.components import (
    NANO,
    SIZES,
    Components,
    Size,
    build,
    build_hifigan,
    build_nano_text_encoder,
    build_scheduler,
    build_unet,
    build_vae,
)
from fsasd.generation.audioldm.checkpoint.folder import files, load, save
from fsasd.generation.diffusion.weight_mismatches import CheckpointError

__all__ = [
    "NANO",
    "SIZES",
    "CheckpointError",
    "Components",
    "Size",
    "build",
    "build_hifigan",
    "build_nano_text_encoder",
    "build_scheduler",
    "build_unet",
    "build_vae",
    "files",
    "heads_of",
    "keep_better_heads",
    "load",
    "original_heads",
    "require_original_heads",
    "save",
    "set_heads",
]
