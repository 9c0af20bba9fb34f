"""Operating states of machines without attributes: how they are found, numbered and used."""

import json
import logging
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import Run

import fsasd.cli.main  # noqa: F401, registers the resolvers of the configuration
from fsasd.cli import configure
from fsasd.data.captions import caption
from fsasd.data.clip import Clip
from fsasd.data.clips import Clips
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.pseudo_attributes import STATE, PseudoAttributes, ward_clusters
from fsasd.detectors.networks.classifier import class_name
from fsasd.detectors.representations import TimeStatistics
from fsasd.report.page import write_report

SIZES = {300: 8, 900: 5, 2500: 3}
"""Pitch in Hz of each state, to the number of its clips."""

WARD = PseudoAttributes(TimeStatistics())


def write(folder, name, pitch, seed):
    rng, time = np.random.default_rng(seed), np.arange(8000) / 16_000
    sound = 0.1 * np.sin(2 * np.pi * pitch * time) + 0.01 * rng.standard_normal(len(time))
    path = folder / f"{name}.wav"
    soundfile.write(path, sound, 16_000)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A machine of three states, another of one, a third whose attributes are known."""
    folder = tmp_path_factory.mktemp("states")
    pitches = [pitch for pitch, count in SIZES.items() for _ in range(count)]
    made = [
        Clip(write(folder, f"fan-{i}", pitch, i), "fan", "target", "train", label="normal")
        for i, pitch in enumerate(pitches)
    ]
    made += [
        Clip(write(folder, f"pump-{i}", 300, i), "pump", "target", "train", label="normal")
        for i in range(8)
    ]
    made += [
        Clip(write(folder, f"valve-{i}", pitch, i), "valve", "target", "train", label="normal",
             attributes={"spd": "1"} if i else {})
        for i, pitch in enumerate(pitches)
    ]  # fmt: skip
    test = Clip(write(folder, "fan-test", 300, 99), "fan", "target", "test", label="normal")
    return Clips([*made, test])


def states(clips):
    return {clip.path.name: clip.attributes.get(STATE) for clip in clips}


def test_the_states_of_a_machine_without_attributes_are_found(clips, caplog):
    with caplog.at_level(logging.INFO):
        found = WARD(clips)
    assert [clip.path for clip in found] == [clip.path for clip in clips]
    fan = found.where(machine="fan", split="train")
    assert [clip.attributes[STATE] for clip in fan] == ["1"] * 8 + ["2"] * 5 + ["3"] * 3
    assert "fan section 00: 3 operating states of 8, 5, 3 clips" in caplog.text
    # One state is no attribute; neither has a test clip one, nor a machine that has some.
    assert "pump section 00: one operating state" in caplog.text
    for machine in ("pump", "valve"):
        before, after = (some.where(machine=machine) for some in (clips, found))
        assert [c.attributes for c in before] == [c.attributes for c in after]
    assert not found.where(split="test")[0].attributes


def test_states_depend_neither_on_the_order_of_clips_nor_on_a_seed(clips):
    expected = states(WARD(clips))
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002, what scikit-learn would draw from
        order = np.random.default_rng(seed).permutation(len(clips))
        assert states(WARD(clips[order])) == expected


def test_states_are_words_of_captions_and_classes_of_detectors(clips):
    clip = WARD(clips)[0]
    assert caption(clip) == "This is the normal sound of an industrial fan, in operating state 1."
    assert class_name(clip, "machine+attributes") == "fan|operating_state=1"


def test_a_recording_that_cannot_be_read_costs_no_other_its_state(clips, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    fan = clips.where(machine="fan")
    found = WARD(Clips([Clip(bad, "fan", "target", "train", label="normal"), *fan]))
    assert states(found) == {**states(WARD(fan)), "bad.wav": None}


POINTS = st.lists(
    st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=3, max_size=14
).map(lambda points: np.array(points, float))


@settings(deadline=None, max_examples=60)
@given(points=POINTS, seed=st.integers(0, 99))
def test_clusters_are_numbered_by_size_whatever_the_order(points, seed):
    found, _ = ward_clusters(points, 5)
    sizes = np.bincount(found)[1:]
    assert (np.diff(sizes) <= 0).all()
    assert (found == 0).all() or (found.min() == 1 and 2 <= found.max() <= 5)
    order = np.random.default_rng(seed).permutation(len(points))
    np.testing.assert_array_equal(ward_clusters(points[order], 5)[0], found[order])


@pytest.mark.parametrize("count", [2, 4, 6])
def test_the_number_of_clusters_is_that_of_the_groups(count):
    rng = np.random.default_rng(count)
    centres = 20 * np.eye(count, 12)
    truth = np.repeat(np.arange(count), range(20, 20 + count))
    found, silhouette = ward_clusters(centres[truth] + rng.standard_normal((len(truth), 12)), 8)
    assert silhouette > 0.5
    # The largest is the last.
    np.testing.assert_array_equal(found, count - truth)


def test_one_cloud_has_no_clusters():
    for seed in range(5):
        cloud = np.random.default_rng(seed).standard_normal((80, 20))
        assert not ward_clusters(cloud, 8)[0].any()
    assert not ward_clusters(np.ones((9, 2)), 8)[0].any()


def test_fewer_than_two_states_are_refused():
    with pytest.raises(ValueError, match="at_most: expected 2 operating states or more, found 1"):
        PseudoAttributes(TimeStatistics(), at_most=1)


def composed(*overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", list(overrides))


def data(*overrides):
    return configure.experiment(composed(*overrides)).data


def test_it_is_a_choice_of_the_configuration_and_off_by_default(clips, tmp_path):
    folder = tmp_path / "data/fan/train/normal"
    folder.mkdir(parents=True)
    for clip in clips.where(machine="fan"):
        (folder / clip.path.name).symlink_to(clip.path)
    asked = [
        "data=folder", f"data.root={tmp_path / 'data'}", "data.targets=[fan]",
        f"store={tmp_path / 'store'}",
    ]  # fmt: skip
    assert not any(clip.attributes for clip in data(*asked).clips)
    found = data(*asked, "data/pseudo_attributes=ward").clips
    assert sorted({clip.attributes[STATE] for clip in found}) == ["1", "2", "3"]
    few = data(*asked, "data/pseudo_attributes=ward", "data.pseudo_attributes.at_most=2").clips
    assert sorted({clip.attributes[STATE] for clip in few}) == ["1", "2"]


def test_the_report_lists_the_states(clips, tmp_path):
    for asked, expected in ((WARD, [("fan", 1, 8), ("fan", 2, 5), ("fan", 3, 3)]), (None, [])):
        table = FirstShotDataModule(clips, pseudo_attributes=asked).caption_table()
        assert table["caption"].str.contains("in operating state 3").sum() == 3 * bool(asked)
        table.to_csv(tmp_path / "captions.csv", index=False)
        page = write_report(tmp_path, None).read_text()
        row = r'<th scope="row">(\w+)</th><td class="num">(\d)</td><td class="num">(\d)</td>'
        assert re.findall(row, page) == [tuple(map(str, one)) for one in expected]


def test_the_report_names_the_section_of_a_state_if_there_are_several(clips, tmp_path):
    fans = [
        replace(clip, section=section)
        for clip in clips.where(machine="fan", split="train")
        for section in ("00", "01")
    ]
    table = FirstShotDataModule(Clips(fans), pseudo_attributes=WARD).caption_table()
    table.to_csv(tmp_path / "captions.csv", index=False)
    page = write_report(tmp_path, None).read_text()
    assert '<th scope="col">Section</th><th scope="col" class="num">Operating state</th>' in page
    number = r'<td class="num">(\d)</td>'
    row = rf'<th scope="row">fan</th><td>(\d+)</td>{number}{number}'
    assert re.findall(row, page) == [
        (section, *counts)
        for section in ("00", "01")
        for counts in (("1", "8"), ("2", "5"), ("3", "3"))
    ]


@pytest.mark.slow
def test_a_run_trains_a_detector_on_states_as_classes(clips, tmp_path):
    train = tmp_path / "data/fan/train/normal"
    train.mkdir(parents=True)
    for clip in clips.where(machine="fan", split="train"):
        (train / clip.path.name).symlink_to(clip.path)
    for label, pitch in (("normal", 300), ("anomaly", 5000)):
        folder = tmp_path / "data/fan/test" / label
        folder.mkdir(parents=True)
        for i in range(3):
            write(folder, i, pitch, 200 + i)
    cfg = composed(
        "data=folder", f"data.root={tmp_path / 'data'}", "data.targets=[fan]",
        f"store={tmp_path / 'store'}", "data/pseudo_attributes=ward", "detector=thuee",
        "generator=none", "logger=none", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false", "representation.channels=4", "representation.dim=8",
        "representation.training.seconds=0.5", "representation.training.epochs=2",
        "representation.training.batch_size=8",
    )  # fmt: skip
    run = Run(cfg, tmp_path / "run")
    run()
    (networks,) = run.artifact("train").rglob("networks.json")
    assert json.loads(networks.read_text())["classes"] == [
        f"fan|00|{STATE}={number}" for number in (1, 2, 3)
    ]
    metrics = pd.read_csv(tmp_path / "run/metrics.csv").set_index("machine")
    assert 0 <= metrics.loc["fan", "auc"] <= 1
    assert "Operating states" in (tmp_path / "run/report.html").read_text()
