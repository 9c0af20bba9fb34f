"""Forked commands: what a program sees and leaves is what it would as ``subprocess`` starts it."""

import os
import signal
import subprocess
import sys

import commands
import pytest

pytestmark = pytest.mark.slow

STARTS = [commands.run, subprocess.run]

PROGRAM = """
import atexit, os, random, sys
atexit.register(print, "the end")
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("FSASD_X"), sorted(os.environ))
print(sys.modules["__main__"].__dict__ is globals(), os.getpgrp() == os.getpid(), sys.path)
print(sys.stdin.read(), file=sys.stderr)
print(sorted(os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")))
"""


def program(kind, tmp_path):
    (tmp_path / "my_program.py").write_text(PROGRAM)
    return {
        "-c": ["-c", PROGRAM], "-m": ["-m", "my_program"], "script": [tmp_path / "my_program.py"],
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["-c", "-m", "script"])
@pytest.mark.parametrize("session", [False, True])
def test_a_program_sees_what_it_would_see(kind, session, tmp_path):
    environment = os.environ | {
        "FSASD_X": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "more"),
    }  # fmt: skip
    with (tmp_path / "input").open("w+") as given:
        given.write("given")
        given.flush()
        found = []
        for run in STARTS:
            given.seek(0)
            found.append(run(
                [sys.executable, *program(kind, tmp_path), "a", "--b=c"], cwd=tmp_path,
                env=environment, capture_output=True, text=True, stdin=given,
                start_new_session=session,
            ))  # fmt: skip
    forked, started = found
    assert "the end" in started.stdout
    assert forked.stdout == started.stdout
    assert forked.stderr == started.stderr == "given\n"
    assert forked.returncode == started.returncode == 0


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit", "raise SystemExit(3)", "raise SystemExit('wrong')", "1 / 0",
        "import os; os._exit(7)", "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import threading; t = threading.Timer(0.1, print, [1]); t.start(); print(2)",
    ],
)  # fmt: skip
def test_it_ends_as_it_would_end(code):
    forked, started = (
        run([sys.executable, "-c", code], capture_output=True, text=True) for run in STARTS
    )
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    # Between the first line and the last, a traceback has the lines of the one that forks.
    last = [found.stderr.splitlines()[-1:] for found in (forked, started)]
    assert last[0] == last[1]


def test_it_is_waited_for_and_receives_signals():
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    with commands.start(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
        assert process.poll() == -signal.SIGTERM


def test_its_cpu_time_is_counted():
    before = commands.cpu_seconds
    code = "import time\nwhile time.process_time() < 0.3: pass"
    commands.run([sys.executable, "-c", code], check=True)
    assert 0.2 < commands.cpu_seconds - before < 5
    with pytest.raises(subprocess.CalledProcessError):
        commands.run([sys.executable, "-c", "raise SystemExit(1)"], check=True)


def test_random_numbers_are_those_of_each_process():
    code = "import random, numpy, uuid; print(random.random(), numpy.random.rand(), uuid.uuid4())"
    draws = [
        commands.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert [len(set(pair)) for pair in zip(*draws, strict=True)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["true"], {}, "expected a command of .*python.* alone, found"),
        ([sys.executable, "-c", ""], {"preexec_fn": os.getpid}, "alone, found"),
        (
            [sys.executable, "-P", "-m", "fsasd.cli.main"],
            {},
            "expected -m, -c or a script, found -P",
        ),
        (
            [sys.executable, "-c", ""],
            {"env": os.environ | {"HF_HUB_OFFLINE": "maybe"}},
            "HF_HUB_OFFLINE=maybe: expected .*, as a forked process has it; start this command",
        ),
    ],
)
def test_what_only_a_new_interpreter_heeds_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        commands.run(arguments, **options)


def test_a_module_that_is_imported_already_runs_without_a_warning():
    done = commands.run([sys.executable, "-m", "fsasd.cli.run"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
