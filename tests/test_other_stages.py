"""A stage of another package, added by the configuration alone."""

import sys
import textwrap

import commands
import pytest

STAGES = '''
import json

import numpy as np

from fsasd.pipeline.stage import Stage


class Loudness(Stage):
    """The mean level of a section's training clips, in dB."""

    name, version = "loudness", 1

    def __init__(self, clips, section, reference):
        super().__init__(section=section)
        self.clips, self.reference = clips, reference

    def spec(self):
        return {"reference": self.reference, "clips": [clip.path.name for clip in self.clips]}

    def check(self):
        if not self.reference > 0:
            raise ValueError(f"pipeline.loudness.reference={self.reference}: expected above 0")

    def build(self, folder, inputs):
        begun = folder / "begun"
        if not begun.exists():
            begun.touch()
            raise RuntimeError("power cut")
        levels = [np.sqrt(np.mean(self.clips.cache.read(clip) ** 2)) for clip in self.clips]
        level = 20 * np.log10(np.mean(levels) / self.reference)
        (folder / "loudness.json").write_text(json.dumps(round(float(level), 1)))


def plan(experiment, earlier, reference=1.0):
    return [
        Loudness(clips.where(split="train"), section, reference)
        for section, clips in experiment.sections("target").items()
    ]
'''

ADDED = [
    "experiment=tiny", "generator=none", "+pipeline.loudness._target_=my_stages.plan",
    "stages=[loudness]",
]  # fmt: skip


@pytest.fixture
def fsasd(tmp_path):
    (tmp_path / "my_stages.py").write_text(textwrap.dedent(STAGES))

    def run(*overrides):
        command = [sys.executable, "-m", "fsasd.cli.main", *ADDED, "hydra.run.dir=run", *overrides]
        done = commands.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_it_is_checked_planned_resumed_explained_and_published(fsasd, tmp_path):
    code, said = fsasd("+pipeline.loudness.reference=0")
    assert code == 1
    assert "pipeline.loudness.reference=0: expected above 0" in said
    code, said = fsasd("plan=true")
    assert code == 0
    assert "loudness" in said
    assert "pump section 00" in said
    assert "1 of 1 artifacts to build" in said
    code, said = fsasd()
    assert code == 1
    assert "power cut" in said
    code, said = fsasd()
    assert code == 0, said
    level = (tmp_path / "run/loudness/pump_section_00/loudness.json").read_text()
    assert -60 < float(level) < 0
    code, said = fsasd("+pipeline.loudness.reference=0.5")
    assert "reference 1.0 -> 0.5" in said
    code, said = fsasd("plan=true")
    assert "0 of 1 artifacts to build" in said
