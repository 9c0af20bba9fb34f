"""The rules of generators: kept by a user's own, and noticed when broken."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import commands
import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from runs import Run
from safetensors.torch import load_file

from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.base import Generator, read_source
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.settings.code import package_code
from fsasd.testing import check_generator

pytestmark = pytest.mark.slow


@pytest.mark.nightly
def test_the_nano_model_keeps_the_rules_with_the_papers_sampler():
    sampler = Sampler(steps=2, scheduler="ddim")
    check_generator(
        AudioLDM("nano", sampler=sampler),
        reload=lambda folder: AudioLDM(str(folder), sampler=sampler),
    )


# A generator of a user's own: one file and one yaml

DOCS = Path(__file__).parents[1] / "docs" / "how-to" / "generator.md"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A folder with the files that the page shows, under the names they begin with."""
    blocks = re.findall(r"```(?:python|yaml)\n# (my_\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [name for name, _ in blocks] == [
        *("my_package/hum.py", "my_conf/generator/hum.yaml"),
        *("my_package/murmur.py", "my_conf/generator/murmur.yaml"),
    ]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_plugin_keeps_the_rules(plugin):
    check_generator(hydra.utils.instantiate({"_target_": "my_package.hum.Hum", "hiss": 0.5}))


def test_a_trained_plugin_keeps_the_rules(plugin):
    check_generator(hydra.utils.instantiate({"_target_": "my_package.murmur.Murmur"}))


@pytest.mark.nightly
@pytest.mark.slow
def test_a_plugin_is_trained_and_synthesises_by_its_configuration(plugin):
    """With all callbacks: the checkpoint of the lowest val/loss, the first-shot number, sounds."""
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [
            "experiment=tiny", "generator=none", f"store={plugin}/store",
            "generator._target_=my_package.murmur.Murmur", "+generator.checkpoint=null",
            "callbacks.monitor.samples_every_n_steps=2", "trainer.enable_progress_bar=false",
            "objective=official",
        ])  # fmt: skip
    run = Run(cfg, plugin / "run")
    assert 0 <= run() <= 1
    model = run.artifact("finetune")
    assert len(list(model.rglob("samples/000002/*/*.wav"))) == 2
    logged = pd.read_csv(next(model.rglob("metrics.csv")))
    assert {"val/loss", "first_shot/auc", "train/learning_rate"} <= set(logged)
    assert pd.read_csv(plugin / "run" / "synthetic" / "manifest.csv")["kept"].all()
    # It learnt, and what it learnt is what it synthesised with.
    saved = load_file(model / "model" / "murmur.safetensors")["words.weight"]
    fresh = hydra.utils.instantiate({"_target_": "my_package.murmur.Murmur"})
    assert saved.shape == fresh.words.weight.shape


