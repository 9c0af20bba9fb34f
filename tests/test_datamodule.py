import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import Dataset

from fsasd.data.captions import Captions, caption
from fsasd.data.datamodule import FirstShotDataModule, is_trainable
from fsasd.data.metadata import Clip, MetadataError, read_clips


@pytest.fixture
def data(factory_clips):
    return FirstShotDataModule(factory_clips, val_share=0.25, batch_size=4)


class Examples(Dataset):
    """What a generator makes of clips: here, who they are."""

    def __init__(self, clips, captions, train):
        self.rows = [(clip.machine, text) for clip, text in zip(clips, captions, strict=True)]
        self.train = train

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, draw):
        return self.rows[draw.clip]


def fitted(data):
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(examples=Examples))
    data.setup("fit")
    # Without a trainer each iteration is the next epoch; with one, test_draws.py.
    data.trainer = None
    return data


def paths(clips):
    return {clip.path for clip in clips}


# Which clips may be trained on


def test_references_give_normal_and_anomalous_clips_and_targets_normal_training_clips(data):
    counts = Counter((c.machine, c.split, c.label) for c in data.captioned)
    assert counts == {
        ("fan", "train", "normal"): 16,
        ("fan", "test", "normal"): 8,
        ("fan", "test", "anomaly"): 8,
        ("valve", "train", "normal"): 16,
        ("valve", "test", "normal"): 8,
        ("valve", "test", "anomaly"): 8,
        ("bearing", "train", "normal"): 16,
    }


@pytest.mark.parametrize(
    ("role", "split", "label", "allowed"),
    [
        ("reference", "train", "normal", True),
        ("reference", "test", "anomaly", True),
        ("reference", "test", None, False),
        ("target", "train", "normal", True),
        ("target", "train", "anomaly", False),
        ("target", "train", None, False),
        ("target", "test", "normal", False),
        ("target", "test", "anomaly", False),
        ("target", "test", None, False),
    ],
)
def test_first_shot_rules(tmp_path, role, split, label, allowed):
    clip = Clip(tmp_path / "clip.wav", "fan", role=role, split=split, label=label)
    assert is_trainable(clip) is allowed


def test_the_labelled_test_clips_of_a_real_target_are_never_captioned(real):
    data = FirstShotDataModule.from_dcase(real)
    hidden = [c for c in data.clips if c.role == "target" and c.split == "test"]
    assert len(hidden) == 60
    assert all(clip.label for clip in hidden)
    assert not paths(hidden) & paths(data.captioned)
    assert {c.label for c in data.captioned if c.machine == "BLDCMotor"} == {"normal"}


def test_nothing_to_train_on_is_an_error(factory_clips):
    with pytest.raises(MetadataError, match="no clip to train a generator on"):
        _ = FirstShotDataModule(factory_clips.where(machine="bearing", split="test")).captioned


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ({"machine": "fan"}, lambda c: c.machine == "fan"),
        ({"domain": "target"}, lambda c: c.domain == "target"),
        ({"machine": "fan", "label": "anomaly"}, lambda c: c.path.match("fan/test/*anomaly*")),
        ({"machine": "fan", "spd": 1500}, lambda c: c.path.match("fan/*/*_spd_1500_*")),
        ({"load": "2"}, lambda c: "_load_2_" in c.path.name),
        ({"split": "test", "section": "00"}, lambda c: c.path.parent.name == "test"),
        ({"split": "test", "section": 0}, lambda c: c.path.parent.name == "test"),
    ],
)
def test_held_out_clips_are_not_trained_on(factory_clips, rule, gone):
    everything = FirstShotDataModule(factory_clips).captioned
    kept = FirstShotDataModule(factory_clips, hold_out=[rule]).captioned
    assert paths(kept) == {clip.path for clip in everything if not gone(clip)}
    assert 0 < len(kept) < len(everything)


def test_of_several_rules_each_holds_out_its_own(factory_clips):
    rules = [{"machine": "fan"}, {"machine": "valve", "label": "anomaly"}]
    kept = FirstShotDataModule(factory_clips, hold_out=rules).captioned
    assert {(c.machine, c.label) for c in kept} == {("valve", "normal"), ("bearing", "normal")}


def test_a_rule_that_matches_no_clip_is_an_error(factory_clips):
    rules = [{"machine": "fan", "volt": "3.0"}]
    with pytest.raises(MetadataError, match=r"hold_out: no clip is .*'volt': '3.0'"):
        FirstShotDataModule(factory_clips, hold_out=rules)


# Split


@pytest.mark.parametrize("wrong", [{"val_share": 1}, {"val_share": -0.1}, {"batch_size": 0}])
def test_what_would_leave_nothing_to_train_on_is_an_error(factory_clips, wrong):
    (value,) = wrong.values()
    with pytest.raises(ValueError, match=rf"val_share from 0 .* found .*{value}"):
        FirstShotDataModule(factory_clips, **wrong)


def test_the_split_is_disjoint_and_complete(data):
    fitted(data)
    train, val = paths(data.train_clips), paths(data.val_clips)
    assert not train & val
    assert train | val == paths(data.captioned)


def test_every_machine_and_label_has_its_share_in_validation(data):
    fitted(data)
    assert Counter((c.machine, c.label) for c in data.val_clips) == {
        ("fan", "normal"): 6,
        ("fan", "anomaly"): 2,
        ("valve", "normal"): 6,
        ("valve", "anomaly"): 2,
        ("bearing", "normal"): 4,
    }


def test_the_seed_alone_decides_the_split(factory_clips):
    same, again, other = (
        paths(fitted(FirstShotDataModule(factory_clips, val_share=0.25, seed=seed)).val_clips)
        for seed in (3, 3, 4)
    )
    assert same == again
    assert same != other


