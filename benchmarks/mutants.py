"""Mutation testing: which single changes of the code does no test notice?

    make mutation  # what this needs, then all areas
    make mutation OPTIONS="keys --tries 60"
    make mutation OPTIONS="keys --again"
    make mutation OPTIONS=--table

The changes are those of mutmut's operators, in the bodies of functions and methods; a random sample
of them is tried. mutmut itself would collect the tests anew for each, and would leave out whatever
has a decorator. Here, pytest collects once, and a process is forked for each mutant, in which the
function gets the mutated code; it runs the area's tests that call the function, the fastest first,
until one fails. A survivor is printed as a diff: it is to be read.

Not changed are what is evaluated while a module is imported (constants, defaults of parameters),
annotations, docstrings, and the arguments of ``len`` and ``isinstance``.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import gc
import itertools
import json
import operator
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import libcst as cst
    from libcst.metadata import MetadataWrapper

ROOT = Path(__file__).parents[1]

AREAS = {
    "evaluation": (
        ["fsasd/evaluation"],
        "calibration folds metrics oddness permutation submission submit thresholds uncertainty",
    ),
    "selection": (
        ["fsasd/selection"],
        "cases choice crossfit first_faults mixture selection sources validation",
    ),
    "metadata": (["fsasd/data/metadata.py"], "editions metadata names"),
    "keys": (
        ["fsasd/settings/spec.py", "fsasd/settings/code.py", "fsasd/store/key.py"],
        "content spec store_key",
    ),
}
"""Area -> what is mutated, and the modules of ``tests/`` that are run, beside the doctests."""

_MORE_CPU = 5.0, 10.0
"""A mutant may take so many times the CPU time of its tests, and so many seconds more."""

_STUCK = 600
"""Seconds of the clock after which it is given up, too: it waits for something."""

_MEMORY = 4 << 30
"""Bytes that it may allocate beside what it was forked with."""

_BROKEN = 70
"""Exit code of a process that ended otherwise than by a test: what it says counts for nothing."""

_SURVIVED, _KILLED, _TIMEOUT = "survived", "killed", "timeout"
_GONE = "gone"
_CAUGHT = (_KILLED, _TIMEOUT)

_Key = tuple[str, str, str]
"""Of a mutant: module, function and lines that differ."""


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change.

    Attributes:
        path: Of the module.
        function: Qualified name of the function, or of the outermost one that it is in.
        line: Of the change.
        source: The changed source.
    """

    path: Path
    function: str
    line: int
    source: str

    @property
    def diff(self) -> str:
        """The lines that differ."""
        before, after = self.path.read_text("utf-8").splitlines(), self.source.splitlines()
        lines = difflib.unified_diff(before, after, n=0, lineterm="")
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))

    def codes(self) -> list[CodeType]:
        """Return the code of the functions of this name, in their order in the module."""
        return _codes(self.source, self.path)[self.function]


@dataclass(frozen=True)
class Change:
    """A node of a module's syntax tree, and what is to stand in its place."""

    path: Path
    wrapper: MetadataWrapper
    function: str
    node: cst.CSTNode
    changed: Any

    def mutant(self) -> Mutant | None:
        """Return the module with this change; ``None`` if that is no valid Python."""
        from libcst.metadata import PositionProvider

        place = self.wrapper.resolve(PositionProvider).get(self.node)
        source = self.wrapper.module.deep_replace(self.node, self.changed).code
        mutant = Mutant(self.path, self.function, place.start.line if place else 0, source)
        refers = operator.attrgetter("co_freevars")
        try:
            codes = [*map(refers, mutant.codes())]
        except SyntaxError:
            return None
        # A function that refers to its class no more cannot get this code.
        before = map(refers, _codes(self.path.read_text("utf-8"), self.path)[self.function])
        return mutant if codes == [*before] else None


