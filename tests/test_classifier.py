"""Classes, examples and training of classifiers."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fsasd.data.captions import caption
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip, MetadataError, read_name
from fsasd.detectors.networks.classifier import (
    Classifier,
    RandomCuts,
    Recordings,
    Training,
    TwoStage,
    class_name,
    fixed_length,
    train,
)
from fsasd.detectors.networks.heads import Softmax
from fsasd.detectors.networks.shares import Share
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.prompts import make_prompts
from fsasd.generation.synthesis import SynthesisFolder
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.generation.transforms import FaultTransforms

pytestmark = pytest.mark.slow

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


class Loudness(nn.Module):
    """Waveforms -> what a linear layer makes of their statistics."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, waveforms):
        return self.linear(torch.stack([waveforms.std(dim=1), waveforms.abs().amax(1)], dim=1))


def classifier(n_classes, seed=0, kind=Classifier, **settings):
    torch.manual_seed(seed)
    training = Training(**{"batch_size": 8, "epochs": 1, "seconds": 1.0, **settings})
    return kind(Loudness(), Softmax(3, n_classes), training)


@pytest.fixture(scope="module")
def examples(factory_clips):
    return Recordings(factory_clips.where(split="train"), "machine", 0.5)


# Classes


def test_a_class_is_of_the_given_fields():
    name = "ToyCar/train/section_01_target_train_normal_0000_car_B2_spd_31V_mic_1.wav"
    clip = read_name(name)
    assert class_name(clip, "machine") == "ToyCar"
    assert class_name(clip, "machine+section+domain") == "ToyCar|01|target"
    assert class_name(clip, "attributes") == "car=B2,mic=1,spd=31V"


