"""From recordings to a data set: files, attribute tables, ground truth, the truth about faults."""

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

from fsasd.data.simulate.halls import HALLS
from fsasd.data.simulate.machine import Domain
from fsasd.data.simulate.machines import MACHINES
from fsasd.data.simulate.recording import (
    DOMAINS,
    LABELS,
    Defect,
    Label,
    check_seconds,
    draw_defect,
    draw_session,
    require_machine,
    simulate,
)
from fsasd.data.simulate.room import MACHINE_AT, MICROPHONES, ROOM

FACTORY_VERSION = 3
"""To be raised when the same seed would give other bytes."""


@dataclass(frozen=True)
class _Clip:
    seed: int
    machine: str
    split: str
    domain: Domain
    label: Label
    index: int

    @property
    def attributes(self) -> dict[str, str]:
        return MACHINES[self.machine].operating_point(self.domain, self.index)

    @property
    def name(self) -> str:
        attributes = "_".join(f"{key}_{value}" for key, value in self.attributes.items())
        group = f"{self.domain}_{self.split}_{self.label}"
        return f"section_00_{group}_{self.index:04d}_{attributes}"

    @property
    def row(self) -> str:
        pairs = ",".join(f"{key},{value}" for key, value in self.attributes.items())
        return f"{self.machine}/{self.split}/{self.name}.wav,{pairs}"

    @property
    def key(self) -> str:
        return f"{self.machine}/{self.split}/{self.domain}/{self.label}/{self.index}"

    @property
    def session(self) -> str:
        """Which session it was recorded in: five clips of each label, of one split and domain."""
        return f"{self.machine}/{self.split}/{self.domain}/session/{self.index // 5}"

    @cached_property
    def defect(self) -> Defect | None:
        if self.label == "normal":
            return None
        return draw_defect(self.machine, _generator(self.seed, f"{self.key}/defect"))

    def truth(self, path: str) -> str:
        if self.defect is None:
            return f"{path},,0,"
        rate = MACHINES[self.machine].fault_rate(self.defect.fault, self.attributes)
        shown = "" if rate is None else f"{rate:.3f}"
        return f"{path},{self.defect.fault},{self.defect.severity:.4f},{shown}"

    def write(self, path: Path, seconds: float, far_microphone: bool) -> None:
        rng = _generator(self.seed, self.key)
        condition: Label | Defect = self.defect or "normal"
        session = draw_session(_generator(self.seed, self.session))
        clip = simulate(
            self.machine, self.attributes, condition, rng, seconds,
            domain=self.domain, session=session, far_microphone=far_microphone,
        )  # fmt: skip
        soundfile.write(path, clip, 16000, subtype="PCM_16")


def _generator(seed: int, key: str) -> np.random.Generator:
    """An independent random stream for each key."""
    return np.random.default_rng(np.random.SeedSequence([seed, *key.encode()]))


