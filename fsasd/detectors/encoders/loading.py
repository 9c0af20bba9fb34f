"""Loading of an encoder: which family a hub id, a folder or a file is of, and its errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from fsasd.detectors.encoders.ast import AST
from fsasd.detectors.encoders.beats import BEATs
from fsasd.detectors.encoders.clap import Clap
from fsasd.detectors.encoders.dasheng import Dasheng
from fsasd.detectors.encoders.eat import EAT
from fsasd.detectors.encoders.loaded import LoadedEncoder
from fsasd.detectors.encoders.pe_audio import PerceptionEncoder
from fsasd.detectors.encoders.speech import Speech, TorchaudioSpeech
from fsasd.detectors.encoders.weights import read_checkpoint
from fsasd.runtime.hub import (
    UNREADABLE,
    go_offline_without_hub,
    is_hub_id,
    refusal,
    require_hub_id,
    transformers_folder,
)

TORCHAUDIO = "torchaudio:"

_SUFFIXES = (".pt", ".pt2", ".pth", ".ckpt", ".bin", ".safetensors")

FAMILIES: dict[str, Callable[[str], LoadedEncoder]] = {
    "audio-spectrogram-transformer": AST,
    "clap": Clap,
    "clap_audio_model": Clap,
    "data2vec-audio": Speech,
    "hubert": Speech,
    "pe_audio": PerceptionEncoder,
    "pe_audio_encoder": PerceptionEncoder,
    "wav2vec2": Speech,
    "wavlm": Speech,
}
"""Types of models in ``config.json``, and what loads them."""


CHECKPOINTS: dict[str, Callable[[str, Mapping, Mapping], LoadedEncoder]] = {
    "patch_embedding.weight": BEATs,
    "time_pos_embed": Dasheng,
    "local_encoder.proj.weight": EAT,
}
"""How the name of a weight ends that only this family has, and what loads its checkpoints."""

_OF_CHECKPOINTS = ("ced", "dasheng", "eat")
"""Types of models in ``config.json`` beside such checkpoints, which transformers does not know."""


def load(source: str, device: str = "cpu", revision: str | None = None) -> LoadedEncoder:
    """Return an encoder in evaluation.

    Args:
        source: A hub id, a folder in transformers' layout, the file of a checkpoint of BEATs, EAT,
            Dasheng or CED, or ``torchaudio:`` and the name of a pipeline, such as
            ``torchaudio:WAVLM_BASE_PLUS``.
        device: Where its network lies.
        revision: Of the hub's repository: a commit, a tag or a branch; its main branch by default.

    Raises:
        FileNotFoundError: There is no such encoder, it cannot be read, or the hub not be reached.
        ValueError: It is of no known family, or its weights do not fit the family's network; or
            a revision of a folder or a file is asked for.
    """
    source = local(source, revision)
    with reading(source):
        if source.startswith(TORCHAUDIO):
            encoder: LoadedEncoder = TorchaudioSpeech(source.removeprefix(TORCHAUDIO))
        elif Path(source).suffix in _SUFFIXES:
            encoder = _from_file(Path(source))
        else:
            encoder = _from_folder(source)
    encoder.network.to(device)
    return encoder


def local(source: str, revision: str | None = None) -> str:
    """Return an encoder of this machine: itself, or the folder that a hub id is downloaded to.

    A folder that the hub's cache holds is not written, and with a revision that is a commit the hub
    need not be reached. The commit is noted in the provenance of artifacts (``runtime.commits``).

    Args:
        source: As of ``load``.
        revision: As of ``load``.

    Raises:
        FileNotFoundError, ValueError: See ``load``.
    """
    require_hub_id("encoder", source, revision)
    if not is_hub_id(source) or Path(source).suffix in _SUFFIXES:
        return source
    with reading(source, revision):
        return str(transformers_folder(source, revision))


@contextlib.contextmanager
def reading(source: str, revision: str | None = None) -> Iterator[None]:
    """Turn the libraries' errors of reading an encoder into one that says what was expected.

    Raises:
        FileNotFoundError: The encoder could not be read.
    """
    go_offline_without_hub(source)
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        why = str(error).strip().partition("\n")[0]
        name = f"{source}@{revision}" if revision else source
        raise FileNotFoundError(
            f"encoder '{name}' could not be read: {_expected(source, error)} ({why})"
        ) from error


def _expected(source: str, error: BaseException) -> str:
    if Path(source).suffix in _SUFFIXES:
        return (
            "expected the file of a checkpoint, of tensors and plain values; an exported program "
            "is representation=exported"
        )
    return refusal(source, error) or (
        "expected a folder with config.json, weights and preprocessor_config.json, or the id of "
        "such a one on the hub; without a network, give a folder"
    )


def _from_folder(source: str) -> LoadedEncoder:
    config: dict[str, Any]
    config, _ = PreTrainedConfig.get_config_dict(source)
    kind = config.get("model_type")
    if kind in _OF_CHECKPOINTS:
        weights = cached_file(
            source, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False
        )
        weights = weights or cached_file(source, WEIGHTS_NAME)
        return _of_weights(source, config, read_checkpoint(Path(weights)))
    if kind not in FAMILIES:
        raise ValueError(
            f"encoder '{source}' is a model of kind '{kind}': expected one of "
            f"{', '.join([*FAMILIES, *_OF_CHECKPOINTS])}"
        )
    return FAMILIES[kind](source)


def _from_file(path: Path) -> LoadedEncoder:
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    content = read_checkpoint(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"encoder '{path}': expected weights by name, found a {type(content).__name__}"
        )
    if not isinstance(content.get("model"), Mapping):
        return _of_weights(str(path), {}, content)
    return _of_weights(
        str(path), content.get("cfg") or content.get("config") or {}, content["model"]
    )


def _of_weights(source: str, settings: Mapping, weights: Mapping) -> LoadedEncoder:
    for ending, family in CHECKPOINTS.items():
        if any(name.endswith(ending) for name in weights):
            return family(source, settings, weights)
    raise ValueError(
        f"encoder '{source}': expected the weights of BEATs, Dasheng, CED or EAT, found others "
        f"({', '.join(list(weights)[:3])} ...). Export its network, and use representation=exported"
    )
