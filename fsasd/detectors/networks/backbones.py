"""Networks from waveforms to embeddings, and their components.

All work on batches: waveforms (batch, samples), spectrograms (batch, bins, frames), feature
maps (batch, channels, bins, frames), embeddings (batch, dim).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchaudio
from torch import nn
from torch.nn import functional as F

from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE

STGRAM_BOTTLENECKS = ((2, 128, 2, 2), (4, 128, 2, 2), (4, 128, 2, 2))
"""Expansion, channels, repetitions and stride of STgram-MFN's MobileFaceNet."""


class LogMelSpectrogram(nn.Module):
    """Log-mel spectrograms of batches, on the device of the network.

    >>> waveform = torch.randn(16_000)
    >>> batch = LogMelSpectrogram()(waveform[None])[0]
    >>> torch.allclose(batch, torch.from_numpy(LogMel.twfr()(waveform.numpy())), atol=1e-3)
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.front_end = front_end = LogMel.twfr()
        # Filters are numbers on the device meta, too, where torchaudio could not make them.
        with torch.device("cpu"):
            self.mel = torchaudio.transforms.MelSpectrogram(
                SAMPLE_RATE,
                n_fft=front_end.n_fft,
                hop_length=front_end.hop,
                f_max=front_end.max_hz,
                n_mels=front_end.n_mels,
                power=front_end.power,
                norm=front_end.norm,
                mel_scale=front_end.scale,
            )
        # They follow from the settings and are not saved.
        for name, buffer in list(self.mel.named_buffers()):
            owner = self.mel.get_submodule(name.rpartition(".")[0])
            owner.register_buffer(name.rpartition(".")[2], buffer, persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, n_mels, frames), in dB."""
        # Powers span more than half precision holds.
        with torch.autocast(waveforms.device.type, enabled=False):
            mel = self.mel(waveforms.float()).clamp(min=self.front_end.floor)
            return 10 * mel.log10()


class Tgram(nn.Module):
    """STgram's learned time feature: strided filters over the waveform, then convolutions in time.

    Liu et al., "Anomalous sound detection using spectral-temporal information fusion" (ICASSP
    2022, github.com/liuyoude/STgram-MFN). It has as many frames as a centred spectrogram.

    Deviation: each channel is normalised over its frames, without the original's gain and offset
    for each of the 313 frames of ten seconds, so that clips of any length can be scored.
    """

    def __init__(
        self, channels: int = 128, window: int = 1024, hop: int = 512, layers: int = 3
    ) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, channels, window, hop, window // 2, bias=False)
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=1, bias=False) for _ in range(layers)
        )

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, channels, frames)."""
        x = self.filters(waveforms.unsqueeze(1))
        for layer in self.layers:
            x = layer(F.leaky_relu(F.layer_norm(x, x.shape[-1:]), 0.2))
        return x


class MobileFaceNet(nn.Module):
    """Inverted bottlenecks, then a depthwise convolution over the whole last feature map.

    Chen et al., "MobileFaceNets" (CCBR 2018), with the settings of STgram-MFN. The last map is
    average-pooled to ``grid`` first, its size for ten seconds of STgram's input, so that clips of
    any length can be scored.

    Args:
        inputs: Channels of the input maps (batch, inputs, bins, frames).
        dim: Of the embeddings.
        width: Factor on the numbers of channels.
        bottlenecks: (expansion, channels, repetitions, stride) of each stage.
        grid: Size of the last feature map, (bins, frames).

    >>> MobileFaceNet(1, width=0.125)(torch.zeros(2, 1, 128, 40)).shape
    torch.Size([2, 128])
    """

    def __init__(
        self,
        inputs: int,
        dim: int = 128,
        width: float = 1.0,
        bottlenecks: Sequence[Sequence[int]] = STGRAM_BOTTLENECKS,
        grid: tuple[int, int] = (8, 20),
    ) -> None:
        super().__init__()
        wide = _scaled(width)
        channels = wide(64)
        layers: list[nn.Module] = [
            _conv(inputs, channels, 3, 2),
            _conv(channels, channels, 3, groups=channels),
        ]
        for expansion, after, repetitions, stride in bottlenecks:
            for i in range(repetitions):
                layers.append(Bottleneck(channels, wide(after), 1 if i else stride, expansion))
                channels = wide(after)
        layers.append(_conv(channels, wide(512), 1))
        self.maps = nn.Sequential(*layers)
        self.grid = grid
        self.weighting = nn.Conv2d(wide(512), wide(512), grid, groups=wide(512), bias=False)
        self.normalise = nn.BatchNorm2d(wide(512))
        self.project = nn.Sequential(
            nn.Conv2d(wide(512), dim, 1, bias=False), nn.BatchNorm2d(dim), nn.Flatten()
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim) of (batch, inputs, bins, frames)."""
        x = self.maps(maps)
        if x.shape[2:] != self.grid:
            # Gradients of pooling are not deterministic on GPUs; ten seconds need no pooling.
            x = F.adaptive_avg_pool2d(x, self.grid)
        return self.project(self.normalise(self.weighting(x)))


