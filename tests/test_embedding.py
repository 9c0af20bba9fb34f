"""The front end that is left of a trained classifier."""

import numpy as np
import torch
from test_classifier import Loudness

from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.embedding import Embedding
from fsasd.detectors.networks.heads import Softmax


def embedding(seed=0, seconds=1.0, settings=""):
    torch.manual_seed(seed)
    classifier = Classifier(Loudness(), Softmax(3, 3), Training(seconds=seconds))
    return Embedding(classifier, "abc", settings)


def test_an_embedding_is_named_by_its_weights_and_settings():
    assert repr(embedding()) == repr(embedding())
    for other in (embedding(seed=1), embedding(seconds=2.0), embedding(settings="layer 2")):
        assert repr(embedding()) != repr(other)


def test_embeddings_come_through_the_cache(factory_clips):
    front_end = embedding()
    clips = factory_clips[:3]
    for clip, features in zip(clips, clips.features(front_end), strict=True):
        assert features.shape == (3,)
        np.testing.assert_array_equal(features, front_end(clips.cache.read(clip)))
        assert clips.cache.get(front_end, clip) is features


def test_a_click_of_a_clip_has_an_embedding():
    assert np.isfinite(embedding()(np.ones(1, np.float32))).all()


def test_an_embedding_trains_no_further():
    front_end = embedding()
    assert not front_end.classifier.training
    assert not any(p.requires_grad for p in front_end.classifier.parameters())
    assert front_end.n_parameters() == 9
