import contextlib
import json
from datetime import UTC, datetime

import pytest
from filelock import FileLock
from runs import describe

from fsasd.data.names import SectionId
from fsasd.pipeline import runner
from fsasd.pipeline.building import Builder, Chain, build_chain
from fsasd.pipeline.outcome import Failure, Outcome
from fsasd.pipeline.plan import Lookup, chosen, plan, with_inputs
from fsasd.pipeline.runner import Runner
from fsasd.pipeline.shard import Shard
from fsasd.pipeline.stage import Stage, Value
from fsasd.store.listing import lock_path
from fsasd.store.store import Store

FAN, PUMP, VALVE = (SectionId(machine, "00") for machine in ("fan", "pump", "valve"))


class Write(Stage):
    """Writes a value that it is given, and counts how often it is built."""

    version = 1

    def __init__(self, name, value, inputs=None, section=None, tolerant=False):
        super().__init__(inputs, section)
        self.name, self.value, self.tolerant, self.builds = name, value, tolerant, 0

    def spec(self):
        return {"value": self.value}

    def build(self, folder, inputs):
        self.builds += 1
        if self.value == "broken":
            raise RuntimeError(f"{self.section}: a damaged recording")
        texts = {name: self.text(source) for name, source in inputs.items()}
        (folder / "value.json").write_text(json.dumps([self.value, texts]))

    @staticmethod
    def text(source):
        return read(source) if hasattr(source, "joinpath") else source


def read(folder):
    return json.loads((folder / "value.json").read_text())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def run(store, *stages, wanted=None, after=lambda *_: None, shard=None, **options):
    ordered = with_inputs(stages)
    names = {stage.name for stage in ordered} if wanted is None else wanted
    runner = Runner(Lookup(store, **options), names, after, shard=Shard.parse(shard))
    return runner.run(ordered)


def sections(values, shared):
    """A stage for each of three machines, on a shared one."""
    return [
        Write("detect", value, {"shared": shared}, section)
        for section, value in zip((FAN, PUMP, VALVE), values, strict=True)
    ]


def test_stages_are_built_of_the_artifacts_of_their_inputs(store):
    first = Write("first", 1)
    second = Write("second", 2, {"one": first})
    outcome = run(store, second)
    assert read(outcome.artifacts[second]) == [2, {"one": [1, {}]}]


def test_what_is_in_the_store_is_not_built_again(store):
    for builds in (1, 0):
        stages = sections([1, 2, 3], Write("shared", 0))
        outcome = run(store, *stages)
        assert [stage.builds for stage in stages] == [builds] * 3
    assert set(outcome.of("detect")) == {FAN, PUMP, VALVE}


def test_another_input_is_another_artifact_and_another_section_is_not_touched(store):
    shared = Write("shared", 0)
    run(store, *sections([1, 2, 3], shared))
    changed = sections([1, 9, 3], Write("shared", 0))
    run(store, *changed)
    assert [stage.builds for stage in changed] == [0, 1, 0]
    all_of_them = sections([1, 2, 3], Write("shared", 1))
    run(store, *all_of_them)
    assert [stage.builds for stage in all_of_them] == [1, 1, 1]


def test_a_value_of_an_input_enters_the_key_and_not_its_artifact(store):
    def chain(first):
        rule = Write("rule", first)
        return Write("detect", 0, {"parity": Value(rule, lambda path: read(path)[0] % 2)})

    stages = [chain(first) for first in (1, 3, 4)]
    outcomes = [run(store, stage) for stage in stages]
    assert [stage.builds for stage in stages] == [1, 0, 1]
    assert read(outcomes[1].artifacts[stages[1]]) == [0, {"parity": 1}]


def test_a_section_that_fails_costs_no_other_its_result(store, tmp_path, caplog):
    shared = Write("shared", 0)
    curves = [
        Write("curve", value, {"shared": shared}, section)
        for section, value in ((FAN, 1), (PUMP, "broken"), (VALVE, 3))
    ]
    inputs = {str(curve.section): curve for curve in curves}
    rule = Write("rule", 0, inputs, tolerant=True)
    detect = [Write("detect", 0, {"setting": rule}, curve.section) for curve in curves]
    outcome = run(store, *detect)
    assert set(outcome.of("detect")) == {FAN, VALVE}
    assert set(read(outcome.artifacts[rule])[1]) == {"fan section 00", "valve section 00"}
    (failure,) = outcome.failures
    assert failure.section == PUMP
    place = f"(while building curve of pump section 00 in {store.root}"
    reason = f"pump section 00: a damaged recording {place}"
    assert failure.stage == "curve"
    assert failure.reason.startswith(reason)
    assert "curve of pump section 00 failed" in caplog.text
    outcome.write_failures(tmp_path)
    header, row = (tmp_path / "failed.csv").read_text().splitlines()
    assert header == "machine,section,stage,reason"
    assert row.startswith(f"pump,00,curve,{reason}")
    Outcome().write_failures(tmp_path)
    assert not (tmp_path / "failed.csv").exists()