def test_a_plugin_runs_by_its_configuration(plugin):
    command = [
        *(sys.executable, "-m", "fsasd.cli.main", "--config-dir", "my_conf", "generator=hum"),
        *("experiment=tiny", "stages=[finetune,synthesise]", "trainer.enable_progress_bar=false"),
        *("store=store", "hydra.run.dir=run"),
    ]
    result = commands.run(command, cwd=plugin, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    manifest = pd.read_csv(plugin / "run" / "synthetic" / "manifest.csv")
    assert manifest["kept"].sum() == 8
    assert not manifest["derived"].any()
    assert not (plugin / "store" / "finetune").exists()
    assert (plugin / "run" / "synthetic" / "quality.csv").is_file()


def test_clips_of_a_plugin_are_generated_anew_when_its_code_changes(plugin):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        asked = ["experiment=tiny", f"store={plugin}/store"]
        ours = compose("config", [*asked, "generator=transforms"])
        named = ["generator=none", "generator._target_=my_package.hum.Hum"]
        custom = compose("config", [*asked, *named])
    key = Run(custom, plugin / "run").keys("synthesise")
    assert Run(custom, plugin / "run").keys("synthesise") == key
    file = plugin / "my_package" / "hum.py"
    file.write_text(file.read_text().replace("300", "400"))
    # Another process reads the code anew.
    package_code.cache_clear()
    assert Run(custom, plugin / "run").keys("synthesise") != key
    (stage,) = Run(ours, plugin / "run").stages("synthesise")
    assert "_code_" not in str(stage.spec())


@pytest.mark.nightly
def test_a_generator_that_does_not_exist_is_named_in_a_line(plugin, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    command = [sys.executable, "-P", "-m", "fsasd.cli.main", "--config-dir", "my_conf"]
    result = subprocess.run(
        [*command, "generator=hum", "data=factory_tiny", "store=store", "hydra.run.dir=run"],
        cwd=plugin, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    message = result.stdout + result.stderr
    assert "Error loading 'my_package.hum.Hum'" in message
    assert "Traceback" not in message


# Rules, broken one at a time


class Noise(Generator):
    """Keeps every rule until a test breaks one."""

    trained = False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def generate(self, prompts):
        return [self.noise(prompt) for prompt in prompts]

    @torch.no_grad()
    def noise(self, prompt):
        random = torch.Generator().manual_seed(prompt.seed)
        return self.weight * 0.1 * torch.randn(round(prompt.seconds * 16_000), generator=random)

    def save(self, folder):
        torch.save(self.weight.detach(), Path(folder))

    @classmethod
    def loaded(cls, folder):
        module = cls()
        module.weight.data = torch.load(Path(folder))
        return module


def test_a_plain_generator_keeps_the_rules():
    check_generator(Noise(), reload=Noise.loaded)


def breaking(**methods):
    return type("Broken", (Noise,), methods)()


def of_each(change):
    """A generator whose clips are all changed in a way."""
    return breaking(generate=lambda self, ps: [change(w) for w in Noise.generate(self, ps)])


def spoilt(waveform):
    waveform[3] = np.nan
    return waveform


def write_into_the_source(self, prompts):
    Path(prompts[0].source).write_bytes(b"")
    return Noise.generate(self, prompts)


def empty_the_list(self, prompts):
    generated = Noise.generate(self, prompts)
    prompts.clear()
    return generated


def level_of_the_batch(self, prompts):
    return [len(prompts) * waveform for waveform in Noise.generate(self, prompts)]


def sorted_by_name(self, prompts):
    return Noise.generate(self, sorted(prompts, key=lambda prompt: prompt.wav, reverse=True))


class Counted(Noise):
    """Remembers how often it was asked."""

    calls = 0

    def generate(self, prompts):
        self.calls += 1
        return [waveform * self.calls for waveform in super().generate(prompts)]


class InTraining(Noise):
    """Generates otherwise when Lightning calls it."""

    def predict_step(self, batch, batch_idx):
        return [3 * waveform for waveform in self.generate(batch)]


class Derived(Noise):
    derived = True


class DividesByTheLevel(Noise):
    """Of its source; a silent one has none."""

    derived = True

    def noise(self, prompt):
        level = torch.from_numpy(read_source(prompt)).square().mean().sqrt()
        return super().noise(prompt) / level


class Anonymous(Noise):
    """Does not say whose sound is in a clip."""

    uses_references = True

    def __init__(self, references):
        super().__init__()
        assert {clip.label for clip in references} == {"normal", "anomaly"}


class Forgetful(Noise):
    def __init__(self):
        super().__init__()
        self.weight.data *= 5

    def save(self, folder):
        torch.save(torch.ones(1), Path(folder))


BROKEN = [
    (breaking(generate=lambda self, ps: Noise.generate(self, ps)[1:]), "one waveform per prompt'"),
    (of_each(lambda w: w.double()), r"float32 .*': torch\.float64 of shape \(\d+,\) on cpu"),
    (of_each(lambda w: w[None]), r"\(samples,\) .*of shape \(1, \d+\)"),
    (of_each(lambda w: w.numpy()), "float32 tensor .*': ndarray"),
    (of_each(lambda w: w[:-160]), r"lasts prompt.seconds': 0.590 s for 0.6 s"),
    (of_each(spoilt), "is finite': 1 samples of fan/normal_0000.wav are not finite"),
    (breaking(generate=empty_the_list), "no side effects': the list of prompts changed"),
    (breaking(generate=write_into_the_source), "no side effects': .*wav changed"),
    (breaking(noise=lambda self, p: torch.randn(round(p.seconds * 16_000))), "global random state"),
    (Counted(), "a prompt determines its clip': .* differ by"),
    (breaking(generate=level_of_the_batch), "does not depend on the rest of its batch"),
    (breaking(generate=sorted_by_name), "(lasts prompt.seconds|rest of its batch)"),
    (
        breaking(noise=lambda self, p: Noise.noise(self, p._replace(seed=0))),
        "anomalies depend on the seed': the clips of three seeds differ by less than 1 dB",
    ),
    (Derived(), r"level of its source times prompt.gain': RMS 0\.\d+ instead of"),
    (InTraining(), "synthesise writes what generate returns': .* differs by 9"),
    (Anonymous, "names the donor of each anomaly in its prompt': none in that of fan/anomaly_0000"),
    (DividesByTheLevel(), r"finite': \d+ samples of fan/\w+\.wav are not finite, .*silence\.wav"),
    (breaking(prepare=lambda self, ps: list(ps)[::-1]), "prepare changes only captions"),
    (
        breaking(derived=True, prepare=lambda self, ps: list(ps)),
        "prepare sets derived in each prompt",
    ),
]


@pytest.mark.parametrize(("generator", "message"), BROKEN)
def test_a_broken_rule_is_named(generator, message):
    with pytest.raises(AssertionError, match=f"breaks the rule '.*{message}"):
        check_generator(generator)


class Learner(Noise):
    """Learns its level; keeps every rule until a test breaks one."""

    trained = True

    def __init__(self, checkpoint=None):
        super().__init__()
        if checkpoint:
            self.weight.data = torch.load(checkpoint, weights_only=True)

    def examples(self, clips, captions, *, train):
        return torch.utils.data.TensorDataset(torch.ones(len(clips)))

    def training_step(self, batch, batch_idx):
        return (self.weight - 2 * batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_generator_that_is_trained_keeps_the_rules():
    learner = Learner()
    check_generator(learner)
    assert learner.weight.item() == 1, "a copy of it was trained"


def save_what_was_there(self, folder):
    torch.save(torch.ones(1), Path(folder))


def count_nothing(self, checkpoint=None):
    Learner.__init__(self, checkpoint)
    self.calls = 0


def fall_with_each_call(self, batch, batch_idx):
    # What is counted is in no checkpoint.
    self.calls += 1
    return Learner.training_step(self, batch, batch_idx) / self.calls


class Averaging(Learner):
    """Generates by an average of its weights, which its checkpoints hold."""

    def __init__(self, checkpoint=None):
        super().__init__(checkpoint)
        self.average = self.weight.detach().clone()

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.average = (self.average + self.weight.detach()) / 2

    def on_save_checkpoint(self, checkpoint):
        checkpoint["average"] = self.average

    def on_load_checkpoint(self, checkpoint):
        self.average = checkpoint["average"]

    @contextlib.contextmanager
    def averaged_weights(self):
        weight, self.weight.data = self.weight.data, self.average
        yield
        self.weight.data = weight

    def save(self, folder):
        torch.save(self.average, Path(folder))


def test_an_average_that_is_forgotten_is_noticed():
    check_generator(Averaging())
    forgetful = type("Broken", (Averaging,), {"on_load_checkpoint": lambda self, state: None})()
    with pytest.raises(AssertionError, match=r"is resumed ends .*: the average of weight differs"):
        check_generator(forgetful)


BROKEN_LEARNERS = [
    ({"configure_optimizers": lambda self: torch.optim.SGD(self.parameters(), 0.0)},
     "training changes weights': after two steps all are unchanged"),
    ({"configure_optimizers": lambda self: torch.optim.SGD(self.parameters(), np.inf)},
     "trained weights are finite': weight is not finite"),
    ({"__init__": count_nothing, "training_step": fall_with_each_call},
     "a training that is resumed ends where one without a stop does': weight differs"),
    ({"save": save_what_was_there}, "a saved generator generates the same clips"),
    ({"on_save_checkpoint": lambda self, state: state.update(path=Path("a"))},
     "a checkpoint holds tensors, numbers and text only"),
    ({"validation_step": Generator.validation_step}, "is validated': it has no validation_step"),
]  # fmt: skip


@pytest.mark.parametrize(("methods", "message"), BROKEN_LEARNERS)
def test_a_broken_rule_of_training_is_named(methods, message):
    with pytest.raises(AssertionError, match=f"breaks the rule '.*{message}"):
        check_generator(type("Broken", (Learner,), methods)(), decibel=0.1)


def test_weights_that_were_not_saved_are_noticed():
    with pytest.raises(AssertionError, match="a saved generator generates the same clips"):
        check_generator(Forgetful(), reload=Noise.loaded)


def test_a_generator_that_is_trained_must_say_how():
    class Trained(Noise):
        trained = True
        save = Generator.save

    with pytest.raises(NotImplementedError, match="Trained is trained: it must implement 'save'"):
        check_generator(Trained(), reload=Noise.loaded)
    with pytest.raises(NotImplementedError, match="it must implement 'examples'"):
        Trained().examples([], [], train=True)
