"""Faults of whole runs, over all stages: killed processes, full disks, damaged artifacts."""

import contextlib
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import pkgutil
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from unittest import mock

import psutil
import pytest

import fsasd.cli.main as app
from fsasd.pipeline.building import Builder
from fsasd.pipeline.collect import collect
from fsasd.pipeline.plan import Step
from fsasd.report.cost import ARTIFACTS
from fsasd.runtime.supervision import limit_threads
from fsasd.store.key import KEY
from fsasd.store.provenance import PROVENANCE, Provenance

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

FORKSERVER = multiprocessing.get_context("forkserver")

COMMAND = [
    "experiment=tiny", "detector=stgram_mfn", "representation.width=0.125",
    "representation.training.seconds=0.5", "representation.training.epochs=1",
    "representation.training.batch_size=8", "trainer.enable_progress_bar=false",
]  # fmt: skip
STAGES = ["finetune", "synthesise", "judge", "train", "curve", "rule", "detect"]

KILLS = int(os.environ.get("FSASD_TEST_KILLS", "4"))
"""Kills of the test of killed runs; longer runs are in docs/explanation/reliability.md."""

LEFTOVERS = ("*.partial", "*.unfinished", "*.replaced", ".tables")
TIMEOUT = 300


@contextlib.contextmanager
def announced():
    """Log when the tables are begun: nothing else does."""

    def call(*args):
        logging.getLogger(__name__).info("collect: begun")
        return collect(*args)

    with mock.patch("fsasd.pipeline.execute.collect", call):
        yield


class Command:
    """The command in a process of its own, started in a folder that gets store and run folders.

    Args:
        folder: Where it is started.
        overrides: Beside those of ``COMMAND``.
        fault: Entered around the command in its process.
    """

    def __init__(self, folder, *overrides, fault=announced):
        reader, writer = FORKSERVER.Pipe(duplex=False)
        arguments = folder, [*COMMAND, *overrides], writer, fault
        self.process = FORKSERVER.Process(target=_main, args=arguments)
        self.process.start()
        writer.close()
        self.reader, self.log = reader, ""

    def wait_for(self, pattern):
        """Read messages until one matches; return whether one did before the command ended."""
        started = time.monotonic()
        while not re.search(pattern, self.log):
            assert time.monotonic() - started < TIMEOUT, self.log
            if not self.reader.poll(1):
                continue
            text = os.read(self.reader.fileno(), 2**16)
            if not text:
                return False
            self.log += text.decode(errors="replace")
        return True

    def kill(self):
        self.process.kill()
        return self.end()

    def end(self):
        """Wait for the end of the command; return its exit code."""
        self.wait_for("(?!)")
        self.process.join()
        return self.process.exitcode


