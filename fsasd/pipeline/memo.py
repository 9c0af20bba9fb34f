"""Memo: what a whole run has left, under all that determines it.

A run whose artifacts are all in the store would still load torch, read the data set, compute keys
and make its tables and figures anew. The memo of an equal run has the result: which artifacts it
used, and the files of its folder that are no copies of them. It is an artifact of the store itself,
of a stage ``memo``, whose key holds

- the resolved configuration, the command line's overrides and the configuration groups' choices;
- the source of fsasd and of plug-ins (``settings.code``), and versions of packages that compute;
- of each file below the folders that the data settings name, and of each weights' file that another
  setting names: path, size, times of change and inode.

Of recordings that a table lists elsewhere the memo itself holds the same. A memo is used if all of
that is as it was, and if every artifact is whole and the very one that the run used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsasd
from fsasd.pipeline.named_files import Stats, are_settled, holds, named_files, stats
from fsasd.pipeline.presence import Presence
from fsasd.pipeline.run_folder import UNREADABLE, copy, point, result_files, unlink
from fsasd.report.heading import PAGE, PAGES, Heading
from fsasd.report.results import FAILED
from fsasd.runtime.ranks import has_other_ranks
from fsasd.settings.code import KEPT_APART, package_code
from fsasd.settings.files import read_json
from fsasd.settings.objects import packages
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE, Provenance, StoreError, versions
from fsasd.store.store import Store
from fsasd.store.verifying import damage_of

log = logging.getLogger(__name__)

_VERSION = 1
_ABOUT, _FILES = "memo.json", "files"
_RUN = "<run folder>"
"""Stands for the run's folder in settings and messages."""

_BUILDING = frozenset({"synthesise", "judge", "curve", "rule", "detect"})
"""Stages whose runs begin with an empty folder: what is there at the end is theirs."""

_NOT_REMEMBERED = ("plan", "force", "frozen", "objective", "shard")
"""Settings with which a run is more, or less, than what its artifacts say."""

_FREE = frozenset({"data", "pipeline"})
"""Settings whose classes decide themselves what they read: only fsasd's are known to."""

_LOGGERS = frozenset({"lightning.pytorch.loggers.CSVLogger"})
"""Loggers that write into the folder of a stage, where one is built, and nowhere else."""