def changes(path: Path) -> Iterator[Change]:
    """Yield the changes of a module that mutmut's operators make."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper

    wrapper = MetadataWrapper(cst.parse_module(path.read_text("utf-8")))
    for function, node, changed in _mutations(wrapper.module.body):
        yield Change(path, wrapper, function, node, changed)


def _mutations(body: Any, scope: str = "") -> Iterator[tuple[str, cst.CSTNode, Any]]:
    import libcst as cst

    for node in body:
        if isinstance(node, cst.ClassDef):
            yield from _mutations(node.body.body, f"{scope}{node.name.value}.")
        elif isinstance(node, cst.FunctionDef):
            for changed, mutated in _changes(node.body):
                yield f"{scope}{node.name.value}", changed, mutated


def _changes(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, Any]]:
    import libcst as cst
    from libcst import matchers as m
    from mutmut.mutation.mutators import mutation_operators

    kept = m.Annotation() | m.Call(func=m.Name("len") | m.Name("isinstance"))
    if m.matches(node, kept):
        return
    for kind, mutate in mutation_operators:
        if isinstance(node, kind):
            for mutated in mutate(node):
                yield node, mutated
    for child in node.children:
        if isinstance(child, cst.CSTNode):
            yield from _changes(child)


def _codes(source: str, path: Path) -> dict[str, list[CodeType]]:
    """Return the code of a module's functions and methods by their qualified names."""
    codes = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        rest = [compile(source, str(path), "exec", dont_inherit=True)]
    while rest:
        inner = [one for one in rest.pop().co_consts if isinstance(one, CodeType)]
        for code in inner:
            codes[code.co_qualname].append(code)
        rest += inner
    return codes


