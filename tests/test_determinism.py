"""The same command leaves the same files, byte for byte, in whatever process."""

import os
import re
import subprocess
import sys

import commands
import numpy as np
import pytest
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from fsasd.detectors.knn import KNN
from fsasd.detectors.twfr_gmm import TWFRGMM

pytestmark = pytest.mark.slow

COMMAND = [
    "experiment=tiny", "generator=transforms", "detector=stgram_mfn", "representation.width=0.125",
    "representation.training.seconds=0.5", "representation.training.epochs=1",
    "representation.training.batch_size=8", "trainer.enable_progress_bar=false", "store=store",
    "hydra.run.dir=run",
]  # fmt: skip

OF_THE_TIME = {
    "artifacts.csv", "cost.json", "costs.csv", "content.txt", "hydra.yaml", "provenance.json",
    "run.log",
}  # fmt: skip
"""Files of when and how fast, in a store or a run; those below say so in some of their lines."""

COST = re.compile(rb'<section id="cost".*?</section>', re.DOTALL)
LINES_OF_THE_TIME = re.compile(rb'<dt>(Date|Built)<|Scoring a clip took|^ *"(built|commit)": ')


def content(path):
    """A file without the lines of when and how fast."""
    data = path.read_bytes()
    if path.suffix not in (".html", ".json", ".md"):
        return data
    data = COST.sub(b"", data)
    return [line for line in data.splitlines() if not LINES_OF_THE_TIME.search(line)]


def files_of_a_run(folder, start, **environment):
    """What the command leaves in a folder, by name; of all runs it is the same folder."""
    here = folder / "here"
    here.mkdir()
    command = [sys.executable, "-m", "fsasd.cli.main", *COMMAND]
    start(command, cwd=here, check=True, capture_output=True, env=os.environ | environment)
    files = {
        str(path.relative_to(here)): content(path)
        for path in sorted(here.rglob("*"))
        if path.is_file()
        and path.name not in OF_THE_TIME
        # Named by the process, and by the time.
        and not {"memo", "runs"} & set(path.relative_to(here).parts)
    }
    here.rename(folder / start.__module__)
    return files


@pytest.mark.nightly
def test_a_run_has_the_same_files_in_another_process_with_another_hash_seed(tmp_path):
    first = files_of_a_run(tmp_path, commands.run)
    second = files_of_a_run(tmp_path, subprocess.run, PYTHONHASHSEED="1", OMP_NUM_THREADS="1")
    assert [name for name in first if first[name] != second.get(name)] == []
    assert second.keys() == first.keys()
    kinds = {name.rsplit(".")[-1] for name in first}
    assert {"csv", "html", "json", "npy", "safetensors", "wav"} <= kinds


@pytest.mark.parametrize("detector", [TWFRGMM(), TWFRGMM(r=0.0, smote=0.5), KNN(density=4)])
def test_the_scores_of_twfr_gmm_and_neighbours_do_not_depend_on_threads(detector, factory_clips):
    clips = factory_clips.where(machine="bearing")
    scores = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            fitted = clone(detector).fit(clips.where(split="train"))
            scores.append(fitted.score(clips.where(split="test")))
    np.testing.assert_array_equal(*scores)
