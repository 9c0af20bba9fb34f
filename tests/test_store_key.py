import re

import numpy as np
import pytest

from fsasd.store.key import KEY, Description

SPEC = {"a": 1}
DESCRIPTION = Description("stage", 1, SPEC, {"input": "0" * 16}, "fan section 00")


@pytest.mark.parametrize(
    "other",
    [
        Description("other", 1, SPEC, {"input": "0" * 16}, "fan section 00"),
        Description("stage", 2, SPEC, {"input": "0" * 16}, "fan section 00"),
        Description("stage", 1, {"a": 2}, {"input": "0" * 16}, "fan section 00"),
        Description("stage", 1, {"b": 1}, {"input": "0" * 16}, "fan section 00"),
        Description("stage", 1, {"a": "1"}, {"input": "0" * 16}, "fan section 00"),
        Description("stage", 1, {"a": 1, "b": None}, {"input": "0" * 16}, "fan section 00"),
        Description("stage", 1, SPEC, {"input": "1" * 16}, "fan section 00"),
        Description("stage", 1, SPEC, {"other": "0" * 16}, "fan section 00"),
        Description("stage", 1, SPEC, {"input": "0" * 16}, "fan section 01"),
    ],
)
def test_whatever_differs_gives_another_key(other):
    assert KEY.fullmatch(other.key)
    assert other.key != DESCRIPTION.key
    assert other != DESCRIPTION


def test_the_order_of_a_spec_does_not_matter():
    one = Description("s", 1, {"a": 1, "b": {"c": 2, "d": 3}})
    other = Description("s", 1, {"b": {"d": 3, "c": 2}, "a": 1})
    assert one.key == other.key
    assert len({one, other}) == 1


def test_a_description_that_is_written_and_read_is_the_same():
    description = Description("s", 1, {"grid": (1, 0.5), "labels": {0: "normal", True: None}})
    assert Description.from_json(description.to_json()) == description


def test_what_happens_to_the_settings_later_does_not_change_a_key():
    spec = {"clips": [1]}
    description = Description("s", 1, spec)
    spec["clips"].append(2)
    assert description.spec == {"clips": [1]}


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
    assert Description("s", 1, {}).folder.count("/") == 1
