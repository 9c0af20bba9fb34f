"""Rungs and donors in turn."""

from collections import Counter

import pytest

from fsasd.generation.ladder import in_turn
from fsasd.generation.prompts import Prompt, with_candidates


def prompts(count, label="anomaly", section="00", seed=0):
    return [
        Prompt(f"{section}/{label}_{n:04d}.wav", "fan", section, None, label, "", 1.0, 1.0, seed)
        for n in range(count)
    ]


@pytest.mark.parametrize("donors", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("rungs", [1, 3, 4])
def test_each_pair_comes_up_equally_often(rungs, donors):
    laps = 2
    turns = in_turn(prompts(laps * rungs * donors), rungs, donors)
    assert Counter(turns) == {(r, d): laps for r in range(rungs) for d in range(donors)}


@pytest.mark.parametrize("count", [1, 9, 16, 64, 100])
def test_however_many_clips_there_are_none_is_preferred(count):
    turns = in_turn(prompts(count), rungs=3, donors=8)
    of_donor = Counter(donor for _, donor in turns)
    of_rung = Counter(rung for rung, _ in turns)
    assert max(of_donor.values()) - min(of_donor[d] for d in range(8)) <= 1
    assert max(of_rung.values()) - min(of_rung[r] for r in range(3)) <= 8
    whole_laps = in_turn(prompts(count - count % 8), rungs=3, donors=8)
    of_rung = Counter(rung for rung, _ in whole_laps)
    assert max(of_rung.values(), default=0) - min(of_rung[r] for r in range(3)) <= 1


def test_normal_and_anomalous_clips_of_one_source_are_of_one_rung_and_donor():
    normal, anomalous = prompts(20, "normal"), prompts(20)
    turns = in_turn([p for pair in zip(normal, anomalous, strict=True) for p in pair], 3, 4)
    assert turns[::2] == turns[1::2]
    assert len(set(turns)) == 12


def test_candidates_of_a_clip_are_of_one_rung():
    turns = in_turn(with_candidates(prompts(9), 3), rungs=3)
    assert turns[::3] == turns[1::3] == turns[2::3] == in_turn(prompts(9), rungs=3)


def test_sections_do_not_depend_on_one_another():
    first, second = prompts(9, section="00", seed=1), prompts(9, section="01", seed=2)
    both = in_turn([*first, *second], rungs=3, donors=3)
    assert both == in_turn(first, 3, 3) + in_turn(second, 3, 3)
    assert both[:9] != both[9:]


def test_a_source_that_comes_up_again_meets_other_rungs():
    # Six sources in the same order again and again, as ``make_prompts`` has them.
    for donors in (1, 6):
        rungs = [rung for rung, _ in in_turn(prompts(120), rungs=3, donors=donors)]
        assert all(set(rungs[source::6]) == {0, 1, 2} for source in range(6))
