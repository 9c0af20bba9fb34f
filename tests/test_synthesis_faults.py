"""Faults of a synthesis: what was finished stays, and only what was not is generated again."""

import errno
import pickle
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import commands
import lightning as L
import numpy as np
import pytest
import soundfile

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.prompts import make_prompts
from fsasd.generation.synthesis import synthesise
from fsasd.generation.transforms import FaultTransforms

LEAK = {"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}}
BATCH = 2


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Eight prompts, four batches."""
    folder = tmp_path_factory.mktemp("real")
    clips = []
    for number in range(4):
        noise = 0.1 * np.random.default_rng(number).standard_normal(SAMPLE_RATE)
        soundfile.write(folder / f"{number}.wav", noise, SAMPLE_RATE)
        clips.append(Clip(folder / f"{number}.wav", "fan", label="normal"))
    return make_prompts(Clips(clips), ["The normal sound of a fan."] * 4, 4)


class Counting(FaultTransforms):
    """Counts how often each clip is generated."""

    def __init__(self):
        super().__init__(LEAK)
        self.times = Counter()

    def generate(self, prompts):
        self.times.update(prompt.wav for prompt in prompts)
        return super().generate(prompts)


def run(prompts, folder):
    generator = Counting()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder.parent,
    )  # fmt: skip
    try:
        synthesise(generator, prompts, folder, trainer, batch_size=BATCH)
    except (OSError, RuntimeError) as error:
        return generator.times, error
    return generator.times, None


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(prompts, tmp_path_factory):
    """The files of a synthesis that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "synthetic"
    _, error = run(prompts, folder)
    assert error is None
    return contents(folder)


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "one bit flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "empty": lambda content: b"",
    "deleted": None,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_recording_is_generated_again_with_its_batch_alone(
    prompts, undisturbed, tmp_path, how, caplog
):
    folder = tmp_path / "synthetic"
    run(prompts, folder)
    victim = folder / prompts[3].wav
    if DAMAGE[how] is None:
        victim.unlink()
    else:
        victim.write_bytes(DAMAGE[how](victim.read_bytes()))
    times, error = run(prompts, folder)
    assert error is None
    assert f"{victim}: missing or damaged since it was written" in caplog.text
    assert times == {prompt.wav: 1 for prompt in prompts[2:4]}
    assert contents(folder) == undisturbed


def full_at(monkeypatch, owner, name, count, after=None):
    """Let the disk be full at one call of a method."""
    method, calls = getattr(owner, name), []

    def fail(*args, **options):
        calls.append(args)
        if len(calls) != count:
            return method(*args, **options)
        if after is not None:
            after(*args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, name, fail)


def half(path, content):
    with path.open("wb") as file:
        file.write(content[:999])


WRITES = {
    "nothing of a recording": (Path, "write_bytes", 4, None),
    "half of a recording": (Path, "write_bytes", 4, half),
    "a recording without its name": (Path, "replace", 4, None),
    "the manifest": (Path, "replace", 9, None),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_costs_the_batch_at_hand_alone(
    prompts, undisturbed, tmp_path, monkeypatch, what
):
    folder = tmp_path / "synthetic"
    with monkeypatch.context() as patch:
        full_at(patch, *WRITES[what])
        _, error = run(prompts, folder)
    assert "No space left" in str(error)
    assert not list(folder.rglob("*.unfinished"))
    assert not (folder / "manifest.csv").exists()
    times, error = run(prompts, folder)
    assert error is None
    finished = 8 if what == "the manifest" else 2
    assert times == {prompt.wav: 1 for prompt in prompts[finished:]}
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("content", [b"", b"wav,machine\r\nfan", b"\xff\x00" * 99 + b"\n"])
def test_a_damaged_table_of_a_rank_blocks_nothing(prompts, undisturbed, tmp_path, content):
    folder = tmp_path / "synthetic"
    folder.mkdir()
    (folder / "rows-0.csv").write_bytes(content)
    times, error = run(prompts, folder)
    assert error is None
    assert set(times.values()) == {1}
    assert contents(folder) == undisturbed


def test_a_row_without_its_recording_is_not_finished(prompts, undisturbed, tmp_path):
    """A power failure may keep the row, and lose the file written before it."""
    folder = tmp_path / "synthetic"
    (folder / "fan").mkdir(parents=True)
    (folder / "rows-0.csv").write_bytes(undisturbed["manifest.csv"])
    times, error = run(prompts, folder)
    assert error is None
    assert len(times) == 8
    assert contents(folder) == undisturbed


SCRIPT = """
import pickle, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_synthesis_faults as faults
folder = Path(sys.argv[2])

class Slow(faults.Counting):
    def generate(self, prompts):
        with (folder.parent / "generated.txt").open("a") as file:
            file.write("".join(f"{prompt.wav}\\n" for prompt in prompts))
        time.sleep(0.05)
        return super().generate(prompts)

faults.Counting = Slow
prompts = pickle.loads((folder.parent / "prompts.pickle").read_bytes())
print("ready", flush=True)
faults.run(prompts, folder)
"""


def finished_batches(prompts, folder):
    rows = folder / "rows-0.csv"
    lines = rows.read_text().splitlines(keepends=True) if rows.is_file() else []
    names = {line.partition(",")[0] for line in lines if line.endswith("\n")}
    groups = [{p.wav for p in prompts[i : i + BATCH]} for i in range(0, len(prompts), BATCH)]
    return set().union(*(group for group in groups if group <= names))


@pytest.mark.slow
def test_killed_at_random_moments_nothing_finished_is_generated_twice(
    prompts, undisturbed, tmp_path
):
    folder, generated = tmp_path / "synthetic", tmp_path / "generated.txt"
    (tmp_path / "prompts.pickle").write_bytes(pickle.dumps(prompts))
    generated.touch()
    rng = np.random.default_rng(0)
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder)]
    for _ in range(8):
        finished, before = finished_batches(prompts, folder), generated.read_text()
        process = commands.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.communicate()
        new = set(generated.read_text().removeprefix(before).split())
        assert not new & finished
    times, error = run(prompts, folder)
    assert error is None
    assert set(times.values()) <= {1}
    assert contents(folder) == undisturbed
