"""Distances between sets of clips, against closed forms and torchmetrics."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hash
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.encoders import Encoder, Layer
from fsasd.detectors.representations import TimeWeighted
from fsasd.generation.encoder_space import RealClips
from fsasd.generation.quality import frechet_distance, kernel_distance, quality_table


def gaussian(n, d, seed=0, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


# Frechet


def test_frechet_distance_of_gaussians_is_the_closed_form():
    # Diagonal covariances: |a - b|^2 + sum (sigma_a - sigma_b)^2, exactly so for whitened samples.
    x = gaussian(400, 3)
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    a = np.array([1.0, 2.0, 3.0]) * x
    b = np.array([2.0, 2.0, 1.0]) * x + [0.5, 0.0, -1.0]
    assert frechet_distance(a, b) == pytest.approx(0.25 + 1 + 1 + 0 + 4)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 80, 5), (300, 200, 20), (400, 300, 1)])
def test_frechet_distance_is_that_of_torchmetrics(n, m, d):
    x, y = gaussian(n, d, 1), gaussian(m, d, 2, shift=0.4, scale=1.7)

    def moments(z):
        return torch.from_numpy(z.mean(axis=0)), torch.from_numpy(np.cov(z.T).reshape(d, d))

    expected = float(_compute_fid(*moments(x), *moments(y)))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 1000))
def test_frechet_distance_is_a_distance_also_of_few_points_in_many_dimensions(n, m, seed):
    x, y = gaussian(n, 40, seed), gaussian(m, 40, seed + 1)
    assert frechet_distance(x, y) > 0
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_grows_with_fewer_points():
    distances = [frechet_distance(gaussian(n, 20, 1), gaussian(n, 20, 2)) for n in (30, 100, 1000)]
    assert distances[0] > 2 * distances[1] > 4 * distances[2] > 0


# Kernel


@pytest.mark.parametrize(("n", "m", "d"), [(30, 30, 4), (200, 200, 16)])
def test_kernel_distance_is_that_of_torchmetrics(n, m, d):
    x, y = gaussian(n, d, 1), gaussian(m, d, 2, shift=0.3)
    expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_the_sum_over_pairs():
    x, y = gaussian(4, 3, 1), gaussian(6, 3, 2)

    def k(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    pairs = {
        "xx": np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]),
        "yy": np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]),
        "xy": np.mean([k(a, b) for a in x for b in y]),
    }
    expected = pairs["xx"] + pairs["yy"] - 2 * pairs["xy"]
    assert kernel_distance(x, y) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 40)])
def test_kernel_distance_is_unbiased_whatever_the_sizes(n, m):
    result = [kernel_distance(gaussian(n, 3, s), gaussian(m, 3, s + 10_000)) for s in range(2000)]
    assert abs(np.mean(result)) < 3 * np.std(result) / np.sqrt(len(result))


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_a_single_clip_has_no_distribution(distance):
    assert np.isnan(distance(gaussian(1, 3), gaussian(9, 3)))
    assert np.isnan(distance(gaussian(9, 3), gaussian(1, 3)))


# The table


def tone(pitch, seed, level=0.1):
    rng, time = np.random.default_rng(seed), np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    wave = np.sin(2 * np.pi * pitch * rng.uniform(0.97, 1.03) * time)
    return level * wave + 0.01 * rng.uniform(0.7, 1.4) * rng.standard_normal(len(time))


PITCHES = {"low": 400, "high": 1600}


@pytest.fixture
def write(tmp_path):
    def write(name, waveform):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, waveform, SAMPLE_RATE)
        return tmp_path / name

    return write


@pytest.fixture
def real(write):
    """Twelve normal clips of fan, of two captions, and four anomalous ones of pump."""
    clips, captions = [], []
    for machine, label, count in (
        ("fan", "normal", 12),
        ("pump", "normal", 6),
        ("pump", "anomaly", 4),
    ):
        for number in range(count):
            caption = ("low", "high")[number % 2]
            pitch = 3000 if label == "anomaly" else PITCHES[caption]
            path = write(f"real/{machine}_{label}_{number}.wav", tone(pitch, number))
            clips.append(Clip(path, machine, split="train", label=label))
            captions.append(caption)
    return RealClips(Clips(clips, FeatureCache()), captions)


@pytest.fixture
def synthetic(write, real, tmp_path):
    """Write synthetic clips, one for each of the real clips numbered, at the pitch of a caption."""

    def make(captions, machine="fan", label="normal", **columns):
        sources = [
            str(c.path) for c in real.normals(SectionId(machine, "00")).clips[: len(captions)]
        ]  # low, high, low ...
        rows = []
        for number, (caption, source) in enumerate(zip(captions, sources, strict=True)):
            wav = f"made/{machine}_{label}_{number}.wav"
            write(wav, tone(PITCHES.get(caption, 5000), 500 + number))
            rows.append(
                {"wav": wav, "machine": machine, "section": "", "label": label, "caption": caption,
                 "source": source, "source_sha256": content_hash(source), "derived": False,
                 "kept": True}
            )  # fmt: skip
        return pd.DataFrame(rows).assign(**columns)

    return make


def test_clips_like_the_real_ones_are_near_them_and_follow_their_captions(
    synthetic, real, tmp_path
):
    (row,) = quality_table(synthetic(["low", "high"] * 4), tmp_path, real).to_dict("records")
    assert [row[name] for name in ("machine", "section", "label", "against")] == [
        *("fan", "00", "normal", "normal")
    ]
    assert (row["synthetic"], row["real"]) == (8, 12)
    assert row["encoder"] == "log-mel statistics"
    assert row["front_end"] == repr(LogMel.twfr())
    assert row["adherence"] == 1.0
    assert row["chance"] == 0.5
    assert row["diversity"] == pytest.approx(1, abs=0.25)
    assert abs(row["kid"]) < 1
    assert row["fad"] < 2 * row["fad_real"]


def test_other_sounds_are_far_and_follow_no_caption(synthetic, real, tmp_path):
    near = quality_table(synthetic(["low", "high"] * 4), tmp_path, real).iloc[0]
    far = quality_table(synthetic(["other"] * 8), tmp_path, real).iloc[0]
    assert far["fad"] > 3 * near["fad"]
    assert far["kid"] > 10 * abs(near["kid"]) + 1
    assert far["adherence"] == 0.5


def test_clips_that_are_all_alike_are_not_diverse(synthetic, real, write, tmp_path):
    manifest = synthetic(["low", "high"] * 4)
    for number, wav in enumerate(manifest["wav"]):
        write(wav, tone(400, 0) + 1e-5 * np.random.default_rng(number).standard_normal(8000))
    assert quality_table(manifest, tmp_path, real)["diversity"].item() < 0.1


def test_clips_of_the_wrong_caption_adhere_to_none(synthetic, real, tmp_path):
    assert quality_table(synthetic(["high", "low"] * 4), tmp_path, real)["adherence"].item() == 0.0


def test_a_derived_clip_does_not_adhere_by_being_its_source(synthetic, real, tmp_path):
    manifest = synthetic(["low", "high"])
    for wav, source in zip(manifest["wav"], manifest["source"], strict=True):
        (tmp_path / wav).write_bytes(Path(source).read_bytes())
    free = quality_table(manifest, tmp_path, real).iloc[0]
    held = quality_table(manifest.assign(derived=True), tmp_path, real).iloc[0]
    assert free["chance"] == pytest.approx(6 / 12)
    assert held["chance"] == pytest.approx(5 / 11)
    assert held["adherence"] == 1.0


def test_anomalies_that_are_known_are_compared_with_too(synthetic, real, tmp_path):
    manifest = pd.concat(
        [synthetic(["low"] * 4, "pump"), synthetic(["low"] * 4, "pump", "anomaly")]
    )
    table = quality_table(manifest, tmp_path, real)
    assert table[["label", "against", "real"]].to_numpy().tolist() == [
        ["normal", "normal", 6],
        ["normal", "anomaly", 4],
        ["anomaly", "normal", 6],
        ["anomaly", "anomaly", 4],
    ]
    assert table["adherence"].isna().tolist() == [False, True, False, True]


def test_every_encoder_has_a_row_that_names_it(synthetic, real, tmp_path):
    encoders = {"mel 32": LogMel(n_mels=32), "mel 64": LogMel(n_mels=64)}
    table = quality_table(synthetic(["low", "high"]), tmp_path, real, encoders)
    assert table["encoder"].tolist() == ["mel 32", "mel 64"]
    assert table["front_end"].tolist() == [repr(LogMel(n_mels=n)) for n in (32, 64)]
    assert table["fad"].nunique() == 2


def test_a_layer_of_a_pretrained_encoder_is_an_encoder(synthetic, real, tiny_encoders, tmp_path):
    """Not its mean over dimensions, which layers x dim would look like with frames in it."""
    layers = Encoder(str(tiny_encoders("clap")))
    encoders = {"clap": Layer(layers), "maxima": TimeWeighted(r=0.0)}
    manifest = synthetic(["low", "high"] * 4)
    table = quality_table(manifest, tmp_path, real, encoders).set_index("encoder")
    assert table["front_end"].tolist() == [repr(encoder) for encoder in encoders.values()]
    assert "weights=" in table["front_end"]["clap"]
    clips = Clips([Clip(tmp_path / wav, "fan") for wav in manifest["wav"]])
    embeddings = [np.stack([layers(clips.cache.read(clip))[-1] for clip in part])
             for part in (clips, real.normals(SectionId("fan", "00")).clips)]  # fmt: skip
    generated, known = [
        (points - embeddings[1].mean(axis=0)) / embeddings[1].std(axis=0) for points in embeddings
    ]
    assert table["fad"]["clap"] == pytest.approx(frechet_distance(generated, known), rel=1e-3)


def test_what_is_undefined_is_empty(synthetic, real, tmp_path):
    one = quality_table(synthetic(["low"]), tmp_path, real).iloc[0]
    assert np.isnan(one[["fad", "kid", "diversity"]].astype(float)).all()
    alike = RealClips(real.clips, ["the same"] * len(real.captions))
    table = quality_table(synthetic(["low", "high"]), tmp_path, alike)
    assert table[["adherence", "chance"]].isna().all(axis=None)


def test_clips_that_were_rejected_do_not_count(synthetic, real, tmp_path):
    manifest = synthetic(["low", "high"] * 4, kept=[True] * 5 + [False] * 3)
    assert quality_table(manifest, tmp_path, real)["synthetic"].item() == 5
    nothing = quality_table(manifest.assign(kept=False), tmp_path, real)
    assert nothing.empty
    assert "kid" in nothing


def test_a_machine_with_five_clips_has_a_quality(synthetic, real, tmp_path):
    five = real.normals(SectionId("fan", "00"))
    few = RealClips(five.clips[:5], five.captions[:5])
    row = quality_table(synthetic(["low", "high"] * 2), tmp_path, few).iloc[0]
    assert row["real"] == 5
    assert np.isfinite(row[["fad", "fad_real", "kid", "kid_real"]].astype(float)).all()
