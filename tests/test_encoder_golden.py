"""Embeddings of each family, frozen and fine-tuned, are those of the first version of encoders.

``encoder_golden.json`` holds every n-th number of the embeddings of tiny encoders whose weights are
drawn by the names of their parameters. It was written by ``python tests/test_encoder_golden.py`` at
commit 33c650c, before encoders became a package: run there, it writes the same numbers again.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from named_weights import draw
from shared_fixtures import _tiny
from transformers import AutoConfig, ClapAudioModel

from fsasd.detectors.encoders import Encoder, TrainableEncoder

GOLDEN = Path(__file__).with_name("encoder_golden.json")
KEPT = 12
"""Numbers that are kept of an embedding."""

WAVEFORM = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
SPEECH = ("data2vec-audio", "hubert", "wav2vec2", "wavlm")
FROZEN = {
    **{f"{kind}": (kind, {}, 20_000) for kind in ("ast", "clap", "clap_fused", *SPEECH)},
    **{f"{kind} long": (kind, {}, 40_000) for kind in ("ast", "clap", "hubert")},
    **{f"{kind} short": (kind, {}, 3000) for kind in ("ast", "clap", "hubert")},
    "ast without bands": ("ast", {"bands": False}, 20_000),
    "ast spread": ("ast", {"pool": "mean+std"}, 20_000),
    "wavlm spread": ("wavlm", {"pool": "mean+std"}, 20_000),
}
TUNED = {
    f"{kind} {pool} of layer {layer}": (kind, pool, layer)
    for kind in ("ast", "clap_states", *SPEECH)
    for pool in ("mean", "max", "mean+std", *(["bands"] if kind == "ast" else []))
    for layer in (-1, 1)
}


def write_encoder(kind: str, folder: Path) -> str:
    """Write a tiny encoder whose weights depend on their names alone."""
    extractor, model, config = _tiny("clap" if kind == "clap_states" else kind)
    if kind == "clap_states":
        model = ClapAudioModel
    network = model(AutoConfig.for_model(**config))
    draw(network)
    extractor.save_pretrained(folder)
    network.save_pretrained(folder)
    return str(folder)


def frozen(name: str, folder: str) -> np.ndarray:
    _, settings, samples = FROZEN[name]
    return Encoder(folder, **settings, device="cpu")(WAVEFORM[:samples])


def tuned(name: str, folder: str) -> np.ndarray:
    _, pool, layer = TUNED[name]
    encoder = TrainableEncoder(folder, 0.5, layer, pool).eval()
    with torch.inference_mode():
        return encoder(torch.from_numpy(WAVEFORM[:24_000]).reshape(3, 8000)).numpy()


def kept(embedding: np.ndarray) -> list[float]:
    flat = embedding.flatten()
    return flat[:: max(1, flat.size // KEPT)][:KEPT].tolist()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    kinds = {case[0] for case in [*FROZEN.values(), *TUNED.values()]}
    return {kind: write_encoder(kind, tmp_path_factory.mktemp(kind)) for kind in sorted(kinds)}


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_embeddings_are_the_first_ones(name, folders, golden):
    embedding = frozen(name, folders[FROZEN[name][0]])
    np.testing.assert_allclose(kept(embedding), golden["frozen"][name], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", TUNED)
def test_embeddings_to_fine_tune_are_the_first_ones(name, folders, golden):
    embedding = tuned(name, folders[TUNED[name][0]])
    np.testing.assert_allclose(kept(embedding), golden["tuned"][name], rtol=2e-6, atol=1e-6)


def main() -> None:
    """Write the file anew."""
    kinds = {case[0] for case in [*FROZEN.values(), *TUNED.values()]}
    with tempfile.TemporaryDirectory() as root:
        folders = {kind: write_encoder(kind, Path(root, kind)) for kind in sorted(kinds)}
        numbers = {
            "frozen": {name: kept(frozen(name, folders[FROZEN[name][0]])) for name in FROZEN},
            "tuned": {name: kept(tuned(name, folders[TUNED[name][0]])) for name in TUNED},
        }
    GOLDEN.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
