"""Which clips of a set are kept: constructed sets in which a rule must act, and must not."""

import hashlib
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hash
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.encoder_space import Neighbourhood, RealClips, embed
from fsasd.generation.filters import Filters, far_limit, mark_duplicates, nearness

CAPTIONS = {500: "low", 1500: "high"}
FAN, PUMP = SectionId("fan", "00"), SectionId("pump", "00")


def sound(pitch, seed, hiss=0.0):
    """A tone over noise, each clip a little different; a fault hisses."""
    rng, time = np.random.default_rng(seed), np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    tone = 0.1 * np.sin(2 * np.pi * pitch * rng.uniform(0.98, 1.02) * time)
    noise = rng.standard_normal(len(time)) * rng.uniform(0.009, 0.011)
    return tone + noise + hiss * rng.standard_normal(len(time))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Real clips: 12 normal ones of fan (target) and pump, 8 anomalous ones of pump, test clips."""
    root = tmp_path_factory.mktemp("real")

    def clip(machine, label, split, number, pitch, hiss=0.0):
        path = root / f"{machine}_{label}_{split}_{number}.wav"
        soundfile.write(path, sound(pitch, number, hiss), SAMPLE_RATE)
        role = "target" if machine == "fan" else "reference"
        return Clip(path, machine, role, split, label=label)

    clips, texts = [], []
    for machine, number in product(("fan", "pump"), range(12)):
        pitch = (500, 1500)[number % 2]
        clips.append(clip(machine, "normal", "train", number, pitch))
        texts.append(CAPTIONS[pitch])
    for number in range(8):
        clips.append(clip("pump", "anomaly", "test", 100 + number, 500, hiss=0.02))
        clips.append(clip("pump", "normal", "test", 200 + number, 500, hiss=1.0))
        texts += ["low", "low"]
    return RealClips(Clips(clips, FeatureCache()), texts)


@pytest.fixture
def synthesised(tmp_path, world):
    """Write synthetic clips of fan, and return their manifest."""

    def write(sounds, **columns):
        rows = []
        for number, waveform in enumerate(sounds):
            wav = f"anomaly_{number:04d}.wav"
            soundfile.write(tmp_path / wav, waveform, SAMPLE_RATE, subtype="PCM_16")
            rows.append(
                {"wav": wav, "machine": "fan", "section": "", "label": "anomaly", "caption": "",
                 "derived": False, "source": str(world.clips[0].path),
                 "source_sha256": content_hash(world.clips[0].path),
                 "sha256": hashlib.sha256((tmp_path / wav).read_bytes()).hexdigest(),
                 "kept": True, "reason": ""}
            )  # fmt: skip
        return pd.DataFrame(rows).assign(**columns)

    return write


FAR = "farther from real clips than real anomalies of other machines"
NEAR = "closer to real normal clips than these to one another"


def reasons(manifest):
    assert (manifest["kept"] == (manifest["reason"] == "")).all()
    return [reason.split(" (")[0] for reason in manifest["reason"]]


# Off by default


def test_by_default_nothing_is_filtered(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 1), sound(3000, 2, hiss=2.0), np.zeros(8000)])
    pd.testing.assert_frame_equal(Filters()(manifest, tmp_path, world), manifest)


def test_without_real_clips_of_the_machine_nothing_is_asked_of_them(synthesised, tmp_path):
    manifest = synthesised([sound(500, 1)])
    result = Filters()(manifest, tmp_path, RealClips(Clips([]), []))
    pd.testing.assert_frame_equal(result, manifest)


# By distance


def test_what_no_fault_of_any_machine_sounds_like_is_too_far(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 31), sound(500, 32, hiss=0.01), sound(500, 33, hiss=1.0)])
    result = Filters(too_far=0.99)(manifest, tmp_path, world)
    assert reasons(result) == ["", "", FAR]
    limit = far_limit(world, "fan", 0.99)
    assert result["reason"].iloc[2].endswith(f"(above {limit:.2f} spacings)")


def test_the_limit_of_too_far_is_a_quantile_of_real_anomalies(world):
    around = Neighbourhood(world.normals(PUMP))
    points = around.place(world.anomalies(PUMP).clips)
    ratios = around.distances(points, [None] * 8).min(axis=1) / np.median(around.spacings())
    assert far_limit(world, "fan", 0.5) == pytest.approx(np.median(ratios))
    assert far_limit(world, "fan", 0.2) < far_limit(world, "fan", 0.9)


def test_the_anomalies_of_the_machine_itself_do_not_count(world):
    with pytest.raises(ValueError, match=r"pump: too_far needs anomalous clips of another machine"):
        far_limit(world, "pump", 0.9)


def test_a_copy_of_a_training_clip_is_too_near(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 0), sound(500, 41), sound(500, 42, hiss=0.02)])
    result = Filters(too_near=0.05)(manifest, tmp_path, world)
    assert reasons(result) == [NEAR, "", ""]


def test_a_derived_clip_is_not_compared_with_its_source(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 0)], derived=True)
    assert reasons(Filters(too_near=0.05)(manifest, tmp_path, world)) == [""]


def test_sources_are_known_by_content_wherever_the_data_set_lies(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 0)], derived=True)
    (tmp_path / "moved").mkdir()
    moved = [
        replace(clip, path=shutil.copy(clip.path, tmp_path / "moved" / clip.path.name))
        for clip in world.clips
    ]
    elsewhere = RealClips(Clips(moved), world.captions)
    assert reasons(Filters(too_near=0.05)(manifest, tmp_path, elsewhere)) == [""]


def test_a_section_is_compared_with_its_real_clips_alone(world, synthesised, tmp_path):
    real = RealClips(
        Clips([replace(clip, section=f"{i // 2 % 2:02d}") for i, clip in enumerate(world.clips)]),
        world.captions,
    )
    manifest = synthesised([sound(500, 0)] * 2).assign(section=["00", "01"])
    result = Filters(too_near=0.05)(manifest, tmp_path, real)
    assert reasons(result) == [NEAR, ""]


def test_both_filters_give_their_reasons(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 0), sound(500, 41), sound(500, 42, hiss=1.0)])
    result = Filters(too_far=0.99, too_near=0.05)(manifest, tmp_path, world)
    assert reasons(result) == [NEAR, "", FAR]


def test_what_was_rejected_before_keeps_its_reason(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 33, hiss=1.0)], kept=False, reason="silent")
    result = Filters(too_far=0.5, too_near=0.5)(manifest, tmp_path, world)
    assert result["reason"].tolist() == ["silent"]


def test_too_few_real_clips_to_know_what_is_usual_are_an_error(world, synthesised, tmp_path):
    few = RealClips(world.clips[:2], world.captions[:2])
    with pytest.raises(ValueError, match=r"fan section 00: .* need 3 real .*, found 2: set both"):
        Filters(too_near=0.1)(synthesised([sound(500, 1)]), tmp_path, few)


def test_without_anomalies_of_a_reference_too_far_has_no_limit(world, synthesised, tmp_path):
    normal = RealClips(world.clips[:24], world.captions[:24])
    with pytest.raises(ValueError, match=r"found none: set synthesis\.filters\.too_far=null"):
        Filters(too_far=0.9)(synthesised([sound(500, 1)]), tmp_path, normal)


def test_what_limits_need_is_known_before_synthesis(world):
    few = RealClips(world.clips[:2], world.captions[:2])
    with pytest.raises(ValueError, match=r"fan section 00: .* need 3 real .*, found 2"):
        Filters(too_near=0.1).check(few, [FAN])
    with pytest.raises(ValueError, match="pump: too_far needs anomalous clips of another machine"):
        Filters(too_far=0.9).check(world, [FAN, PUMP])
    Filters(too_far=0.9, too_near=0.1).check(world, [FAN])
    Filters(too_near=0.1).check(world, [FAN, PUMP])
    Filters().check(few, [FAN])


@pytest.mark.parametrize(("name", "value"), [("too_far", 1.0), ("too_near", 0.0), ("too_far", 3)])
def test_a_quantile_lies_between_0_and_1(name, value):
    with pytest.raises(ValueError, match=f"{name} is a quantile, between 0 and 1, found {value}"):
        Filters(**{name: value})


# Candidates


@pytest.fixture
def candidates(synthesised, world):
    """Three candidates for one clip: near its caption's real clips, elsewhere, and far from all."""
    manifest = synthesised([sound(1500, 51), sound(500, 52), sound(500, 53, hiss=1.0)])
    wavs = ["anomaly_0000.wav", "anomaly_0000-c1.wav", "anomaly_0000-c2.wav"]
    folder = Path(world.clips[0].path).parent
    assert world.captions[0] == "low"
    return manifest.assign(asked=wavs), folder


