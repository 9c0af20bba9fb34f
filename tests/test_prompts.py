"""What is asked of a generator, from which real clip, in which words."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.captions import caption
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip, MetadataError
from fsasd.generation.prompts import (
    FaultPhrases,
    Mixture,
    Wording,
    WordReplacement,
    check_wording,
    first_candidate,
    make_prompts,
    with_candidates,
)

GOLDEN = [
    ("bearing/normal_0000.wav", 3798950444, "target_train_normal_0001_spd_2100_load_1_mic_2.wav"),
    ("bearing/anomaly_0005.wav", 2449033473, "source_train_normal_0000_spd_1200_load_1_mic_1.wav"),
]
NORMAL = "This is the normal sound of a fan."
FAN = Clip(Path("fan.wav"), "fan", label="normal")


@pytest.fixture(scope="module")
def normals(factory_clips):
    return factory_clips.where(split="train", label="normal")


def prompts_of(clips, count=6, seed=0, **options):
    return make_prompts(clips, [caption(clip) for clip in clips], count, seed, **options)


def worded(words, clip=FAN, count=200):
    rng = np.random.default_rng(0)
    return [words(clip, NORMAL, rng) for _ in range(count)]


def shipped(name):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return hydra.utils.instantiate(compose("config", [f"prompts={name}"]).prompts)


# Prompts


def test_the_same_seed_makes_the_same_prompts(normals):
    assert prompts_of(normals) == prompts_of(normals)


def test_another_seed_makes_other_noise(normals):
    seeds = [{prompt.seed for prompt in prompts_of(normals, seed=seed)} for seed in (0, 1)]
    assert not seeds[0] & seeds[1]


def test_names_of_prompts_and_noise_of_pairs_are_distinct(normals):
    prompts = prompts_of(normals)
    assert len({prompt.wav for prompt in prompts}) == len(prompts)
    assert len({prompt.seed for prompt in prompts}) == len(prompts) / 2


def test_a_pair_is_of_one_source_and_has_one_noise(normals):
    pairs = {}
    for prompt in with_candidates(prompts_of(normals), 2):
        noises = pairs.setdefault((prompt.machine, prompt.section, prompt.pair), {})
        noises.setdefault(prompt.label, []).append((prompt.source_sha256, prompt.seed))
    assert len(pairs) == 3 * 6
    assert sorted({pair for _, _, pair in pairs}) == list(range(6))
    for noises in pairs.values():
        assert noises["normal"] == noises["anomaly"]
        assert len(set(noises["normal"])) == 2


def test_a_machines_prompts_do_not_depend_on_the_other_machines(normals):
    together = [p for p in prompts_of(normals) if p.machine == "bearing"]
    assert together == prompts_of(normals.where(machine="bearing"))


def test_a_sections_prompts_do_not_depend_on_the_other_sections(normals):
    bearing = normals.where(machine="bearing")
    named = [replace(clip, section=f"{i % 2:02d}") for i, clip in enumerate(bearing)]
    both = Clips(named, bearing.cache)
    together = prompts_of(both)
    assert Counter(p.section for p in together) == {"00": 12, "01": 12}
    assert len({prompt.wav for prompt in together}) == 24
    assert len({prompt.seed for prompt in together}) == 12
    for section in ("00", "01"):
        alone = prompts_of(both.where(section=section))
        assert alone == [prompt for prompt in together if prompt.section == section]


def test_section_00_is_named_and_drawn_as_the_machine_alone_was(normals):
    """Values of before there were prompts of each section; a pair's noise was the anomaly's."""
    first, *_, last = prompts_of(normals.where(machine="bearing"))
    assert (first.wav, first.seed, first.source.partition("_00_")[2]) == GOLDEN[0]
    assert (last.wav, last.seed, last.source.partition("_00_")[2]) == GOLDEN[1]
    bare = [replace(clip, section=None) for clip in normals.where(machine="bearing")]
    assert [p.seed for p in prompts_of(Clips(bare, normals.cache))][::11] == [first.seed, last.seed]


def test_more_clips_begin_with_the_fewer(normals):
    few, many = prompts_of(normals, 3), prompts_of(normals, 9)
    assert [p for p in many if p in few] == few


@pytest.mark.parametrize("count", [1, 6, 40])
def test_each_machine_gets_as_many_normal_as_anomalous_prompts(normals, count):
    counts = Counter((prompt.machine, prompt.label) for prompt in prompts_of(normals, count))
    assert counts == {
        (machine, label): count
        for machine in ("fan", "valve", "bearing")
        for label in ("normal", "anomaly")
    }


def test_an_anomalous_prompt_differs_from_its_normal_one_in_a_word(normals):
    prompts = prompts_of(normals)
    for normal, anomaly in zip(prompts[::2], prompts[1::2], strict=True):
        words = zip(normal.caption.split(), anomaly.caption.split(), strict=True)
        assert [pair for pair in words if len(set(pair)) > 1] == [("normal", "anomaly")]
        same = {"wav": "", "label": "", "caption": ""}
        assert normal._replace(**same) == anomaly._replace(**same)
        assert (normal.label, anomaly.label) == ("normal", "anomaly")


def test_captions_come_up_in_proportion_to_the_real_clips(normals):
    bearing = normals.where(machine="bearing")
    real = Counter(caption(clip) for clip in bearing)
    asked = Counter(p.caption for p in prompts_of(bearing, 2 * len(bearing)) if p.label == "normal")
    assert asked == {text: 2 * count for text, count in real.items()}


def test_a_prompt_takes_domain_length_and_level_of_one_real_clip(make_wav):
    waveform = 0.1 * np.sin(np.arange(24_000))
    clip = Clip(
        make_wav("real.wav", waveform), "fan", section="02", domain="target", label="normal"
    )
    prompt = make_prompts(Clips([clip]), ["This is the normal sound."], 1)[0]
    assert (prompt.machine, prompt.section, prompt.domain) == ("fan", "02", "target")
    assert prompt.seconds == 1.5
    # AudioLDM hears peaks of 0.5.
    assert prompt.gain == pytest.approx(5, rel=1e-3)
    assert prompt.wav == "fan/02/normal_0000.wav"
    assert prompt.source == str(clip.path)
    assert prompt.source_sha256 == hashlib.sha256(clip.path.read_bytes()).hexdigest()
    assert not prompt.derived


def test_a_prompt_takes_the_attributes_of_its_real_clip(make_wav):
    real = Clip(make_wav("a.wav"), "fan", label="normal", attributes={"spd": "3", "geräusch": "é"})
    free = replace(real, path=make_wav("b.wav"), attributes={}, raw_label="strength 1")
    prompts = make_prompts(Clips([real, free]), [NORMAL] * 2, 2)
    for prompt in prompts:
        source = real if prompt.source == str(real.path) else free
        assert json.loads(prompt.attributes) == source.attributes
        assert prompt.raw_label == source.raw_label
    assert {prompt.source for prompt in prompts} == {str(real.path), str(free.path)}


@pytest.mark.parametrize(("limit", "expected"), [(10.24, 10.24), (None, 60.0), (0.5, 0.5)])
def test_a_prompt_is_no_longer_than_it_may_be(make_wav, limit, expected):
    clip = Clip(make_wav("long.wav", seconds=60, rate=1000), "fan", label="normal")
    prompts = make_prompts(Clips([clip]), [NORMAL], 1, max_seconds=limit)
    assert [prompt.seconds for prompt in prompts] == [expected] * 2


def test_nothing_shorter_than_a_hundredth_of_a_second_is_asked_for(make_wav):
    """A generator would be asked for a clip of no samples."""
    clips = Clips([Clip(make_wav("a.wav"), "fan", label="normal")])
    with pytest.raises(ValueError, match=r"max_seconds: expected 0\.01 or more or null, found 0"):
        make_prompts(clips, [NORMAL], 1, max_seconds=0.004)
    click = Clips([Clip(make_wav("click.wav", seconds=0.003), "fan", label="normal")])
    with pytest.raises(ValueError, match=r"click\.wav: expected 0\.01 s or more, found 0\.003 s"):
        make_prompts(click, [NORMAL], 1)


def test_a_prompt_names_the_fault_that_its_caption_describes(normals):
    prompts = prompts_of(normals.where(machine="valve"), wording=shipped("faults"))
    result = {prompt.fault for prompt in prompts if prompt.label == "anomaly"}
    assert result <= set(shipped("faults").faults["valves"])
    assert len(result) > 1
    assert {prompt.fault for prompt in prompts if prompt.label == "normal"} == {""}
    assert {prompt.fault for prompt in prompts_of(normals)} == {""}


def test_prompts_are_made_from_normal_clips_only(factory_clips):
    clips = factory_clips.where(machine="fan", split="test")
    with pytest.raises(MetadataError, match=r"test_anomaly_.*\.wav: prompts are made from normal"):
        prompts_of(clips)


def test_a_clip_without_a_label_makes_no_prompt(make_wav):
    clips = Clips([Clip(make_wav("section_00_0000.wav"), "fan")])
    with pytest.raises(MetadataError, match=r"section_00_0000\.wav: prompts are made from normal"):
        prompts_of(clips)


# Captions and their counts


def test_balanced_captions_come_up_alike_however_many_real_clips_they_have(normals):
    bearing = normals.where(machine="bearing")[:-5]
    real = Counter(caption(clip) for clip in bearing)
    assert len(set(real.values())) > 1
    prompts = prompts_of(bearing, 3 * len(real), per_caption="balanced")
    asked = Counter(p.caption for p in prompts if p.label == "normal")
    assert asked == dict.fromkeys(real, 3)


def test_balanced_captions_use_each_of_their_real_clips_in_turn(normals):
    bearing = normals.where(machine="bearing")
    prompts = prompts_of(bearing, 8 * len(bearing), per_caption="balanced")
    used = Counter((p.caption, p.source) for p in prompts if p.label == "normal")
    assert len(used) == len(bearing)
    for text in {text for text, _ in used}:
        counts = [count for (other, _), count in used.items() if other == text]
        assert max(counts) - min(counts) <= 1


def test_an_unknown_balance_is_named(normals):
    with pytest.raises(ValueError, match="proportional or balanced, found 'even'"):
        prompts_of(normals, per_caption="even")


@pytest.mark.parametrize("words", [WordReplacement(), shipped("faults"), shipped("mixed")])
def test_a_caption_without_the_word_to_replace_is_named(factory_clips, words):
    clips = factory_clips.where(machine="fan", split="train")
    with pytest.raises(ValueError, match=r"no word 'normal' to replace: 'The hum of a fan\.'"):
        make_prompts(clips, ["The hum of a fan."] * len(clips), 1, wording=words)


def test_a_caption_that_cannot_be_worded_is_named_with_a_recording(normals):
    captions = [f"The normal hum of {clip.machine}." for clip in normals]
    check_wording(normals, captions, shipped("mixed"))
    captions[-1] = "A hum."
    path = re.escape(str(normals[-1].path))
    with pytest.raises(ValueError, match=rf"{path}: .* no word 'normal' .*: 'A hum\.'\. The capt"):
        check_wording(normals, captions, shipped("mixed"))


# Words


def test_the_papers_prompts_are_the_default(normals):
    assert prompts_of(normals) == prompts_of(normals, wording=shipped("paper"))


def test_words_change_neither_the_noise_nor_the_clips_asked_for(normals):
    paper, faults = prompts_of(normals), prompts_of(normals, wording=shipped("faults"))
    blank = {"caption": "", "negative": "", "fault": ""}
    assert [p._replace(**blank) for p in paper] == [p._replace(**blank) for p in faults]
    assert all(
        (one.caption == other.caption) == (one.label == "normal")
        for one, other in zip(paper, faults, strict=True)
    )


def test_a_negative_prompt_can_be_the_normal_caption(normals):
    for normal, anomaly in _twins(prompts_of(normals, wording=shipped("contrast"))):
        assert (normal.negative, anomaly.negative) == ("", normal.caption)


def _twins(prompts):
    return zip(prompts[::2], prompts[1::2], strict=True)


FAULTS = {
    "spinning": {
        "machines": ["fan"],
        "faults": {"rub": ["a {severity} rub", "{severity} scraping"], "knock": ["a knock"]},
    },
    "any": {"faults": {"noise": ["a {severity} noise"]}},
}


def test_every_fault_paraphrase_and_severity_of_the_family_comes_up():
    words = Counter(w.caption for w in worded(FaultPhrases(FAULTS, ["slight", "bad"])))
    start = "This is the anomaly sound of a fan, with "
    assert set(words) == {
        f"{start}{phrase}."
        for phrase in ("a slight rub", "a bad rub", "slight scraping", "bad scraping", "a knock")
    }
    # A fault is as likely as another, however many ways there are to say it.
    assert 60 < words[f"{start}a knock."] < 140


def test_a_machine_of_no_family_has_the_common_faults():
    (one,) = worded(FaultPhrases(FAULTS, ["slight"]), Clip(Path("a.wav"), "press"), 1)
    assert one.caption.endswith(", with a slight noise.")


def test_a_machine_of_a_family_may_be_a_number():
    families = {**FAULTS, "spinning": {**FAULTS["spinning"], "machines": [101]}}
    (one,) = worded(FaultPhrases(families, []), Clip(Path("a.wav"), "101"), 1)
    assert "noise" not in one.caption


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"spinning": FAULTS["spinning"]}, "found 0: all name machines"),
        ({"any": FAULTS["any"], "all": FAULTS["any"]}, "found 2: any, all"),
        ({**FAULTS, "more": FAULTS["spinning"]}, "fan is in two families: spinning, more"),
        ({"any": {"faults": {"rub": []}}}, r"family 'any': no phrase for \['rub'\]"),
        ({"any": {"faults": {}}}, "family 'any': no phrase for a fault"),
    ],
)
def test_families_that_cannot_be_drawn_from_are_named(families, message):
    with pytest.raises(ValueError, match=message):
        FaultPhrases(families, [])


@given(st.integers(0, 2**32 - 1))
def test_shipped_phrases_are_sentences(seed):
    words, rng = SHIPPED_FAULTS, np.random.default_rng(seed)
    for machine in ("fan", "slider", "valve", "ToyCar", "press"):
        text = words(Clip(Path("a.wav"), machine), NORMAL, rng).caption
        assert text.startswith("This is the anomaly sound of a fan, with ")
        assert text.endswith(".")
        assert "{" not in text
        assert "  " not in text


SHIPPED_FAULTS = shipped("faults")


def test_machines_of_the_challenge_have_faults_of_their_kind():
    valve, fan = (
        {w.caption for w in worded(SHIPPED_FAULTS, Clip(Path("a.wav"), machine))}
        for machine in ("valve", "fan")
    )
    assert not valve & fan
    assert len(valve) > 10


def test_a_mixture_draws_its_sets_by_weight():
    sets = {"paper": WordReplacement(), "contrast": WordReplacement("{caption}")}
    result = Counter(w.negative for w in worded(Mixture(sets, {"contrast": 3.0}), count=1000))
    assert result[NORMAL] == pytest.approx(750, abs=60)
    assert set(result) == {"", NORMAL}


def test_a_set_without_weight_counts_once():
    sets = {"paper": WordReplacement(), "contrast": WordReplacement("{caption}")}
    assert set(worded(Mixture(sets, {"paper": 0.0}))) == {
        Wording("This is the anomaly sound of a fan.", NORMAL)
    }


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"papper": 1}, r"weights of no prompt set: \['papper'\]"),
        ({"paper": -1}, "must be positive"),
        ({"paper": 0}, "must be positive"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        Mixture({"paper": WordReplacement()}, weights)


# Candidates


def test_candidates_differ_in_name_and_noise_only(normals):
    prompts = prompts_of(normals, 2)
    result = with_candidates(prompts, 3)
    assert result[::3] == prompts
    assert len({p.wav for p in result}) == 3 * len(prompts)
    assert len({p.seed for p in result}) == 3 * len(prompts) / 2
    for prompt, *others in zip(result[::3], result[1::3], result[2::3], strict=True):
        for other in others:
            assert other._replace(wav="", seed=0) == prompt._replace(wav="", seed=0)
            assert first_candidate(other.wav) == first_candidate(prompt.wav) == prompt.wav


def test_one_candidate_is_the_prompt_and_none_is_an_error(normals):
    prompts = prompts_of(normals, 2)
    assert with_candidates(prompts, 1) == prompts
    with pytest.raises(ValueError, match="at least 1 candidate per clip, found 0"):
        with_candidates(prompts, 0)
