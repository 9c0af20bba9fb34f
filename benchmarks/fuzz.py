"""Fuzzing of readers: altered files, for as long as you like; no error but those in words.

    python -m benchmarks.fuzz --list
    python -m benchmarks.fuzz wav flac --seconds 300 --corpus corpus --figures figures.jsonl
    python -m benchmarks.fuzz --table figures.jsonl

Seconds are of the processor: other processes do not shorten a campaign. With atheris
(``pip install atheris``) what is altered next follows from the lines of fsasd that a file reaches;
with ``--plain``, from the kind and place of its error. ``--corpus`` keeps what was new for the next
campaign. A file that breaks the contract of ``readers.Reader.fault``, or ends the process, is kept
in ``<corpus>/<reader>/crashes``, and its error printed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchmarks.mutations import mutated

if TYPE_CHECKING:
    from benchmarks.readers import Reader

HANG = 2.0
"""CPU seconds beyond which a reader hangs."""

MEMORY = 64 << 20
"""Bytes that no reader takes for an input of ``_LONGEST`` bytes; beyond, the input is kept."""

_GIVEN_UP = 60.0
"""CPU seconds after which an input is given up."""

_STUCK = 900.0
"""Seconds of the clock after which it is given up, too: it waits for something."""

_ADDRESSES = 4 << 30
"""Bytes that a reader may allocate: beyond, it is a ``MemoryError``."""

_LONGEST = 1 << 16
_FOLDER = "folder"


class Hang(BaseException):
    """A reader did not end."""


@dataclass
class Campaign:
    """The inputs of one reader, and what became of them.

    Attributes:
        read: Content -> the error that it raises, if it does.
        allows: Whether an error is as it has to be.
        folder: Gets the files that break it.
        count: Number of inputs.
        crashes: Error and place in the code to the number of inputs.
        slowest: CPU seconds of the slowest input.
        hangs: Number of inputs above ``HANG``.
        memory: Largest growth of the resident memory while an input was read, in bytes.
    """

    read: Callable[[bytes], Exception | None]
    allows: Callable[[Exception], bool]
    folder: Path
    count: int = 0
    crashes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    hangs: int = 0
    memory: int = 0

    def run(self, content: bytes) -> str:
        """Read one input; return the kind and place of its error."""
        self.count += 1
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        # Other processes share the cores.
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, _GIVEN_UP)
        signal.setitimer(signal.ITIMER_REAL, _STUCK)
        error: BaseException | None
        try:
            error = self.read(content)
        except Hang as hang:
            error = hang
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.process_time() - start
        # Of the first ones, imports are a part.
        if self.count > 20:
            memory = _resident("VmHWM") - before
            self.memory = max(self.memory, memory)
            if memory > MEMORY:
                self._keep(f"above {MEMORY >> 20} MB", content, None)
            self.slowest = max(self.slowest, seconds)
            if seconds > HANG:
                self.hangs += 1
                self._keep(f"above {HANG:g} s", content, None)
        if error is None:
            return ""
        kind = _kind(error)
        if not (isinstance(error, Exception) and self.allows(error)):
            self._keep(kind, content, error)
        return kind

    def _keep(self, kind: str, content: bytes, error: BaseException | None) -> None:
        if kind not in self.crashes:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / hashlib.sha256(kind.encode()).hexdigest()[:12]
            path.write_bytes(content)
            print(f"{kind}\n  {str(error)[:300]}\n  {path}", flush=True)
        self.crashes[kind] = self.crashes.get(kind, 0) + 1

    def figures(self) -> dict[str, Any]:
        """Return the figures, as they are written to ``--figures``."""
        return {
            "inputs": self.count, "crashes": self.crashes, "hangs": self.hangs,
            "slowest": round(self.slowest, 3), "memory": self.memory,
        }  # fmt: skip


def _kind(error: BaseException) -> str:
    """Return an error's class and the last line of fsasd that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/fsasd/" in f.filename]
    place = f"{frames[-1].filename.rpartition('/fsasd/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} {place}"


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def _give_up(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {_GIVEN_UP:g} s of a CPU, or {_STUCK:g} s of the clock")


def table(paths: list[Path]) -> str:
    """Return the figures of campaigns as a table, a row for each reader, campaigns added up."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    readers: dict[str, list[dict[str, Any]]] = {}
    for campaign in map(json.loads, lines):
        readers.setdefault(campaign["reader"], []).append(campaign)
    rows = [
        "| file | inputs | CPU minutes | uncaught (kinds) | slowest (CPU s) | memory (MB) |",
        "|---|---|---|---|---|---|",
    ]
    for name, campaigns in readers.items():
        inputs, seconds = (sum(c[key] for c in campaigns) for key in ("inputs", "seconds"))
        slowest, memory = (max(c[key] for c in campaigns) for key in ("slowest", "memory"))
        crashes = [crash for c in campaigns for crash in c["crashes"].items()]
        uncaught, kinds = sum(n for _, n in crashes), len({kind for kind, _ in crashes})
        rows.append(
            f"| {name} | {inputs:,} | {seconds / 60:.1f} | "
            f"{f'{uncaught:,} ({kinds})' if uncaught else 0} | {slowest:.2f} | {memory / 1e6:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Fuzz readers, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", help="default: all")
    parser.add_argument(
        "--seconds", type=float, default=60.0,
        help="of the processor, for each reader; default: %(default)g",
    )  # fmt: skip
    parser.add_argument("--corpus", type=Path, help="keeps interesting inputs, and crashes")
    parser.add_argument("--figures", type=Path, help="gets a line of JSON for each reader")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="FIGURES", help="print these figures as a table"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--list", action="store_true", help="names of the readers")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    atheris = None
    with contextlib.ExitStack() as stack:
        if not arguments.plain:
            with contextlib.suppress(ImportError):
                import atheris
        if atheris is not None:
            stack.enter_context(atheris.instrument_imports(include=["fsasd", "json", "csv"]))
        from benchmarks.readers import READERS

        if arguments.list:
            print("\n".join(READERS))
            return
        for name in arguments.readers or READERS:
            with tempfile.TemporaryDirectory() as place:
                corpus = (arguments.corpus or Path(place)) / name.replace("/", " ")
                if (child := os.fork()) == 0:
                    _fuzz(name, READERS[name], Path(place), corpus, arguments, atheris)
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                if os.WIFSIGNALED(status):
                    kind = signal.Signals(os.WTERMSIG(status)).name
                    path = corpus / "crashes" / kind
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes((Path(place, _FOLDER) / READERS[name].file).read_bytes())
                    print(f"{name}: the process ended by {kind}\n  {path}", flush=True)


def _fuzz(
    name: str, reader: Reader, place: Path, corpus: Path, arguments: argparse.Namespace,
    atheris: Any,
) -> None:  # fmt: skip
    corpus.mkdir(parents=True, exist_ok=True)
    folder = place / _FOLDER
    folder.mkdir()
    contents = reader.seeds(folder)
    for content in contents:
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
        if error := reader.fault(folder, content):
            raise error
    campaign = Campaign(
        lambda content: reader.error(folder, content),
        lambda error: reader.allows(folder, error), corpus / "crashes",
    )  # fmt: skip
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _give_up)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESSES, resource.RLIM_INFINITY))
    start = time.process_time()

    def finished() -> bool:
        seconds = time.process_time() - start
        if seconds < arguments.seconds:
            return False
        how = "atheris" if atheris else "mutations"
        line = json.dumps(
            {"reader": name, "how": how, "seconds": round(seconds, 1), **campaign.figures()}
        )
        print(line, flush=True)
        if arguments.figures:
            with arguments.figures.open("a") as file:
                print(line, file=file)
        return True

    if atheris is None:
        _mutate(campaign, corpus, reader.words, arguments.seed, finished)
    else:
        _guide(atheris, campaign, corpus, reader.words, arguments.seed, finished)


def _mutate(
    campaign: Campaign, corpus: Path, words: tuple[bytes, ...], seed: int,
    finished: Callable[[], bool],
) -> None:  # fmt: skip
    """Alter files at random, those with an error that is new again."""
    rng, kinds = random.Random(seed), {""}
    contents = [path.read_bytes() for path in sorted(corpus.iterdir()) if path.is_file()]
    while not finished():
        content = mutated(rng.choice(contents), rng, words)[:_LONGEST]
        kind = campaign.run(content)
        if kind not in kinds:
            kinds.add(kind)
            contents.append(content)
            (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)


def _guide(
    atheris: Any, campaign: Campaign, corpus: Path, words: tuple[bytes, ...], seed: int,
    finished: Callable[[], bool],
) -> None:  # fmt: skip
    """Alter files as libFuzzer finds that they reach more of the code; it ends the process."""

    def one(content: bytes) -> None:
        if finished():
            os._exit(0)
        campaign.run(content)

    def mutator(content: bytes, longest: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(content, longest)
        return mutated(content, random.Random(seed), words)[:longest]

    options = [
        f"-seed={seed + 1}", f"-max_len={_LONGEST}", "-timeout=0", "-rss_limit_mb=0",
        "-verbosity=0", "-handle_segv=0", "-len_control=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