class Bottleneck(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, channels: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.residual = stride == 1 and channels == after
        self.layers = nn.Sequential(
            _conv(channels, inner, 1),
            _conv(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the next feature map."""
        return x + self.layers(x) if self.residual else self.layers(x)


class ResNet(nn.Module):
    """The residual network of Wilkinghoff's systems, for spectrograms.

    github.com/wilkinghoff/DCASE2023_task2: a 7 x 7 convolution and four stages of two blocks, each
    stage after the first halving the map and doubling the channels; each bin's maximum over time;
    one linear layer. There are no biases.

    Args:
        bins: Of the input spectrograms.
        dim: Of the embeddings.
        channels: Of the first stage; the last has eight times as many.
        squeeze: Whether blocks end in squeeze-and-excitation (Hu et al., CVPR 2018).
        shallow: Module applied to the first feature map, of ``channels`` channels.

    >>> ResNet(65, dim=8, channels=4)(torch.zeros(2, 65, 20)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        bins: int,
        dim: int = 128,
        channels: int = 16,
        squeeze: bool = False,
        shallow: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(bins)
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.shallow = shallow or nn.Identity()
        stages = []
        for i in range(4):
            before, after = channels * 2 ** max(i - 1, 0), channels * 2**i
            stages += [
                Residual(before, after, 2 if i else 1, squeeze),
                Residual(after, after, 1, squeeze),
            ]
        self.stages = nn.Sequential(*stages)
        last_bins = math.ceil(((math.ceil(bins / 2) - 3) // 2 + 1) / 8)
        self.project = nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(8 * channels * last_bins),
            nn.Linear(8 * channels * last_bins, dim, bias=False),
        )
        # With few channels, training is up to 1.7 times as fast in this memory format; it makes no
        # difference to the depthwise convolutions of MobileFaceNet.
        self.to(memory_format=torch.channels_last)

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim) of (batch, bins, frames)."""
        x = self.stem(self.normalise(spectrograms).unsqueeze(1))
        return self.project(self.stages(self.shallow(x)).amax(dim=-1))


class Residual(nn.Module):
    """A block of ``ResNet``: normalisation, then two convolutions and a shortcut."""

    def __init__(self, channels: int, after: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels)
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            SqueezeExcitation(after) if squeeze else nn.Identity(),
        )
        self.around: nn.Module = nn.Identity()
        if stride > 1:
            self.around = nn.Sequential(
                nn.MaxPool2d(stride, ceil_mode=True), nn.Conv2d(channels, after, 1, bias=False)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the next feature map."""
        x = self.normalise(x)
        return self.around(x) + self.layers(x)


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: channel weights from global averages, of maps in 1-D or 2-D."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, max(channels // ratio, 1), bias=False),
            nn.ReLU(),
            nn.Linear(max(channels // ratio, 1), channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` with its channels weighted."""
        gate = self.gate(x.flatten(2).mean(dim=2))
        return x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))


class MultiDimensionalAttention(nn.Module):
    """The product of attention over channels, over bins and over frames.

    After the abstract of "MDAM: Multi-dimensional attention module for anomalous sound detection"
    (ICONIP 2023): attention along three independent dimensions of a shallow feature map.

    Deviation: the attention is inferred from the abstract. Channels are weighted by
    squeeze-and-excitation, bins and frames by convolutions of their means and maxima.

    >>> MultiDimensionalAttention(4)(torch.rand(2, 4, 6, 9)).shape
    torch.Size([2, 4, 6, 9])
    """

    def __init__(self, channels: int, kernel: int = 7) -> None:
        super().__init__()
        self.channels = SqueezeExcitation(channels, ratio=8)
        self.bins = nn.Conv1d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.frames = nn.Conv1d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map (batch, channels, bins, frames), weighted."""
        bins, frames = (
            torch.sigmoid(conv(torch.stack([x.mean(dim=dims), x.amax(dim=dims)], dim=1)))
            for conv, dims in ((self.bins, (1, 3)), (self.frames, (1, 2)))
        )
        return self.channels(x) * bins.unsqueeze(3) * frames.unsqueeze(2)


class SpectrumBranch(nn.Module):
    """The branch of Wilkinghoff's systems on the magnitude spectrum of the whole clip.

    github.com/wilkinghoff/DCASE2023_task2: three strided convolutions over the magnitudes of one
    Fourier transform, then five linear layers. There are no biases.

    Args:
        samples: Of the waveforms.
        dim: Of the layers and the embeddings.
        squeeze: As in ``ResNet``.

    >>> SpectrumBranch(16_000, dim=8)(torch.zeros(2, 16_000)).shape
    torch.Size([2, 8])
    """

    def __init__(self, samples: int, dim: int = 128, squeeze: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        length, channels = samples // 2, 1
        for kernel, stride in ((256, 64), (64, 32), (16, 4)):
            layers += [_same_conv(length, channels, dim, kernel, stride), nn.ReLU()]
            layers += [SqueezeExcitation(dim)] if squeeze else []
            length, channels = math.ceil(length / stride), dim
        layers.append(nn.Flatten())
        size = length * dim
        for _ in range(4):
            layers += [nn.Linear(size, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU()]
            size = dim
        layers.append(nn.Linear(dim, dim, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim)."""
        with torch.autocast(waveforms.device.type, enabled=False):
            magnitudes = torch.fft.rfft(waveforms.float()).abs()
        return self.layers(magnitudes[:, None, : waveforms.shape[1] // 2])


def magnitudes(waveforms: torch.Tensor, n_fft: int = 1024, hop: int = 512) -> torch.Tensor:
    """Return the (batch, n_fft // 2 + 1, frames) magnitudes of Hann-windowed frames.

    >>> magnitudes(torch.zeros(1, 16_000)).shape
    torch.Size([1, 513, 30])
    """
    with torch.autocast(waveforms.device.type, enabled=False):
        window = torch.hann_window(n_fft, device=waveforms.device)
        stft = torch.stft(
            waveforms.float(), n_fft, hop, window=window, center=False, return_complex=True
        )
        return stft.abs()


def _scaled(width: float):
    return lambda channels: max(round(width * channels), 1)


def _conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.PReLU(after),
    )


def _same_conv(length: int, before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    # TensorFlow's "same" padding: ceil(length / stride) outputs, the odd zero at the end.
    missing = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    return nn.Sequential(
        nn.ConstantPad1d((missing // 2, missing - missing // 2), 0.0),
        nn.Conv1d(before, after, kernel, stride, bias=False),
    )
