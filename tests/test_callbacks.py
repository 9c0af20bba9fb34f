"""The first-shot number during training."""

from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import soundfile
import torch

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hash
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.detection.callback import DetectorEvaluation, _means
from fsasd.detectors.knn import KNN
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.selection.selector import Selector

pytestmark = pytest.mark.slow


@pytest.fixture
def data(factory, latents):
    return FirstShotDataModule(read_clips(factory), batch_size=8, val_share=0.2, cache=latents)


def nano():
    return AudioLDM("nano", crop_seconds=0.64, sampler=Sampler(steps=2))


def run(folder, callbacks, **options):
    return L.Trainer(
        accelerator="cpu", devices=1, max_epochs=-1, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=callbacks, **options,
    )  # fmt: skip


def test_the_first_shot_number_is_logged_for_checkpoints_to_monitor(data, tmp_path):
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", monitor="first_shot/auc", mode="max", filename="best"
    )
    callback = DetectorEvaluation(
        clips_per_label=4,
        max_seconds=0.64,
        detector=KNN(),
        selector=Selector({"k": [1, 2, 3]}, abstain=False),
    )
    trainer = run(
        tmp_path, [callback, checkpoint], max_steps=2, val_check_interval=2,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(nano(), data)
    values = trainer.callback_metrics
    assert 0 <= float(values["first_shot/auc"]) <= 1
    assert float(values["first_shot/regret"]) >= 0
    assert -1 <= float(values["first_shot/gain"]) <= 1
    assert -1 <= float(values["first_shot/spearman"]) <= 1
    assert float(checkpoint.best_model_score) == float(values["first_shot/auc"])
    assert (tmp_path / "kept" / "best.ckpt").is_file()


def test_evaluation_leaves_the_random_state_to_training_and_fits_nothing_for_a_gap(
    data, monkeypatch
):
    monkeypatch.setattr("fsasd.selection.choice.crossfit", None)
    callback = DetectorEvaluation(
        clips_per_label=2,
        max_seconds=0.64,
        detector=KNN(),
        selector=Selector({"k": [1]}, max_gap=None),
    )
    assert DetectorEvaluation().selector.max_gap is None
    torch.manual_seed(0)
    state = torch.get_rng_state()
    callback.evaluate(nano(), data)
    assert torch.equal(state, torch.get_rng_state())


def test_a_generator_that_hears_the_anomalies_has_less_regret_than_one_that_hears_noise(
    data, monkeypatch
):
    """What a generator synthesises decides: the machine's real test clips, or nothing but noise."""
    callback = DetectorEvaluation(
        selector=Selector({"r": [0.0, 0.5, 0.9, 1.0, 1.1]}, abstain=False)
    )
    values = {}
    for name in ("real", "noise"):

        def synthesise(generator, data, train, folder, name=name):
            test = data.machine(train[0].machine).where(split="test")
            if name == "real":
                return test
            rng = np.random.default_rng(0)
            paths = [Path(folder) / f"{i}.wav" for i in range(len(test))]
            for path in paths:
                soundfile.write(path, 0.1 * rng.standard_normal(16_000), 16_000)
            return Clips([replace(c, path=p) for c, p in zip(test, paths, strict=True)])

        monkeypatch.setattr(callback, "_synthesise", synthesise)
        values[name] = callback.evaluate(None, data)
    assert values["real"]["regret"] == 0
    assert values["real"]["spearman"] == pytest.approx(1)
    assert values["noise"]["regret"] > 0
    assert values["noise"]["spearman"] < 0.9
    assert (
        values["real"]["auc"] + values["real"]["pauc"]
        > values["noise"]["auc"] + values["noise"]["pauc"]
    )


@pytest.mark.parametrize("usable", [True, False])
def test_machines_without_usable_clips_are_logged_and_left_out(data, monkeypatch, caplog, usable):
    def synthesise(generator, data, train, folder):
        test = data.machine(train[0].machine).where(split="test")
        return test if usable or train[0].machine == "fan" else test.where(label="anomaly")

    callback = DetectorEvaluation(selector=Selector({"r": [0.0, 1.0]}, abstain=False))
    monkeypatch.setattr(callback, "_synthesise", synthesise)
    assert 0 < callback.evaluate(None, data)["auc"] <= 1
    messages = ["valve section 00: no usable synthetic clips of both labels yet"] * (not usable)
    assert [record.getMessage() for record in caplog.records] == messages


def test_real_clips_are_read_once_in_all_evaluations(factory, monkeypatch):
    data = FirstShotDataModule(read_clips(factory))
    read, clips_read = FeatureCache.read, []
    monkeypatch.setattr(
        FeatureCache, "read", lambda self, *of: clips_read.append(of[0]) or read(self, *of)
    )
    callback = DetectorEvaluation(
        clips_per_label=2, max_seconds=0.64, detector=KNN(), selector=Selector({"k": [1]})
    )
    model = nano()
    first, computed = callback.evaluate(model, data), list(clips_read)
    clips_read.clear()
    assert callback.evaluate(model, data) == first
    # Again only those whose length and level prompts take.
    assert sum(not clip.synthetic for clip in clips_read) == 2 * 2
    assert sum(not clip.synthetic for clip in computed) > 40
    kept = {content for _, content in data.cache._memory}
    assert kept <= {content_hash(clip.path) for clip in data.clips}


def test_each_section_is_evaluated_by_itself(data, monkeypatch):
    """A machine of two sections is two machines of one, and processes may share them."""
    clips = [replace(clip, section=f"{i % 2:02d}") for i, clip in enumerate(data.clips)]
    data.clips = Clips(clips, data.cache)

    def synthesise(generator, data, train, folder):
        section_clips = data.machine(train[0].machine).where(section=train[0].section, split="test")
        assert {clip.section for clip in train} == {train[0].section}
        return section_clips

    callback = DetectorEvaluation(selector=Selector({"r": [0.0, 1.0]}, abstain=False))
    monkeypatch.setattr(callback, "_synthesise", synthesise)
    whole = callback._evaluate_share(None, data)
    assert sorted(whole) == [(m, s) for m in ("fan", "valve") for s in ("00", "01")]
    shares = [callback._evaluate_share(None, data, (rank, 3)) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 1, 1]
    assert shares[0] | shares[1] | shares[2] == whole
    assert _means(shares[::-1]) == callback.evaluate(None, data)


def test_a_resumed_run_goes_on_counting_validations():
    first, second = DetectorEvaluation(every_n_validations=3), DetectorEvaluation()
    first._validations = 2
    second.load_state_dict(first.state_dict())
    assert second._validations == 2


def test_weights_that_are_divided_are_an_error_before_training():
    model = nano()
    model.sharded = True
    with pytest.raises(ValueError, match=r"no process can generate alone.*~callbacks\.evaluation"):
        DetectorEvaluation().on_train_start(None, model)


def test_without_labelled_references_there_is_nothing_to_log(data):
    data.clips = data.clips.where(role="target")
    assert DetectorEvaluation().evaluate(nano(), data) == {}
