"""Jobs of sweeps and the launchers that run them."""

from __future__ import annotations

from hydra.conf import HydraConf
from hydra.types import RunMode

_ONE_BY_ONE = "BasicLauncher"
_WITH_A_SHARE = "SlurmLauncher"
"""It asks for cores, memory and GPUs for each job, which has them for itself."""


def parallel(hydra_config: HydraConf) -> str:
    """Return the launcher that runs jobs of this sweep side by side on one machine.

    Args:
        hydra_config: Hydra's own part of the configuration.

    Returns:
        Its name as in ``hydra/launcher=joblib``; empty where this is no sweep, where jobs run one
        after the other, and where SLURM gives each job a share of the machine.
    """
    launcher = hydra_config.launcher["_target_"].rpartition(".")[2]
    alone = launcher in (_ONE_BY_ONE, _WITH_A_SHARE)
    if hydra_config.mode != RunMode.MULTIRUN or alone:
        return ""
    return str(hydra_config.runtime.choices["hydra/launcher"])