GENERATORS = {
    "derived": lambda: FaultTransforms({"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}}),
    "AudioLDM": lambda: AudioLDM("nano", sampler=Sampler(steps=1)),
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("by", ["machine+attributes", "machine+section+attributes+domain"])
def test_synthetic_clips_are_of_their_sources_classes(factory_clips, tmp_path, kind, by):
    normals = factory_clips.where(machine="bearing", split="train", label="normal")
    generator, folder = GENERATORS[kind](), SynthesisFolder(tmp_path)
    prompts = make_prompts(normals, [caption(clip) for clip in normals], len(normals))
    prompts = generator.prepare([prompt._replace(seconds=0.64) for prompt in prompts])
    for prompt, waveform in zip(prompts, generator.generate(prompts), strict=True):
        folder.write(prompt, waveform.numpy())
    folder.close(prompts)
    synthetic = read_manifest(tmp_path, kept=False)
    own = {class_name(clip, by) for clip in normals}
    assert 1 < len(own) < len(normals)
    sources = {str(clip.path): class_name(clip, by) for clip in normals}
    for prompt, clip in zip(prompts, synthetic, strict=True):
        expected = sources[prompt.source] + "|anomaly" * (clip.label == "anomaly")
        assert class_name(clip, by) == expected
    recordings = Recordings(Clips([*normals, *synthetic]), by, 0.5)
    assert recordings.classes == sorted(own | {f"{name}|anomaly" for name in own})


def test_the_order_in_which_attributes_are_written_makes_no_class():
    one = Clip(Path("a"), "fan", attributes={"a": "1", "b": "2"})
    two = Clip(Path("b"), "fan", attributes={"b": "2", "a": "1"})
    assert class_name(one, "attributes") == class_name(two, "attributes")


def test_a_label_that_cannot_be_split_is_a_class_as_written():
    clip = Clip(Path("a"), "fan", raw_label="strength_1_ambient")
    assert class_name(clip, "machine+attributes") == "fan|strength_1_ambient"


def test_an_anomaly_is_never_of_a_normal_clips_class():
    normal, anomaly = (Clip(Path("a"), "fan", label=label) for label in ("normal", "anomaly"))
    assert class_name(normal, "machine") == "fan"
    assert class_name(anomaly, "machine") == "fan|anomaly"


def test_an_unknown_field_of_a_class_is_suggested():
    with pytest.raises(MetadataError, match="Did you mean 'section'"):
        class_name(Clip(Path("a"), "fan"), "machine+sections")


# Lengths


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_a_cut_or_repeated_waveform_has_the_length_and_no_silence(found, wanted, start):
    waveform = np.arange(1, found + 1)
    cropped = fixed_length(waveform, wanted, start)
    assert cropped.shape == (wanted,)
    # It goes on as the waveform does, around its end too.
    assert (np.diff(cropped) % found == 1 % found).all()


def test_an_example_is_cut_where_it_is_asked_to_be(examples):
    waveform = examples.clips.cache.read(examples.clips[3])
    for place, start in ((0.0, 0), (0.5, 4000)):
        example, label = examples[3, place]
        np.testing.assert_array_equal(example, waveform[start : start + 8000])
        assert examples.classes[label] == examples.clips[3].machine


def test_ranks_share_the_clips_and_cut_them_elsewhere_in_each_epoch(examples):
    ranks = [RandomCuts(len(examples), 16, Share(2, rank), seed=0) for rank in (0, 1)]
    first = [list(rank) for rank in ranks]
    assert sorted(i for share in first for i, _ in share) == list(range(len(examples)))
    assert first == [list(rank) for rank in ranks]
    ranks[0].set_epoch(1)
    assert list(ranks[0]) != first[0]
    places = [place for share in first for _, place in share]
    assert len(set(places)) == len(examples)
    assert 0 <= min(places) < 0.2 < 0.8 < max(places) < 1


def test_clips_of_one_class_are_refused(factory_clips):
    fans = factory_clips.where(machine="fan", split="train")
    with pytest.raises(ValueError, match=r"found 16 clips of class 'fan' only: give prepare"):
        Recordings(fans, "machine", 1.0)


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="found 0 clips: give prepare"):
        Recordings(Clips([]), "machine", 1.0)


# Training


def fitted(examples, folder, epochs=4, trainer=QUIET, **settings):
    model = classifier(len(examples.classes), epochs=epochs, **settings)
    model.set_examples(examples, seed=0)
    train(model, folder, trainer)
    return model


def test_training_lowers_the_loss(examples, tmp_path):
    batch = [examples[i, 0.0] for i in range(len(examples))]
    waveforms = torch.stack([waveform for waveform, _ in batch])
    targets = torch.eye(len(examples.classes))[[label for _, label in batch]]
    before = classifier(len(examples.classes)).loss(waveforms, targets)
    after = fitted(examples, tmp_path, epochs=60, learning_rate=0.05).loss(waveforms, targets)
    assert after < 0.8 * before


def test_a_seed_gives_the_same_network(examples, tmp_path):
    one, two = (fitted(examples, tmp_path / name).weights() for name in ("one", "two"))
    for name, array in one.items():
        np.testing.assert_array_equal(two[name], array)


def test_settings_to_lower_are_named_if_memory_does_not_suffice(examples, tmp_path):
    model = classifier(len(examples.classes))
    model.set_examples(examples, seed=0)

    def large(waveforms, targets):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    model.loss = large
    with pytest.raises(ValueError, match=r"training\.batch_size \(now 8\) or .*\.seconds"):
        train(model, tmp_path, QUIET)


def test_training_that_was_cut_goes_on_to_the_same_network(examples, tmp_path):
    whole = fitted(examples, tmp_path / "whole", epochs=4, mixup=0.5, final_rate=0.1).weights()

    class PowerCut(Classifier):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise RuntimeError("power cut")

    settings = {"epochs": 4, "mixup": 0.5, "final_rate": 0.1}
    cut = classifier(len(examples.classes), kind=PowerCut, **settings)
    cut.set_examples(examples, seed=0)
    with pytest.raises(RuntimeError, match="power cut"):
        train(cut, tmp_path / "cut", QUIET)
    resumed = fitted(examples, tmp_path / "cut", epochs=4, mixup=0.5, final_rate=0.1)
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed.weights()[name], array, err_msg=name)


@pytest.mark.parametrize("limit", [{}, {"limit_train_batches": 2}, {"limit_train_batches": 1}])
def test_a_training_whose_time_is_over_goes_on_with_the_next_batch(examples, tmp_path, limit):
    """Within an epoch, with a cosine, mixed examples and a limit of batches."""
    settings = {"epochs": 3, "mixup": 0.5, "final_rate": 0.1, "trainer": {**QUIET, **limit}}
    whole = fitted(examples, tmp_path / "whole", **settings).weights()
    timed = {**settings, "trainer": {**QUIET, **limit, "max_time": {"seconds": 0}}}
    ended = []
    for _ in range(20):
        try:
            resumed = fitted(examples, tmp_path / "cut", **timed)
            break
        except TimeoutError as error:
            ended.append(int(re.search(r"over, after step (\d+): the same command", str(error))[1]))
    # After each step but the last, also where an epoch is a single one.
    assert ended == list(range(1, 3 * limit.get("limit_train_batches", 6)))
    assert not (tmp_path / "cut" / "interrupted.ckpt").exists()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed.weights()[name], array, err_msg=name)


