"""When decisions become an alarm, and what is then run."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.deployment import alarms
from fsasd.deployment.alarms import Alarm, AlarmPolicy, Alarms, Hook
from fsasd.deployment.results import Result, iso


def result(decision, file="a.wav", model="fan/section_00", time=0.0):
    return Result(file, 2.0 + decision, 2.5, decision, 0.5, iso(time), model)


def states(policy, decisions, step=1.0):
    alarm = Alarm(policy)
    return [alarm.update(one == "x", n * step) for n, one in enumerate(decisions)]


def shown(active):
    return "".join("A" if one else "-" for one in active)


@pytest.mark.parametrize(
    ("policy", "decisions", "expected"),
    [
        (AlarmPolicy(), "..x.x", "--A-A"),
        (AlarmPolicy(3, 5), "x.x.x..", "----A--"),
        (AlarmPolicy(3, 5), "xx...x.xx", "--------A"),
        (AlarmPolicy(3, 5, release=0), "xxx.....", "--AAAAA-"),
        (AlarmPolicy(2, 2, release=1), "xx.xx", "-A--A"),
        (AlarmPolicy(1, 1, cool_down=3), "x.xx.x", "A----A"),
    ],
)
def test_an_alarm_follows_its_policy(policy, decisions, expected):
    assert shown(states(policy, decisions)) == expected


@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    st.lists(st.booleans(), max_size=40),
)
def test_an_alarm_begins_and_ends_where_the_last_decisions_say_so(k_of_n, decisions):
    k, n = k_of_n
    alarm = Alarm(AlarmPolicy(k, n))
    for number, decision in enumerate(decisions):
        count = sum(decisions[max(0, number + 1 - n) : number + 1])
        # Without hysteresis and cool-down the state is a function of the last n.
        assert alarm.update(decision, number) == (count >= k)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", None),
        ("0/3", "at least K=1 of N anomalous decisions, found 0/3"),
        ("4/3", "found 4/3"),
        ("some", "expected K/N, such as 3/5, found 'some'"),
        ("1/", None),
        ("-1/2", "expected K/N"),
    ],
)
def test_a_policy_is_read(text, message):
    if message is None:
        policy = AlarmPolicy.of(text)
        assert policy.k == policy.n == int(text.strip("/"))
    else:
        with pytest.raises(ValueError, match=message):
            AlarmPolicy.of(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 2, "n": 3, "release": 2}, "to end with 0 to 1 of 3 anomalous decisions"),
        ({"release": -1}, "found -1"),
        ({"cool_down": -1}, "expected 0 seconds or more, found -1"),
        ({"cool_down": float("nan")}, "found nan"),
    ],
)
def test_a_policy_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        AlarmPolicy(**options)


def test_models_have_alarms_of_their_own(caplog):
    both = Alarms(AlarmPolicy(k=2, n=2))
    rows = [
        both.update(result(1, model=model, time=time))
        for time, model in enumerate(["a", "b", "a", "b", "a"])
    ]
    assert [row.alarm for row in rows] == [0, 0, 1, 1, 1]
    begun = [record.message for record in caplog.records]
    assert begun == [
        f"ALARM {model} at {iso(time)}: score 3 above 2.5 (a.wav)"
        for model, time in (("a", 2.0), ("b", 3.0))
    ]


def python(code):
    return f'{sys.executable} -c "{code}"'


def test_a_command_gets_the_values_as_arguments_and_as_json(tmp_path):
    # A name that a shell would run, and one of another value.
    name = "a b; touch x $(touch y) `z` {score} '\".wav"
    out = tmp_path / "out.json"
    code = (
        "import sys, json; json.dump([sys.argv[1:], json.load(sys.stdin)], open(sys.argv[1], 'w'))"
    )
    hook = Hook(f"{python(code)} {out} {{file}} 'of {{model}}' {{unknown}}")
    both = Alarms(AlarmPolicy(), hook)
    row = both.update(result(1, name))
    both.close()
    arguments, values = json.loads(out.read_text())
    assert arguments == [str(out), name, "of fan/section_00", "{unknown}"]
    assert values["file"] == name
    assert values["score"] == row.score == 3.0


def test_commands_are_run_once_for_each_alarm_in_order(tmp_path):
    out = tmp_path / "out"
    hook = Hook(f"{python('import sys; open(sys.argv[1], sys.argv[2]).write(sys.argv[3])')} "
                f"{out} a {{file}}")  # fmt: skip
    both = Alarms(AlarmPolicy(), hook)
    for time, (decision, file) in enumerate(zip([1, 1, 0, 1, 1], "abcde", strict=True)):
        both.update(result(decision, file, time=time))
    both.close()
    assert out.read_text() == "ad"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-command {file}", "No such file or directory: 'no-such-command'"),
        (python("import sys; sys.exit('out of paper')"), "ended with exit code 1: out of paper"),
        (python("import time; time.sleep(60)"), "timed out after 0.2"),
    ],
)
def test_a_command_that_fails_is_named_and_scoring_goes_on(command, message, caplog, monkeypatch):
    monkeypatch.setattr(alarms, "HOOK_SECONDS", 0.2 if "sleep" in command else 60)
    both = Alarms(AlarmPolicy(), Hook(command))
    both.update(result(1))
    both.close()
    assert message in caplog.text


def test_alarms_that_wait_too_long_are_named(caplog, monkeypatch):
    monkeypatch.setattr(alarms, "_WAITING", 1)
    hook = Hook(python("input()"))
    monkeypatch.setattr(hook, "_run", lambda values: None)
    hook.close()
    for _ in range(2):
        hook.start(result(1))
    assert "1 commands wait already: none is run for a.wav" in caplog.text


@pytest.mark.parametrize(
    ("command", "message"), [("", "expected a command"), ("echo 'a", "No closing quotation")]
)
def test_a_command_that_cannot_be(command, message):
    with pytest.raises(ValueError, match=f"on-alarm: {message}"):
        Hook(command)