class Trial:
    """A plug-in of pytest that tries mutants instead of running the tests once.

    Args:
        mutants: To try.
        done: Gets each with its outcome, the number of its tests and CPU seconds.
        folder: For the files of tests.
    """

    def __init__(
        self, mutants: list[Mutant], done: Callable[[Mutant, str, int, float], None], folder: Path
    ) -> None:
        self.mutants, self.done, self.folder = mutants, done, folder
        self.files = {str(mutant.path) for mutant in mutants}
        self.called: set[tuple[str, str]] = set()
        self.by_fixture: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.failed: list[str] = []
        self.stops = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once as they are, then those of each mutant."""
        code, answer, _ = self._forked(lambda: self._run_all(session.items), None)
        if code or answer["failed"]:
            names = ", ".join(answer["failed"] if answer else ["killed"])
            raise pytest.UsageError(f"expected tests that pass without a mutant, found {names}")
        calls = [(set(map(tuple, called)), seconds) for called, seconds in answer["calls"]]
        live = self._live_functions()
        caches = [one for one in gc.get_objects() if type(one) is functools._lru_cache_wrapper]
        # A collection in a process that was forked would copy all memory.
        gc.freeze()
        for mutant in self.mutants:
            name = (str(mutant.path), mutant.function)
            tests = sorted(
                (seconds, place) for place, (called, seconds) in enumerate(calls) if name in called
            )
            times, more = _MORE_CPU
            limit = more + times * sum(seconds for seconds, _ in tests)
            items = [session.items[place] for _, place in tests]
            code, _, seconds = self._forked(
                functools.partial(self._try, mutant, live, caches, items), limit
            )
            self.done(mutant, _outcome(code), len(items), seconds)
        gc.unfreeze()
        return True

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """Note what a fixture calls, for all tests that need it and not the first alone."""
        before, self.called = self.called, set()
        yield
        self.by_fixture[fixturedef.argname] |= self.called
        self.called |= before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure, or end the process of a mutant with it."""
        if report.failed:
            if self.stops:
                os._exit(1)
            self.failed.append(report.nodeid)

    def _forked(self, call: Callable[[], Any], cpu: float | None) -> tuple[int, Any, float]:
        """Return the exit code of a process, what a call returned in it, and its CPU seconds."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        # Examples that another mutant failed with.
        shutil.rmtree(os.environ["HYPOTHESIS_STORAGE_DIRECTORY"], ignore_errors=True)
        pid = os.fork()
        if not pid:
            code = _BROKEN
            try:
                os.setsid()
                null = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):
                    os.dup2(null, stream)
                if cpu:
                    signal.alarm(_STUCK)
                    resource.setrlimit(resource.RLIMIT_CPU, (round(cpu), round(cpu) + 5))
                    pages = int(Path("/proc/self/statm").read_text().split()[0])
                    most = pages * resource.getpagesize() + _MEMORY
                    resource.setrlimit(resource.RLIMIT_AS, (most, most))
                answer.write_text(json.dumps(call()))
                code = 0
            finally:
                os._exit(code)
        _, status, used = os.wait4(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        value = json.loads(answer.read_text()) if answer.exists() else None
        return code, value, used.ru_utime + used.ru_stime

    def _run_all(self, items: list[pytest.Item]) -> dict[str, Any]:
        """Run all tests; return which failed, what each calls and how long it takes."""
        seconds, calls = [], []

        def trace(frame: FrameType, event: str, arg: Any) -> None:
            code = frame.f_code
            if code.co_filename in self.files:
                self.called.add((code.co_filename, code.co_qualname.partition(".<locals>")[0]))

        threading.settrace(trace)
        sys.settrace(trace)
        start = time.process_time()
        for _ in _run(items):
            seconds.append(time.process_time() - start)
            calls.append(self.called)
            self.called, start = set(), time.process_time()
        sys.settrace(None)
        for item, called in zip(items, calls, strict=True):
            for name in getattr(item, "fixturenames", ()):
                called |= self.by_fixture[name]
        timed = zip(map(sorted, calls), seconds, strict=True)
        return {"failed": self.failed, "calls": list(timed)}

    def _live_functions(self) -> dict[tuple[str, str, int], list[FunctionType]]:
        """Return the functions of the modules, also those in decorators, by file, name and line."""
        live = defaultdict(list)
        for one in gc.get_objects():
            if type(one) is FunctionType and one.__code__.co_filename in self.files:
                code = one.__code__
                live[code.co_filename, code.co_qualname, code.co_firstlineno].append(one)
        return live

    def _try(self, mutant: Mutant, live: Any, caches: list, items: list[pytest.Item]) -> None:
        self.stops = True
        before = _codes(mutant.path.read_text("utf-8"), mutant.path)[mutant.function]
        changed = 0
        for old, new in zip(before, mutant.codes(), strict=True):
            for function in live[str(mutant.path), mutant.function, old.co_firstlineno]:
                function.__code__ = new
                changed += 1
        if items and not changed:
            raise LookupError(f"expected {mutant.function} in memory, found none")
        for cache in caches:
            # What was computed while tests were collected.
            cache.cache_clear()
        for _ in _run(items):
            pass


def _run(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Run tests; yield each after it was run."""
    for place, item in enumerate(items):
        following = items[place + 1] if place + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        yield item


def _outcome(code: int) -> str:
    if code == _BROKEN:
        return "broken"
    if code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL):
        return _TIMEOUT
    return _KILLED if code else _SURVIVED


