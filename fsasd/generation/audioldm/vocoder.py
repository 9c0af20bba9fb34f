"""Griffin-Lim: AudioLDM log-mels back to waveforms without a trained vocoder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torchaudio
from torch import nn
from transformers import SpeechT5HifiGan

from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.threads import one_thread
from fsasd.settings.files import read_json


class GriffinLim(nn.Module):
    """Estimate a waveform whose AudioLDM log-mel is the one given.

    The mel filters are inverted in the least-squares sense, the phase by Griffin and Lim (1984)
    with the acceleration of Perraudin et al. (2013).

    Args:
        iterations: Rounds of phase estimation.

    >>> GriffinLim(iterations=2)(torch.full((1, 16, 64), -11.5)).shape
    torch.Size([1, 2560])
    """

    CONFIG = "griffin_lim.json"
    inverse_mel: torch.Tensor
    window: torch.Tensor

    def __init__(self, iterations: int = 16) -> None:
        super().__init__()
        self.iterations = iterations
        front_end = LogMel.audioldm()
        self.n_fft, self.hop = front_end.n_fft, front_end.hop
        # On the CPU whatever the default device: an inverse cannot be taken of a meta tensor.
        with torch.device("cpu"):
            mel = torchaudio.functional.melscale_fbanks(
                self.n_fft // 2 + 1,
                0.0,
                front_end.max_hz,
                front_end.n_mels,
                SAMPLE_RATE,
                front_end.norm,
                front_end.scale,
            )
            with one_thread():
                self.register_buffer("inverse_mel", torch.linalg.pinv(mel), persistent=False)
            self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Return (batch, frames * 160) samples of (batch, frames, 64) natural-log mels."""
        # A centred STFT of T * hop samples has T + 1 frames.
        log_mel = torch.cat([log_mel, log_mel[:, -1:]], dim=1).float()
        magnitude = (log_mel.exp() @ self.inverse_mel).clamp(min=0).mT
        return torchaudio.functional.griffinlim(
            magnitude,
            self.window,
            self.n_fft,
            self.hop,
            self.n_fft,
            power=1.0,
            n_iter=self.iterations,
            momentum=0.99,
            length=(log_mel.shape[1] - 1) * self.hop,
            # A random start would make a clip depend on what was generated before it.
            rand_init=False,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the settings, beside which there is nothing to store."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / self.CONFIG).write_text(json.dumps({"iterations": self.iterations}) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> GriffinLim:
        """Read what ``save_pretrained`` wrote."""
        return cls(**read_json(Path(folder) / cls.CONFIG))


def require_mel(vocoder: SpeechT5HifiGan, source: str) -> None:
    """Raise a ``CheckpointError`` if a vocoder is one of other log-mels than AudioLDM's.

    Args:
        vocoder: Of the checkpoint.
        source: The checkpoint, to be named.
    """
    config, mel = vocoder.config, LogMel.audioldm()
    layout = config.model_in_dim, math.prod(config.upsample_rates), config.sampling_rate
    if layout != (mel.n_mels, mel.hop, mel.sampling_rate):
        bins, hop, rate = layout
        raise CheckpointError(
            f"{source}: expected a vocoder of log-mels with {mel.n_mels} bins and {mel.hop} "
            f"samples a frame at {mel.sampling_rate} Hz, found {bins}, {hop} and {rate} Hz: it "
            "cannot be fine-tuned here; generator=pipeline uses it as it is"
        )
