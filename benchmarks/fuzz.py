"""Fuzzing of readers: altered files, for as long as you like; no error but those in words.

    python -m benchmarks.fuzz --list
    python -m benchmarks.fuzz wav flac --seconds 300 --corpus corpus

With atheris (``pip install atheris``) what is altered next follows from the lines of fsasd that a
file reaches; without, from the kind of its error. A file that breaks the contract of
``readers.Reader.fault`` is kept in ``<corpus>/<reader>/crashes``, and its error printed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
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

_GIVEN_UP = 60.0
"""Seconds of the clock."""

_ADDRESSES = 4 << 30
"""Bytes that a reader may allocate: beyond, it is a ``MemoryError``."""

_LONGEST = 1 << 16


class Hang(BaseException):
    """A reader did not end."""


@dataclass
class Campaign:
    """The inputs of one reader, and what became of them.

    Attributes:
        fault: Content -> the error that breaks the contract, if one does.
        folder: Gets the files that break it.
        count: Number of inputs.
        crashes: Error and place in the code to the number of inputs.
        slowest: CPU seconds of the slowest input.
        hangs: Number of inputs above ``HANG``.
        memory: Largest growth of the resident memory while an input was read, in bytes.
    """

    fault: Callable[[bytes], BaseException | None]
    folder: Path
    count: int = 0
    crashes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    hangs: int = 0
    memory: int = 0

    def run(self, content: bytes) -> str:
        """Read one input; return the kind of its outcome."""
        self.count += 1
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        # Other processes share the cores.
        start = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, _GIVEN_UP)
        error: BaseException | None
        try:
            error = self.fault(content)
        except Hang as hang:
            error = hang
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.process_time() - start
        # Of the first ones, imports are a part.
        if self.count > 20:
            self.memory = max(self.memory, _resident("VmHWM") - before)
            self.slowest = max(self.slowest, seconds)
            if seconds > HANG:
                self.hangs += 1
                self._keep(f"{seconds:.1f} s", content, None)
        if error is None:
            return ""
        kind = _kind(error)
        self._keep(kind, content, error)
        return kind

    def _keep(self, kind: str, content: bytes, error: BaseException | None) -> None:
        if kind not in self.crashes:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / hashlib.sha256(kind.encode()).hexdigest()[:12]
            path.write_bytes(content)
            print(f"{kind}\n  {str(error)[:300]}\n  {path}", flush=True)
        self.crashes[kind] = self.crashes.get(kind, 0) + 1

    def summary(self) -> str:
        """Return the figures in a line."""
        return (
            f"{self.count:,} inputs, {sum(self.crashes.values()):,} uncaught of "
            f"{len(self.crashes)} kinds, {self.hangs} above {HANG:g} s, "
            f"slowest {self.slowest:.2f} s, memory +{self.memory / 1e6:.0f} MB"
        )


def _kind(error: BaseException) -> str:
    """Return an error's class and the last line of fsasd that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/fsasd/" in f.filename]
    place = f"{frames[-1].filename.rpartition('/fsasd/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} {place}"


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def _give_up(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {_GIVEN_UP:g} s")


def main() -> None:
    """Fuzz readers, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--corpus", type=Path, help="keeps interesting inputs, and crashes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--list", action="store_true", help="names of the readers")
    arguments = parser.parse_args()
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
            if (child := os.fork()) == 0:
                with tempfile.TemporaryDirectory() as place:
                    corpus = (arguments.corpus or Path(place)) / name.replace("/", " ")
                    _fuzz(name, READERS[name], Path(place), corpus, arguments, atheris)
                os._exit(0)
            os.waitpid(child, 0)


def _fuzz(
    name: str, reader: Reader, place: Path, corpus: Path, arguments: argparse.Namespace,
    atheris: Any,
) -> None:  # fmt: skip
    corpus.mkdir(parents=True, exist_ok=True)
    folder = place / "folder"
    folder.mkdir()
    contents = reader.seeds(folder)
    for content in contents:
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
        if error := reader.fault(folder, content):
            raise error
    campaign = Campaign(lambda content: reader.fault(folder, content), corpus / "crashes")
    signal.signal(signal.SIGALRM, _give_up)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESSES, resource.RLIM_INFINITY))
    start, cpu = time.monotonic(), time.process_time()

    def finished() -> bool:
        if time.monotonic() < start + arguments.seconds:
            return False
        how = "atheris" if atheris else "mutations"
        busy = f"{arguments.seconds:g} s ({time.process_time() - cpu:.0f} s of a CPU)"
        print(f"{name}: {campaign.summary()}, {busy} with {how}", flush=True)
        return True

    if atheris is None:
        _mutate(campaign, contents, reader.words, arguments.seed, finished)
    else:
        _guide(atheris, campaign, corpus, reader.words, arguments.seed, finished)


def _mutate(
    campaign: Campaign, contents: list[bytes], words: tuple[bytes, ...], seed: int,
    finished: Callable[[], bool],
) -> None:  # fmt: skip
    """Alter files at random, those with a new kind of error again."""
    rng, kinds = random.Random(seed), {""}
    while not finished():
        content = mutated(rng.choice(contents), rng, words)[:_LONGEST]
        kind = campaign.run(content)
        if kind not in kinds:
            kinds.add(kind)
            contents.append(content)


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