def _named(manifest, folder):
    for wav, name in zip(manifest["wav"], manifest["asked"], strict=True):
        (folder / wav).rename(folder / name)
    return manifest.assign(wav=manifest["asked"]).drop(columns="asked")


def test_of_candidates_the_one_nearest_its_captions_real_clips_is_kept(candidates, world, tmp_path):
    manifest = _named(candidates[0], tmp_path)
    result = Filters()(manifest, tmp_path, world)
    better = "another candidate was better"
    assert result["reason"].tolist() == [better, "", better]
    assert result["kept"].tolist() == [False, True, False]


def test_a_custom_scorer_decides(candidates, world, tmp_path):
    asked = []

    def loudest(clips, rows, real):
        asked.append((rows["source"].tolist(), len(real.clips)))
        return np.array([np.abs(clips.cache.read(clip)).max() for clip in clips])

    result = Filters(scorer=loudest)(_named(candidates[0], tmp_path), tmp_path, world)
    assert result["kept"].tolist() == [False, False, True]
    assert asked == [([str(world.clips[0].path)] * 3, 12)]


def test_a_rejected_candidate_is_no_choice(candidates, world, tmp_path):
    manifest = _named(candidates[0], tmp_path)
    manifest.loc[1, ["kept", "reason"]] = False, "silent"
    result = Filters()(manifest, tmp_path, world)
    assert result["kept"].tolist() == [True, False, False]
    assert result["reason"].iloc[1] == "silent"


