"""Jobs of sweeps and the launchers that run them: what cannot work is refused, GPUs are leased."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fsasd.cli.failures import ending_the_command
from fsasd.runtime.clusters import start_ray
from fsasd.runtime.devices import leased, visible_devices
from fsasd.runtime.launchers import begin_job

_GRID = "BasicSweeper"
_ONE_BY_ONE = "BasicLauncher"
_WITH_A_SHARE = "SlurmLauncher"
"""It asks for cores, memory and GPUs for each job, which has them for itself."""
_ON_A_CLUSTER = "RayLauncher"
_BY_RAY = (_ON_A_CLUSTER, "RayAWSLauncher")
"""Ray gives each task the GPUs that it asks for."""


class Refusals(Callback):
    """Refuses a sweep before its first job where its jobs are equal or cannot run as asked for."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Print in one line what is wrong, and exit."""
        with ending_the_command("the sweep was refused"):
            if is_grid(config.hydra):
                check_grid([*config.hydra.overrides.task])
            check_processes(config, config.hydra)
            _check_cluster(config.hydra)
            _check_store(config)


@contextlib.contextmanager
def job(cfg: DictConfig, hydra_config: HydraConf) -> Iterator[None]:
    """Run a job as its launcher allows: beside other jobs on this machine with a GPU of its own.

    Args:
        cfg: The job's configuration.
        hydra_config: Hydra's own part of it.

    Raises:
        ValueError: The launcher cannot run the job as it is asked for.
    """
    launcher = parallel(hydra_config)
    begin_job(launcher)
    check_processes(cfg, hydra_config)
    shares = launcher and _kind(hydra_config) not in _BY_RAY
    with leased() if shares else contextlib.nullcontext():
        yield


def parallel(hydra_config: HydraConf) -> str:
    """Return the launcher that runs jobs of this sweep side by side on one machine.

    Args:
        hydra_config: Hydra's own part of the configuration.

    Returns:
        Its name as in ``hydra/launcher=joblib``; empty where this is no sweep, where jobs run one
        after the other, and where SLURM gives each job a share of the machine.
    """
    alone = _kind(hydra_config) in (_ONE_BY_ONE, _WITH_A_SHARE)
    return "" if hydra_config.mode != RunMode.MULTIRUN or alone else _name(hydra_config)


def _check_cluster(hydra_config: HydraConf) -> None:
    if _kind(hydra_config) == _WITH_A_SHARE and shutil.which("srun") is None:
        raise ValueError(
            f"hydra/launcher={_name(hydra_config)}: expected a machine that submits jobs to SLURM, "
            "found no command srun here. hydra/launcher=submitit_local runs the jobs on this one"
        )


def _check_store(config: DictConfig) -> None:
    """Check that the store of all jobs has locks; one that is swept over is its jobs' to check."""
    from fsasd.store.locks import require_locks

    overrides = OverridesParser.create().parse_overrides([*config.hydra.overrides.task])
    if not any(one.key_or_group == "store" and one.is_sweep_override() for one in overrides):
        require_locks(Path(config.store))


def join_cluster(hydra_config: HydraConf) -> None:
    """Join, or start, the cluster of a sweep's jobs, where its launcher is one of Ray's.

    The launcher would do it with a setting that a running cluster refuses.

    Args:
        hydra_config: Hydra's own part of the configuration.

    Raises:
        OSError: There is none at the address.
    """
    if _kind(hydra_config) == _ON_A_CLUSTER:
        settings = OmegaConf.to_container(hydra_config.launcher["ray"]["init"], resolve=True)
        assert isinstance(settings, dict)
        start_ray(**{str(name): value for name, value in settings.items()})


def is_grid(hydra_config: HydraConf) -> bool:
    """Return whether the sweeper is Hydra's own, which runs every job whatever others return.

    Another one optimises: it chooses the settings of a job, and counts failures itself.

    Args:
        hydra_config: Hydra's own part of the configuration.
    """
    return str(hydra_config.sweeper["_target_"]).rpartition(".")[2] == _GRID


def check_grid(overrides: Sequence[str]) -> None:
    """Check that no two jobs of a grid are equal: they would be one result that counts twice.

    Args:
        overrides: Of the command line.

    Raises:
        ValueError: Names the override that has a value twice.

    >>> check_grid(["detector=knn,lof", "seed=range(3)"])
    >>> check_grid(["detector=knn,lof", "seed=0,1,0"])
    Traceback (most recent call last):
    ...
    ValueError: seed=0,1,0: expected each value once, found 0 twice: the same job would run 2 times
    """
    for override in OverridesParser.create().parse_overrides([*overrides]):
        if not override.is_discrete_sweep():
            continue
        value, count = Counter(override.sweep_string_iterator()).most_common(1)[0]
        if count > 1:
            times = "twice" if count == 2 else f"{count} times"
            raise ValueError(
                f"{override.input_line}: expected each value once, found {value} {times}: the same "
                f"job would run {count} times"
            )


def check_processes(cfg: DictConfig, hydra_config: HydraConf) -> None:
    """Check that a job which trains in several processes can start them under its launcher.

    Lightning starts the others by the command line of the first: in a worker of a launcher, that is
    the worker's.

    Args:
        cfg: The configuration.
        hydra_config: Hydra's own part of it.

    Raises:
        ValueError: It cannot; says what to do instead.
    """
    trainer = OmegaConf.to_container(cfg.trainer)
    assert isinstance(trainer, Mapping)
    devices, strategy = trainer.get("devices", "auto"), trainer.get("strategy", "auto")
    nodes = trainer.get("num_nodes") or 1
    asked = f"trainer.devices={devices} trainer.num_nodes={nodes}" if nodes > 1 else (
        f"trainer.devices={devices}"
    )  # fmt: skip
    count = _count(devices)
    if launcher := parallel(hydra_config):
        # Of all devices there are, a job has the one that it leases, but for Ray's.
        many = strategy != "auto" or (
            _kind(hydra_config) in _BY_RAY and len(visible_devices()) > 1
        )  # fmt: skip
        if nodes > 1 or (count > 1 if count else many and trainer.get("accelerator") != "cpu"):
            raise ValueError(
                f"{asked}: a job of hydra/launcher={launcher} is one process with one device. "
                "Expected trainer.devices=1; or one job at a time on all devices (without "
                "hydra/launcher); or SLURM (hydra/launcher=slurm hydra.launcher.tasks_per_node=N)"
            )
    elif _kind(hydra_config) == _WITH_A_SHARE and hydra_config.mode == RunMode.MULTIRUN and count:
        launcher = hydra_config.launcher
        tasks = launcher["tasks_per_node"]
        if (tasks, launcher["nodes"]) != (count, nodes):
            raise ValueError(
                f"{asked}: expected as many tasks as devices, found hydra.launcher.tasks_per_node="
                f"{tasks} on hydra.launcher.nodes={launcher['nodes']}: set them to {count} and "
                f"{nodes}"
            )


def _count(devices: Any) -> int:
    """Return how many devices are asked for; 0 for all there are.

    >>> [_count(devices) for devices in (2, "2", [0, 3], "0,3", "auto", -1)]
    [2, 2, 2, 2, 0, 0]
    """
    if isinstance(devices, str) and "," in devices:
        devices = [device for device in devices.split(",") if device.strip()]
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    return max(int(devices), 0) if str(devices).lstrip("-").isdecimal() else 0


def _kind(hydra_config: HydraConf) -> str:
    return str(hydra_config.launcher["_target_"]).rpartition(".")[2]


def _name(hydra_config: HydraConf) -> str:
    return str(hydra_config.runtime.choices["hydra/launcher"])
