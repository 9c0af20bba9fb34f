"""The memo of a run: what is left of it, and all that makes it another run."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import commands
import pytest
from hydra import compose, initialize_config_module

from fsasd.cli.recall import memo_of
from fsasd.cli.run import run
from fsasd.pipeline import memo as module
from fsasd.pipeline import named_files
from fsasd.pipeline.memo import Memo
from fsasd.pipeline.presence import LOCK, Presence
from fsasd.pipeline.run_folder import UNREADABLE, link, note, point
from fsasd.report.results import FAILED, Results
from fsasd.store import verifying
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE
from fsasd.store.store import Store

pytestmark = pytest.mark.slow

WANTED = Description("detect", 1, {"k": 1}, section="fan section 00")
PAGE = "<title>{name} · fsasd</title><h1>{name}</h1><dt>Date</dt><dd>{date}</dd>"


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    """Files of a test are younger than those of a data set."""
    monkeypatch.setattr(named_files, "_SETTLED", 0)


class World:
    """A store, a data set, and runs that leave a table, a page and a copy of an artifact."""

    def __init__(self, root):
        self.root = root
        self.store = Store(root / "store")
        self.data = root / "data"
        self.elsewhere = root / "elsewhere.wav"
        for path in (self.data / "fan" / "a.wav", self.data / "b.csv", self.elsewhere):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("sound")
        (root / "weights.ckpt").write_text("weights")
        self.settings = {
            "stages": ["detect", "report"], "plan": False, "force": [], "frozen": [], "seed": 0,
            "data": {"_target_": "fsasd.data.datamodule.FirstShotDataModule.from_dcase",
                     "root": str(self.data), "cache": str(root / "store/features")},
            "pipeline": {"detect": {"_target_": "fsasd.pipeline.stages.detect.plan"}},
            "generator": {"_target_": "fsasd.generation.audioldm.AudioLDM",
                          "checkpoint": str(root / "weights.ckpt")},
            "logger": {"_target_": "lightning.pytorch.loggers.CSVLogger"},
        }  # fmt: skip
        self.others = {"overrides": ["seed=0"], "choices": {"data": "dcase"}}

    def memo(self, name="again"):
        folder = self.root / "runs" / name
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
        verifying.forget()
        return Memo(self.store, self.settings, folder, self.others)

    def build(self, **options):
        def build(folder):
            (folder / "model").mkdir()
            (folder / "model" / "arrays").write_text("arrays")

        return self.store.build(WANTED, build, **options)

    def run(self, name="first"):
        memo = self.memo(name)
        memo.watch([self.elsewhere, self.store.root / "factory" / "c.wav"])
        with memo.warnings():
            logging.getLogger("fsasd.detection").warning("odd clips: %s", memo.folder / "clips.csv")
        artifact = self.build()
        link(artifact / "model", memo.folder, "models/fan")
        point(artifact / "model", memo.folder, "model")
        note(memo.folder, ["clips.csv"])
        (memo.folder / "clips.csv").write_text(
            "machine,section,file,label,domain,score\nfan,00,a.wav,normal,source,1\n"
        )
        (memo.folder / "captions.csv").write_text("caption\n")
        page = PAGE.format(name=name, date=module.Heading.of(memo.folder, None).date)
        (memo.folder / "report.html").write_text(page)
        # Neither is of the run's results.
        (memo.folder / "run.log").write_text("...")
        memo.remember([artifact])
        return memo.folder


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".hydra" not in path.parts and path.name != LOCK
    }


def test_an_equal_run_leaves_the_same(world, caplog):
    first = content(world.run())
    memo = world.memo()
    with caplog.at_level("INFO"):
        assert memo.recall()
    del first["run.log"]
    assert (memo.folder / "model").readlink() == world.store.path(WANTED) / "model"
    first["report.html"] = first["report.html"].replace(b"first", b"again")
    assert content(memo.folder) == first
    assert f"odd clips: {memo.folder / 'clips.csv'}" in caplog.text
    assert "all 1 artifacts are in" in caplog.text
    # Copies of artifacts are not kept twice.
    kept = world.store.root / "memo"
    assert not list(kept.rglob("arrays"))
    (memo.folder / "clips.csv").write_text("mine")
    (table,) = kept.rglob("clips.csv")
    assert table.read_text().startswith("machine,section")


def test_what_an_earlier_run_left_in_the_folder_goes(world):
    world.run()
    memo = world.memo()
    (memo.folder / "validation.csv").write_text("of another run")
    (memo.folder / "mine.txt").write_text("kept")
    note(memo.folder, ["validation.csv"])
    assert memo.recall()
    assert not (memo.folder / "validation.csv").exists()
    assert (memo.folder / "mine.txt").exists()


def test_both_artifacts_and_memo_are_in_use(world):
    world.run()
    memo = world.memo()
    assert memo.recall()
    (listed,) = [
        text
        for path in (world.store.root / "runs").iterdir()
        if str(memo.folder) in (text := path.read_text())
    ]
    assert set(json.loads(listed)["artifacts"]) == {
        path.name for path in world.store.root.glob("*/**/*") if (path / PROVENANCE).is_file()
    }


def replaced(path, text):
    """Write another text of the same length, and set the time of change back."""
    before = path.stat()
    path.chmod(0o644)
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


ANOTHER = {
    "a recording": lambda w: replaced(w.data / "fan" / "a.wav", "noise"),
    "a table": lambda w: replaced(w.data / "b.csv", "other"),
    "a new recording": lambda w: (w.data / "fan" / "c.wav").write_text("sound"),
    "a recording less": lambda w: (w.data / "fan" / "a.wav").unlink(),
    "a recording elsewhere": lambda w: replaced(w.elsewhere, "noise"),
    "a recording elsewhere less": lambda w: w.elsewhere.unlink(),
    "weights": lambda w: replaced(w.root / "weights.ckpt", "WEIGHTS"),
    "a setting": lambda w: w.settings.update(seed=1),
    "an override": lambda w: w.others["overrides"].append("trainer.max_steps=2"),
    "a choice": lambda w: w.others["choices"].update(experiment="tiny"),
    "an artifact that is gone": lambda w: shutil.rmtree(w.store.path(WANTED)),
    "an artifact that is damaged": lambda w: replaced(
        w.store.path(WANTED) / "model" / "arrays", "ARRAYS"
    ),
    "an artifact that was built again": lambda w: w.build(again=True),
    "force": lambda w: w.settings.update(force=["report"]),
    "frozen": lambda w: w.settings.update(frozen=["finetune"]),
    "a plan": lambda w: w.settings.update(plan=True),
    "an objective": lambda w: w.settings.update(objective="val/loss"),
    "a share of the sections": lambda w: w.settings.update(shard="1/2"),
    "a check": lambda w: w.settings["stages"].append("check"),
    "a report alone": lambda w: w.settings.update(stages=["report"]),
    "a logger of another kind": lambda w: w.settings.update(
        logger={"_target_": "lightning.pytorch.loggers.WandbLogger"}
    ),
    "data by a plug-in": lambda w: w.settings["data"].update(_target_="rich.A"),
    "captions by a plug-in": lambda w: w.settings["data"].update(captions={"_target_": "rich.A"}),
    "a stage of a plug-in": lambda w: w.settings["pipeline"].update(mine={"_target_": "rich.A"}),
    "a class without source": lambda w: w.settings.update(detector={"_target_": "no_such.A"}),
}


@pytest.mark.parametrize("change", sorted(ANOTHER))
def test_what_makes_it_another_run(world, change):
    world.run()
    assert world.memo("before").recall()
    ANOTHER[change](world)
    memo = world.memo()
    assert not memo.recall()
    assert [path.name for path in memo.folder.iterdir()] == [".hydra"]


@pytest.mark.parametrize("change", ["a recording elsewhere", "an artifact that was built again"])
def test_what_its_key_does_not_hold_is_remembered_anew(world, change):
    world.run()
    ANOTHER[change](world)
    assert not world.memo().recall()
    world.run("second")
    assert world.memo().recall()


def test_the_code_counts(world, monkeypatch, tmp_path):
    plugin = tmp_path / "code" / "my_detectors.py"
    plugin.parent.mkdir()
    plugin.write_text("one = 1\n")
    monkeypatch.syspath_prepend(plugin.parent)
    world.settings["detector"] = {"_target_": "my_detectors.Mine"}
    world.run()
    assert world.memo().recall()
    plugin.write_text("one = 2\n")
    module.package_code.cache_clear()
    assert not world.memo("other").recall()
    plugin.write_text("one = 1\n")
    module.package_code.cache_clear()
    assert world.memo("as it was").recall()
    package = tmp_path / "fsasd"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(module.fsasd, "__file__", str(package / "__init__.py"))
    assert not world.memo("another fsasd").recall()


def test_a_file_that_has_just_changed_may_change_unseen(world, monkeypatch):
    monkeypatch.setattr(named_files, "_SETTLED", 2_000_000_000)
    world.run()
    assert not world.memo().recall()
    assert not (world.store.root / "memo").exists()


def test_a_run_in_its_own_data_is_not_remembered(world):
    world.settings["data"]["root"] = str(world.root)
    world.run()
    assert not (world.store.root / "memo").exists()


def test_a_folder_that_links_to_one_above_it_ends(world):
    (world.data / "loop").symlink_to(world.data)
    world.run()
    assert world.memo().recall()
    ANOTHER["a new recording"](world)
    assert not world.memo("other").recall()


def test_one_of_several_ranks_recalls_nothing(world, monkeypatch):
    world.run()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not world.memo().recall()


def test_a_store_that_cannot_be_written_remembers_nothing(world, monkeypatch, caplog):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    world.build()
    monkeypatch.setattr(world.store, "build", full)
    memo = world.memo()
    with caplog.at_level("INFO"):
        memo.remember([world.store.path(WANTED)])
    assert "the run is not remembered: [Errno 28] No space left on device" in caplog.text


def test_what_is_collected_meanwhile_is_no_error(world, monkeypatch):
    world.run()
    memo = world.memo()

    def gone(source, name):
        raise FileNotFoundError(source)

    monkeypatch.setattr(memo, "_place", gone)
    assert not memo.recall()
    assert not content(memo.folder)


@pytest.mark.parametrize("gone", ["the memo", "an artifact"])
def test_what_is_written_anew_meanwhile_is_no_error(world, monkeypatch, caplog, gone):
    """Another process takes it away after it was found whole."""
    world.run()
    memo = world.memo()
    kept = memo.store.find(memo._description)
    assert kept is not None
    (memo.folder / "clips.csv").write_text("of another run")
    note(memo.folder, ["clips.csv"])
    find, path = world.store.find, world.store.path(WANTED)

    def found(wanted):
        there = find(wanted)
        shutil.rmtree(kept)
        return there

    def whole(artifact):
        shutil.rmtree(path)

    if gone == "the memo":
        monkeypatch.setattr(world.store, "find", found)
    else:
        monkeypatch.setattr(module, "damage_of", whole)
    with caplog.at_level("INFO"):
        assert not memo.recall()
    assert "what an equal run left has just gone" in caplog.text
    # Nothing was begun.
    assert (memo.folder / "clips.csv").read_text() == "of another run"


def test_an_equal_command_that_is_at_work_in_the_folder_is_not_disturbed(world):
    world.run()
    memo = world.memo()
    (memo.folder / "clips.csv").write_text("being written")
    note(memo.folder, ["clips.csv"])
    with Presence(memo.folder):
        assert not memo.recall()
    assert (memo.folder / "clips.csv").read_text() == "being written"


def write(text, folder):
    (folder / "arrays").write_text(text)


def test_sections_with_equally_large_files_get_their_own(world, monkeypatch):
    # Of files above this size the store compares the size alone.
    monkeypatch.setattr(module, "HASHED", 1, raising=False)
    memo, artifacts = world.memo("first"), []
    for number in (0, 1):
        wanted = Description("detect", 1, {"k": 1}, section=f"fan section 0{number}")
        artifact = world.store.build(wanted, partial(write, f"model {number}"))
        link(artifact, memo.folder, f"models/0{number}")
        artifacts.append(artifact)
    memo.remember(artifacts)
    again = world.memo()
    assert again.recall()
    assert [(again.folder / "models" / f"0{n}" / "arrays").read_text() for n in (0, 1)] == [
        "model 0",
        "model 1",
    ]


def test_what_an_earlier_run_lacked_in_the_folder_is_no_longer_said(world):
    world.run()
    memo = world.memo()
    for name in (FAILED, UNREADABLE):
        (memo.folder / name).write_text("machine,section,stage,reason\nfan,00,detect,full\n")
    assert memo.recall()
    assert Results(memo.folder).failed.empty
    assert not (memo.folder / UNREADABLE).exists()


def test_a_folder_of_the_store_may_be_a_link_to_another_disk(world):
    disk = world.root / "disk"
    disk.mkdir()
    world.store.root.mkdir()
    (world.store.root / "detect").symlink_to(disk)
    first = content(world.run())
    memo = world.memo()
    assert memo.recall()
    assert (memo.folder / "model" / "arrays").read_text() == "arrays"
    assert content(memo.folder).keys() == first.keys() - {"run.log"}


def test_a_link_to_elsewhere_is_not_remembered(world, caplog):
    memo = world.memo()
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    point(elsewhere, memo.folder, "model")
    with caplog.at_level("INFO"):
        memo.remember([world.build()])
    assert f"not remembered: {elsewhere} is in no artifact that the run used" in caplog.text


def cannot_be_listed(monkeypatch, folder, error):
    """Let no one list a folder, not even those to whom permissions are nothing."""
    scandir = os.scandir

    def scan(path):
        if str(path) == str(folder):
            raise error
        return scandir(path)

    monkeypatch.setattr(module.os, "scandir", scan)


def test_a_folder_of_the_data_that_may_not_be_listed_counts_by_itself(world, monkeypatch):
    closed = world.data / "lost+found"
    closed.mkdir()
    cannot_be_listed(monkeypatch, closed, PermissionError(13, "Permission denied"))
    world.run()
    assert world.memo().recall()
    closed.chmod(0o750)
    assert not world.memo("other").recall()


def test_data_that_cannot_be_read_are_not_remembered(world, monkeypatch, caplog):
    gone = FileNotFoundError(2, "No such file or directory")
    cannot_be_listed(monkeypatch, world.data / "fan", gone)
    with caplog.at_level("INFO"):
        world.run()
        assert not world.memo().recall()
    assert "the run is not remembered: [Errno 2] No such file or directory" in caplog.text
    assert not (world.store.root / "memo").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages=null", "stages=None: expected a list"),
        ("stages=1", "stages=1: expected a list"),
        ("stages=[[detect]]", "is not among the stages"),
        ("store=null", "store=None: expected a text"),
        ("store=[a]", re.escape("store=['a']: expected a text")),
        ("stages=${nothing}", "'nothing' not found"),
        ("store=${nothing}", "'nothing' not found"),
    ],
)
def test_a_setting_of_another_type_is_left_to_the_check_of_the_run(tmp_path, override, expected):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["data=factory_tiny", f"store={tmp_path}", override])
    assert memo_of(cfg, tmp_path) is None
    with pytest.raises(ValueError, match=expected):
        run(cfg, tmp_path)


ALL_REUSED = """
import sys
from fsasd.cli import commands
sys.argv = ["fsasd", *sys.argv[1:]]
assert commands.run("fsasd") is None
loaded = [name for name in ("torch", "sklearn", "scipy", "lightning", "diffusers", "transformers",
                            "matplotlib") if name in sys.modules]
sys.exit(f"imported {loaded}" if loaded else 0)
"""


@pytest.mark.nightly
def test_a_run_that_is_all_in_the_store_loads_no_torch_and_leaves_the_same(tmp_path):
    def run(folder, start=commands.run):
        command = [sys.executable, "-c", ALL_REUSED, "experiment=tiny", "generator=transforms"]
        done = start(
            [*command, f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / folder}"],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        out = done.stdout.replace(str(tmp_path / folder), "RUN")
        left = content(tmp_path / folder)
        left.pop("run.log")
        left["report.html"] = re.sub(rb"<dt>Date.*?</dd>", b"", left["report.html"])
        return done, out, left

    # In a process that has loaded what computes.
    built = run("built")
    assert "imported ['torch'" in built[0].stderr
    recalled = run("recalled", subprocess.run)
    assert recalled[0].returncode == 0, recalled[0].stderr
    assert "reusing" in recalled[0].stderr
    assert recalled[1:] == built[1:]
    # And what a run leaves that finds all artifacts, but no memo.
    shutil.rmtree(tmp_path / "store" / "memo")
    assert run("reused")[1:] == recalled[1:]
