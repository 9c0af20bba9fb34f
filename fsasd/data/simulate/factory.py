"""From machines to recordings: room, microphone, background, level, files and tables."""

import difflib
import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile

from fsasd.data.simulate.machines import MACHINES, Domain, Machine, Operation
from fsasd.data.simulate.physics import MICROPHONES, Array

FACTORY_VERSION = 1
"""To be raised when the same seed would give other bytes."""

Label = Literal["normal", "anomaly"]

DOMAINS: tuple[Domain, ...] = ("source", "target")
LABELS: tuple[Label, ...] = ("normal", "anomaly")

_BACKGROUND = {"source": 0.15, "target": 0.22}  # RMS; a machine has about 1 at a distance of 1 m


def _background(run: Operation) -> Array:
    """Ventilation and, now and then, a distant clank that has nothing to do with the machine."""
    clanks = run.chance(0.15)
    modes = sum(
        run.ring(clanks, run.rng.uniform(500, 5000), run.rng.uniform(0.01, 0.05)) for _ in range(3)
    )
    return run.drift(0.1) * run.noise(50, 6000, slope=-4) + 4 * modes


def simulate(
    machine: str,
    attributes: Mapping[str, str],
    label: Label,
    rng: np.random.Generator,
    seconds: float,
    *,
    sample_rate: int = 16000,
    domain: Domain = "source",
) -> npt.NDArray[np.float32]:
    """One recording of a simulated machine.

    An anomalous clip has one of the machine's faults with a severity uniform in 0.1 to 1, so some
    are hard to hear. The domain sets only the level of the factory noise; the rest of the domain
    shift is in the attributes.

    Args:
        machine: a key of `MACHINES`.
        attributes: one of the machine's values for each of its keys.
        label: ``"normal"`` or ``"anomaly"``.
        rng: source of everything random about the clip.
        seconds: duration, at least 0.5.
        sample_rate: in Hz, at least 16000.
        domain: ``"source"`` or ``"target"``.

    Returns:
        The clip, shape ``(samples,)``, full scale 1.

    Raises:
        ValueError: where an argument is none of those.

    Example:
        >>> point = {"spd": "1200", "load": "1", "mic": "1"}
        >>> clip = simulate("fan", point, "normal", np.random.default_rng(0), seconds=1.0)
        >>> clip.shape, clip.dtype.name, bool(0.01 < clip.std() < 0.2)
        ((16000,), 'float32', True)
    """
    model = _machine(machine)
    _check_point(machine, attributes)
    if label not in LABELS:
        raise ValueError(f"label must be one of {LABELS}, got {label!r}")
    if domain not in DOMAINS:
        raise ValueError(f"domain must be one of {DOMAINS}, got {domain!r}")
    if sample_rate < 16000:
        raise ValueError(
            f"sample_rate must be at least 16000, got {sample_rate}: modes reach 6 kHz"
        )
    _check_seconds(seconds)
    fault = str(rng.choice(model.faults)) if label == "anomaly" else ""
    severity = rng.uniform(0.1, 1.0) if label == "anomaly" else 0.0
    run = Operation(attributes, rng, seconds, sample_rate, fault, severity)
    microphone = MICROPHONES[attributes["mic"]]
    heard = microphone.record(run.drift(0.05) * model.sound(run), sample_rate)
    level = 0.05 * 10 ** (rng.normal(0, 1.5) / 20)
    clip = level * (heard + _BACKGROUND[domain] * _background(run))
    return np.clip(clip, -1, 1).astype(np.float32)


def _machine(name: str) -> Machine:
    if name not in MACHINES:
        near = difflib.get_close_matches(name, MACHINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no simulated machine {name!r}, known are {', '.join(MACHINES)}{hint}")
    return MACHINES[name]


def _check_point(machine: str, attributes: Mapping[str, str]) -> None:
    model = MACHINES[machine]
    if set(attributes) != set(model.source):
        raise ValueError(f"{machine} has attributes {list(model.source)}, got {list(attributes)}")
    for key, value in attributes.items():
        known = dict.fromkeys(model.source[key] + model.target[key])
        if value not in known:
            raise ValueError(f"{machine} runs at {key} {', '.join(known)}, got {value!r}")


def _check_seconds(seconds: float) -> None:
    if not 0.5 <= seconds < float("inf"):
        raise ValueError(f"seconds must be finite and at least 0.5, got {seconds}")


@dataclass(frozen=True)
class _Clip:
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

    def write(self, path: Path, seed: int, seconds: float) -> None:
        key = f"{self.machine}/{self.split}/{self.domain}/{self.label}/{self.index}"
        rng = _generator(seed, key)
        clip = simulate(self.machine, self.attributes, self.label, rng, seconds, domain=self.domain)
        soundfile.write(path, clip, 16000, subtype="PCM_16")


def _generator(seed: int, key: str) -> np.random.Generator:
    """A stream of its own for every key, whatever else is drawn."""
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
) -> Path:
    """Write a simulated data set in the layout of DCASE 2023 Task 2, one section per machine.

    Reference machines go to ``dev_data`` with labels in their test names; target machines to
    ``eval_data`` with anonymous test names in shuffled order and the answers in ``ground_truth``.
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
    _check_seconds(seconds)
    if root.exists():
        raise FileExistsError(f"{root} exists: delete it, or write the factory elsewhere")
    partial = root.with_name(root.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    for machine in (*references, *targets):
        sizes = {"source": train_clips - target_domain_clips, "target": target_domain_clips}
        train = [
            _Clip(machine, "train", domain, "normal", index)
            for domain in DOMAINS
            for index in range(sizes[domain])
        ]
        test = [
            _Clip(machine, "test", domain, label, index)
            for domain, label, index in itertools.product(DOMAINS, LABELS, range(test_clips))
        ]
        if machine in references:
            _write_machine(partial / "dev_data" / machine, train, _by_name(test), seed, seconds)
        else:
            hidden = _anonymous(test, _generator(seed, f"{machine}/order"))
            _write_machine(partial / "eval_data" / machine, train, hidden, seed, seconds)
            _write_ground_truth(partial / "ground_truth", machine, hidden)
    partial.replace(root)
    return root


def _check_machines(references: Sequence[str], targets: Sequence[str]) -> None:
    machines = [*references, *targets]
    if not machines:
        raise ValueError("a factory needs at least one machine, got no reference and no target")
    for machine in machines:
        _machine(machine)
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
    folder: Path, train: Sequence[_Clip], test: Mapping[str, _Clip], seed: int, seconds: float
) -> None:
    """Clips of both splits, and the table of all attributes that the file names give away."""
    for split, named in (("train", _by_name(train)), ("test", test)):
        (folder / split).mkdir(parents=True)
        for name, clip in named.items():
            clip.write(folder / split / f"{name}.wav", seed, seconds)
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


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