class UnportableError(Exception):
    """Cannot be read by another process."""

    def __init__(self, where, what):
        super().__init__(f"{where}: {what}")


def test_what_a_worker_says_of_a_failure_names_where_it_was(store):
    (stage,) = stages = [Write("detect", 0, section=FAN)]

    def fail(folder, inputs):
        raise UnportableError("sda", "no space left")

    stage.build = fail
    built = build_chain(Builder(stages, Lookup(store)), Chain([0], {}, [], wait=True))
    reason = Failure(FAN, "detect", built.error).reason
    assert reason.startswith("sda: no space left (while building detect of fan section 00 in /")


def test_nothing_is_chosen_where_all_sections_failed(store):
    curves = [Write("curve", "broken", section=section) for section in (FAN, PUMP)]
    rule = Write("rule", 0, {str(curve.section): curve for curve in curves}, tolerant=True)
    with pytest.raises(RuntimeError, match="fan section 00: a damaged recording") as raised:
        run(store, rule)
    assert rule.builds == 0
    assert raised.value.__notes__ == [
        f"(while building curve of fan section 00 in {store.root / 'curve' / 'fan section 00'}/"
        f"{describe(curves[0]).key})"
    ]


def test_where_a_failed_section_is_mended_only_that_is_built(store):
    def curves(value):
        return [Write("curve", v, section=s) for s, v in ((FAN, 1), (PUMP, value), (VALVE, 3))]

    run(store, *curves("broken"))
    mended = curves(2)
    outcome = run(store, *mended)
    assert [stage.builds for stage in mended] == [0, 1, 0]
    assert not outcome.failures


def test_a_stage_that_all_machines_share_ends_the_run(store):
    shared = Write("shared", "broken")
    with pytest.raises(RuntimeError, match="a damaged recording"):
        run(store, *sections([1, 2, 3], shared))


def test_a_stage_that_is_not_wanted_must_be_in_the_store(store):
    stage = Write("detect", 1, {"shared": Write("shared", 0)})
    with pytest.raises(FileNotFoundError, match=r"result of stage 'shared' is not in .*add it to"):
        run(store, stage, wanted={"detect"})
    run(store, Write("shared", 0))
    assert run(store, stage, wanted={"detect"}).artifacts[stage].is_dir()


def test_a_stage_names_the_input_that_is_absent_also_where_its_key_is_not_known(store):
    detect = Write("detect", 0, {"setting": Value(Write("rule", 0), read)}, FAN)
    late = Write("late", 0, {"detect": detect}, FAN)
    absent = r"late of fan section 00: the result of stage 'detect' is not in .*store: add it to"
    with pytest.raises(FileNotFoundError, match=absent):
        run(store, late, wanted={"late"})


def test_all_ranks_know_of_which_inputs_rank_0_builds(store, monkeypatch):
    def stages():
        curves = [Write("curve", v, section=s) for s, v in ((FAN, 1), (PUMP, "broken"))]
        rule = Write("rule", 0, {str(curve.section): curve for curve in curves}, tolerant=True)
        late = Write("late", 0, {"setting": Value(rule, read), "pump": curves[1]}, tolerant=True)
        late.together = True
        return with_inputs([late])

    messages, built = {}, []
    monkeypatch.setattr(runner, "broadcast", messages.__setitem__)
    monkeypatch.setattr(runner, "receive", messages.__getitem__)
    for rank in (0, 1):
        monkeypatch.setattr(runner, "rank", lambda rank=rank: rank)
        ordered = stages()
        of_rank = Runner(Lookup(store), {stage.name for stage in ordered})
        of_rank._number = 0
        of_rank.run(ordered)
        built.append(of_rank.lookup.places[ordered[-1]])
    assert built[0] == built[1]


def test_what_is_forced_is_built_once_for_each_command(store):
    def builds(**options):
        stage = Write("detect", 1)
        run(store, stage, again=["detect"], **options)
        return stage.builds

    before = datetime.now(UTC).isoformat()
    assert [builds(), builds()] == [1, 1]
    assert [builds(since=before), builds(since=datetime.now(UTC).isoformat())] == [0, 1]


