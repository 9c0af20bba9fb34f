"""Sweeps through Hydra's launchers, whose processes have loaded nothing of fsasd."""

import importlib.util
import os
import subprocess
import sys

import pandas as pd
import pytest

PACKAGES = {"joblib": "joblib", "submitit_local": "submitit", "ray": "ray"}

SCRIPT = "import sys; from fsasd.cli.commands import fsasd; sys.exit(fsasd())"
"""As installed."""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", PACKAGES)
def test_jobs_share_folder_store_and_beginning(tmp_path, launcher):
    if importlib.util.find_spec(f"hydra_plugins.hydra_{PACKAGES[launcher]}_launcher") is None:
        pytest.skip(f"hydra-{PACKAGES[launcher]}-launcher is not installed")
    command = [
        sys.executable, "-c", SCRIPT, "-m", f"hydra/launcher={launcher}",
        "data=factory_tiny", "generator=none", "detector=knn", "detector.k=1,2",
        "stages=[detect]", "hydra.job.chdir=true",
    ]  # fmt: skip
    if launcher == "submitit_local":
        command += ["hydra.launcher.timeout_min=5"]
    if launcher == "ray":
        command += ["+hydra.launcher.ray.init.num_cpus=1"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FSASD")}
    environment |= {"OMP_NUM_THREADS": "1", "RAY_DISABLE_MEMORY_MONITOR": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (path for path in (tmp_path / "outputs").iterdir() if path.name != "store")
    table = pd.read_csv(folder / "sweep.csv")
    assert table["detector.k"].tolist() == [1, 2]
    assert table["reason"].isna().all()
    assert (tmp_path / "outputs" / "store").is_dir()
    assert not list(folder.glob("*/outputs"))