@pytest.mark.parametrize("name", ["max_epochs", "max_steps", "gradient_clip_val"])
def test_what_settings_of_a_detector_determine_is_no_argument_of_the_trainer(
    examples, tmp_path, name
):
    model = classifier(len(examples.classes))
    model.set_examples(examples, seed=0)
    with pytest.raises(ValueError, match=rf"trainer: {name}: expected devices and limits"):
        train(model, tmp_path, {**QUIET, name: 3})


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (
            6,
            r"training\.batch_size: expected a multiple of 4, found 6\. It is divided among 2 proc",
        ),
        (64, r"batch_size \(64, for 46 clips\): expected a multiple of 4, found 46"),
    ],
)
def test_a_batch_that_processes_cannot_divide_is_refused_before_training(
    examples, tmp_path, batch_size, message
):
    fewer = Recordings(examples.clips[:46], "machine", 0.5)
    model = classifier(len(examples.classes), batch_size=batch_size)
    model.set_examples(fewer, seed=0)
    with pytest.raises(ValueError, match=message):
        train(model, tmp_path, {**QUIET, "devices": 2, "strategy": "ddp"})


def test_the_learning_rate_falls_along_a_cosine(examples, tmp_path):
    rates = []

    class Watched(Classifier):
        def on_train_epoch_start(self):
            rates.append(self.optimizers().param_groups[0]["lr"])

    settings = {"learning_rate": 1.0, "final_rate": 0.1, "batch_size": 48, "epochs": 4}
    model = classifier(3, kind=Watched, **settings)
    model.set_examples(examples, seed=0)
    train(model, tmp_path, QUIET)
    expected = [0.1 + 0.9 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
    np.testing.assert_allclose(rates, expected)


def test_every_clip_is_trained_on_once_in_an_epoch(examples, tmp_path):
    labels = []

    class Watched(Classifier):
        def training_step(self, batch, index):
            labels.append(batch[1])
            return super().training_step(batch, index)

    model = classifier(3, kind=Watched, batch_size=16)
    model.set_examples(examples, seed=0)
    train(model, tmp_path, QUIET)
    assert sorted(torch.cat(labels).tolist()) == sorted(examples.labels)
    assert torch.cat(labels).tolist() != examples.labels


def test_what_only_training_needs_is_not_kept():
    model = classifier(2)
    model.second_head = Softmax(3, 5)
    assert {name.split(".")[0] for name in model.weights()} == {"network", "head"}


@pytest.mark.parametrize(("mixup", "whole"), [(0.0, True), (1.0, False)])
def test_examples_are_mixed_in_the_first_of_two_stages_too(mixup, whole):
    given = []

    class Noting(TwoStage):
        current_epoch = 0

        def first_loss(self, embeddings, targets):
            given.append(targets)
            return embeddings.mean()

    torch.manual_seed(0)
    model = Noting(Loudness(), Softmax(3, 4), Training(mixup=mixup), 1)
    model.loss(torch.rand(4, 100), torch.eye(4))
    assert torch.equal(given[0], torch.eye(4)) == whole
