import base64
import io
import json
import math
import shutil
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from browser import MODES, beyond, browser, needs_chromium, shown, violations

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_name
from fsasd.data.names import SectionId
from fsasd.detection.decision import DECISION, DECISION_FORMAT
from fsasd.detectors.knn import KNN
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.calibration import Calibration
from fsasd.evaluation.metrics import SectionMetrics, metrics_table, section_metrics
from fsasd.report import figures, listening, page
from fsasd.report.comparison import compare_settings, decisions, top_settings
from fsasd.report.console import console
from fsasd.report.headline import headline
from fsasd.report.objective import objective
from fsasd.report.page import write_report
from fsasd.report.results import Results, is_path, mark_submission
from fsasd.report.validation import verdict_of_choices

pytestmark = pytest.mark.slow

MACHINES = ("bearing", "pump")
GRID = np.linspace(0, 1.1, 12).round(2)
OPTIONAL = (
    "captions.csv", "clips.csv", "metrics.csv", "selection.csv", "real_curve.csv", "settings.csv",
    "costs.csv", "synthetic/manifest.csv", "synthetic/quality.csv", "models", ".hydra",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    clips = []
    for machine, domain, split in product(MACHINES, ("source", "target"), ("train", "test")):
        for label in ("normal", "anomaly") if split == "test" else ("normal",):
            name = f"section_00_{domain}_{split}_{label}_0000_spd_{len(domain)}00_mic_1.wav"
            clips.append(read_name(root / machine / split / name, role="target"))
            _write(clips[-1].path, seconds=1.0)
    return FirstShotDataModule(clips)


@pytest.fixture
def run(tmp_path, data):
    """A run of two machines on the factory, all of whose files are there."""
    folder = tmp_path / "run"
    clips = _clips()
    of_section = {
        (machine, "00"): section_metrics(
            group["label"] == "anomaly", group["domain"], group["score"], group["decision"]
        )
        for machine, group in clips.groupby("machine")
    }
    tables = {
        "clips": clips,
        "metrics": metrics_table(of_section, (0.61, 0.87)),
        "selection": _curve("chosen", [{"r": r} for r in GRID], best=9),
        "real_curve": _curve("oracle", [{"r": r} for r in GRID], best=5),
        "settings": _settings({"r=0": 0.6, "r=1": 0.65, "synthetic": 0.7, "oracle": 0.8}),
        "captions": data.caption_table(),
        "synthetic/manifest": _manifest(data),
        "synthetic/quality": _quality(),
        "costs": _costs(),
    }
    (folder / "synthetic").mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    for wav in tables["synthetic/manifest"]["wav"]:
        _write(folder / "synthetic" / wav, seconds=0.7)
    for name in ("scores", "models"):
        (folder / name).mkdir()
    _write_config(folder)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not drawn, which takes most of the time."""
    monkeypatch.setattr(figures, "svg", lambda figure, name: "<svg></svg>")


def _write(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).normal(0, 0.05, round(16_000 * seconds))
    soundfile.write(path, noise, 16_000, subtype="PCM_16")


def _clips():
    rng = np.random.default_rng(0)
    rows = [
        {"machine": machine, "section": "00", "label": label, "domain": domain,
         "score": rng.normal(-50 + 8 * (label == "anomaly") + 4 * (domain == "target"), 4)}
        for machine, label, domain, _ in product(
            MACHINES, ("normal", "anomaly"), ("source", "target"), range(8)
        )
    ]  # fmt: skip
    clips = pd.DataFrame(rows)
    clips.insert(2, "file", [f"section_00_{i:04d}.wav" for i in range(len(clips))])
    return clips.assign(decision=(clips["score"] > -46).astype(int), threshold=-46.0)


def _curve(mark, grid, best):
    rows = []
    for machine in MACHINES:
        for i, setting in enumerate(grid):
            auc = 0.85 - 0.02 * abs(i - best)
            rows.append(
                {"machine": machine, "section": "00",
                 **{f"param.{name}": value for name, value in setting.items()},
                 "auc": auc, "pauc": auc - 0.1, "objective": auc - 0.05, mark: i == best}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _settings(scores):
    rows = [
        {"machine": machine, "section": "00", "setting": name, "param.r": 0.5, "auc": score,
         "auc_source": score, "auc_target": score, "pauc": score, "objective": score}
        for machine, (name, score) in product(MACHINES, scores.items())
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _manifest(data):
    rows = []
    for machine in MACHINES:
        for i, clip in enumerate(data.machine(machine).where(split="train")):
            for label in ("normal", "anomaly"):
                rows.append(
                    {"wav": f"{machine}/{label}_{i:04d}.wav", "machine": machine, "section": "00",
                     "domain": clip.domain, "label": label,
                     "caption": data.captions(clip).replace("normal", label), "kept": True,
                     "reason": ""}
                )  # fmt: skip
    return pd.DataFrame(rows)


def _quality():
    rows = [
        {"machine": machine, "label": label, "against": "normal", "encoder": "log-mel statistics",
         "synthetic": 2, "real": 2, "fad": 123.456, "fad_real": 98.76, "kid": kid,
         "kid_real": -0.0123, "adherence": adherence, "chance": adherence and 0.25,
         "diversity": 0.875, "front_end": "LogMel(n_fft=1024)"}
        for machine, (label, kid, adherence) in product(
            MACHINES, (("normal", 0.31, 0.5), ("anomaly", 4.56, None))
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _costs():
    rows = [{"machine": machine, "section": "00", "parameters": 33_026, "fit_seconds": 0.5,
             "score_ms": 3.67} for machine in MACHINES]  # fmt: skip
    return pd.DataFrame(rows)


def _write_config(folder, source="from_factory"):
    (folder / ".hydra").mkdir(exist_ok=True)
    target = f"fsasd.data.datamodule.FirstShotDataModule.{source}"
    choices = {"experiment": "demo", "detector": "twfr_gmm", "generator": "audioldm_nano",
               "data": "factory", "hydra/launcher": "basic"}  # fmt: skip
    documents = {
        "config": {"seed": 7, "stages": ["detect"], "data": {"_target_": target},
                   "detector": {"r": 1.0}, "selection": {"grid": {"r": "${fsasd.grid:0,1,1}"}}},
        "hydra": {"hydra": {"runtime": {"choices": choices}}},
        "overrides": ["experiment=demo", "data.machines=[bearing, pump]"],
    }  # fmt: skip
    for name, document in documents.items():
        (folder / ".hydra" / f"{name}.yaml").write_text(yaml.safe_dump(document))


def _edit(path, change):
    change(pd.read_csv(path, dtype={"section": str})).to_csv(path, index=False)


def _forget_labels(folder):
    _edit(folder / "clips.csv", lambda clips: clips.assign(label=None, domain=None))
    for name in ("metrics", "real_curve", "settings"):
        (folder / f"{name}.csv").unlink()


class Page(HTMLParser):
    """What a browser would see of a page: its text, and the attributes by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def _page(folder, data=None):
    return Page(write_report(folder, data).read_text(encoding="utf-8"))


def test_page_has_all_results(run, data):
    text = _page(run, data).text
    score = headline(Results(run)).score
    for expected in (
        "demo", "twfr_gmm", "audioldm_nano", f"{100 * score:.1f} %", "95 % interval 61.0 to 87.0 %",
        "Harmonic mean of 6 values", "Was the choice of setting worth it?",
        "+10.0 points against r=0; +5.0 points against r=1; −10.0 points against the oracle",
        "which are unknown in practice", "r=0.9, chosen on synthetic clips",
        "On synthetic clips", "needs their labels", "shaded: pAUC", "normal, target",
        "threshold -46", "Decisions at threshold", "Simulated data.", "Small test sets have wide",
        "below about 2 points are noise", "experiment=demo 'data.machines=[bearing, pump]'",
        "${fsasd.grid:0,1,1}", "This is the normal sound of a bearing",
    ):  # fmt: skip
        assert expected in text


def test_page_names_odd_training_clips(run, undrawn):
    scores = {"a.wav": 1.0, "b.wav": 9e9, "c.wav": 2.0}
    calibration = Calibration(scores, ("b.wav",), 0.1, 1.9).described()
    about = {"format": DECISION_FORMAT, "channel": None, **calibration}
    decision = run / "models/pump/section_00" / DECISION
    decision.parent.mkdir(parents=True, exist_ok=True)
    decision.write_text(json.dumps(about))
    assert _page(run).text.count("1 of 3 normal training clips is odd: b.wav (held-out") == 1
    # A run of another version has none to show.
    decision.write_text(json.dumps({"threshold": 1.9, "channel": None}))
    assert "is odd" not in _page(run).text


@pytest.mark.slow
def test_page_needs_nothing_but_itself(run, data):
    path = write_report(run, data)
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert not parsed.open
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert [attrs for attrs in parsed.all("script") if attrs] == []
    assert not parsed.all("link")
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in parsed.tags:
        assert attrs.get("src", "data:").startswith("data:")
        reference = attrs.get("href", "#result")
        assert reference[1:] in ids if reference[0] == "#" else (run / reference).exists()


def test_page_is_accessible(run, data, undrawn):
    parsed = _page(run, data)
    assert all(image["alt"] for image in parsed.all("img"))
    assert all(attrs["aria-label"] for attrs in parsed.all("audio"))
    assert all("scope" in attrs for attrs in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    drawings = [attrs for attrs in parsed.all("div") if attrs.get("role") == "img"]
    assert len(drawings) == len(parsed.all("svg")) + 1  # the interval is drawn without
    assert all(attrs["aria-label"] for attrs in drawings)


def test_scenes_are_of_training_and_synthetic_clips(run, data, monkeypatch, undrawn):
    played = []
    original = listening.read
    monkeypatch.setattr(
        listening, "read", lambda path, **how: played.append(path) or original(path, **how)
    )
    parsed = _page(run, data)
    assert len(parsed.all("audio")) == len(played) == 12
    assert {path.parent.name for path in played if run not in path.parents} == {"train"}


def test_without_data_only_synthetic_clips_are_played(run, undrawn):
    parsed = _page(run)
    assert len(parsed.all("audio")) == 8
    assert "Real, normal (training): no clip of this caption" in parsed.text


@pytest.mark.parametrize("machines", [0, 1, 3, 7, 14, 40])
def test_recordings_stay_within_the_budget(machines):
    count, seconds = listening.affordable(machines)
    assert 1 <= count <= 3
    assert 0.5 <= seconds <= 5
    bytes_taken = machines * count * 3 * seconds * 16_000 * 2 * 4 / 3
    assert bytes_taken < 1.05 * listening.BUDGET


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONAL)
def test_every_file_is_optional(run, data, name, capsys, undrawn):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    scored = name != "metrics.csv"
    assert ("95 % interval 61.0 to 87.0 %" in _page(run, data).text) == scored
    console(run)
    assert math.isfinite(objective("official", run)) == scored
    assert ("95 % interval 61.0 to 87.0 %" in capsys.readouterr().out) == scored


def test_an_empty_folder_makes_a_page(tmp_path, capsys):
    text = _page(tmp_path).text
    assert "No test clip has been scored in this run" in text
    assert math.isnan(objective("official", tmp_path))
    console(tmp_path)
    assert "report:" in capsys.readouterr().out


def test_without_a_generator_the_setting_is_the_default(run, data, capsys, undrawn):
    shutil.rmtree(run / "synthetic")
    for name in ("selection", "real_curve", "settings"):
        (run / f"{name}.csv").unlink()
    TWFRGMM().save(run / "models" / "pump" / "section_00")
    parsed = _page(run, data)
    assert "r=1, the default" in parsed.text
    assert "No clip was synthesised" in parsed.text
    assert "Real, normal (training)" in parsed.text
    assert "worth it?" not in parsed.text
    # Of several detectors, that in use is the only one whose parameters count.
    chosen = OneOf({"knn": KNN(), "twfr": TWFRGMM(r=0.25)}, use="twfr")
    chosen.save(run / "models" / "pump" / "section_00")
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    twfr = {"use": ["twfr"], "twfr__r": "${fsasd.grid:0.0,1.10,0.01}"}
    config["selection"]["grid"] = [{"use": ["knn"], "knn__k": [1, 2]}, twfr]
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert Results(run).setting(SectionId("pump", "00")) == "use=twfr, r=0.25"
    shutil.rmtree(run / ".hydra")
    assert Results(run).setting(SectionId("bearing", "00")) == "default"


def test_unknown_labels(run, data, capsys):
    _forget_labels(run)
    parsed = _page(run, data)
    assert "The official score is not known" in parsed.text
    assert "No ROC: the labels of 32 of 32 test clips are not known" in parsed.text
    assert "label unknown (32 clips)" in parsed.text
    assert "How many of them are is not known" in parsed.text
    assert math.isnan(objective("official", run))
    console(run)
    assert "not known" in capsys.readouterr().out


def test_machines_without_labels_are_not_in_the_score(run, undrawn):
    known = metrics_table({("pump", "00"): SectionMetrics(0.9, 0.8, 0.7)}, (0.7, 0.9))
    known.to_csv(run / "metrics.csv", index=False)
    assert "because the test labels are not known: 1 of 2 sections." in _page(run).text


@pytest.mark.slow
def test_undefined_is_a_dash_and_explained(run, data, capsys):
    known = SectionMetrics(0.9, 0.8, 0.7, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    lacking = SectionMetrics(0.9, float("nan"), 0.7, 0.5, 0.5, 0.5)
    table = metrics_table({("bearing", "00"): lacking, ("pump", "00"): known}, (0.7, 0.9))
    table.to_csv(run / "metrics.csv", index=False)
    _edit(
        run / "clips.csv",
        lambda clips: clips.query(
            "not (machine == 'bearing' and domain == 'target' and label == 'normal')"
        ),
    )
    parsed = _page(run, data)
    assert "Harmonic mean of 5 of 6 values" in parsed.text
    assert "1 is undefined and not in the mean" in parsed.text
    assert "Undefined values do not count as 0" in parsed.text
    assert "target normals: AUC undefined, no such clips" in parsed.text
    assert "nan" not in parsed.text.lower().split()
    assert any(attrs.get("title") == "undefined" for attrs in parsed.all("abbr"))
    assert objective("official", run) == pytest.approx(table["official_score"].iloc[-1])
    console(run)
    out = capsys.readouterr().out
    assert "1 of 6 values undefined" in out
    assert "—" in out


def test_nothing_defined_is_no_score(run, capsys, undrawn):
    nothing = SectionMetrics(*[float("nan")] * 3)
    metrics_table({("bearing", "00"): nothing}).to_csv(run / "metrics.csv", index=False)
    _edit(run / "clips.csv", lambda clips: clips.query("machine == 'bearing' and label=='normal'"))
    text = _page(run).text
    assert "No interval: the score is undefined." in text
    assert "there is no test clip with label anomaly" in text
    assert math.isnan(objective("official", run))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", ["NA", "nan", "None", "101", "fan[1]"])
def test_a_machine_may_be_called_like_nothing_or_a_number(run, capsys, undrawn, name):
    for path in [*run.glob("*.csv"), run / "synthetic/manifest.csv"]:
        machine = pd.read_csv(path, dtype=str)["machine"][0]
        path.write_text(path.read_text().replace(f"{machine},", f"{name},"))
    results = Results(run)
    assert results.sections[0].machine == name
    assert name in results.manifest["machine"].tolist()
    assert f"{name} section 00" in _page(run).text.replace(f"{name} Section", f"{name} section")
    console(run)
    assert objective("official", run) == pytest.approx(headline(results).score)
    assert name in capsys.readouterr().out


def test_a_machine_with_dollar_signs_is_drawn():
    settings = _settings({"r=0": 0.6, "synthetic": 0.7}).replace(MACHINES[0], "$_$")
    assert "$_$" in figures.svg(figures.settings_dots(settings), "dots")


def test_settings_of_several_parameters_are_a_sorted_table(run, data, capsys, undrawn):
    grid = [{"k": k, "pool": pool} for k, pool in product((1, 2, 4), ("mean", "max"))]
    _curve("chosen", grid, best=3).to_csv(run / "selection.csv", index=False)
    _curve("oracle", grid, best=1).to_csv(run / "real_curve.csv", index=False)
    parsed = _page(run, data)
    assert "The settings of highest objective on synthetic clips" in parsed.text
    assert "k=2, pool=max, chosen on synthetic clips" in parsed.text
    assert "k=1, pool=max oracle" in parsed.text
    console(run)
    assert "k=2, pool=max" in capsys.readouterr().out


def test_a_choice_at_chance_has_a_warning(run, undrawn):
    assert "Synthetic anomalies are not detected" not in _page(run).text
    _edit(run / "selection.csv", lambda curve: curve.assign(objective=0.52))
    assert "Synthetic anomalies are not detected" in _page(run).text


def test_rejections_are_counted_with_their_reasons(run, data, undrawn):
    _edit(
        run / "synthetic" / "manifest.csv",
        lambda rows: rows.assign(
            kept=rows["label"] == "normal",
            reason=np.where(rows["label"] == "normal", "", "nearly silent"),
        ),
    )
    parsed = _page(run, data)
    assert "4 clips were synthesised, 2 normal and 0 anomalous ones kept" in parsed.text
    assert "2 anomalous rejected: nearly silent" in parsed.text
    assert "Synthetic, anomaly: all were rejected" in parsed.text
    assert len(parsed.all("audio")) == 8


def test_quality_is_shown_with_its_numbers_and_how_to_read_them(run, undrawn):
    text = _page(run).text
    assert (
        "normal normal log-mel statistics 2 / 2 0.31 (−0.0123) 123 (98.8) 50.0 (25.0) 0.875" in text
    )
    assert "anomaly normal log-mel statistics 2 / 2 4.56 (−0.0123) 123 (98.8) — 0.875" in text
    assert "the distance is the generator’s, not the fault’s" in text
    (run / "synthetic" / "quality.csv").unlink()
    assert "KID" not in _page(run).text


def test_the_cost_of_a_detector_is_shown(run, undrawn):
    text = " ".join(write_report(run, None).read_text().split())
    cost = "The detector has 33,026 parameters. Scoring a clip took 3.67 ms,"
    assert text.count(cost) == len(MACHINES)


def test_another_caption_of_the_anomalous_clip_is_shown(run, data, undrawn):
    assert "with a slight rattle" not in _page(run, data).text
    _edit(
        run / "synthetic" / "manifest.csv",
        lambda rows: rows.assign(
            caption=rows["caption"]
            + rows["label"].map({"normal": "", "anomaly": " with a slight rattle"})
        ),
    )
    assert _page(run, data).text.count("with a slight rattle") == 4


def test_a_scene_has_the_candidate_that_was_kept(run, data, undrawn):
    manifest = run / "synthetic" / "manifest.csv"

    def other(rows):
        others = rows.assign(wav=rows["wav"].str.replace(".wav", "-c1.wav"))
        lost = rows.assign(kept=False, reason="another candidate was better")
        return pd.concat([lost, others]).sort_index(kind="stable")

    _edit(manifest, other)
    for wav in pd.read_csv(manifest)["wav"]:
        _write(run / "synthetic" / wav, seconds=0.7)
    parsed = _page(run, data)
    assert len(parsed.all("audio")) == 12
    assert "2 normal rejected: another candidate was better" in parsed.text


def test_what_was_written_by_others_is_escaped(run, undrawn):
    _edit(
        run / "synthetic" / "manifest.csv",
        lambda rows: rows.assign(caption="<script>alert(1)</script>"),
    )
    parsed = _page(run)
    assert [attrs for attrs in parsed.all("script") if attrs] == []
    assert "<script>alert(1)</script>" in parsed.text


def test_recordings_are_not_called_simulated(run, undrawn):
    _write_config(run, source="from_dcase")
    assert "imulated" not in _page(run).text


def test_console_prints_the_score_the_settings_and_the_paths(run, data, capsys, undrawn):
    shutil.move(run, run.with_name("detector=knn,k=[1]"))
    run = run.with_name("detector=knn,k=[1]")
    path = write_report(run, data)
    console(run)
    score = objective("official", run)
    assert score == headline(Results(run)).score
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("bearing 00 r=0.9 ") for line in lines)
    assert f"score: {100 * score:.1f} % over 2 machines, 95 % interval 61.0 to 87.0 %" in out
    assert "none of 6 values undefined" in out
    assert "r=0 60.0 −10.0 —" in lines
    assert "used 70.0 chosen, or the default" in lines
    assert "oracle 80.0 +10.0 — best objective on the test labels" in lines
    assert f"report: {path}" in lines


def _setting_scores(shifts):
    clips = _clips()
    return pd.concat(
        [clips[["machine", "section", "file", "label", "domain"]].assign(
            setting=name, default=name == "r=1",
            score=clips["score"] + shift * (clips["label"] == "anomaly"))
         for name, shift in shifts.items()]
    )  # fmt: skip


def test_differences_between_settings_have_intervals(run, data, capsys, undrawn):
    scores = _setting_scores({"r=0": -12, "r=1": 0, "synthetic": 0, "oracle": 1})
    scores.to_csv(run / "setting_scores.csv", index=False)
    table = compare_settings(Results(run).settings, Results(run).setting_scores)
    table = table.set_index("setting")
    assert table["high"]["r=0"] < 0
    assert (table["low"]["r=1"], table["high"]["r=1"]) == (0, 0)
    assert table["low"]["oracle"] >= 0
    low, high = (f"{100 * table[name]['r=0']:.1f}".replace("-", "−") for name in ("low", "high"))
    assert f"{low} to {high}" in _page(run).text
    console(run)
    assert f"{low} to {high}" in capsys.readouterr().out


def test_the_papers_choice_is_shown_where_it_is_another(run, data, capsys, undrawn):
    kept = {"r=1": 0.65, "synthetic": 0.65, "argmax": 0.6, "oracle": 0.8}
    settings = _settings(kept)
    settings.to_csv(run / "settings.csv", index=False)
    assert "argmax" not in compare_settings(Results(run).settings)["setting"].tolist()
    assert "the paper’s rule" not in _page(run).text
    settings.loc[settings["setting"] == "argmax", "param.r"] = 0.9
    settings.to_csv(run / "settings.csv", index=False)
    text = _page(run).text
    assert "highest objective on synthetic clips, the paper’s rule: no abstention" in text
    assert "+5.0 points against the highest on synthetic clips" in text
    console(run)
    assert "on synthetic clips, the paper's rule" in capsys.readouterr().out


def test_abstention_is_shown_with_its_reason(run, data, capsys, undrawn):
    def keep(curve):
        return curve.assign(
            argmax=curve["chosen"],
            chosen=curve["param.r"] == 1.0,
            abstain_reason=np.where(
                (curve["param.r"] == 1.0) & (curve["machine"] == "pump"), "it is flat", ""
            ),
        )

    assert "default setting is kept" not in _page(run).text
    _edit(run / "selection.csv", keep)
    text = _page(run).text
    assert "The default setting is kept: it is flat." in text
    assert "r=1, the default" in text
    console(run)
    assert "pump section 00: default setting r=1: it is flat." in capsys.readouterr().out


def test_an_open_dot_is_the_highest_where_it_is_not_chosen():
    curve = _curve("chosen", [{"r": r} for r in GRID], best=9).query("machine == 'pump'")
    curve = curve.assign(chosen=curve["param.r"] == 1.0, low=curve["objective"] - 0.1,
                         high=curve["objective"] + 0.1)  # fmt: skip
    (axis,) = figures.selection_curve(curve, curve[:0]).axes
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [1.0, 0.9]
    assert dots[1].get_markerfacecolor() == figures.PAPER
    assert len(axis.collections) == 1


@pytest.mark.parametrize(("low", "wide"), [(0.9, True), (0.6, False)])
def test_a_wide_gap_has_a_warning(run, undrawn, low, wide):
    gap = {
        "machine": "pump",
        "section": "00",
        "auc": 0.95,
        "low": low,
        "high": 0.99,
        "words": "4.2 dB quieter above 5.1 kHz" if wide else "",
    }
    (run / "synthetic").mkdir(exist_ok=True)
    pd.DataFrame([gap]).to_csv(run / "synthetic/gap.csv", index=False)
    text = _page(run).text
    assert ("Synthetic normal clips are not like real ones" in text) == wide
    assert ("4.2 dB quieter above 5.1 kHz" in text) == wide


@pytest.fixture
def validated(run):
    """The same run, validated on its machines as if they were references."""
    columns = ("gain", "regret", "closed")
    numbers = {f"{name}{end}": 0.01 for name in columns for end in ("", "_low", "_high")}
    rows = [
        {"machine": machine, "section": "00" if strict is not None else "", "strict": strict,
         "chosen": "r=0.9", "argmax": "r=0.9", "oracle": "r=0.5", "abstain_reason": "", "gap": 0.7,
         "spearman": 0.25, "kendall": 0.2, **numbers}
        for machine, strict in (("bearing", False), ("pump", True), ("mean", None))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "validation.csv", index=False)
    (run / "validation").mkdir()
    for name in ("selection", "real_curve", "settings"):
        shutil.copy(run / f"{name}.csv", run / "validation")
    return run


def test_validation_on_reference_machines_is_shown(validated, capsys, undrawn):
    parsed = _page(validated)
    assert "Leave-one-machine-out validation" in parsed.text
    assert (
        "On 2 reference machines, the choice of settings helped: +1.0 points of the objective "
        "against the default setting (95 % interval +1.0 to +1.0). That is 1 % of the gain of the "
        "oracle"
    ) in parsed.text
    assert "bearing generator trained on its anomalies" in parsed.text
    assert "pump generator trained" not in parsed.text
    assert "pump section 00: metrics of each setting" in parsed.text
    assert "Where the default setting was kept" not in parsed.text
    console(validated)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert (
        "bearing r=0.9 +1.0 +1.0 to +1.0 +1.0 +0.25 generator trained on its anomalies"
    ) in lines
    assert "mean +1.0 +1.0 to +1.0 +1.0 +0.25" in lines


def test_gains_with_the_site_are_shown_where_it_was_left_out(validated, capsys, undrawn):
    words = "With its type alone left out, the mean gain is +2.0 points"
    assert "its site" not in _page(validated).text
    console(validated)
    assert words not in capsys.readouterr().out
    _edit(
        validated / "validation.csv",
        lambda rows: rows.assign(chosen_with_site="r=0.7", gain_with_site=0.02,
                                 gain_with_site_low=-0.03, gain_with_site_high=0.04),
    )  # fmt: skip
    text = _page(validated).text
    assert f"{words} (95 % interval −3.0 to +4.0)" in text
    assert "Setting with its site Gain with its site 95 % interval Regret" in text
    assert (
        "bearing generator trained on its anomalies 00 r=0.9 r=0.5 +1.0 +1.0 to +1.0 r=0.7" in text
    )
    assert text.count("r=0.7 +2.0 −3.0 to +4.0") == 2
    console(validated)
    assert words in capsys.readouterr().out


def test_abstentions_on_reference_machines_are_shown_with_their_reasons(validated, undrawn):
    _edit(
        validated / "validation.csv",
        lambda rows: rows.assign(
            abstain_reason=np.where(rows["machine"] == "pump", "too few clips", "")
        ),
    )
    text = _page(validated).text
    assert "Where the default setting was kept, and why: pump section 00: too few clips" in text
    assert text.count("too few clips") == 1


def test_the_verdict_on_reference_machines_has_four_outcomes():
    row = {"machine": "mean", "gain": -0.02, "gain_low": -0.04, "closed": np.nan}
    table = pd.DataFrame([{"machine": "fan"}, {**row, "gain_high": -0.01}])
    table["abstain_reason"] = None
    assert "On 1 reference machine, the choice of settings did harm: −2.0" in (
        verdict_of_choices(table)
    )
    table = pd.DataFrame([{"machine": "fan"}, {**row, "gain_high": 0.01}])
    table["abstain_reason"] = None
    assert "made no significant difference" in verdict_of_choices(table)
    assert "oracle" not in verdict_of_choices(table)
    table["abstain_reason"] = ["too few clips", None]
    assert "the default setting was kept everywhere" in verdict_of_choices(table)


def test_curves_without_objectives_are_not_drawn(validated, undrawn):
    one = {"machine": "pump", "section": "00", "param.r": 1.0, "auc": np.nan, "pauc": np.nan,
           "objective": np.nan, "chosen": True, "abstain_reason": "no clips"}  # fmt: skip
    _edit(
        validated / "validation" / "selection.csv",
        lambda curve: pd.concat([curve[curve["machine"] != "pump"], pd.DataFrame([one])]),
    )
    text = _page(validated).text
    assert "bearing section 00: metrics of each setting" in text
    assert "pump section 00: metrics of each setting" not in text


def test_a_machine_without_synthetic_clips_has_its_reason_in_place_of_a_curve(run, undrawn):
    one = {"param.r": 1.0, "auc": np.nan, "pauc": np.nan, "objective": np.nan, "chosen": True,
           "abstain_reason": "no clips"}  # fmt: skip
    rows = [{"machine": machine, "section": "00", **one} for machine in MACHINES]
    pd.DataFrame(rows).to_csv(run / "selection.csv", index=False)
    text = _page(run).text
    assert "The default setting is kept: no clips." in text
    assert "nan" not in text.lower().split()


def test_verdict_gives_both_signs():
    comparison = compare_settings(_settings({"r=1": 0.75, "synthetic": 0.7, "oracle": 0.7}))
    assert page.verdict(comparison) == (
        "With the setting that was used, the official score is 70.0 %: −5.0 points against r=1; "
        "0.0 points against the oracle."
    )


def test_compare_settings_is_the_official_score_of_each():
    settings = _settings({"synthetic": 0.7, "oracle": 0.8})
    settings.loc[0, ["auc_source", "auc_target", "pauc"]] = [0.9, np.nan, 0.6]
    compared = compare_settings(settings).set_index("setting")
    assert compared["official"]["synthetic"] == pytest.approx(5 / (1 / 0.9 + 1 / 0.6 + 3 / 0.7))
    assert compared["undefined"].tolist() == [1, 0]


def test_decisions_count_what_the_metrics_divide():
    clips = _clips().query("machine == 'pump'")
    metrics = section_metrics(
        clips["label"] == "anomaly", clips["domain"], clips["score"], clips["decision"]
    )
    table = decisions(clips, metrics_table({("pump", "00"): metrics}))
    assert table["domain"].tolist() == ["source", "target"]
    assert (table["detected"] / table["anomalous"]).tolist() == table["recall"].tolist()
    assert (table["detected"] / (table["detected"] + table["false_alarms"])).tolist() == (
        table["precision"].tolist()
    )


def test_top_settings_keep_the_chosen_and_the_oracles():
    grid = [{"k": k, "pool": "mean"} for k in range(20)]
    curve = _curve("chosen", grid, best=3).query("machine == 'pump'")
    real = _curve("oracle", grid, best=19).query("machine == 'pump'")
    table = top_settings(curve, real, count=4)
    assert table["setting"].iloc[0] == "k=3, pool=mean"
    assert table["objective"].is_monotonic_decreasing
    assert table["oracle"].tolist() == [False] * 4 + [True]
    assert table["real"].iloc[-1] == real["objective"].max()
    assert not is_path(curve)


@pytest.fixture
def undivided(run):
    """The run, had no clip a domain."""
    clips = _clips().assign(domain=None)
    of_section = {
        (machine, "00"): section_metrics(
            group["label"] == "anomaly", None, group["score"], group["decision"]
        )
        for machine, group in clips.groupby("machine")
    }
    clips.to_csv(run / "clips.csv", index=False)
    metrics_table(of_section, (0.61, 0.87)).to_csv(run / "metrics.csv", index=False)
    _edit(run / "settings.csv", lambda table: table.assign(auc_source=None, auc_target=None))
    return run


def test_without_domains_one_auc_is_shown(undivided, undrawn, capsys):
    console(undivided)
    printed = capsys.readouterr().out
    page_text = write_report(undivided, None).read_text()
    for text in (printed, page_text):
        assert "AUC source" not in text
        assert "F1 target" not in text
    assert "Harmonic mean of 4 values: AUC and pAUC of 2 sections." in page_text
    assert "none of 4 values undefined" in printed
    auc = 100 * Results(undivided).metrics["auc"].iloc[0]
    assert f"{auc:.1f}" in printed
    assert f"{auc:.1f}" in page_text


def test_without_domains_decisions_are_counted_once(undivided):
    results = Results(undivided)
    pump = [table.query("machine == 'pump'") for table in (results.clips, results.metrics)]
    table = decisions(*pump)
    assert len(table) == 1
    assert table["f1"].iloc[0] == pump[1]["f1"].iloc[0]
    assert (table["normal"].iloc[0], table["anomalous"].iloc[0]) == (16, 16)


def test_without_domains_there_is_one_curve_and_one_group(undivided):
    clips = Results(undivided).clips.query("machine == 'pump'")
    (axis,) = figures.roc(clips).axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert [name.partition(":")[0] for name in names] == ["all clips, shaded", "all clips"]
    titles = [axis.get_title(loc="left") for axis in figures.score_histogram(clips).axes]
    assert titles == ["normal (16 clips)", "anomaly (16 clips)"]


def test_scenes_are_complete_first_then_of_both_domains(run, data):
    manifest = Results(run).manifest.query("machine == 'pump'")
    more = pd.concat([manifest[:2].assign(wav=f"pump/normal_001{i}.wav") for i in range(3)])
    _write(run / "synthetic" / "pump" / "normal_0010.wav", 0.5)
    real = [(c, data.captions(c)) for c in data.machine("pump").where(split="train")]
    scenes = listening.scenes(pd.concat([more, manifest]), run / "synthetic", real, 2)
    assert [scene.domain for scene in scenes] == ["source", "target"]
    assert all(len(scene.recordings) == 3 for scene in scenes)


def test_clips_of_a_machine_share_one_gain(tmp_path):
    for name, level in (("loud", 0.5), ("quiet", 0.05)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(1600, level), 16_000)
    scene = listening.Scene("c", None, real=tmp_path / "loud.wav", normal=tmp_path / "quiet.wav")
    (row,) = listening.players([scene], seconds=0.05)
    assert [player.seconds for player in row.players.values()] == [0.05, 0.05]
    peaks = [_peak(player.audio) for player in row.players.values()]
    assert peaks == pytest.approx([0.9, 0.09], abs=1e-3)


def test_roc_has_the_official_numbers():
    clips = _clips().query("machine == 'pump'")
    metrics = section_metrics(clips["label"] == "anomaly", clips["domain"], clips["score"])
    (axis,) = figures.roc(clips).axes
    legend = " ".join(text.get_text() for text in axis.get_legend().get_texts())
    for value in (metrics.auc_source, metrics.auc_target, metrics.pauc):
        assert f"{100 * value:.1f} %" in legend


def test_curve_marks_the_chosen_setting():
    curve = _curve("chosen", [{"r": r} for r in GRID], best=9).query("machine == 'pump'")
    figure = figures.selection_curve(curve, curve[:0])
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["r = 0.9"]


@pytest.mark.parametrize("length", [0, 20, 60])
def test_settings_are_named_above_their_dots_however_long_their_names(length):
    scores = {"r=0": 0.5, "r=1": 0.6, "synthetic": 0.7, "argmax": 0.6, "oracle": 0.8}
    settings = _settings({f"{name}{'x' * length}" if "=" in name else name: score
                          for name, score in scores.items()})  # fmt: skip
    figure = figures.settings_dots(settings)
    # matplotlib warns, which is an error here, when it finds no room for the axes.
    figures.svg(figure, "settings")
    (axis,) = figure.axes
    assert axis.get_window_extent().height > 30
    # All have the same r here, so argmax is the setting that is used and is left out.
    assert len(axis.get_legend().get_texts()) == 4


def test_histogram_counts_every_clip_once():
    clips = _clips().query("machine == 'pump'")
    axes = figures.score_histogram(clips).axes
    assert sum(patch.get_height() for axis in axes for patch in axis.patches) == len(clips)


def test_figures_take_their_colours_from_the_page_and_are_reproducible():
    clips = _clips().query("machine == 'pump'")
    once, again = (figures.svg(figures.roc(clips), "roc") for _ in range(2))
    assert once == again
    assert "var(--source)" in once
    assert figures.SOURCE not in once


@pytest.fixture
def failed(run):
    """The run, had a third machine failed in it, and a reference machine."""
    rows = [
        ("fan", "00", "detect", "fan section 00: expected finite scores, found nan"),
        ("valve", "00", "synthesise", "no space left on device"),
    ]
    table = pd.DataFrame(rows, columns=["machine", "section", "stage", "reason"])
    table.to_csv(run / "failed.csv", index=False)
    captions = pd.read_csv(run / "captions.csv")
    reference = captions.iloc[:1].assign(machine="valve", role="reference")
    pd.concat([captions, reference]).to_csv(run / "captions.csv", index=False)
    return run


def test_failed_sections_are_shown_a_line_each_with_stage_and_reason(failed, capsys, undrawn):
    text = _page(failed).text
    assert "fan 00 detect fan section 00: expected finite scores, found nan" in text
    assert "valve 00 synthesise no space left on device" in text
    assert "Official score, 2 of 3 machines" in text
    console(failed)
    lines = capsys.readouterr().out.splitlines()
    assert "FAILED valve section 00 in stage synthesise: no space left on device" in lines
    assert sum(line.startswith("FAILED") for line in lines) == 2
    assert any("% over 2 of 3 machines, 95 % interval" in line for line in lines)
    assert f"scores:          {failed / 'scores'} (incomplete)" in lines


def test_the_score_of_a_machine_with_several_sections_counts_sections(failed):
    other = {"machine": "pump", "section": "01", "stage": "detect", "reason": "it failed"}
    pd.DataFrame([other]).to_csv(failed / "failed.csv", index=False)
    assert headline(Results(failed)).over == "2 of 3 sections"


def test_nothing_is_optimised_over_the_machines_that_did_not_fail(failed, run):
    assert np.isnan(objective("official", failed))
    assert headline(Results(failed)).score > 0
    (failed / "failed.csv").unlink()
    assert objective("official", failed) == headline(Results(failed)).score


def test_a_failed_reference_machine_is_no_part_of_the_score(failed):
    _edit(failed / "failed.csv", lambda rows: rows.query("machine == 'valve'"))
    assert headline(Results(failed)).over == "2 machines"
    assert objective("official", failed) > 0
    assert not Results(failed).missing_scores


def test_a_run_of_which_all_sections_failed_has_a_page(failed, capsys, undrawn):
    for path in [*failed.glob("*.csv")]:
        if path.name not in ("failed.csv", "captions.csv"):
            path.unlink()
    assert "No test clip has been scored" in _page(failed).text
    console(failed)
    assert capsys.readouterr().out.count("FAILED") == 2
    assert np.isnan(objective("official", failed))


def test_results_of_the_first_sections_are_shown_before_the_others_have_any(run, capsys, undrawn):
    for path in run.glob("*.csv"):
        if path.name != "captions.csv":
            _edit(path, lambda rows: rows[rows["machine"] != "pump"])
    text = _page(run).text
    assert "pump" in text  # its synthetic clips
    console(run)
    assert "bearing" in capsys.readouterr().out


def test_an_incomplete_submission_is_marked(failed):
    clips = pd.read_csv(failed / "clips.csv", dtype={"section": str})
    clips.loc[:1, ["score", "decision"]] = None
    clips.to_csv(failed / "clips.csv", index=False)
    mark_submission(failed)
    mark = failed / "scores" / "INCOMPLETE.txt"
    assert mark.read_text().splitlines() == [
        "As a submission to DCASE these files are incomplete.",
        "fan section 00: no scores, it failed",
        "bearing section 00: no scores of 2 test clips that could not be read",
    ]
    assert "incomplete as a submission" in _page(failed).text
    (failed / "failed.csv").unlink()
    _edit(failed / "clips.csv", lambda rows: rows.dropna(subset="score"))
    mark_submission(failed)
    assert not mark.exists()


def test_a_parameter_may_be_called_like_a_column(run, undrawn):
    for name in ("selection", "real_curve"):
        _edit(
            run / f"{name}.csv",
            lambda curve: curve.rename(columns={"param.r": "param.low"}).assign(low=0.1, high=0.9),
        )
    assert Results(run).setting(SectionId("pump", "00")) == "low=0.9"
    assert "low=0.9, chosen on synthetic clips" in _page(run).text


def test_tables_of_another_version_are_refused(run):
    _edit(run / "selection.csv", lambda curve: curve.rename(columns={"param.r": "r"}))
    with pytest.raises(ValueError, match=r"selection\.csv: expected columns param\.<name>"):
        Results(run)


def _peak(uri):
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return float(np.abs(samples).max())


def test_of_many_machines_each_has_a_page(run, data, capsys, undrawn, monkeypatch):
    whole = write_report(run, data).read_text("utf-8")
    monkeypatch.setattr(page, "TOGETHER", 1)
    monkeypatch.setattr("fsasd.report.console.LISTED", 1)
    overview = write_report(run, data).read_text("utf-8")
    files = sorted((run / "report").iterdir())
    assert [file.name for file in files] == ["machine-0001.html", "machine-0002.html"]
    others = ("Next: pump", "Previous: bearing")
    for file, machine, other in zip(files, MACHINES, others, strict=True):
        # In the table of metrics, and in the list of machines.
        assert overview.count(f'<a href="report/{file.name}">{machine}</a>') == 2
        text = file.read_text("utf-8")
        assert f"<title>demo · {machine} · fsasd</title>" in text
        assert f">{machine}</h2>" in text
        assert other in Page(text).text
        linked = [attrs["href"] for attrs in Page(text).all("a")]
        for href in linked:
            path, _, anchor = href.partition("#")
            there = (run / "report" / path).read_text("utf-8") if path else text
            assert not anchor or f'id="{anchor}"' in there
        assert f">{machine}</h2>" in whole
        assert f">{machine}</h2>" not in overview
        assert "<audio" in text
    assert "<audio" not in overview
    console(run)
    assert "Over 2 sections (each is in metrics.csv)" in capsys.readouterr().out
    # With few machines again, the pages go.
    monkeypatch.undo()
    monkeypatch.setattr(figures, "svg", lambda figure, name: "<svg></svg>")
    assert "<audio" in write_report(run, data).read_text("utf-8")
    assert not (run / "report").exists()


@pytest.mark.nightly
@pytest.mark.slow
@needs_chromium
def test_no_rule_of_accessibility_is_broken_by_many_machines(run, data, monkeypatch):
    monkeypatch.setattr(page, "TOGETHER", 1)
    path = write_report(run, data)
    pages = [path, path.parent / "report" / "machine-0001.html"]
    with browser() as chromium:
        for path, mode in product(pages, MODES):
            with shown(chromium, path, *mode) as machine:
                assert violations(machine) == [], (path.name, mode)
                assert beyond(machine) == 0, (path.name, mode)


def test_a_page_of_as_many_machines_as_fit_stays_small():
    scenes, seconds = listening.affordable(page.TOGETHER)
    audio = page.TOGETHER * scenes * 3 * seconds * 16_000 * 2 * 4 / 3
    # A machine's figures and tables take 0.2 MB, its explained clip and the audio of that 0.3 MB.
    assert audio + page.TOGETHER * 0.5e6 < 20e6


def test_bands_that_differ_are_marked_beside_their_words(run, undrawn):
    rows = [
        {"machine": "pump", "section": "00", "aspect": aspect, "low_hz": 500.0 * band,
         "high_hz": 500.0 * (band + 1), "sure": band > 13,
         **{f"{kind}{end}": -50.0 + shift
            for kind in ("real", "synthetic")
            for end, shift in (("", 0), ("_low", -3), ("_high", 3))}}
        for aspect in ("level", "unsteadiness")
        for band in [0, *range(16)]
    ]  # fmt: skip
    axes = figures.spectra(pd.DataFrame(rows)).axes
    assert [len(axis.patches) for axis in axes] == [2, 2]
    assert [len(axis.lines) for axis in axes] == [2, 2]
    (run / "synthetic").mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(run / "synthetic/differences.csv", index=False)
    assert "Bands that surely differ are marked" in _page(run).text