def try_area(area: str, options: argparse.Namespace) -> None:
    """Try a sample of an area's mutants, or those that survived before; add figures of each."""
    sources, modules = AREAS[area]
    paths = [
        path
        for source in sources
        for path in sorted((ROOT / source).rglob("*.py")) or [ROOT / source]
    ]
    made = [change for path in paths for change in changes(path)]
    random.Random(options.seed).shuffle(made)
    if options.again:
        left = {key: rows for key, rows in _tried(options.figures).items()
                if rows[-1]["area"] == area and rows[-1]["outcome"] == _SURVIVED}  # fmt: skip
        functions = {key[:2] for key in left}
        some = [one for one in made if (_name(one.path), one.function) in functions]
        tried = {_key(one): one for one in _valid(some) if _key(one) in left}
    else:
        left = {}
        tried = {_key(one): one for one in itertools.islice(_valid(made), options.tries)}
    print(f"{area}: {len(made)} mutants, {len(tried)} of them tried", flush=True)
    killed = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(options.figures.open("a", encoding="utf-8"))

        def done(mutant: Mutant, outcome: str, tests: int, seconds: float) -> None:
            nonlocal killed
            killed += outcome in _CAUGHT
            row = {
                "area": area, "made": len(made), "path": _name(mutant.path), "line": mutant.line,
                "function": mutant.function, "diff": mutant.diff, "outcome": outcome,
                "tests": tests, "seconds": round(seconds, 2),
            }  # fmt: skip
            print(json.dumps(row), file=file, flush=True)
            if outcome not in _CAUGHT:
                where = f"{row['path']}:{mutant.line} {mutant.function}"
                print(f"\n{where} {outcome} {tests} tests\n{mutant.diff}", flush=True)

        for key in left.keys() - tried.keys():
            # Its line is not there any more.
            print(json.dumps(left[key][-1] | {"outcome": _GONE}), file=file)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{folder}/hypothesis"
        asked = [*sources, *(f"tests/test_{module}.py" for module in modules.split())]
        arguments = ["-q", "-s", "--hypothesis-seed=0"]
        trial = Trial([*tried.values()], done, Path(folder))
        code = pytest.main([*arguments, f"--basetemp={folder}/tests", *asked], plugins=[trial])
    if code:
        sys.exit(int(code))
    print(f"\n{area}: {killed} of {len(tried)} killed", flush=True)


def _valid(changes: Iterable[Change]) -> Iterator[Mutant]:
    return filter(None, (change.mutant() for change in changes))


def _key(mutant: Mutant) -> _Key:
    return _name(mutant.path), mutant.function, mutant.diff


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tried(figures: Path) -> dict[_Key, list[dict[str, Any]]]:
    """Return the figures of each mutant, the oldest first."""
    tried = defaultdict(list)
    for row in map(json.loads, figures.read_text("utf-8").splitlines()):
        tried[row["path"], row["function"], row["diff"]].append(row)
    return tried


def table(figures: Path) -> str:
    """Return the table of the documentation."""
    lines = ["| area | mutants | tried | killed at first | killed now |", "|---|---|---|---|---|"]
    tried = list(_tried(figures).values())
    for area in AREAS:
        rows = [one for one in tried if one[0]["area"] == area]
        first = [one[0]["outcome"] in _CAUGHT for one in rows]
        now = [one[-1]["outcome"] in _CAUGHT for one in rows if one[-1]["outcome"] != _GONE]
        if rows:
            lines.append(
                f"| {area} | {rows[0][0]['made']:,} | {len(first)} | "
                f"{sum(first)} ({np.mean(first):.0%}) | "
                f"{sum(now)} of {len(now)} ({np.mean(now):.0%}) |"
            )
    return "\n".join(lines)


def main() -> None:
    """Try mutants, or print the table of the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("areas", nargs="*", help=f"of {', '.join(AREAS)}; all if none is named")
    parser.add_argument("--tries", type=int, default=150, help="mutants of each area")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", action="store_true", help="try those that survived before")
    parser.add_argument("--table", action="store_true", help="print the table of the figures")
    parser.add_argument(
        "--figures", type=Path, default=ROOT / "build" / "mutants.jsonl", help="of all so far"
    )
    options = parser.parse_args()
    if unknown := {*options.areas} - AREAS.keys():
        parser.error(f"expected areas among {', '.join(AREAS)}, found {', '.join(unknown)}")
    if options.table:
        print(table(options.figures))
        return
    for area in options.areas or AREAS:
        try_area(area, options)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