def test_judging_again_changes_nothing(candidates, world, tmp_path):
    filters = Filters(too_far=0.99, too_near=0.05)
    once = filters(_named(candidates[0], tmp_path), tmp_path, world)
    pd.testing.assert_frame_equal(filters(once, tmp_path, world), once)


def test_nearness_looks_at_the_real_clips_of_the_caption(world, synthesised, tmp_path):
    manifest = synthesised([sound(500, 61), sound(1500, 62)])
    clips = Clips([Clip(tmp_path / wav, "fan") for wav in manifest["wav"]])
    low, high = (content_hash(world.clips[i].path) for i in (0, 1))
    for source, better in ((low, 0), (high, 1)):
        scores = nearness(clips, manifest.assign(source_sha256=source), world.normals(FAN))
        assert scores.argmax() == better


# Duplicates


def test_the_same_recording_is_kept_once(synthesised, tmp_path):
    manifest = synthesised([sound(500, 1), sound(500, 2), sound(500, 1)])
    result = mark_duplicates(manifest)
    assert result["kept"].tolist() == [True, True, False]
    assert result["reason"].iloc[2] == "the same recording as an earlier clip"
    assert manifest["kept"].all()


def test_the_same_recording_for_two_machines_is_no_duplicate(synthesised, tmp_path):
    manifest = synthesised([sound(500, 1), sound(500, 1)]).assign(machine=["fan", "pump"])
    assert mark_duplicates(manifest)["kept"].all()


def test_a_rejected_clip_does_not_make_a_later_one_a_duplicate(synthesised, tmp_path):
    manifest = synthesised([sound(500, 1), sound(500, 1)]).assign(kept=[False, True])
    assert mark_duplicates(manifest)["kept"].tolist() == [False, True]


# The space


def test_an_embedding_is_the_mean_and_deviation_over_time(world):
    clips = world.clips[:2]
    log_mel = LogMel.twfr()(clips.cache.read(clips[0]))
    expected = np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1)])
    np.testing.assert_allclose(embed(clips)[0], expected, rtol=1e-6)


class Loudness:
    """A front end that gives one vector per clip."""

    def __repr__(self):
        return "Loudness()"

    def __call__(self, waveform):
        return np.array([waveform.std(), 7.0], np.float32)


def test_an_encoder_that_gives_one_vector_is_taken_as_it_is(world):
    points = embed(world.clips[:3], Loudness())
    assert points.shape == (3, 2)
    # A dimension that never varies is no reason to divide by zero.
    around = Neighbourhood(world.normals(FAN), Loudness())
    assert np.isfinite(around.points).all()
    assert around.points[:, 0].std() == pytest.approx(1)


def test_distances_are_in_the_real_clips_standard_deviations(world):
    around = Neighbourhood(world.normals(FAN))
    assert around.points.std(axis=0).max() == pytest.approx(1)
    np.testing.assert_allclose(around.points.mean(axis=0), 0, atol=1e-9)
    distances = around.distances(around.points, [None] * 12)
    np.testing.assert_allclose(np.diag(distances), 0, atol=1e-5)
    without = around.distances(around.points, world.normals(FAN).contents())
    np.testing.assert_allclose(without.min(axis=1), around.spacings())


def test_test_clips_are_never_what_synthetic_clips_are_held_against(world):
    assert {clip.split for clip in world.normals(PUMP).clips} == {"train"}
    assert len(world.normals(PUMP).clips) == 12
    assert not len(world.anomalies(FAN).clips)
