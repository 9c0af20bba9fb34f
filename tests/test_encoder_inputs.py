"""Inputs of pretrained encoders against the feature extractors of transformers."""

import numpy as np
import pytest
import torch
from torchaudio.functional import resample
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    SpeechT5FeatureExtractor,
    Wav2Vec2FeatureExtractor,
)

from fsasd.data.encoder_inputs import encoder_inputs

EXTRACTORS = {
    "ast": ASTFeatureExtractor(),
    "ast_small": ASTFeatureExtractor(num_mel_bins=32, max_length=64, do_normalize=False),
    "clap": ClapFeatureExtractor(truncation="rand_trunc", max_length_s=1),
    "clap_fused": ClapFeatureExtractor(truncation="fusion", max_length_s=1),
    "clap_repeated": ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeat", max_length_s=1
    ),
    "clap_padded": ClapFeatureExtractor(truncation="rand_trunc", padding="pad", max_length_s=1),
    "raw": Wav2Vec2FeatureExtractor(),
    "raw_masked": Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "raw_as_it_is": Wav2Vec2FeatureExtractor(do_normalize=False),
}


def sounds(rate, samples):
    """Noise, a quiet tone, a loud one, and silence."""
    t = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * t)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    found = torch.from_numpy(np.stack([noise, 1e-3 * tone, tone, 0 * t]).astype(np.float32))
    return resample(found, 16_000, rate)[:, :samples]


@pytest.mark.parametrize("seconds", [1.0, 0.5133, 0.4])
@pytest.mark.parametrize("name", EXTRACTORS)
def test_inputs_are_those_of_the_extractor(name, seconds):
    extractor = EXTRACTORS[name]
    rate = extractor.sampling_rate
    waveforms = sounds(rate, round(seconds * rate))
    found = encoder_inputs(extractor, waveforms)
    expected = extractor(list(waveforms.numpy()), sampling_rate=rate, return_tensors="pt")
    assert found.keys() == expected.keys()
    for key in found.keys() - {"is_longer"}:
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-4, check_dtype=False)


def test_less_than_a_frame_of_an_ast_is_what_it_is_padded_with():
    found = encoder_inputs(EXTRACTORS["ast_small"], sounds(16_000, 399))["input_values"]
    assert torch.equal(found, torch.zeros(4, 64, 32))


def test_no_clip_is_said_to_be_longer_than_it_is():
    extractor = EXTRACTORS["clap_fused"]
    inputs = encoder_inputs(extractor, sounds(48_000, 24_000))
    assert inputs["is_longer"].tolist() == [[False]] * 4


def test_what_clap_would_cut_at_random_is_refused():
    with pytest.raises(ValueError, match="CLAP takes 48000 samples whole, found 48001"):
        encoder_inputs(EXTRACTORS["clap"], torch.zeros(1, 48_001))


def test_an_extractor_of_another_kind_is_named():
    with pytest.raises(ValueError, match="SpeechT5FeatureExtractor: expected one of ASTFeature"):
        encoder_inputs(SpeechT5FeatureExtractor(), torch.zeros(1, 8000))


@pytest.mark.parametrize("name", ["ast", "clap", "raw"])
def test_half_precision_around_them_changes_nothing(name):
    extractor = EXTRACTORS[name]
    waveforms = sounds(extractor.sampling_rate, 8000)
    plain = encoder_inputs(extractor, waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        inside = encoder_inputs(extractor, waveforms)
    assert all(torch.equal(inside[key], plain[key]) for key in plain)
