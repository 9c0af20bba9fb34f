"""Sizes of the originals, and any length of clip."""

import numpy as np
import pytest
import torch

from fsasd.data.log_mel import LogMel
from fsasd.detectors.networks.backbones import (
    LogMelSpectrogram,
    MobileFaceNet,
    MultiDimensionalAttention,
    ResNet,
    SpectrumBranch,
    SqueezeExcitation,
    Tgram,
    magnitudes,
)
from fsasd.detectors.systems.fkie import BINS, DualBranch
from fsasd.detectors.systems.stgram_mfn import STgram


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_an_fkie_network_has_about_2_7_million_parameters():
    with torch.device("meta"):
        assert size(DualBranch(288_000)) == 2_672_082


def test_stgram_mfn_has_the_originals_1_16_million_parameters():
    """1,161,279 with its normalisation per frame, its unused layer and ArcFace for 41 classes."""
    network = size(STgram())
    frames, unused, arcface = 3 * 2 * 313, (128 + 1) * 41, 128 * 41
    assert network == 1_148_864
    assert network + frames + unused + arcface == 1_161_279


def test_the_last_map_of_ten_seconds_needs_no_averaging():
    net = MobileFaceNet(2, width=0.05).eval()
    maps = torch.zeros(1, 2, 128, 313)
    with torch.no_grad():
        assert net.maps(maps).shape[2:] == net.grid


def test_the_maps_of_the_original_residual_network():
    """16 bins are left of 513, as its 2048 inputs to the last layer say."""
    with torch.device("meta"):
        assert ResNet(BINS).project[2].in_features == 2048
        assert SpectrumBranch(288_000).layers[7].in_features == 18 * 128


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.37])
def test_clips_may_have_any_length(seconds):
    waveforms = torch.randn(2, round(16_000 * seconds))
    for network in (
        DualBranch(waveforms.shape[1], dim=4, channels=2),
        STgram(width=0.1),
    ):
        embeddings = network.eval()(waveforms)
        assert embeddings.ndim == 2
        assert torch.isfinite(embeddings).all()


def test_silence_gives_an_embedding():
    for network in (DualBranch(16_000, dim=4, channels=2), STgram(width=0.1)):
        assert torch.isfinite(network.eval()(torch.zeros(1, 16_000))).all()


def test_an_embedding_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    waveforms = torch.randn(3, 16_000)
    for network in (DualBranch(16_000, dim=4, channels=2).eval(), STgram(width=0.1).eval()):
        together = network(waveforms)
        apart = torch.cat([network(waveform[None]) for waveform in waveforms])
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_log_mels_of_a_batch_are_those_of_the_front_end():
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((3, 9000)).astype(np.float32)
    batch = LogMelSpectrogram()(torch.from_numpy(waveforms))
    for waveform, log_mel in zip(waveforms, batch, strict=True):
        np.testing.assert_allclose(log_mel, LogMel.twfr()(waveform), atol=1e-3)


def test_settings_of_the_front_end_are_not_saved_as_weights():
    assert not LogMelSpectrogram().state_dict()


def test_a_tgram_has_as_many_frames_as_a_spectrogram():
    waveforms = torch.randn(2, 12_345)
    assert Tgram(8)(waveforms).shape[2] == LogMelSpectrogram()(waveforms).shape[2]


def test_magnitudes_of_a_tone_peak_at_its_frequency():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    assert (magnitudes(tone[None])[0].argmax(dim=0) == 64).all()


def test_squeeze_and_excitation_weighs_channels_alike_at_every_place():
    x = torch.rand(2, 4, 5, 6) + 1
    gate = SqueezeExcitation(4, ratio=2)(x) / x
    assert torch.allclose(gate, gate[:, :, :1, :1].expand_as(gate))
    assert ((gate > 0) & (gate < 1)).all()


def test_attention_weighs_each_dimension_by_itself():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 5, 7) + 1
    log_gate = (MultiDimensionalAttention(3)(x) / x).log()
    # A product of three vectors is a sum of three in logarithms: no interaction is left.
    for dims in ((1, 2), (1, 3), (2, 3)):
        mean = log_gate.mean(dim=dims[0], keepdim=True)
        other = log_gate.mean(dim=dims[1], keepdim=True)
        both = log_gate.mean(dim=dims, keepdim=True)
        torch.testing.assert_close(log_gate - mean - other + both, torch.zeros_like(log_gate))
