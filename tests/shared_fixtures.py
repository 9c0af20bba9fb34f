"""What several test modules need: a tiny simulated factory, real reference material, wav files."""

import csv
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import soundfile
import torch
from tiny_checkpoints import checkpoint as checkpoint_of
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoModel,
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    PeAudioFeatureExtractor,
    Wav2Vec2FeatureExtractor,
)

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import write_factory
from fsasd.detection.section import Detection, SectionResult, run_section
from fsasd.detection.tables import write
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.generation.audioldm import checkpoint
from fsasd.selection.selector import Selector
from fsasd.settings.code import package_code

# How long an example takes says nothing where several processes share the cores.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
# Ray, on a machine that is short of memory, and busy, and joined by an address alone.
os.environ |= {
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_AUTH_MODE": "disabled",
}


@pytest.fixture(autouse=True)
def forget_plugins():
    """Forget the packages ``my_*`` that a test wrote: the next may write others of these names."""
    yield
    if written := [name for name in sys.modules if name.startswith("my_")]:
        for name in written:
            del sys.modules[name]
        package_code.cache_clear()


@pytest.fixture(autouse=True)
def forget_logging():
    """Undo what a test did to the root logger: Hydra sets its level and a handler for a job."""
    root = logging.root
    level, disabled, handlers = root.level, root.manager.disable, root.handlers.copy()
    yield
    root.setLevel(level)
    root.manager.disable = disabled
    root.handlers[:] = [one for one in root.handlers if one in handlers]


@pytest.fixture(autouse=True)
def forget_commands():
    """Forget the folder and the start of a command that a test began.

    Commands of another test would inherit them: all of them would write into one folder.
    """

    def forget():
        for name in ("FSASD_FOLDER", "FSASD_STARTED"):
            os.environ.pop(name, None)

    forget()
    yield
    forget()


@pytest.fixture
def deterministic():
    """Have torch refuse operations without a deterministic algorithm, as a trainer may."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def factory(tmp_path_factory) -> Path:
    """A simulated data set: references fan and valve, target bearing, clips of one second."""
    return _factory(tmp_path_factory.mktemp("factory") / "data")


@pytest.fixture(scope="session")
def two_microphones(tmp_path_factory) -> Path:
    """The same with two channels: a microphone near the machine, and a far one."""
    return _factory(tmp_path_factory.mktemp("near_far") / "data", far_microphone=True)


def _factory(root: Path, **options: Any) -> Path:
    return write_factory(
        root,
        references=("fan", "valve"),
        targets=("bearing",),
        seconds=1.0,
        train_clips=16,
        target_domain_clips=4,
        test_clips=4,
        **options,
    )


@pytest.fixture(scope="session")
def latents(tmp_path_factory) -> Path:
    """A folder in which trainings on the factory keep latents, which a nano model computes once."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="session")
def factory_clips(factory) -> Clips:
    """The factory's clips, with one feature cache for the whole session."""
    return Clips(read_clips(factory), FeatureCache())


@pytest.fixture(scope="session")
def bearing_result(factory_clips) -> SectionResult[Detection]:
    """The default detector of the factory's bearing, and what it makes of the test clips."""
    clips = factory_clips.where(machine="bearing")
    train, test = clips.where(split="train"), clips.where(split="test")
    return run_section(TWFRGMM(), Selector({}), train, test)


@pytest.fixture(scope="session")
def bearing_model(bearing_result, tmp_path_factory) -> Path:
    """The same detector, saved: ``models/bearing/`` of a run's folder with its tables."""
    run = tmp_path_factory.mktemp("bearing")
    write(run, [bearing_result])
    bearing_result.detection.save_model(run / "models" / "bearing" / "section_00")
    return run / "models" / "bearing"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material and real recordings, which do not ship with the project."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference material is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real(shared) -> Path:
    """A small first-shot set of real recordings in the DCASE 2023 layout."""
    folder = shared / "data" / "firstshot-real"
    if not folder.is_dir():
        pytest.skip(f"real recordings are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real_labels() -> list[tuple[str, str, str]]:
    """Edition, machine and label of file names of DCASE Task 2, 2021 to 2026.

    All of 2022 and 2023 and all that is public of the later ones, from the data sets' lists and
    the lists of the organisers' baseline (github.com/nttcslab/dcase2023_task2_baseline_ae).
    """
    with (Path(__file__).parent / "real_labels.csv").open(newline="") as file:
        return [(row["edition"], row["machine"], row["label"]) for row in csv.DictReader(file)]


@pytest.fixture
def make_wav(tmp_path) -> Callable[..., Path]:
    """Write a waveform, or so many seconds of a quiet noise, to a file under ``tmp_path``."""

    def make(name="clip.wav", waveform=None, *, seconds=0.25, rate=16_000, **options) -> Path:
        if waveform is None:
            rng = np.random.default_rng([*name.encode()])
            waveform = 0.1 * rng.standard_normal(round(seconds * rate))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, rate, **options)
        return path

    return make