def _main(folder, arguments, stderr, fault):
    os.dup2(stderr.fileno(), sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.chdir(folder)
    sys.argv = ["fsasd", *arguments]
    with fault():
        app.main()


def finish(folder, *overrides, fault=announced):
    """Run the command to its end; return its messages and the run's folder."""
    command = Command(folder, *overrides, fault=fault)
    assert command.end() == 0, command.log
    return command.log, Path(re.search("report: (.+)/report.html", command.log)[1])


def results(run):
    """Return the result tables of a run, by name, with paths from where it was started."""
    tables = [*run.glob("*.csv"), *run.glob("scores/*"), *run.glob("synthetic/*.csv")]
    return {
        str(path.relative_to(run)): re.sub(rb"/[^,]*/(?=outputs/)", b"", path.read_bytes())
        for path in tables
        if path.name not in ("costs.csv", ARTIFACTS)  # which say how long things took
    }


def artifacts(folder):
    """Return the provenance of each complete artifact in the store, by its folder."""
    store = folder / "outputs" / "store"
    files = [*store.glob(f"*/*/{PROVENANCE}"), *store.glob(f"*/*/*/{PROVENANCE}")]
    return {path.parent: path.read_bytes() for path in files if KEY.fullmatch(path.parent.name)}


def built(log):
    return Counter(re.findall(r"(\w+)(?: \w+ section \d\d)?: building", log))


def leftovers(*folders):
    """Return what is unfinished in folders, but for single files in the cache of features."""
    return [
        str(path)
        for folder in folders
        for pattern in LEFTOVERS
        for path in folder.rglob(pattern)
        if "features" not in path.parts
    ]


@pytest.fixture(scope="module", autouse=True)
def imported_once():
    """Fork the command's processes from one that has imported what they need."""
    # There is one server for all tests, and it imports modules only when it starts.
    server = multiprocessing.forkserver._forkserver
    others = server._preload_modules
    server._stop()
    FORKSERVER.set_forkserver_preload(["fsasd.cli.run", "fsasd.generation.audioldm", "pytest"])
    yield
    server._stop()
    FORKSERVER.set_forkserver_preload(others)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a command that nothing happened to, its messages, and its run folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    log, run = finish(folder)
    assert set(STAGES) < set(built(log))
    assert {"metrics.csv", "clips.csv", "selection.csv"} < set(results(run))
    return folder, log, run


@pytest.fixture
def folder(undisturbed, tmp_path):
    """A folder with a complete store."""
    shutil.copytree(undisturbed[0] / "outputs" / "store", tmp_path / "outputs" / "store")
    return tmp_path


def artifact(folder, stage):
    (path,) = [path for path in artifacts(folder) if stage in path.parts]
    return path


# Killed processes.

MOMENTS = {
    "start": r"\A",
    "factory": "factory: building",
    **{stage: f"{stage}.*: building" for stage in STAGES},
    "collect": "collect: begun",
}
"""What is being done after which message."""


def seconds_of(log):
    """Return how long each of ``MOMENTS`` took, by the times of a run's messages."""
    begun = []
    for pattern in MOMENTS.values():
        line = next(line for line in log.splitlines() if re.search(pattern, line))
        hours, minutes, seconds = re.match(r"\[\S+ (\d+):(\d+):([\d,]+)\]", line).groups()
        begun.append(int(hours) * 3600 + int(minutes) * 60 + float(seconds.replace(",", ".")))
    ends = [*begun[1:], begun[-1] + 0.5]
    # Nothing says when a run starts.
    begun[0] -= 0.5
    return {name: end - start for name, start, end in zip(MOMENTS, begun, ends, strict=True)}


def moment_of(log):
    """Return what a command was doing at the end of its messages."""
    return max(MOMENTS, key=lambda name: [m.start() for m in re.finditer(MOMENTS[name], log)][-1:])


def test_killed_at_random_moments_a_run_completes_and_computes_nothing_twice(undisturbed, tmp_path):
    seconds, draw = seconds_of(undisturbed[1]), random.Random(KILLS)
    killed, rounds = Counter(), 0
    while killed.total() < KILLS:
        rounds += 1
        folder = tmp_path / str(rounds)
        folder.mkdir()
        finished = {}
        # From the first stage to the last: what is finished is not begun again.
        moments = draw.sample(list(MOMENTS), min(8, KILLS - killed.total()))
        # Every second time into the same folder.
        overrides = ["hydra.run.dir=outputs/run"] if rounds % 2 else []
        for moment in sorted(moments, key=list(MOMENTS).index):
            command = Command(folder, *overrides)
            if not command.wait_for(MOMENTS[moment]):
                assert command.end() == 0, command.log
                continue
            time.sleep(draw.uniform(0, 1.1 * seconds[moment]))
            command.kill()
            killed[moment_of(command.log)] += 1
            complete = artifacts(folder)
            assert {path: complete[path] for path in finished} == finished
            finished = complete
        log, run = finish(folder, *overrides)
        assert {path: artifacts(folder)[path] for path in finished} == finished
        assert not built(log).keys() & {path.relative_to(folder).parts[2] for path in finished}
        assert artifacts(folder).keys() == {
            folder / path.relative_to(undisturbed[0]) for path in artifacts(undisturbed[0])
        }
        assert results(run) == results(undisturbed[2])
        assert not leftovers(folder / "outputs" / "store", run)
    print(f"{KILLS} kills in {rounds} rounds:", dict(killed))


# Sections in workers, killed with them.

TWO_SECTIONS = ["generator=transforms", "data.factory.targets=[pump,bearing]"]
AT_ONCE = [*TWO_SECTIONS, "runner=joblib", "runner.workers=2"]


@contextlib.contextmanager
def one_thread():
    """Compute as workers do on two cores: the last bits of sums depend on the number of threads."""
    limit_threads(1, 1)
    yield


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """The run folder of a command that built one section after the other."""
    folder = tmp_path_factory.mktemp("serial")
    return finish(folder, *TWO_SECTIONS, "runner=serial", fault=one_thread)[1]


def test_killed_while_sections_are_built_at_once_a_run_completes(one_by_one, tmp_path):
    for pattern in ("judge .*: building", "detect .*: building"):
        command = Command(tmp_path, *AT_ONCE, fault=one_thread)
        assert command.wait_for(pattern), command.log
        children = psutil.Process(command.process.pid).children(recursive=True)
        number = random.Random(pattern).choice([signal.SIGKILL, signal.SIGTERM])
        os.kill(command.process.pid, number)
        command.end()
        _, going_on = psutil.wait_procs(children, timeout=30)
        assert not [one for one in going_on if one.status() != psutil.STATUS_ZOMBIE]
        finished = artifacts(tmp_path)
    run = finish(tmp_path, *AT_ONCE, fault=one_thread)[1]
    assert {path: artifacts(tmp_path)[path] for path in finished} == finished
    assert results(run) == results(one_by_one)
    assert not leftovers(tmp_path / "outputs" / "store", run)


def test_equal_commands_divide_the_sections_and_the_last_writes_the_tables(one_by_one, tmp_path):
    overrides = [*TWO_SECTIONS, "runner=serial", "hydra.run.dir=outputs/run"]
    commands = [Command(tmp_path, *overrides, fault=one_thread) for _ in range(2)]
    assert [command.end() for command in commands] == [0, 0], commands[0].log
    log = "".join(command.log for command in commands)
    once = dict.fromkeys(["factory", "train", "rule"], 1)
    assert built(log) == once | dict.fromkeys(["synthesise", "judge", "curve", "detect"], 2)
    assert log.count("report: ") == 1
    assert results(tmp_path / "outputs" / "run") == results(one_by_one)


# Full disks.

WRITERS = {
    **{stage: ("fsasd.pipeline.building.Builder.artifact", stage) for stage in STAGES},
    "publish": ("fsasd.pipeline.stages.detect.Detect.publish", ""),
    "collect": ("fsasd.pipeline.execute.collect", ""),
    "report": ("fsasd.cli.run.write_report", ""),
}
"""What writes, and in which stage; from its call on, the disk is full."""


@contextlib.contextmanager
def full_disk(name, stage, room):
    """Let no file have more than some bytes from a call on."""
    function = pkgutil.resolve_name(name)

    def call(*args, **options):
        if not stage or stage in [one.stage.name for one in args if isinstance(one, Step)]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        return function(*args, **options)

    with mock.patch(name, call):
        yield


@contextlib.contextmanager
def full_disk_for(title):
    """Let no file have a byte while one stage is built."""
    build, limit = Builder.artifact, resource.getrlimit(resource.RLIMIT_FSIZE)

    def call(builder, step, *args):
        if str(step.stage) == title:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
        try:
            return build(builder, step, *args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    with mock.patch.object(Builder, "artifact", call):
        yield


@pytest.mark.parametrize("room", [0, 1000])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_blocks_no_later_run(undisturbed, folder, writer, room):
    if writer in STAGES:
        shutil.rmtree(artifact(folder, writer))
        shutil.rmtree(folder / "outputs" / "store" / "features")
    # With its memo the run would write nothing of its own.
    shutil.rmtree(folder / "outputs" / "store" / "memo")
    where = f"{folder}/outputs/" + (f"store/{writer}/" if writer in STAGES else "2")
    command = Command(folder, fault=partial(full_disk, *WRITERS[writer], room))
    assert command.end() == 1
    assert re.search(rf"ERROR.*File too large.*{where}", command.log), command.log
    assert "Logging error" not in command.log
    log, run = finish(folder)
    assert built(log) == Counter({writer} & {*STAGES})
    assert results(run) == results(undisturbed[2])
    assert not leftovers(folder / "outputs" / "store", run)


def test_a_section_that_finds_no_room_costs_no_other_its_result(tmp_path):
    machines = "data.factory.targets=[pump,bearing]"
    command = Command(tmp_path, machines, fault=partial(full_disk_for, "curve of pump section 00"))
    assert command.end() == app.INCOMPLETE
    (run,) = tmp_path.glob("outputs/2*")
    failed = (run / "failed.csv").read_text().splitlines()
    assert re.fullmatch(r"pump,00,curve,.*File too large.*", failed[1])
    assert len(failed) == 2
    assert (run / "scores" / "INCOMPLETE.txt").is_file()
    rows = (run / "clips.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"bearing"}
    log, again = finish(tmp_path, machines)
    assert built(log) == {"curve": 1, "rule": 1, "detect": 1}
    assert set(rows) < set((again / "clips.csv").read_text().splitlines())
    assert not (again / "failed.csv").exists()


# Damaged artifacts.


def flip(path):
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGE = {
    "one bit flipped": lambda path, file: flip(path / file),
    "a file deleted": lambda path, file: (path / file).unlink(),
    "no provenance": lambda path, file: (path / PROVENANCE).unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_artifact_of_each_stage_is_named_and_built_anew(undisturbed, folder, how):
    draw, damaged = random.Random(how), {}
    for stage in STAGES:
        path = artifact(folder, stage)
        files = sorted(Provenance.read(path / PROVENANCE).files)
        damaged[path] = PROVENANCE if how == "no provenance" else draw.choice(files)
        DAMAGE[how](path, damaged[path])
    log, run = finish(folder)
    for path, file in damaged.items():
        assert re.search(rf"{path} is damaged and not used: .*{file}: expected ", log), log
    assert built(log) == Counter(STAGES)
    assert results(run) == results(undisturbed[2])
    assert not leftovers(folder / "outputs" / "store", run)


# Several commands.


def test_two_equal_commands_at_once_build_each_artifact_once(undisturbed, tmp_path):
    commands = [Command(tmp_path) for _ in range(2)]
    assert [command.end() for command in commands] == [0, 0]
    log = "".join(command.log for command in commands)
    assert built(log) == built(undisturbed[1])
    runs = [*tmp_path.glob("outputs/2*")]
    assert len(runs) == 2
    assert all(results(run) == results(undisturbed[2]) for run in runs)
    assert not leftovers(tmp_path)
