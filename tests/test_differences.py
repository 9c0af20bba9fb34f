import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsasd.store.differences import count_differences, differences, limited, without

CLIPS = {f"fan_{n:02}.wav": f"{n:064x}" for n in range(40)}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"version": 4}, {"version": 5}, ["version 4 -> 5"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["a.b [1, 2] -> [1, 3]"]),
        ({"a": 1}, {"a": 1, "b": "x"}, ["b (none) -> x"]),
        ({"a": 1, "b": None}, {"a": 1}, ["b null -> (none)"]),
        ({"a": "1"}, {"a": 1}, ["a 1 -> 1"]),
        ({"a": ""}, {"a": " "}, ['a "" -> " "']),
        ({"a": "a" * 64}, {"a": "b" * 64}, ["a aaaaaaaaaaaa -> bbbbbbbbbbbb"]),
        ({"a": "x" * 100}, {"a": 1}, [f"a {'x' * 57}... -> 1"]),
        ({"a": [{"k": 1}, {"k": 2}]}, {"a": [{"k": 1}, {"k": 3}]}, ["a.1.k 2 -> 3"]),
        ({"a": {"b": 1}}, {"a": 1}, ['a {"b": 1} -> 1']),
        ({"a": CLIPS}, {"a": 1}, ["a {40 entries} -> 1"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
    ],
)
def test_differences_are_named_by_their_setting(old, new, lines):
    assert differences(old, new) == lines


def test_one_added_clip_is_named():
    more = {**CLIPS, "new.wav": "f" * 64}
    assert differences({"clips": CLIPS}, {"clips": more}) == [
        "clips.new.wav (none) -> ffffffffffff"
    ]


def test_many_clips_are_counted():
    some = {name: content for name, content in CLIPS.items() if name > "fan_30"}
    some |= {f"pump_{n}.wav": "0" for n in range(3)}
    assert differences({"clips": CLIPS}, {"clips": some}) == [
        "clips: 3 added (pump_0.wav, pump_1.wav, pump_2.wav), 30 removed (fan_00.wav, fan_01.wav, "
        "fan_02.wav, ...)"
    ]


def test_lists_of_clips_are_counted_and_their_order_is_no_other_content():
    names = list(CLIPS)
    assert differences({"clips": names}, {"clips": [*names[3:], "new.wav"]}) == [
        "clips: 1 added (new.wav), 3 removed (fan_00.wav, fan_01.wav, fan_02.wav)"
    ]
    assert differences({"clips": names}, {"clips": names[::-1]}) == ["clips: another order"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "b" * 64]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("ab", max_size=2), inner),
)


SPECS = st.dictionaries(st.text("ab", max_size=2), JSON, max_size=3)


@settings(max_examples=50)
@given(old=SPECS, new=SPECS)
def test_something_is_said_if_and_only_if_something_differs(old, new):
    import json

    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert bool(differences(old, new)) != same
    assert count_differences(old, old) == 0


def test_the_nearer_of_two_has_fewer_differences():
    wanted = {"trainer": {"max_steps": 800, "lr": 1}, "seed": 0}
    near = {"trainer": {"max_steps": 400, "lr": 1}, "seed": 0}
    far = {"trainer": {"max_steps": 400, "lr": 2}, "seed": 0}
    assert count_differences(near, wanted) == 1
    assert count_differences(far, wanted) == 2


def test_entries_are_left_out_by_their_dotted_names():
    spec = {"clips": 1, "data": {"clips": 2, "seed": 3}, "dataset": 4}
    assert without(spec, ["clips", "data.clips"]) == {"data": {"seed": 3}, "dataset": 4}
    assert without(spec, ["data"]) == {"clips": 1, "dataset": 4}
    assert without(spec, ["clips.inner"]) == spec


def test_more_lines_than_are_read_are_counted():
    assert limited(["a"] * 9) == ["a"] * 6 + ["and 3 more differences"]
    assert limited(["a"] * 6) == ["a"] * 6
