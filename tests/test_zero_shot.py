"""Pipelines as they were published, and generators that are not trained."""

import json
import shutil

import pytest
import torch
from diffusers import AudioLDM2Pipeline, StableAudio3Pipeline
from small_pipelines import audioldm2, stable_audio3

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.diffusion.adaptation import Untrained
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.pipelines.zero_shot import ZeroShot
from fsasd.generation.prompts import make_prompts
from fsasd.testing import check_generator


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {"audioldm2": audioldm2(root / "a"), "stable_audio3": stable_audio3(root / "s")}


@pytest.fixture
def prompt(make_wav):
    clips = Clips([Clip(make_wav("fan.wav", seconds=0.64), "fan", label="normal")])
    return make_prompts(clips, ["The normal sound of a fan."], clips_per_label=1)[0]


def test_a_pipeline_of_waveforms_keeps_the_rules_of_a_generator(folders):
    check_generator(ZeroShot(folders["stable_audio3"], steps=2))


def test_a_clip_is_what_the_pipeline_returns(folders, prompt):
    generator = ZeroShot(folders["stable_audio3"], steps=3, guidance=2.0)
    assert (generator.sampling_rate, generator.trained) == (44_100, False)
    pipeline = StableAudio3Pipeline.from_pretrained(folders["stable_audio3"])
    random = torch.Generator().manual_seed(prompt.seed)
    wanted = pipeline(
        prompt.caption, duration=0.64, num_inference_steps=3, guidance_scale=2.0, generator=random
    ).audios[0]
    (waveform,) = generator.generate([prompt])
    torch.testing.assert_close(waveform, wanted.mean(0), atol=1e-6, rtol=0)


def test_the_rate_is_that_of_the_vocoder(folders):
    assert AudioLDM2Pipeline.from_pretrained(folders["audioldm2"]).vocoder is not None
    assert ZeroShot(folders["audioldm2"]).sampling_rate == 16_000


def test_an_argument_that_the_pipeline_does_not_take_is_named(folders):
    with pytest.raises(ValueError, match=r"StableAudio3Pipeline has no pitch"):
        ZeroShot(folders["stable_audio3"], options={"pitch": 3})


def test_what_is_no_pipeline_is_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist"):
        ZeroShot(str(tmp_path / "nowhere"))
    folder = tmp_path / "broken"
    shutil.copytree(folders["stable_audio3"], folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "Unknown"}))
    with pytest.raises(CheckpointError, match=r"could not be loaded .*Unknown"):
        ZeroShot(str(folder))


# generator/train=none


def test_an_untrained_generator_is_its_checkpoint(prompt):
    sampler = Sampler(steps=2)
    plain, untrained = (AudioLDM(train=one, sampler=sampler) for one in (None, Untrained()))
    assert (plain.trained, untrained.trained) == (True, False)
    (wanted,), (waveform,) = (one.eval().generate([prompt]) for one in (plain, untrained))
    assert torch.equal(wanted, waveform)
    with pytest.raises(ValueError, match=r"generator/train=none trains nothing"):
        untrained.begin_training()
