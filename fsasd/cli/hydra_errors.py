"""Errors of Hydra, about what was typed, in one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

import yaml
from hydra._internal import utils
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig

from fsasd.cli.sweep import withdraw
from fsasd.settings.names import near

_EXTRAS = {
    "hydra/launcher/joblib": "sweep",
    "hydra/launcher/ray": "ray",
    "hydra/launcher/ray_aws": "ray",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "sweep",
}
"""Choices that come with an extra of fsasd's."""

_LAUNCHERS = ("joblib", "ray", "submitit")
"""Packages whose errors are of launchers: those of jobs are noted in their folders."""

_NO_BEST = ("Record does not exist.", "No trials are completed yet.")
"""What Optuna's storages raise where all trials have failed."""


def print_in_one_line() -> None:
    """Let Hydra print in one line what it cannot compose; ``HYDRA_FULL_ERROR=1`` shows where."""
    report = utils.run_and_report
    if getattr(report, "in_one_line", False):
        return

    def run_and_report(func: Callable[[], Any]) -> Any:
        return report(lambda: _run(func))

    run_and_report.in_one_line = True  # type: ignore[attr-defined]
    utils.run_and_report = run_and_report
    load = _naming_files(ConfigRepository.load_config)
    ConfigRepository.load_config = load  # type: ignore[method-assign]


def in_one_line(error: CompactHydraException) -> str:
    r"""Return what an error of Hydra says: what was expected, what was found, what to do.

    Args:
        error: Raised by Hydra.

    >>> in_one_line(CompactHydraException("Could not find\n  anything"))
    'Could not find anything'
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_choice(str(error.missing_cfg_file), list(error.options or ()))
    if unknown := re.match(r"Could not override '(.+?)'\.", str(error)):
        return _unknown_setting(unknown[1], error.__cause__)
    lines = [str(error)]
    if isinstance(error, OverrideParseException):
        lines.insert(0, f"{error.override}:")
    if error.__cause__ is not None and str(error.__cause__) not in lines[-1]:
        lines.append(str(error.__cause__))
    return " ".join(" ".join(lines).split())


def _run(func: Callable[[], Any]) -> Any:
    try:
        return func()
    except CompactHydraException as error:
        withdraw()
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(in_one_line(error), file=sys.stderr)
        sys.exit(1)
    except ValueError as error:
        if os.environ.get("HYDRA_FULL_ERROR") or str(error) not in _NO_BEST:
            raise
        print("the search has no best settings: no job has its objective", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        of_launcher = type(error).__module__.partition(".")[0] in _LAUNCHERS
        sweeps = not {"-m", "--multirun"}.isdisjoint(sys.argv)
        if not of_launcher or not sweeps or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(
            f"the launcher ended before its jobs: {lines[0]} Where memory is short, run fewer jobs "
            "at a time; the same command goes on (HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr
        )  # fmt: skip
        sys.exit(1)


def _naming_files(load: Callable[[ConfigRepository, str], Any]) -> Callable[..., Any]:
    """Return Hydra's reading of a file, with errors that name it: those of YAML may not."""

    def load_config(self: ConfigRepository, config_path: str) -> Any:
        try:
            result = load(self, config_path)
            if result is not None and not isinstance(result.config, DictConfig):
                raise ValueError("found a list")
            return result
        # Whatever libraries raise where they stumble over a damaged file.
        except Exception as error:
            source = self._find_object_source(config_path, ObjectType.CONFIG)
            path = f"{source.path if source else ''}/{config_path.removesuffix('.yaml')}.yaml"
            raise CompactHydraException(
                f"{path}: expected a configuration in YAML: {_reason(error)}"
            ) from None

    return load_config


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).partition("\n")[0] or type(error).__name__


def _missing_choice(choice: str, options: list[str]) -> str:
    group, _, name = choice.rpartition("/")
    if extra := _EXTRAS.get(choice):
        return f"{group}={name} is not installed: pip install 'fsasd[{extra}]'"
    if not options:
        return f"{choice}: there is no such file in the configuration"
    if group in ("hydra/launcher", "hydra/sweeper"):
        options += [c.rpartition("/")[2] for c in _EXTRAS if c.startswith(group)]
    return f"{group}={name}: there is no such choice{near(name, {*options})}"


def _unknown_setting(key: str, cause: BaseException | None) -> str:
    parent, name = getattr(cause, "parent_node", None), key.rpartition(".")[2]
    known = [str(k) for k in parent if not str(k).startswith("_")] if parent else []
    hint = near(name, known) if isinstance(parent, DictConfig) and known else "."
    return f"{key}: there is no such setting{hint}"