class Memo:
    """The memo of a run, there or not.

    Args:
        store: Keeps it.
        settings: The resolved configuration.
        folder: The run's folder.
        others: What else the run's files depend on: the ``overrides`` of the command line, the
            ``choices`` of groups, and the ``configuration`` before it is resolved.
    """

    def __init__(
        self, store: Store, settings: Mapping[str, Any], folder: Path, others: Mapping[str, Any]
    ) -> None:
        self.store = store
        self.folder = folder
        self._experiment = others["choices"].get("experiment")
        self._warnings: list[list[str]] = []
        self._watched: Stats = {}
        self._named: Stats = {}
        self._description: Description | None = None
        """None where the run is not one that can be remembered."""
        if not _is_usable(settings) or has_other_ranks():
            return
        try:
            self._named = named_files(settings, store.root)
        except OSError as error:
            log.info("the run is not remembered: %s", error)
            return
        if not are_settled(self._named) or holds(self._named, folder):
            return
        about = json.dumps({**settings, **others}, sort_keys=True, default=str)
        spec = {
            "settings": json.loads(about.replace(json.dumps(str(folder))[1:-1], _RUN)),
            "code": _code(settings),
            "versions": versions(),
            "files": hashlib.sha256(json.dumps(self._named).encode()).hexdigest(),
        }
        self._description = Description("memo", _VERSION, spec)

    def recall(self) -> bool:
        """Leave in the run's folder what the run would, if that is known.

        Returns:
            Whether it is. If not, the run is to be made: an earlier one's results, which it would
            take away itself, may be gone.
        """
        try:
            return self._recall()
        except FileNotFoundError as error:
            # Another process has collected it, or writes it anew.
            log.info("what an equal run left has just gone: %s", error)
            return False

    def _recall(self) -> bool:
        if self._description is None or (memo := self.store.find(self._description)) is None:
            return False
        about = read_json(memo / _ABOUT)
        artifacts = [self.store.root / name for name in about["artifacts"]]
        if stats(about["watched"]) != about["watched"]:
            return False
        if any(map(_is_other, artifacts, about["artifacts"].values())):
            return False
        with Presence(self.folder) as commands:
            # An equal command that is at work there would be disturbed.
            if not commands.first:
                return False
            self._place_all(memo, artifacts, about)
        log.info("all %d artifacts are in %s: reusing %s", len(artifacts), self.store.root, memo)
        if (page := self.folder / PAGE).is_file():
            log.info("report: %s", page)
        for name, message in about["warnings"]:
            logging.getLogger(name).warning("%s", message.replace(_RUN, str(self.folder)))
        return True

    def watch(self, paths: Iterable[Path]) -> None:
        """Note the files that the run is about to read, beside those that settings name.

        Args:
            paths: Of recordings; those in the store are verified as artifacts.
        """
        if self._description is None:
            return
        other = (str(path.absolute()) for path in paths if not self._is_stored(path))
        self._watched = stats(path for path in other if path not in self._named)
        if not are_settled(self._watched):
            self._description = None

    @contextlib.contextmanager
    def warnings(self) -> Iterator[None]:
        """Note the warnings of a part of the run that is made whatever is in the store."""
        listener = _Listener()
        logger = logging.getLogger(fsasd.__name__)
        logger.addHandler(listener)
        try:
            yield
        finally:
            logger.removeHandler(listener)
            self._warnings += listener.messages

    def remember(self, artifacts: Iterable[Path]) -> None:
        """Write the memo of a run that has ended with all its results.

        A store that cannot be written remembers nothing.

        Args:
            artifacts: All that it used.
        """
        if self._description is None:
            return
        used = list(dict.fromkeys(artifacts))
        try:
            # One that is there was not used: something else than its key has changed.
            kept = self.store.build(
                self._description,
                lambda folder: self._write(folder, used),
                again=True,
                logged=False,
            )
            self.store.use(self.folder, kept)
        except OSError as error:
            log.info("the run is not remembered: %s", error)

    def _write(self, memo: Path, used: list[Path]) -> None:
        sources = _sources(used)
        copies: dict[str, tuple[int, str]] = {}
        links: dict[str, tuple[int, str]] = {}
        for path in result_files(self.folder):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink():
                links[name] = _part(path.resolve(), used)
                continue
            if (source := sources.get(_content(path))) is not None:
                copies[name] = source
                continue
            (memo / _FILES / name).parent.mkdir(parents=True, exist_ok=True)
            copy(path, memo / _FILES / name)
        folder = str(self.folder)
        about = {
            "artifacts": {str(a.relative_to(self.store.root)): _identity(a) for a in used},
            "copies": copies,
            "links": links,
            "watched": self._watched,
            "heading": asdict(Heading.of(self.folder, self._experiment)),
            "warnings": [[name, text.replace(folder, _RUN)] for name, text in self._warnings],
        }
        (memo / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")

    def _place_all(self, memo: Path, artifacts: list[Path], about: Mapping[str, Any]) -> None:
        """Leave the files of a memo and of its artifacts in the run's folder.

        Raises:
            FileNotFoundError: One is not in the store any more.
        """
        self.store.use(self.folder, memo, *artifacts)
        unlink(self.folder)
        # A run that is remembered lacks nothing; an earlier one in this folder may have.
        for name in (FAILED, UNREADABLE):
            (self.folder / name).unlink(missing_ok=True)
        try:
            for name, (artifact, part) in about["links"].items():
                point(artifacts[artifact] / part, self.folder, name)
            # The list of what is to be taken away when a run is repeated there comes first.
            for source in sorted((memo / _FILES).rglob("*")):
                if source.is_file():
                    self._place(source, source.relative_to(memo / _FILES).as_posix())
            for name, (artifact, source) in about["copies"].items():
                self._place(artifacts[artifact] / source, name)
        except FileNotFoundError:
            unlink(self.folder)
            raise
        self._date_pages(Heading(**about["heading"]))

    def _place(self, source: Path, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(source, target)

    def _date_pages(self, heading: Heading) -> None:
        for page in [self.folder / PAGE, *self.folder.glob(f"{PAGES}/*.html")]:
            if page.is_file():
                other = Heading.of(self.folder, self._experiment)
                text = heading.replaced(page.read_text(encoding="utf-8"), other)
                page.write_text(text, encoding="utf-8")

    def _is_stored(self, path: Path) -> bool:
        # Of a link that leads to itself, pathlib has no path.
        return Path(os.path.realpath(path)).is_relative_to(self.store.root)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append([record.name, record.getMessage()])


def _is_usable(settings: Mapping[str, Any]) -> bool:
    """Return whether equal settings leave equal results."""
    stages = set(settings["stages"])
    plain = not any(settings.get(name) for name in _NOT_REMEMBERED)
    if not plain or "check" in stages or stages.isdisjoint(_BUILDING):
        return False
    if not _LOGGERS.issuperset(_classes(settings.get("logger"))):
        return False
    free = set().union(*(packages(settings.get(name)) for name in _FREE))
    named = packages(settings) - KEPT_APART
    return free <= KEPT_APART and all(map(package_code, named))


def _classes(settings: Any) -> set[str]:
    if not isinstance(settings, Mapping):
        return set()
    inner = set().union(*map(_classes, settings.values()))
    return inner | ({str(settings["_target_"])} if "_target_" in settings else set())


def _code(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the code that the run is of: fsasd's and that of plug-ins."""
    code = {name: package_code(name) for name in sorted(packages(settings) - KEPT_APART)}
    root = Path(fsasd.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return {**code, "fsasd": digest.hexdigest()}


def _identity(artifact: Path) -> str:
    return hashlib.sha256((artifact / PROVENANCE).read_bytes()).hexdigest()


def _is_other(artifact: Path, identity: str) -> bool:
    """Return whether an artifact is gone, damaged, or not the one that there was."""
    if not artifact.is_dir() or damage_of(artifact) is not None:
        return True
    return _identity(artifact) != identity


def _sources(artifacts: list[Path]) -> dict[tuple[int, str], tuple[int, str]]:
    """Return the files of artifacts by their content: number of the artifact, and name in it."""
    return {
        (file.size, file.sha256): (number, name)
        for number, artifact in enumerate(artifacts)
        for name, file in Provenance.read(artifact / PROVENANCE).files.items()
    }


def _part(path: Path, artifacts: list[Path]) -> tuple[int, str]:
    """Return which artifact a path is in, by its number, and the name in it."""
    for number, artifact in enumerate(artifacts):
        # A folder of the store may be a link to another disk.
        if path.is_relative_to(artifact.resolve()):
            return number, path.relative_to(artifact.resolve()).as_posix()
    raise StoreError(f"{path} is in no artifact that the run used")


def _content(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file: models of two sections may well be equally large."""
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
        return os.fstat(file.fileno()).st_size, content
