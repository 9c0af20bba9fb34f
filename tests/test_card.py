"""The model card that lies beside a fine-tuned model, of each family."""

import ast
import inspect
import re

import diffusers
import pytest
import small_pipelines
from waveform_diffusion import WaveformDiffusion

from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm2 import AudioLDM2
from fsasd.generation.diffusion.card import model_card
from fsasd.generation.pipelines.stable_audio3 import StableAudio3
from fsasd.generation.pipelines.stable_audio_open import StableAudioOpen

FAMILIES = {
    "audioldm": (AudioLDM, "AudioLDM", "cc-by-nc-sa-4.0"),
    "audioldm2": (AudioLDM2, "AudioLDM 2", "cc-by-nc-sa-4.0"),
    "stable_audio_open": (StableAudioOpen, "Stable Audio Open", "other"),
    "stable_audio3": (StableAudio3, "Stable Audio 3", "other"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_has_the_card_of_its_family(family, tmp_path):
    kind, name, licence = FAMILIES[family]
    start = getattr(small_pipelines, family)(tmp_path / "start")
    kind(start, crop_seconds=0.64, learning_rate=2e-5).save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"# {name}, fine-tuned on machine sounds" in card
    assert f"license: {licence}\n" in card
    assert "base_model" not in card
    assert "Start: a local checkpoint." in card
    assert '"learning_rate": 2e-05' in card
    assert str(tmp_path) not in card
    # The call that it shows is one that the pipeline takes.
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    imported, loaded, called = ast.parse(code).body
    pipeline = getattr(diffusers, imported.names[0].name)
    assert ast.unparse(loaded.value.func) == f"{pipeline.__name__}.from_pretrained"
    given = {one.arg for one in called.value.value.value.keywords}
    assert given <= inspect.signature(pipeline.__call__).parameters.keys()


def test_a_family_of_ones_own_has_a_card_of_its_name(tmp_path):
    WaveformDiffusion("random", crop_seconds=0.32).save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "# WaveformDiffusion, fine-tuned on machine sounds" in card
    assert "license" not in card
    assert "from diffusers import" not in card


def test_what_started_from_the_hub_names_it():
    text = model_card(StableAudio3.family, "a/model", None, [], {}, {})
    assert "base_model: a/model\n" in text
    assert "Start: a/model." in text
