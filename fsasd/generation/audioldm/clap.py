"""CLAP: embeddings of captions and, with its audio branch, of recordings.

Hub folders of AudioLDM carry CLAP's text branch only. With all of CLAP (a folder, or a hub id such
as ``laion/clap-htsat-unfused``) AudioLDM can also be trained on embeddings of the recordings, as
its authors did, and candidates can be ranked by how well they fit their captions.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchaudio
from torch import nn
from torch.nn import functional as F
from transformers import (
    ClapFeatureExtractor,
    ClapModel,
    ClapTextModelWithProjection,
    RobertaTokenizer,
)

from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.encoder_inputs import encoder_inputs
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.level import PEAK, normalise
from fsasd.runtime.hub import (
    UNREADABLE,
    is_hub_id,
    refusal,
    require_hub_id,
    transformers_folder,
)
from fsasd.settings.spec import spec_of

log = logging.getLogger(__name__)

TOO_CLOSE = 0.98
"""Cosine above which a UNet hardly learns to distinguish two captions."""

SAME_SPACE = 0.99
"""Cosine of a caption's embeddings by the same text encoder twice, in half precision too."""

N_COMPARED = 16
"""Captions by which two text encoders are compared."""


def embed_captions(
    text_encoder: ClapTextModelWithProjection,
    tokenizer: RobertaTokenizer,
    captions: Sequence[str],
) -> torch.Tensor:
    """Return the (n, dim) L2-normalised CLAP embeddings of captions.

    Each distinct caption is computed once, and padded to the longest of its batch only: the result
    is that of padding to the tokenizer's limit. What is longer than CLAP can read is cut off there,
    with a warning.
    """
    distinct = sorted(set(captions), key=lambda text: (len(text), text))
    states = F.normalize(_project(text_encoder, tokenizer, distinct), dim=-1).cpu()
    places = {text: i for i, text in enumerate(distinct)}
    return states[[places[caption] for caption in captions]]


def longest_text(text_encoder: ClapTextModelWithProjection, tokenizer: RobertaTokenizer) -> int:
    """Return how many tokens the text encoder reads, whatever the tokenizer believes."""
    config = text_encoder.config
    # RoBERTa counts positions from the padding's number on.
    return min(tokenizer.model_max_length, config.max_position_embeddings - config.pad_token_id - 1)


@dataclass(frozen=True)
class Closeness:
    """How close captions are to one another.

    Attributes:
        cosines: (n, n) of the distinct captions.
        captions: The distinct captions.
        closest: The largest cosine of two captions.
        pair: Those two.
        too_close: How many pairs are above ``TOO_CLOSE``.
    """

    cosines: np.ndarray
    captions: list[str]
    closest: float
    pair: tuple[str, str]
    too_close: int