def write_factory(
    root: str | Path,
    *,
    seed: int = 0,
    references: Sequence[str] = ("fan", "gearbox", "valve"),
    targets: Sequence[str] = ("bearing", "pump"),
    seconds: float = 4.0,
    train_clips: int = 60,
    target_domain_clips: int = 10,
    test_clips: int = 20,
    far_microphone: bool = False,
) -> Path:
    """Write a simulated data set in the layout of DCASE 2023 Task 2, one section per machine.

    Reference machines go to ``dev_data`` with labels in their test names; target machines to
    ``eval_data`` with anonymous test names in shuffled order and the answers in ``ground_truth``.
    Two files are there for evaluation only: ``truth.csv`` has, for every test clip, its fault,
    its severity (0 for a normal clip) and the frequency in Hz at which the fault shows (empty
    where it shows at none); ``factory.json`` has the physical parameters of the machines, the
    room and the microphones.

    A clip depends on the seed, its machine and its place in its group only: not on the number of
    clips, nor on the other machines. ``<root>.partial`` holds what is being written (and is
    emptied first), so that ``root`` is there whole or not at all.

    Args:
        root: folder to make; must not exist.
        seed: not negative; the same seed gives the same bytes.
        references: machines of the development set, keys of `MACHINES`.
        targets: machines of the evaluation set, none of them a reference.
        seconds: duration of a clip, at least 0.5.
        train_clips: normal training clips of a machine, both domains together.
        target_domain_clips: how many of the training clips are of the target domain.
        test_clips: test clips for each domain and label, so four times as many for a machine.
        far_microphone: write two channels, near and far, as in DCASE 2026; the first is what is
            written without.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: where ``root`` exists.
        ValueError: for an unknown machine, one named twice, or an impossible count.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_factory(
        ...         f"{folder}/factory", references=(), targets=["fan"], seconds=0.5,
        ...         train_clips=2, target_domain_clips=1, test_clips=1,
        ...     )
        ...     sorted(path.name for path in (root / "eval_data/fan/train").iterdir())
        ... # doctest: +NORMALIZE_WHITESPACE
        ['section_00_source_train_normal_0000_spd_1200_load_1_mic_1.wav',
         'section_00_target_train_normal_0000_spd_1350_load_2_mic_2.wav']
    """
    root = Path(root)
    _check_machines(references, targets)
    _check_counts(seed, train_clips, target_domain_clips, test_clips)
    check_seconds(seconds)
    if root.exists():
        raise FileExistsError(f"{root} exists: delete it, or write the factory elsewhere")
    partial = root.with_name(root.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    truth = ["clip,fault,severity,rate"]
    for machine in (*references, *targets):
        sizes = {"source": train_clips - target_domain_clips, "target": target_domain_clips}
        train = [
            _Clip(seed, machine, "train", domain, "normal", index)
            for domain in DOMAINS
            for index in range(sizes[domain])
        ]
        test = [
            _Clip(seed, machine, "test", domain, label, index)
            for domain, label, index in itertools.product(DOMAINS, LABELS, range(test_clips))
        ]
        if machine in references:
            folder, named = f"dev_data/{machine}", _by_name(test)
        else:
            folder = f"eval_data/{machine}"
            named = _anonymous(test, _generator(seed, f"{machine}/order"))
            _write_ground_truth(partial / "ground_truth", machine, named)
        _write_machine(partial / folder, train, named, seconds, far_microphone)
        truth += [clip.truth(f"{folder}/test/{name}.wav") for name, clip in sorted(named.items())]
    _write_lines(partial / "truth.csv", truth)
    _write_lines(partial / "factory.json", [_parameters(seed, (*references, *targets))])
    partial.replace(root)
    return root


def _check_machines(references: Sequence[str], targets: Sequence[str]) -> None:
    machines = [*references, *targets]
    if not machines:
        raise ValueError("a factory needs at least one machine, got no reference and no target")
    for machine in machines:
        require_machine(machine)
        if machines.count(machine) > 1:
            raise ValueError(
                f"{machine} is named twice: name it once, as a reference or as a target "
                f"(references {list(references)}, targets {list(targets)})"
            )


def _check_counts(seed: int, train_clips: int, target_domain_clips: int, test_clips: int) -> None:
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if train_clips < 1:
        raise ValueError(f"train_clips must be at least 1, got {train_clips}")
    if not 0 <= target_domain_clips <= train_clips:
        raise ValueError(
            f"target_domain_clips are part of the {train_clips} train_clips, so 0 to "
            f"{train_clips}, got {target_domain_clips}"
        )
    if test_clips < 1:
        raise ValueError(f"test_clips must be at least 1, got {test_clips}")


def _by_name(clips: Sequence[_Clip]) -> dict[str, _Clip]:
    return {clip.name: clip for clip in clips}


def _anonymous(clips: Sequence[_Clip], rng: np.random.Generator) -> dict[str, _Clip]:
    order = rng.permutation(len(clips))
    return {f"section_00_{index:04d}": clips[at] for index, at in enumerate(order)}


def _write_machine(
    folder: Path,
    train: Sequence[_Clip],
    test: Mapping[str, _Clip],
    seconds: float,
    far_microphone: bool,
) -> None:
    """Clips of both splits, and the table of all attributes that the file names give away."""
    for split, named in (("train", _by_name(train)), ("test", test)):
        (folder / split).mkdir(parents=True)
        for name, clip in named.items():
            clip.write(folder / split / f"{name}.wav", seconds, far_microphone)
    listed = [*train, *(clip for name, clip in test.items() if name == clip.name)]
    keys = MACHINES[folder.name].source
    header = [f"d{i}{part}" for i in range(1, 1 + len(keys)) for part in "pv"]
    rows = [",".join(["file_name", *header]), *sorted(clip.row for clip in listed)]
    _write_lines(folder / "attributes_00.csv", rows)


def _write_ground_truth(folder: Path, machine: str, named: Mapping[str, _Clip]) -> None:
    columns: dict[str, Callable[[_Clip], object]] = {
        "data": lambda clip: LABELS.index(clip.label),
        "domain": lambda clip: DOMAINS.index(clip.domain),
        "attributes": lambda clip: clip.name,
    }
    for column, value in columns.items():
        table = folder / f"ground_truth_{column}" / f"ground_truth_{machine}_section_00_test.csv"
        _write_lines(table, [f"{name}.wav,{value(clip)}" for name, clip in named.items()])


def _parameters(seed: int, machines: Sequence[str]) -> str:
    known = {
        "simulation": True,
        "version": FACTORY_VERSION,
        "seed": seed,
        "halls": {name: asdict(hall) for name, hall in HALLS.items()},
        "room": asdict(ROOM) | {"machine_at": MACHINE_AT},
        "microphones": {name: asdict(microphone) for name, microphone in MICROPHONES.items()},
        "machines": {
            name: {
                "parts": MACHINES[name].parameters(),
                "faults": MACHINES[name].faults,
                "hall": MACHINES[name].hall,
                "strokes": MACHINES[name].strokes,
                "operating_points": {
                    "source": MACHINES[name].source,
                    "target": MACHINES[name].target,
                },
            }
            for name in machines
        },
    }
    return json.dumps(known, indent=2)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
