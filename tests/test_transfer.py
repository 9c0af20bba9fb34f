"""Whose anomalies are put into which clips, compared with which normal ones."""

import re
from collections import Counter

import hydra
import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run

from fsasd.data.captions import caption
from fsasd.data.clips import Clips
from fsasd.data.description import describe_clips
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.prompts import make_prompts
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.generation.transfer import AnomalyTransfer, Donor


@pytest.fixture(scope="module")
def references(factory_clips):
    return factory_clips.where(role="reference")


@pytest.fixture(scope="module")
def normals(factory_clips):
    return factory_clips.where(split="train", label="normal", machine="bearing")


@pytest.fixture(scope="module")
def shipped(references):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["generator=transfer"])
    return hydra.utils.instantiate(cfg.generator, _convert_="all", references=references)


def prompts_of(generator, clips, count=8):
    texts = [caption(clip) for clip in clips]
    return generator.prepare(make_prompts(clips, texts, count))


@pytest.fixture
def recorded(tmp_path):
    """A clip of a reference pump: noise of a seed, and a tone."""

    def record(seed, hertz=0, **known):
        rng = np.random.default_rng(seed)
        time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        waveform = 0.05 * rng.standard_normal(SAMPLE_RATE) + 0.05 * np.sin(2 * np.pi * hertz * time)
        path = tmp_path / f"{seed}.wav"
        soundfile.write(path, waveform, SAMPLE_RATE)
        known = {"label": "normal", "split": "train", "domain": "source"} | known
        return Clip(path, "pump", role="reference", section="00", **known)

    return record


def test_donors_and_strengths_are_balanced_in_both_classes(shipped, normals):
    prompts = prompts_of(shipped, normals, 12)
    for label in ("normal", "anomaly"):
        drawn = Counter((p.donor, p.strength) for p in prompts if p.label == label)
        assert drawn == {
            (donor, strength): 2
            for donor in ("fan section 00", "valve section 00")
            for strength in (0.35, 0.7, 1.4)
        }
    assert {prompt.fault for prompt in prompts} == {""}
    assert all(prompt.derived for prompt in prompts)


def test_captions_say_what_was_transferred(shipped, normals):
    for prompt in prompts_of(shipped, normals):
        kinds = {"normal": "two normal sounds of", "anomaly": "an anomaly of"}
        form = rf"This is the {prompt.label} sound of .+, with what distinguishes "
        form += rf"{kinds[prompt.label]} (fan|valve) section 00.* \(strength {prompt.strength:g}\)"
        assert re.match(form, prompt.caption)


def test_a_clip_depends_on_nothing_but_its_prompt(shipped, references, normals):
    prompts = prompts_of(shipped, normals, 3)
    together = shipped.generate(prompts)
    another = AnomalyTransfer(references)
    for prompt, waveform in zip(prompts[::-1], together[::-1], strict=True):
        assert another.generate([prompt])[0].equal(waveform)
    other_seed = prompts[1]._replace(seed=prompts[1].seed + 1)
    assert not another.generate([other_seed])[0].equal(together[1])
    weaker = prompts[1]._replace(strength=0.01)
    assert not another.generate([weaker])[0].equal(together[1])


def test_the_tone_of_an_anomaly_is_transferred_and_the_normal_one_is_not(recorded, make_wav):
    usual = [recorded(seed, hertz=500) for seed in range(4)]
    donors = Clips([
        *usual, recorded(10, hertz=500, split="test"),
        recorded(11, hertz=3000, split="test", label="anomaly"),
    ])  # fmt: skip
    target = Clips([Clip(make_wav("fan.wav", seconds=1.0), "fan", label="normal")])
    generator = AnomalyTransfer(donors, strengths=[1.0])
    prompts = generator.prepare(make_prompts(target, ["A normal fan."], 1))
    normal, anomalous = (np.abs(np.fft.rfft(x.numpy())) for x in generator.generate(prompts))
    assert anomalous.argmax() == 3000
    assert anomalous[2990:3011].max() > 10 * normal[2990:3011].max()
    # Of the usual tone there is no more in either.
    assert max(normal[490:511].max(), anomalous[490:511].max()) < 0.3 * anomalous.max()


def test_the_nearest_normal_clip_is_of_the_same_domain_and_state(recorded):
    clips = [
        recorded(0, hertz=500, domain="source", attributes={"speed": "1"}),
        recorded(1, hertz=3000, domain="source", attributes={"speed": "1"}),
        recorded(2, hertz=3000, domain="source", attributes={"speed": "2"}),
        recorded(3, hertz=3000, domain="target", attributes={"speed": "1"}),
    ]
    donor = Donor.of(Clips(clips))

    def nearest(**known):
        clip = recorded(9, split="test", label="anomaly", **known)
        return clips.index(donor.nearest(clip))

    assert nearest(hertz=500, domain="source", attributes={"speed": "1"}) == 0
    assert nearest(hertz=3000, domain="source", attributes={"speed": "1"}) == 1
    assert nearest(hertz=500, domain="source", attributes={"speed": "2"}) == 2
    assert nearest(hertz=500, domain="target", attributes={"speed": "1"}) == 3
    # No clip is of this state: any of the domain; none is of this domain: any.
    assert nearest(hertz=500, domain="target", attributes={"speed": "7"}) == 3
    only_source = Donor.of(Clips(clips[:2]))
    far = recorded(9, hertz=500, split="test", label="anomaly", domain="target")
    assert clips.index(only_source.nearest(far)) == 0