def test_a_group_of_stages_is_forced_by_its_name(store):
    run(store, Write("curve", 1), Write("train", 1))
    curve, train = Write("curve", 1), Write("train", 1)
    run(store, curve, train, again=["detect"], groups={"curve": "detect"})
    assert (curve.builds, train.builds) == (1, 0)


def test_stages_are_chosen_by_their_names_and_those_of_their_groups():
    first, curve, detect = Write("first", 1), Write("curve", 1), Write("detect", 1)
    groups = {"first": [first], "detect": [curve, detect]}
    assert chosen(groups, ["detect"]) == [curve, detect]
    assert chosen(groups, ["first", "curve"]) == [first, curve]


class Trained(Write):
    trained_on = ("clips",)

    def __init__(self, clips, value=0):
        super().__init__("finetune", value)
        self.clips = clips

    def spec(self):
        return {"value": self.value, "clips": self.clips}


def test_a_frozen_stage_serves_what_it_was_not_trained_on(store):
    old = Trained(10_000)
    run(store, Write("detect", 0, {"finetune": old}))
    new = Trained(10_001)
    detect = Write("detect", 1, {"finetune": new})
    outcome = run(store, detect, frozen=["finetune"])
    assert (new.builds, detect.builds) == (0, 1)
    assert outcome.artifacts[new].name == Lookup(store).describe(old).key
    assert Lookup(store).step(new).path is None


def test_a_frozen_stage_of_other_settings_is_refused(store):
    run(store, Trained(1))
    with pytest.raises(FileNotFoundError, match=r"no artifact of finetune .*value 0 -> 5"):
        run(store, Trained(1, value=5), frozen=["finetune"])


def test_a_group_of_stages_is_frozen_by_its_name_whatever_setting_was_chosen(store):
    def detect(value):
        return Write("detect", 0, {"setting": Value(Write("rule", value), read)}, FAN)

    before, after = detect(1), detect(2)
    built = run(store, before).artifacts[before]
    outcome = run(store, after, frozen=["last"], groups={"detect": "last"})
    assert outcome.artifacts[after] == built
    assert after.builds == 0


def test_the_log_says_why_something_is_built(store, caplog):
    caplog.set_level("INFO")
    run(store, Write("detect", 400))
    caplog.clear()
    run(store, Write("detect", 800))
    assert "value 400 -> 800" in caplog.text


def test_a_plan_says_what_would_be_built_and_what_is_there(store):
    shared = Write("shared", 0)
    stages = sections([1, 2, 3], shared)
    run(store, shared, stages[0])
    rule = Write("rule", 0)
    waiting = Write("late", 0, {"setting": Value(rule, read)})
    lookup = Lookup(store)
    steps = [lookup.step(stage) for stage in with_inputs([*stages, waiting])]
    assert [step.action for step in steps] == ["reuse", "reuse", "build", "build", "build", "wait"]
    expected = lookup.estimate(steps[2])
    assert expected.gigabytes > 0
    assert lookup.estimate(steps[4]) is None


def test_planners_see_what_was_planned_before():
    def first(experiment, earlier):
        assert not earlier
        return [Write("first", 1)]

    def second(experiment, earlier):
        return [Write("second", 2, {"first": earlier["first"][0]})]

    groups = plan({"one": first, "two": second}, None)
    assert groups["two"][0].inputs["first"] is groups["one"][0]


# Several commands.


def whole(values=(1, 2, 3), name="curve"):
    """A run of three machines, with a choice that depends on all of them."""
    curves = [Write(name, v, section=s) for s, v in zip((FAN, PUMP, VALVE), values, strict=True)]
    rule = Write("rule", 0, {str(curve.section): curve for curve in curves}, tolerant=True)
    value = Value(rule, read)
    return [Write("detect", 0, {"setting": value}, curve.section) for curve in curves]


def test_what_another_command_builds_is_left_for_later(store, caplog):
    caplog.set_level("INFO")
    stages = [Write("curve", v, section=s) for s, v in ((FAN, 1), (PUMP, 2), (VALVE, 3))]
    place = store.path(describe(stages[0]))
    place.parent.mkdir(parents=True)
    other, order = FileLock(lock_path(place), thread_local=False), []

    def after(stage, path):
        order.append(stage.section)
        if len(order) == 2:
            other.release()

    other.acquire()
    outcome = run(store, *stages, after=after)
    assert order == [PUMP, VALVE, FAN]
    assert list(outcome.of("curve")) == [FAN, PUMP, VALVE]
    assert "waiting for another job" not in caplog.text


