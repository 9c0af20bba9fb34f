"""The store: a folder of artifacts, which hold the results of stages."""

from __future__ import annotations

import contextlib
import glob
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from fsasd.runtime.joint import BusyError, Joint
from fsasd.runtime.ranks import rank
from fsasd.store.atomic import is_read_only
from fsasd.store.building import build_in, is_built, partial_path, publish
from fsasd.store.differences import count_differences, differences, limited, without
from fsasd.store.key import KEY, Description, section_folder
from fsasd.store.listing import COLLECTED, lock_path
from fsasd.store.locks import file_lock
from fsasd.store.provenance import PROVENANCE, Provenance, StoreError
from fsasd.store.registry import register
from fsasd.store.verifying import damage_of

log = logging.getLogger(__name__)


class Store:
    """A folder of artifacts, each under a key that is made of everything that determines it.

    An artifact is built in ``<key>.partial`` and renamed when it is complete: what has its final
    name is whole. A build that was interrupted finds its partial folder again and may go on in it.
    Jobs that need an artifact which another job builds wait for that one. Files are read-only, and
    compared with the artifact's provenance when a process first uses it.

    With several ranks, the first one holds the lock and decides; the others build with it.

    Args:
        root: Folder of the store; created when the first artifact is built.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> wanted = Description("compute", 1, {"question": 1})
    >>> def build(folder): _ = (folder / "answer").write_text("42")
    >>> artifact = store.build(wanted, build)
    >>> artifact == store.find(wanted), (artifact / "answer").read_text()
    (True, '42')
    >>> store.why(Description("compute", 1, {"question": 2}))
    ['question 1 -> 2']
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        self._asked: dict[str, Description] = {}

    def path(self, wanted: Description) -> Path:
        """Return where an artifact is, built or not."""
        self._asked[wanted.key] = wanted
        return self.root / wanted.folder

    def find(self, wanted: Description) -> Path | None:
        """Return an artifact that is whole, or None. Nothing is written.

        Its files are compared with its provenance, once in a process; what is damaged is logged.

        Args:
            wanted: What determines it.
        """
        path = self.path(wanted)
        if not path.is_dir():
            return None
        if damage := damage_of(path):
            log.error("%s: %s is damaged and not used: %s", wanted.title, path, damage)
            return None
        return path

    def build(
        self,
        wanted: Description,
        build: Callable[[Path], object],
        *,
        again: bool = False,
        since: str = "",
        together: bool = False,
        wait: bool = True,
        logged: bool = True,
    ) -> Path:
        """Return an artifact, which is built if the store does not hold it whole.

        Args:
            wanted: What determines it.
            build: Fills the folder that it is given. The folder may hold what an interrupted build
                has left.
            again: Build also what is there, from an empty folder.
            since: With ``again``, what was begun after this time (UTC in ISO 8601) is used
                nevertheless: another job of the same command has built it again.
            together: All ranks ask, and build together. Otherwise one process builds, whichever
                asks first.
            wait: Wait for another job that is building it.
            logged: Whether the log says that it is built and why, or that it is there.

        Raises:
            BusyError: Another job is building it, and is not waited for.
            StoreError: It is not there, and the store cannot be written.
        """
        path = self.path(wanted)
        joint = Joint(str(wanted.folder)) if together else None
        if joint and rank() > 0:
            joint.follow(lambda: build(partial_path(path)))
            return path
        with joint or contextlib.nullcontext():
            reused = self.find(wanted) is not None and not (again and self.is_older(path, since))
            if not reused:
                with self._locked(path, wanted, wait):
                    # Another job may have built it meanwhile.
                    reused = path.is_dir() and damage_of(path) is None
                    reused = reused and not (again and self.is_older(path, since))
                    if not reused:
                        self._build(
                            path, wanted, joint.of(build) if joint else build, again, logged
                        )
        if reused and logged:
            log.info("%s: reusing %s", wanted.title, path)
        return path

    def why(self, wanted: Description, ignoring: Collection[str] = ()) -> list[str]:
        """Return what an artifact differs in from the nearest one of its stage and section.

        Args:
            wanted: What determines it.
            ignoring: Entries of ``spec`` that are not compared, with dots for those within others.

        Returns:
            Lines such as ``trainer.max_steps 400 -> 800``, at most a few; empty where the store
            holds none, or the artifact itself.
        """
        path = self.path(wanted)
        if (left := path.with_name(path.name + COLLECTED)).is_file() and not path.exists():
            with contextlib.suppress(StoreError):
                return [f"it was collected {Provenance.read(left).collected}"]
        if path.is_dir():
            damage = damage_of(path)
            return [f"it is damaged: {damage}"] if damage else []
        new = _compared(wanted, ignoring)
        candidates = [
            (count_differences(_compared(there.description, ignoring), new), there)
            for there in self._provenances(wanted.stage, wanted.section)
        ]
        if not candidates:
            return []
        least = min(count for count, _ in candidates)
        nearest = max((there for n, there in candidates if n == least), key=lambda p: p.started)
        return limited(self.differences(nearest.description, wanted, ignoring))

    def differences(
        self, old: Description, new: Description, ignoring: Collection[str] = ()
    ) -> list[str]:
        """Return what two artifacts differ in, a line each; of inputs, what those differ in.

        Args:
            old: What determines one of them.
            new: What determines the other.
            ignoring: Entries of ``spec`` that are not compared.
        """
        lines = []
        for name in ("stage", "section", "version"):
            lines += differences(getattr(old, name), getattr(new, name), name)
        lines += differences(without(old.spec, ignoring), without(new.spec, ignoring))
        names = [*new.inputs, *(name for name in old.inputs if name not in new.inputs)]
        changed = [name for name in names if old.inputs.get(name) != new.inputs.get(name)]
        if len(changed) > 3:
            return [*lines, f"{len(changed)} inputs changed ({', '.join(changed[:3])}, ...)"]
        for name in changed:
            before, after = old.inputs.get(name), new.inputs.get(name)
            if before is None or after is None:
                lines.append(f"input {name} {before or '(none)'} -> {after or '(none)'}")
                continue
            known = self.description(before, old.section), self.description(after, new.section)
            inner = self.differences(known[0], known[1]) if known[0] and known[1] else []
            lines += [f"input {name}: {line}" for line in limited(inner, 3)]
            if not inner:
                lines.append(f"input {name} {before} -> {after}")
        return lines

    def newest(
        self,
        stage: str,
        version: int,
        spec: Mapping[str, Any],
        ignoring: Collection[str] = (),
        section: str = "",
    ) -> Path | None:
        """Return the artifact that was built last of those equal but for some entries.

        Inputs are not compared. What differs where there is none, ``why`` says with ``ignoring``.

        Args:
            stage: Of the artifact.
            version: Of the stage.
            spec: Settings.
            ignoring: Entries of ``spec`` that are not compared, with dots for those within others.
            section: Of the artifact.

        Returns:
            The newest that is whole; None if there is none.
        """
        asked = Description(stage, version, without(spec, ignoring), section=section)
        equal = [
            there
            for there in self._provenances(stage, section)
            if not there.collected
            and there.description.version == version
            and not differences(asked.spec, without(there.description.spec, ignoring))
        ]
        newest = sorted(equal, key=lambda there: there.started, reverse=True)
        return next(filter(None, (self.find(there.description) for there in newest)), None)

    def artifacts(self, stage: str) -> list[Path]:
        """Return the complete artifacts of a stage, of all sections and settings, by their path."""
        folder = self.root / stage
        files = [*folder.glob(f"*/{PROVENANCE}"), *folder.glob(f"*/*/{PROVENANCE}")]
        return sorted(file.parent for file in files if KEY.fullmatch(file.parent.name))

    def provenance(self, path: Path) -> Provenance:
        """Return what an artifact is and how it was built.

        Args:
            path: The artifact.

        Raises:
            FileNotFoundError: There is none.
            StoreError: Its provenance is damaged.
        """
        return Provenance.read(path / PROVENANCE)

    def description(self, key: str, section: str | None = None) -> Description | None:
        """Return what determines an artifact: one asked for before, or one in the store.

        Args:
            key: Of the artifact.
            section: Of an artifact that it is an input of: looked for first is where such inputs
                are, among those of the section and those that all machines share.

        Returns:
            None where the key is not known.
        """
        if key in self._asked:
            return self._asked[key]
        near = [f"*/{glob.escape(section_folder(section))}/{key}"] if section else []
        for pattern in (f"*/{key}", *near, f"*/*/{key}"):
            folders, records = self.root.glob(pattern), self.root.glob(pattern + COLLECTED)
            for path in [*(folder / PROVENANCE for folder in folders), *records]:
                with contextlib.suppress(OSError):
                    return Provenance.read(path).description
        return None

    def use(self, run_folder: Path, *artifacts: Description | Path) -> None:
        """Note that a run uses artifacts, which are not collected while its folder is there.

        Args:
            run_folder: Of the run.
            artifacts: What determines each, or its path; those of earlier calls are used, too.
        """
        keys = {wanted.name if isinstance(wanted, Path) else wanted.key for wanted in artifacts}
        register(self.root, run_folder, keys)

    def is_older(self, path: Path, since: str) -> bool:
        """Return whether an artifact was begun before a time.

        Args:
            path: The artifact.
            since: UTC in ISO 8601; of no time, every artifact is older.
        """
        if not since:
            return True
        began = datetime.fromisoformat(self.provenance(path).started)
        return began < datetime.fromisoformat(since)

    def _provenances(self, stage: str, section: str) -> Iterator[Provenance]:
        """Yield those of a stage and section that can be read, of collected artifacts, too."""
        folder = self.root / stage / section_folder(section)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            path = entry / PROVENANCE if KEY.fullmatch(entry.name) else entry
            if path.name == PROVENANCE or path.name.endswith(COLLECTED):
                with contextlib.suppress(OSError):
                    provenance = Provenance.read(path)
                    if provenance.description.section == section:
                        yield provenance

    @contextlib.contextmanager
    def _locked(self, path: Path, wanted: Description, wait: bool) -> Iterator[None]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Others of the user's group may lock it, too, where they may write its folder.
            lock = file_lock(lock_path(path), mode=0o664)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise BusyError(f"another job is building {path}") from None
                log.info("waiting for another job that is building %s", path)
                lock.acquire()
        except OSError as error:
            if not is_read_only(error):
                raise
            raise StoreError(
                f"{wanted.title}: {path} {_state(path)}, and cannot be built: {error.strerror}: "
                f"'{error.filename or path.parent}'. Expected a store that can be written, or one "
                "that is complete"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _build(
        self,
        path: Path,
        wanted: Description,
        build: Callable[[Path], object],
        again: bool,
        logged: bool,
    ) -> None:
        partial = partial_path(path)
        if logged:
            reasons = ["forced"] if again else self.why(wanted)
            if partial.is_dir() and not again:
                reasons.append("an unfinished build goes on")
            because = f" ({'; '.join(reasons)})" if reasons else ""
            log.info("%s: building %s%s", wanted.title, path, because)
        if again:
            shutil.rmtree(partial, ignore_errors=True)
        if not is_built(partial, wanted):
            build_in(partial, wanted, build)
        publish(partial, path)


def _state(path: Path) -> str:
    if not path.is_dir():
        return "is not in the store"
    damage = damage_of(path)
    return f"is damaged ({damage})" if damage else "is to be built again"


def _compared(description: Description, ignoring: Collection[str]) -> dict[str, Any]:
    return {**description.to_json(), "spec": without(description.spec, ignoring)}
