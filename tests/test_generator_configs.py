"""Every choice of ``generator=`` keeps the rules of generators, as it is configured.

By deterministic algorithms alone: an operation without one would be refused.
"""

from importlib import resources

import hydra
import pytest
import small_pipelines
from hydra import compose, initialize_config_module

from fsasd.generation.base import Generator
from fsasd.testing import check_generator

CONFIGS = sorted(
    path.name.removesuffix(".yaml")
    for path in resources.files("fsasd.conf.generator").iterdir()
    if path.name.endswith(".yaml")
)

SMALL = ["generator.crop_seconds=0.64", "generator.warmup_steps=1", "generator.sampler.steps=2"]
AUDIOLDM = (small_pipelines.audioldm, SMALL)
CASES = {
    "audioldm2": (small_pipelines.audioldm2, SMALL),
    "audioldm_edit": (None, SMALL),
    "audioldm_l": AUDIOLDM,
    "audioldm_m": AUDIOLDM,
    "audioldm_nano": (None, SMALL),
    "audioldm_nano_fast": (None, []),
    "audioldm_s": AUDIOLDM,
    "pipeline": (small_pipelines.audioldm2, ["generator.steps=2"]),
    "stable_audio3": (small_pipelines.stable_audio3, SMALL),
    "stable_audio_open": (small_pipelines.stable_audio_open, SMALL),
    "transfer": (None, []),
    "transforms": (None, []),
}
"""What writes a small checkpoint in place of the published one, and settings that are fast."""

FURTHER = (
    "audioldm2",
    "audioldm_edit",
    "audioldm_l",
    "audioldm_m",
    "audioldm_nano_fast",
    "audioldm_s",
)
"""Other sizes and uses of audioldm_nano, and what is trained as it is."""


@pytest.mark.slow
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if name in FURTHER else ()) for name in CONFIGS],
)
def test_a_config_keeps_the_rules_of_generators(name, tmp_path):
    if name == "none":
        assert configured(name)._target_ is None
        return
    assert name in CASES, f"generator={name} is new: give it a case here"
    write, overrides = CASES[name]
    chosen = [f"generator.checkpoint={write(tmp_path / name)}"] if write else []
    settings = configured(name, *overrides, *chosen)
    # Of those that use references, the class with its settings (`check_generator`).
    generator = instantiate(settings, _partial_=name == "transfer")
    trained = isinstance(generator, Generator) and generator.trained
    check_generator(
        generator,
        reload=(lambda folder: instantiate(settings, checkpoint=str(folder))) if trained else None,
        # The phase of a vocoder that is not trained differs by the last bit of a mel.
        decibel=2.0,
    )


def configured(name, *overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", [f"generator={name}", *overrides]).generator


def instantiate(settings, **arguments):
    return hydra.utils.instantiate(settings, _convert_="all", **arguments)