def test_what_another_command_builds_is_waited_for_when_nothing_else_is_left(store, caplog):
    caplog.set_level("INFO", "fsasd.store.store")
    shared = Write("shared", 0)
    shared.together = True
    place = store.path(describe(shared))
    place.parent.mkdir(parents=True)
    other = FileLock(lock_path(place), thread_local=False)

    def release(record):
        if record.getMessage().startswith("waiting for another job"):
            other.release()
        return True

    caplog.handler.addFilter(release)
    other.acquire()
    outcome = run(store, *sections([1, 2, 3], shared))
    caplog.handler.removeFilter(release)
    assert len(outcome.artifacts) == 4
    assert "waiting for another job" in caplog.text


def test_shards_build_each_section_once_and_choose_when_all_are_there(store):
    def shard(name):
        stages = whole()
        outcome = run(store, *stages, shard=name)
        rule = next(stages[0].input_stages())[1]
        curves = [curve for _, curve in rule.input_stages()]
        builds = [stage.builds for stage in curves], rule.builds, [stage.builds for stage in stages]
        return builds, {stage.name for stage in outcome.postponed}

    assert shard("1/2") == (([1, 0, 1], 0, [0, 0, 0]), {"curve", "rule", "detect"})
    # The second finds all curves, chooses, and has the settings of its own sections.
    assert shard("2/2") == (([0, 1, 0], 1, [0, 1, 0]), {"detect"})
    assert shard("1/2") == (([0, 0, 0], 0, [1, 0, 1]), set())
    assert shard(None) == (([0, 0, 0], 0, [0, 0, 0]), set())


@pytest.mark.parametrize("text", ["0/8", "9/8", "1", "a/b", "1/0"])
def test_a_share_that_there_is_none_of_is_named(text):
    with pytest.raises(ValueError, match=f"shard={text}: expected i/n with i from 1 to n"):
        Shard.parse(text)


def test_a_shard_that_looks_again_builds_what_depends_on_the_others(store):
    def stages():
        curves = [Write("curve", 1, section=section) for section in (FAN, PUMP, VALVE)]
        rule = Write("rule", 0, {str(curve.section): curve for curve in curves}, tolerant=True)
        return with_inputs(
            [Write("detect", 0, {"setting": rule}, curve.section) for curve in curves]
        )

    names = {"curve", "rule", "detect"}
    first, second = (Runner(Lookup(store), names, shard=Shard.parse(f"{i}/2")) for i in (1, 2))
    assert {stage.name for stage in first.run(stages()).postponed} == {"curve", "rule", "detect"}
    assert {stage.section for stage in second.run(stages()).postponed} == {FAN, VALVE}
    outcome = first.look_again()
    assert not outcome.postponed
    assert set(outcome.of("detect")) == {FAN, PUMP, VALVE}
    assert [stage.builds for stage in outcome.artifacts if stage.name == "detect"] == [1, 0, 1]


def test_the_log_counts_what_is_reused(store, caplog):
    run(store, *whole())
    caplog.set_level("INFO")
    run(store, *whole())
    messages = [record.getMessage() for record in caplog.records]
    assert [m for m in messages if "section" in m] == [
        "curve: reusing 3 sections",
        "detect: reusing 3 sections",
    ]


def test_other_ranks_learn_that_the_first_has_failed_before_they_are_needed(store, monkeypatch):
    messages = {}
    monkeypatch.setattr(runner, "broadcast", messages.__setitem__)
    monkeypatch.setattr(runner, "receive", messages.__getitem__)
    late = Write("late", 0, {"shared": Write("shared", "broken")})
    late.together = True
    for rank, error in ((0, "None: a damaged recording"), (1, "rank 0 failed: None: a damaged")):
        monkeypatch.setattr(runner, "rank", lambda rank=rank: rank)
        of_rank = Runner(Lookup(store), {"late", "shared"})
        of_rank._number = 0
        with pytest.raises(RuntimeError, match=error):
            of_rank.run(with_inputs([late]))


def test_a_stage_is_looked_at_as_often_however_many_sections_there_are(tmp_path):
    looked_at = 0

    class Counted(Write):
        def __hash__(self):
            nonlocal looked_at
            looked_at += 1
            return super().__hash__()

    counts = []
    for number in (8, 64):
        looked_at = 0
        shared = Counted("shared", 0)
        for value in ("broken", 1):
            many = [
                Counted("detect", value, {"shared": shared}, SectionId(f"m{i}", "00"))
                for i in range(number)
            ]
            with contextlib.suppress(RuntimeError):
                run(Store(tmp_path / f"store-{number}"), *many)
        counts.append(looked_at)
    assert counts[1] < 1.3 * 64 / 8 * counts[0]