def test_a_normal_clip_is_not_compared_with_its_own_recording(recorded):
    first, second = (recorded(seed, recording=name) for seed, name in ((0, "a"), (1, "b")))
    anomaly = recorded(5, hertz=3000, split="test", label="anomaly")
    donor = Donor.of(Clips([first, second, anomaly]))
    # Without normal test clips, training clips take their place.
    assert donor.normals[0] == first
    assert donor.nearest(first) == second
    assert donor.nearest(second) == first
    test = recorded(2, split="test", recording="a")
    assert list(Donor.of(Clips([first, test, anomaly])).normals) == []
    assert list(Donor.of(Clips([first, second, test, anomaly])).normals) == [test]


def test_sections_without_anomalies_or_normal_clips_are_no_donors(references):
    no_anomalies = references.filter(lambda c: c.machine != "fan" or c.label == "normal")
    assert list(AnomalyTransfer(no_anomalies).donors) == ["valve section 00"]
    no_training = references.filter(lambda c: c.machine != "fan" or c.split == "test")
    assert list(AnomalyTransfer(no_training).donors) == ["valve section 00"]


def test_references_that_do_not_suffice_are_listed(references):
    with pytest.raises(ValueError, match="transfer anomalies from, found no clip of a reference"):
        AnomalyTransfer(references[:0])
    message = r"fan section 00 with 16 normal training clips, 8 normal .* and 0 anomalies; valve"
    with pytest.raises(ValueError, match=message):
        AnomalyTransfer(references.where(label="normal"))


@pytest.mark.parametrize("strengths", [[], [0.5, 0], [-1]])
def test_strengths_are_positive(references, strengths):
    with pytest.raises(ValueError, match=r"strengths: expected positive numbers, found \["):
        AnomalyTransfer(references, strengths)


def test_a_prompt_without_a_source_is_named(shipped, normals):
    prompt = prompts_of(shipped, normals, 1)[0]._replace(source=None)
    with pytest.raises(ValueError, match=r"bearing/normal_0000\.wav: expected a prompt with a sou"):
        shipped.generate([prompt])


# In a run


@pytest.fixture
def plant(factory, tmp_path):
    def run(*overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose(
                "config",
                [
                    "experiment=tiny", "generator=transfer", "data=dcase", f"data.root={factory}",
                    "detector=knn", "trainer.enable_progress_bar=false",
                    f"store={tmp_path}/store", *overrides,
                ],
            )  # fmt: skip
        return Run(cfg, tmp_path / "run")

    return run


def machines(run, machine):
    clips = run.experiment.references_for(SectionId(machine, "00"))
    return {clip.machine for clip in clips}, {clip.role for clip in clips}


def test_references_are_all_but_the_machine_itself_and_its_type(plant):
    run = plant("synthesis.references=true")
    assert machines(run, "bearing") == ({"fan", "valve"}, {"reference"})
    assert machines(run, "fan") == ({"valve"}, {"reference"})
    alike = plant("data.types={fan: mover, valve: mover, bearing: mover}")
    assert machines(alike, "bearing") == ({"fan", "valve"}, {"reference"})
    assert machines(alike, "fan") == (set(), set())
    held_out = plant("data.hold_out=[{machine: fan}]")
    assert machines(held_out, "bearing") == ({"valve"}, {"reference"})


@pytest.mark.slow
def test_labels_of_references_are_in_the_key(plant):
    (key,) = plant().keys("synthesise")
    assert plant().keys("synthesise") == [key]
    assert plant("data.hold_out=[{machine: fan, label: anomaly}]").keys("synthesise") != [key]
    run = plant()
    relabelled = [
        Clip(**{f: getattr(clip, f) for f in Clip.__slots__} | {"label": "anomaly"})
        if clip.machine == "fan" and clip.split == "test" else clip
        for clip in run.data.clips
    ]  # fmt: skip
    run.data.clips = Clips(relabelled, run.data.cache)
    assert run.keys("synthesise") != [key]
    (transforms,) = plant("generator=transforms").stages("synthesise")
    assert "references" not in transforms.spec()


def test_references_that_targets_share_are_described_once(plant, monkeypatch):
    described = []

    def count(clips, without=()):
        described.append({clip.machine for clip in clips})
        return describe_clips(clips, without)

    monkeypatch.setattr("fsasd.pipeline.stages.synthesise.describe_clips", count)
    run = plant("data.targets=[bearing,valve]", "data.references=[fan]")
    specs = [stage.spec() for stage in run.stages("synthesise")]
    assert specs[0]["references"] == specs[1]["references"]
    assert sorted(map(sorted, described)) == [["bearing"], ["fan"], ["valve"]]


def test_a_run_without_donors_ends_before_its_first_stage(plant):
    (stage,) = plant("data.targets=[fan,valve,bearing]").stages("synthesise")[:1]
    with pytest.raises(
        ValueError, match=r"synthesise of bearing section 00: .* found no clip of a"
    ):
        stage.check()
    run = plant("synthesis.references=true", "data.types={fan: mover, valve: mover}")
    of_fan = next(s for s in run.stages("synthesise") if s.section.machine == "fan")
    with pytest.raises(ValueError, match=r"fan section 00: .* those of its type are left out"):
        of_fan.check()
    with pytest.raises(ValueError, match="transforms, which needs none"):
        run()
    assert not (run.store.root / "synthesise").exists()


def test_a_run_has_clips_of_every_reference(plant, tmp_path):
    run = plant("synthesis.clips_per_label=6", "stages=[synthesise]")
    run()
    clips = read_manifest(tmp_path / "run" / "synthetic")
    assert Counter(clip.donor for clip in clips) == {"fan section 00": 6, "valve section 00": 6}
    assert Counter(clip.strength for clip in clips) == {0.35: 4, 0.7: 4, 1.4: 4}
    assert all(clip.source for clip in clips)
