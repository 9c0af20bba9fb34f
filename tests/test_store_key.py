import re

import numpy as np
import pytest

from fsasd.store.key import KEY, Description

FIELDS = {
    "stage": "stage",
    "version": 1,
    "spec": {"a": 1},
    "inputs": {"input": "0" * 16},
    "section": "fan section 00",
}


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "other"},
        {"version": 2},
        {"spec": {"a": 2}},
        {"spec": {"b": 1}},
        {"spec": {"a": "1"}},
        {"spec": {"a": 1, "b": None}},
        {"inputs": {"input": "1" * 16}},
        {"inputs": {"other": "0" * 16}},
        {"section": "fan section 01"},
    ],
)
def test_whatever_differs_gives_another_key(change):
    one, other = Description(**FIELDS), Description(**(FIELDS | change))
    assert KEY.fullmatch(other.key)
    assert other.key != one.key
    assert other != one


def test_the_order_of_a_spec_does_not_matter():
    one = Description("s", 1, {"a": 1, "b": {"c": 2, "d": 3}})
    other = Description("s", 1, {"b": {"d": 3, "c": 2}, "a": 1})
    assert one.key == other.key
    assert len({one, other}) == 1


def test_a_description_that_is_written_and_read_is_the_same():
    spec = {"grid": (1, 0.5), "labels": {0: "normal", True: None}}
    description = Description(**(FIELDS | {"spec": spec}))
    assert Description.from_json(description.to_json()) == description


def test_what_happens_to_the_settings_later_does_not_change_a_key():
    spec, inputs = {"clips": [1]}, {"input": "0" * 16}
    description = Description("s", 1, spec, inputs)
    spec["clips"].append(2)
    inputs["other"] = "1" * 16
    assert description.spec == {"clips": [1]}
    assert description.inputs == {"input": "0" * 16}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"a": [{"b": {1}}]}, "spec.a.0.b: expected plain JSON .*, found set: {1}"),
        ({"a": np.float32(1)}, r"spec\.a: expected plain JSON .*, found float32"),
        ({1: "a", "1": "b"}, "spec: two keys are the same text"),
    ],
)
def test_only_plain_json_has_a_key(spec, message):
    with pytest.raises(TypeError, match=message):
        Description("stage", 1, spec)
    with pytest.raises(TypeError, match=message.replace("spec", "inputs")):
        Description("stage", 1, {}, spec)


@pytest.mark.parametrize("stage", ["", "../up", "a/b", "0" * 16, ".hidden"])
def test_a_stage_has_the_name_of_a_folder(stage):
    with pytest.raises(
        ValueError,
        match=re.escape(
            f"stage: expected a name of letters, digits, "
            f"_ and - that begins with a letter, found "
            f"{stage!r}"
        ),
    ):
        Description(stage, 1, {})


def test_folders_of_sections_are_safe_and_never_taken_for_a_key():
    assert Description("s", 1, {}, section="../a:b").folder.split("/")[1] == "_a_b"
    assert Description("s", 1, {}, section="0" * 16).folder.split("/")[1] == "0" * 16 + "_"
    assert Description("s", 1, {}, section="a" * 300).folder.split("/")[1] == "a" * 100
    assert Description("s", 1, {}).folder.count("/") == 1