def test_both_parts_get_the_captions_of_their_clips(data):
    fitted(data)
    for clips, examples in ((data.train_clips, data.train_set), (data.val_clips, data.val_set)):
        assert examples.rows == [(clip.machine, caption(clip)) for clip in clips]
    assert (data.train_set.train, data.val_set.train) == (True, False)


def test_other_captions_may_be_given(factory_clips):
    clips = factory_clips.where(machine="fan")
    data = fitted(FirstShotDataModule(clips, Captions({"fan": "a ventilator"}, {})))
    assert all("sound of a ventilator with spd" in text for _, text in data.train_set.rows)


def test_prediction_asks_for_no_training_examples(data):
    # Any attempt to call this generator's examples() fails.
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(examples=None))
    data.setup("predict")
    assert "train_set" not in vars(data)


# Loaders


def drawn(data, epochs=20):
    loader = fitted(data).train_dataloader()
    return [machine for _ in range(epochs) for batch in loader for machine in batch[0]]


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.2), (1.0, 1 / 3)])
def test_balance_lies_between_clips_and_machines(factory_clips, balance, share):
    """The bearing has 16 of 80 clips, and is one of 3 machines."""
    data = FirstShotDataModule(factory_clips, val_share=0, balance=balance, batch_size=8)
    machines = drawn(data, epochs=40)
    found = machines.count("bearing") / len(machines)
    # Each clip comes as often as it is due, so nothing is left to luck but the rounding.
    assert found == pytest.approx(share, abs=0.01)


def test_the_seed_fixes_the_order(factory_clips):
    first, again, other = (
        drawn(FirstShotDataModule(factory_clips, seed=seed), epochs=1) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_two_epochs_are_drawn_differently(data):
    loader = fitted(data).train_dataloader()
    assert [tuple(batch[1]) for batch in loader] != [tuple(batch[1]) for batch in loader]


def test_fewer_clips_than_a_batch_still_make_one(factory_clips):
    few = factory_clips.where(machine="bearing", split="train")[:3]
    data = fitted(FirstShotDataModule(few, batch_size=8))
    assert [len(batch[0]) for batch in data.train_dataloader()] == [8]
    assert list(data.val_dataloader()) == []


def test_validation_sees_each_clip_once_in_order(data):
    loader = fitted(data).val_dataloader()
    assert [text for batch in loader for text in batch[1]] == [caption(c) for c in data.val_clips]


# What is in it


def test_machines_are_known_by_role(data):
    assert data.references == ["fan", "valve"]
    assert data.targets == ["bearing"]
    assert len(data.machine("bearing")) == 32
    assert data.machine("bearing").cache is data.cache


def test_the_caption_table_has_a_row_for_each_captioned_clip(data):
    table = data.caption_table()
    assert table["path"].tolist() == [str(clip.path) for clip in data.captioned]
    assert table["caption"].tolist() == [caption(clip) for clip in data.captioned]
    assert set(table["machine"]) == {"fan", "valve", "bearing"}


def test_a_data_set_is_read_with_its_options(factory):
    data = FirstShotDataModule.from_dcase(factory, ["fan"], batch_size=7)
    assert (data.references, data.targets, data.batch_size) == (["fan"], [], 7)


def test_a_factory_is_written_once_into_the_store(tmp_path, caplog):
    options = {
        "references": [],
        "targets": ["fan"],
        "seconds": 0.5,
        "train_clips": 2,
        "target_domain_clips": 1,
        "test_clips": 1,
    }
    with caplog.at_level(logging.INFO, "fsasd.store.store"):
        first = FirstShotDataModule.from_factory(tmp_path, options, seed=5)
        second = FirstShotDataModule.from_factory(tmp_path, options)
        other = FirstShotDataModule.from_factory(tmp_path, {**options, "seed": 1})
    told = [record.getMessage().split(" /")[0] for record in caplog.records]
    assert told == ["factory: building", "factory: reusing", "factory: building"]
    assert list(first.clips) == list(second.clips)
    assert not paths(first.clips) & paths(other.clips)
    assert len(other.clips) == 2 + 4
    assert first.seed == 5


def test_a_factory_whose_writing_was_killed_at_its_end_is_written_anew(tmp_path):
    options = {"references": [], "targets": ["fan"], "seconds": 0.5, "train_clips": 2}
    options |= {"target_domain_clips": 1, "test_clips": 1}
    first = FirstShotDataModule.from_factory(tmp_path, options)
    (provenance,) = tmp_path.glob("factory/*/provenance.json")
    provenance.unlink()
    provenance.parent.rename(f"{provenance.parent}.partial")
    second = FirstShotDataModule.from_factory(tmp_path, options)
    assert list(first.clips) == list(second.clips)
    assert provenance.is_file()


def test_the_cache_folder_is_used(factory, tmp_path):
    data = FirstShotDataModule(read_clips(factory, ["fan"]), cache=tmp_path / "features")
    list(data.machine("fan")[:3].features(np.abs))
    assert len(list((tmp_path / "features").glob("*/*.npy"))) == 3


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        (("Motor", "motor"), "clips: expected one spelling of each machine, found 'Motor' and"),
        (("a/b", "motor"), "machine: expected a name without '/'"),
    ],
)
def test_clips_from_anywhere_have_machines_with_names(machines, message):
    clips = [Clip(Path(f"{i}.wav"), machine) for i, machine in enumerate(machines)]
    with pytest.raises(MetadataError, match=message):
        FirstShotDataModule(clips)
