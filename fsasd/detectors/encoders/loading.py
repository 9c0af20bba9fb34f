"""Loading of an encoder: which family a hub id, a folder or a file is of, and its errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import PreTrainedConfig

from fsasd.detectors.encoders.ast import AST
from fsasd.detectors.encoders.clap import Clap
from fsasd.detectors.encoders.loaded import LoadedEncoder
from fsasd.detectors.encoders.speech import Speech, TorchaudioSpeech
from fsasd.runtime.hub import UNREADABLE, go_offline_without_hub

TORCHAUDIO = "torchaudio:"

FAMILIES: dict[str, Callable[[str], LoadedEncoder]] = {
    "audio-spectrogram-transformer": AST,
    "clap": Clap,
    "clap_audio_model": Clap,
    "data2vec-audio": Speech,
    "hubert": Speech,
    "wav2vec2": Speech,
    "wavlm": Speech,
}
"""Types of models in ``config.json``, and what loads them."""


def load(source: str, device: str = "cpu") -> LoadedEncoder:
    """Return an encoder in evaluation.

    Args:
        source: A hub id, a folder in transformers' layout, or ``torchaudio:`` and the name of a
            pipeline, such as ``torchaudio:WAVLM_BASE_PLUS``.
        device: Where its network lies.

    Raises:
        FileNotFoundError: There is no such encoder, it cannot be read, or the hub not be reached.
        ValueError: It is of no known family, or its weights do not fit the family's network.
    """
    with reading(source):
        if source.startswith(TORCHAUDIO):
            encoder: LoadedEncoder = TorchaudioSpeech(source.removeprefix(TORCHAUDIO))
        else:
            encoder = _family(source)(source)
    encoder.network.to(device)
    return encoder


@contextlib.contextmanager
def reading(source: str) -> Iterator[None]:
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
        raise FileNotFoundError(
            f"encoder '{source}' could not be read: {_expected(error)} ({why})"
        ) from error


def _expected(error: BaseException) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            "expected one that you may read, found a gated one: accept its terms on its page of "
            "the hub and log in with `hf auth login`, or give a folder"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return (
            "expected the id of an encoder on the hub, found none of this name that you may read: "
            "correct the id, log in with `hf auth login` if it is private, or give a folder"
        )
    return (
        "expected a folder with config.json, weights and preprocessor_config.json, or the id of "
        "such a one on the hub; without a network, give a folder"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _family(source: str) -> Callable[[str], LoadedEncoder]:
    config: dict[str, Any]
    config, _ = PreTrainedConfig.get_config_dict(source)
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"encoder '{source}' is a model of kind '{kind}': expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]