@pytest.fixture(scope="session")
def whole_clap(tmp_path_factory):
    """All of CLAP, small: the nano model's text branch beside a random one of recordings."""
    torch.manual_seed(0)
    parts = checkpoint.load("nano")
    audio = {
        "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2],
        "hidden_size": 16, "projection_dim": 64, "spec_size": 64, "num_mel_bins": 16,
        "window_size": 4,
    }  # fmt: skip
    config = ClapConfig(
        text_config=parts.text_encoder.config.to_dict(),
        audio_config=ClapAudioConfig(**audio).to_dict(),
        projection_dim=64,
    )
    folder = tmp_path_factory.mktemp("clap")
    model = ClapModel(config)
    model.text_model.load_state_dict(parts.text_encoder.text_model.state_dict())
    model.text_projection.load_state_dict(parts.text_encoder.text_projection.state_dict())
    model.save_pretrained(folder)
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc")
    extractor.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory) -> Callable[[str], Path]:
    """Encoders of two blocks with random weights, saved as pretrained ones are.

    CLAP hears one second at a time, the exported one half a second.
    """

    @functools.cache
    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        if kind == "exported":
            frames = torch.nn.Sequential(torch.nn.Unflatten(1, (-1, 100)), torch.nn.Linear(100, 8))
            program = torch.export.export(frames, (torch.zeros(1, 8000),))
            torch.export.save(program, folder / "encoder.pt2")
            return folder / "encoder.pt2"
        if kind in ("beats", "ced", "dasheng", "eat"):
            torch.save(checkpoint_of(kind), folder / f"{kind}.pt")
            return folder / f"{kind}.pt"
        extractor, model, config = _tiny(kind)
        extractor.save_pretrained(folder)
        model(AutoConfig.for_model(**config)).save_pretrained(folder)
        return folder

    return make


def _tiny(kind: str) -> tuple[Any, Callable, dict]:
    size = {"hidden_size": 16, "num_hidden_layers": 2}
    if kind.startswith("clap"):
        extractor = ClapFeatureExtractor(
            feature_size=16,
            max_length_s=1,
            truncation="fusion" if kind == "clap_fused" else "rand_trunc",
        )
        config = size | {
            "model_type": "clap_audio_model", "patch_embeds_hidden_size": 8, "projection_dim": 12,
            "depths": [1, 1], "num_attention_heads": [1, 1], "spec_size": 64, "num_mel_bins": 16,
            "window_size": 4, "enable_fusion": kind == "clap_fused",
        }  # fmt: skip
        return extractor, ClapAudioModelWithProjection, config
    size |= {"num_attention_heads": 2, "intermediate_size": 16}
    if kind == "pe_audio":
        codec = {"encoder_hidden_size": 4, "downsampling_ratios": [40, 48], "codebook_dim": 8}
        config = size | {"model_type": "pe_audio_encoder", "head_dim": 8, "dac_config": codec}
        return PeAudioFeatureExtractor(), AutoModel.from_config, config
    if kind == "ast":
        config = size | {
            "model_type": "audio-spectrogram-transformer", "max_length": 64, "num_mel_bins": 64,
            "patch_size": 10, "frequency_stride": 10, "time_stride": 10,
        }  # fmt: skip
        extractor = ASTFeatureExtractor(max_length=64, num_mel_bins=64)
        return extractor, AutoModel.from_config, config
    config = size | {
        "model_type": "data2vec-audio" if kind == "data2vec" else kind,
        "conv_dim": [16, 16], "conv_kernel": [40, 8], "conv_stride": [20, 4],
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    return Wav2Vec2FeatureExtractor(), AutoModel.from_config, config