def closeness(captions: Sequence[str], embeddings: torch.Tensor, most: int = 2000) -> Closeness:
    """Compare captions by their embeddings.

    Args:
        captions: One per embedding, also repeatedly.
        embeddings: (n, dim), normalised.
        most: Distinct captions that are compared; of more, these many evenly from all.

    >>> close = closeness(["a", "b", "a"], torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]]))
    >>> round(close.closest, 3), close.pair, close.too_close
    (0.6, ('a', 'b'), 0)
    """
    first = {caption: i for i, caption in reversed(list(enumerate(captions)))}
    texts = sorted(first)[:: -(-len(first) // most)]
    distinct = embeddings[[first[text] for text in texts]].float().cpu()
    cosines = (distinct @ distinct.T).numpy()
    upper = np.triu(np.ones_like(cosines, dtype=bool), k=1)
    if not upper.any():
        return Closeness(cosines, texts, 0.0, (texts[0], texts[0]), 0)
    a, b = np.unravel_index(np.argmax(np.where(upper, cosines, -2)), cosines.shape)
    pair = texts[int(a)], texts[int(b)]
    return Closeness(
        cosines, texts, float(cosines[a, b]), pair, int((cosines > TOO_CLOSE)[upper].sum())
    )


def report_closeness(result: Closeness, folder: Path | None = None) -> None:
    """Log how close captions are; a warning where some are too close to be distinguished.

    Args:
        result: Of ``closeness``.
        folder: Gets the whole matrix as ``caption_cosines.csv``.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        matrix = pd.DataFrame(result.cosines, result.captions, result.captions)
        matrix.round(4).to_csv(folder / "caption_cosines.csv")
    log.info("%d captions; cosine of the closest two: %.3f", len(result.captions), result.closest)
    if result.too_close:
        log.warning(
            "%d pairs of captions have a cosine above %.2f; a model hardly learns to "
            "distinguish them: '%s' and '%s' (%.4f). Make the captions more specific, or set "
            "generator.whiten_captions=true",
            result.too_close, TOO_CLOSE, *result.pair, result.closest,
        )  # fmt: skip


@torch.no_grad()
def whiten(
    text_encoder: ClapTextModelWithProjection, tokenizer: RobertaTokenizer, captions: Sequence[str]
) -> None:
    """Scale and shift the text projection so that captions differ as much in every dimension.

    The last layer's rows are divided by the standard deviation over the distinct captions, and its
    bias is shifted by their mean. It is part of the weights: any tool that loads them has it.

    Raises:
        ValueError: There are fewer than two distinct captions.
    """
    distinct = sorted(set(captions))
    if len(distinct) < 2:
        raise ValueError(f"whiten_captions needs two captions or more, found {distinct}")
    embedded = _project(text_encoder, tokenizer, distinct)
    mean, std = embedded.mean(0), embedded.std(0)
    # A dimension in which no two captions differ has nothing to be scaled up.
    std = std.clamp(min=1e-4 * float(std.max()))
    last: nn.Linear = text_encoder.text_projection.linear2
    last.weight.div_(std[:, None])
    last.bias.sub_(mean).div_(std)


class ClapAudio:
    """The front end of CLAP's audio branch: waveform -> (dim,) normalised embedding.

    Its input is that of AudioLDM's authors, a waveform without its mean and with a peak of 0.5.
    A clip that is longer than CLAP takes (10 s) is the mean of pieces that overlap just so as to
    cover it, a shorter one is repeated: nothing is cropped at random.

    Args:
        checkpoint: A folder with all of CLAP (``transformers.ClapModel``), or a hub id.
        revision: Of the hub's repository: a commit, a tag or a branch; its main branch by default.

    Raises:
        ValueError: A revision of a folder is asked for.
    """

    def __init__(self, checkpoint: str | Path, revision: str | None = None) -> None:
        self.checkpoint = str(checkpoint)
        self.revision = revision
        require_hub_id("CLAP", self.checkpoint, revision)
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> None:
        """Set the device; a model that is not loaded yet will be loaded onto it."""
        self.device = torch.device(device)
        if "model" in vars(self):
            self.model.to(self.device)

    def __repr__(self) -> str:
        return self._name

    @functools.cached_property
    def _name(self) -> str:
        # The key of the feature cache: other weights in the same place are another front end.
        revision = f", {self.revision}" if self.revision else ""
        return f"ClapAudio({spec_of(self.checkpoint, content_hash)}{revision}, peak {PEAK})"

    @functools.cached_property
    def model(self) -> ClapModel:
        """CLAP, loaded when it is first needed."""
        return self.load(ClapModel).eval().to(self.device)

    @functools.cached_property
    def extractor(self) -> ClapFeatureExtractor:
        """CLAP's front end: waveforms to network inputs."""
        return self.load(ClapFeatureExtractor)

    def load(self, kind: Any) -> Any:
        """Load a component of CLAP.

        Args:
            kind: Its class, of transformers.

        Raises:
            ValueError: It could not be loaded.
        """
        source, name = self.checkpoint, self.checkpoint
        if self.revision:
            name += f"@{self.revision}"
        try:
            on_hub = is_hub_id(source)
            return kind.from_pretrained(
                transformers_folder(source, self.revision) if on_hub else source
            )
        except UNREADABLE as error:
            why = refusal(source, error) or (
                f"could not be loaded ({error}). Without a way to the hub, copy its folder to this "
                "machine and give its path"
            )
            raise ValueError(f"CLAP {name}: {why}") from error

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return the (dim,) embedding of a (samples,) waveform at 16 kHz."""
        rate, most = self.extractor.sampling_rate, self.extractor.nb_max_samples
        audio = torch.from_numpy(normalise(waveform)[0]).to(self.model.device)
        audio = torchaudio.functional.resample(audio, SAMPLE_RATE, rate)
        if len(audio) < most:
            audio = audio.repeat(-(-most // len(audio)))[:most]
        starts = np.linspace(0, len(audio) - most, -(-len(audio) // most)).round().astype(int)
        pieces = torch.stack([audio[start : start + most] for start in starts.tolist()])
        inputs = encoder_inputs(self.extractor, pieces)
        embeddings = F.normalize(self.model.get_audio_features(**inputs).pooler_output, dim=-1)
        return F.normalize(embeddings.mean(dim=0), dim=-1).cpu().numpy()

    @torch.no_grad()
    def require_text_space(
        self,
        text_encoder: ClapTextModelWithProjection,
        tokenizer: RobertaTokenizer,
        captions: Sequence[str],
    ) -> None:
        """Check that recordings and captions are embedded in one space.

        Args:
            text_encoder: Embeds the captions.
            tokenizer: Its tokenizer.
            captions: Some, by which it is compared with the text branch of this CLAP.

        Raises:
            ValueError: The text branch of this CLAP is another text encoder.
        """
        advice = (
            "examples conditioned on recordings would be in another space than those conditioned "
            "on captions. Give all of the CLAP whose text branch the checkpoint has, or leave "
            "generator.audio_clap out"
        )
        dim, expected_dim = self.model.config.projection_dim, text_encoder.config.projection_dim
        if dim != expected_dim:
            raise ValueError(
                f"generator.audio_clap={self.checkpoint}: embeds in {dim} dimensions, the "
                f"checkpoint's text encoder in {expected_dim}: {advice}"
            )
        texts = sorted(set(captions))[:N_COMPARED]
        tokens = self.load(RobertaTokenizer)(
            texts, padding=True, truncation=True, return_tensors="pt"
        )
        features = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output.cpu()
        expected = embed_captions(text_encoder, tokenizer, texts)
        cosines = (F.normalize(features, dim=-1) * expected).sum(dim=1)
        worst = int(cosines.argmin())
        if cosines[worst] < SAME_SPACE:
            raise ValueError(
                f"generator.audio_clap={self.checkpoint}: its text branch and the checkpoint's "
                f"text encoder embed '{texts[worst]}' with a cosine of {cosines[worst]:.3f}, "
                f"expected 1: {advice}"
            )


class ClapScorer:
    """Score clips by the cosine of their CLAP embedding and their caption's, as AudioLDM does.

    Args:
        checkpoint: A folder with all of CLAP, or a hub id.
        revision: Of the hub's repository (``ClapAudio``).
    """

    def __init__(self, checkpoint: str | Path, revision: str | None = None) -> None:
        self.audio = ClapAudio(checkpoint, revision)
        self.tokenizer = self.audio.load(RobertaTokenizer)

    @torch.no_grad()
    def __call__(self, clips: Clips, rows: pd.DataFrame, real: object = None) -> np.ndarray:
        """Return (n,) cosines of clips and the captions of their rows in the manifest."""
        audio = torch.from_numpy(np.stack(list(clips.features(self.audio))))
        texts = list(rows["caption"])
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        text = F.normalize(self.audio.model.get_text_features(**tokens).pooler_output, dim=-1)
        return (audio * text).sum(1).numpy()


@torch.no_grad()
def _project(
    text_encoder: ClapTextModelWithProjection,
    tokenizer: RobertaTokenizer,
    texts: Sequence[str],
    batch: int = 64,
) -> torch.Tensor:
    limit = longest_text(text_encoder, tokenizer)
    too_long = [
        text
        for text, tokens in zip(texts, tokenizer(list(texts)).input_ids, strict=True)
        if len(tokens) > limit
    ]
    if too_long:
        log.warning(
            "%d of %d captions are longer than the %d tokens that the text encoder reads, and are "
            "cut off there, e.g. '%s'",
            len(too_long), len(texts), limit, too_long[-1],
        )  # fmt: skip
    embeddings = []
    for start in range(0, len(texts), batch):
        tokens = tokenizer(
            list(texts[start : start + batch]),
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
        embeddings.append(text_encoder(**tokens.to(text_encoder.device)).text_embeds)
    return torch.cat(embeddings)
