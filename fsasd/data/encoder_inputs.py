"""What pretrained encoders are given: the features of transformers' extractors, in whole batches.

The extractors compute clip by clip in NumPy or on the CPU. These give the same numbers for a batch
of waveforms of one length, on the device where the batch is, and nothing of them is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torchaudio.compliance import kaldi
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, Wav2Vec2FeatureExtractor

Inputs = dict[str, torch.Tensor]

_FRAME, _SHIFT = 0.025, 0.010
"""Seconds, of Kaldi's frames."""


def encoder_inputs(extractor: Any, waveforms: torch.Tensor) -> Inputs:
    """Return the arguments of an encoder's ``forward``, equal to those of its feature extractor.

    Args:
        extractor: One of transformers, of an AST, CLAP, wav2vec 2.0, HuBERT, WavLM or data2vec.
        waveforms: (batch, samples) at the extractor's sampling rate, no longer than it takes whole.

    Returns:
        ``input_values`` or ``input_features``; of CLAP also ``is_longer``, which is no clip's.

    Raises:
        ValueError: The extractor is of another kind, or would cut the waveforms at random.

    >>> inputs = encoder_inputs(ASTFeatureExtractor(max_length=64), torch.zeros(2, 8000))
    >>> inputs["input_values"].shape
    torch.Size([2, 64, 128])
    """
    for kind, compute in _KINDS.items():
        if isinstance(extractor, kind):
            # Powers span more than half precision holds.
            with torch.autocast(waveforms.device.type, enabled=False):
                return compute(extractor, waveforms.float())
    raise ValueError(
        f"feature extractor {type(extractor).__name__}: expected one of "
        f"{', '.join(kind.__name__ for kind in _KINDS)}"
    )


def kaldi_fbank(waveforms: torch.Tensor, rate: int, bins: int, window: str) -> torch.Tensor:
    """Return (batch, frames, bins) log-mels as Kaldi computes them, without dither.

    Frames of 25 ms, 10 ms apart; what is shorter than one has none.

    Args:
        waveforms: (batch, samples).
        rate: Sampling rate, Hz.
        bins: Mel bins.
        window: ``hanning`` or ``povey``, Kaldi's own.

    >>> kaldi_fbank(torch.zeros(2, 8000), 16_000, 128, "povey").shape
    torch.Size([2, 48, 128])
    """
    count = len(waveforms)
    frame, shift = int(rate * _FRAME), int(rate * _SHIFT)
    frames = max(1 + (waveforms.shape[1] - frame) // shift, 0)
    # Frames are computed each by itself: those of all clips in one go, clip after clip, each clip
    # on a whole number of shifts. What lies over a clip's end is dropped.
    spread = -(-waveforms.shape[1] // shift)
    together = F.pad(waveforms, (0, spread * shift - waveforms.shape[1])).flatten()
    # Powers span more than half precision holds.
    with torch.autocast(waveforms.device.type, enabled=False):
        fbank = kaldi.fbank(
            F.pad(together, (0, frame))[None],
            sample_frequency=rate,
            window_type=window,
            num_mel_bins=bins,
        )
    return fbank[: count * spread].reshape(count, spread, -1)[:, :frames]


def _ast(extractor: ASTFeatureExtractor, waveforms: torch.Tensor) -> Inputs:
    fbank = kaldi_fbank(waveforms, extractor.sampling_rate, extractor.num_mel_bins, "hanning")
    frames = fbank.shape[1]
    values = F.pad(fbank, (0, 0, 0, extractor.max_length - frames))
    if extractor.do_normalize:
        values = (values - extractor.mean) / (2 * extractor.std)
    return {"input_values": values}


def _clap(extractor: ClapFeatureExtractor, waveforms: torch.Tensor) -> Inputs:
    samples, most = waveforms.shape[1], extractor.nb_max_samples
    if samples > most:
        raise ValueError(
            f"CLAP takes {most} samples whole, found {samples}: of more, its feature extractor "
            "takes some at random"
        )
    if extractor.padding in ("repeat", "repeatpad"):
        repeats = most // samples + (extractor.padding == "repeat")
        waveforms = waveforms.repeat(1, repeats)[:, :most]
    # As the extractor: in single precision what is 100 dB below the rest is rounding. Apple's
    # devices have no other.
    precise = torch.float32 if waveforms.device.type == "mps" else torch.float64
    padded = F.pad(waveforms, (0, most - waveforms.shape[1])).to(precise)
    size, hop = extractor.fft_window_size, extractor.hop_length
    window = torch.hann_window(size, dtype=precise, device=padded.device)
    spectrum = torch.stft(padded, size, hop, window=window, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    fused = extractor.truncation == "fusion"
    filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
    mel = power.mT @ torch.from_numpy(filters).to(padded.device, precise)
    decibels = (10 * mel.clamp(min=1e-10).log10()).float()[:, None]
    return {
        # The views that a fusing CLAP has of longer clips are the clip itself.
        "input_features": decibels.expand(-1, 4 if fused else 1, -1, -1),
        "is_longer": torch.zeros(len(waveforms), 1, dtype=torch.bool, device=waveforms.device),
    }


def _raw(extractor: Wav2Vec2FeatureExtractor, waveforms: torch.Tensor) -> Inputs:
    values = waveforms
    if extractor.do_normalize:
        values = F.layer_norm(values, values.shape[1:], eps=1e-7)
    if not extractor.return_attention_mask:
        return {"input_values": values}
    return {
        "input_values": values,
        "attention_mask": torch.ones(values.shape, dtype=torch.int32, device=values.device),
    }


_KINDS: dict[type, Callable[[Any, torch.Tensor], Inputs]] = {
    ASTFeatureExtractor: _ast,
    ClapFeatureExtractor: _clap,
    Wav2Vec2FeatureExtractor: _raw,
}
