"""Measures every detector of the config group and writes docs/reference/detectors.md.

    python -m benchmarks.detectors                         # write the page from its table
    python -m benchmarks.detectors --factory --real FOLDER  # measure, then write the page
    python -m benchmarks.detectors --real FOLDER FOLDER     # on the machines of both together
    python -m benchmarks.detectors --real FOLDER --memory   # memory alone: one epoch, one network

Each detector runs with its default settings, without synthetic clips, on each machine whose test
clips have both labels, reference machines, too: detectors are fitted to normal training clips only.
Measured rows of ``docs/reference/detectors.csv`` are replaced, the others stay. Times are of one
core.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import math
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
import psutil
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from sklearn.base import clone
from threadpoolctl import threadpool_limits

import fsasd.cli.main  # noqa: F401  the resolvers that configurations use
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.detectors import available
from fsasd.detectors.base import Detector
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.outliers import ComponentMixture, PCAResidual
from fsasd.detectors.pooled import Pooled
from fsasd.evaluation.metrics import OFFICIAL, Section, metrics_table, section_metrics
from fsasd.evaluation.uncertainty import bootstrap_official
from fsasd.report.formatting import UNDEFINED, percent
from fsasd.runtime.memory import keep_freed_memory

DOCS = Path(__file__).parents[1] / "docs" / "reference"
PAGE, TABLE, ENCODERS = DOCS / "detectors.md", DOCS / "detectors.csv", DOCS / "encoders.csv"
KEY = ["data", "detector", "seed"]
NO_WEIGHTS = "its weights are not at hand"
_UNITS = {
    "parameters": "{:,.0f}", "training_seconds": "{:.1f} s", "scoring_ms": "{:.1f} ms",
    "memory_mb": "{:.0f} MB",
}  # fmt: skip


def main() -> None:
    """Measure detectors by the command line, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--factory", action="store_true", help="measure on the simulated factory")
    parser.add_argument(
        "--real", nargs="+", metavar="FOLDER", help="measure on recordings in DCASE's layout"
    )
    parser.add_argument("--detectors", nargs="+", default=available(), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--overrides", nargs="*", default=[], help="of the configuration")
    parser.add_argument("--memory", action="store_true", help="measure the memory alone")
    args = parser.parse_args()
    data = {"factory": ["data=factory"]} if args.factory else {}
    if args.real:
        name = "real" if len(args.real) == 1 else "eleven_real"
        data[name] = ["data=dcase", f"data.root={json.dumps(args.real)}"]
    # One core, as for the stated aims; libraries read these when they start threads.
    os.environ |= {"LOKY_MAX_CPU_COUNT": "1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    keep_freed_memory()
    # The factory is written once for all detectors.
    with tempfile.TemporaryDirectory() as store:
        if args.memory:
            for (name, overrides), detector in product(data.items(), args.detectors):
                _keep_memory(name, detector, [f"store={store}", *overrides, *args.overrides])
            PAGE.write_text(page())
            return
        for (name, overrides), detector, seed in product(data.items(), args.detectors, args.seeds):
            chosen = [f"store={store}", f"detector={detector}", f"seed={seed}"]
            row = {"data": name, "detector": detector, "seed": seed}
            # Networks that train for hours may be measured with fewer epochs.
            row["note"] = ", ".join(args.overrides) or None
            row |= measure([*chosen, *overrides, *args.overrides])
            print(row, flush=True)
            _keep(row)
    PAGE.write_text(page())


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Return parameters, times and metrics of one detector on all machines.

    Training time is that of all machines together; a detector whose pretrained weights are missing
    has only a ``note``.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with threadpool_limits(1):
                return _measured(*_configured(overrides), Path(folder))
        except OSError:
            return {"note": NO_WEIGHTS}


def _configured(
    overrides: Sequence[str], short: bool = False
) -> tuple[Detector, FirstShotDataModule]:
    """Return detector and data of a configuration; ``short`` trains one network for one epoch."""
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", list(overrides))
    if short:
        for part in ("detector", "representation"):
            _shorten(cfg.get(part))
    data = hydra.utils.instantiate(cfg.data, _convert_="all")
    return hydra.utils.instantiate(cfg.detector, _convert_="all"), data


def _shorten(settings: Any) -> None:
    if isinstance(settings, DictConfig):
        for name in settings:
            if str(name).endswith("epochs") or name == "networks":
                settings[name] = 1
            else:
                _shorten(settings[name])


def memory(overrides: Sequence[str]) -> float:
    """Return the megabytes that a detector takes at most, to be trained and to score.

    Those of a process of its own, without imports and without the recordings' metadata. Training is
    one epoch of one network: more of them need no more memory.

    Raises:
        OSError: Pretrained weights are not at hand.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_memory, overrides).result()


def _memory(overrides: Sequence[str]) -> float:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # As commands do.
    keep_freed_memory()
    detector, data = _configured(overrides, short=True)
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        _measured(detector, data, Path(folder))
    # Kilobytes, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before) / 1e6


def _keep_memory(data: str, detector: str, overrides: Sequence[str]) -> None:
    try:
        peak = memory([f"detector={detector}", *overrides])
    except OSError:
        return
    print(f"{detector}: {peak:.0f} MB", flush=True)
    table = pd.read_csv(TABLE)
    table.loc[(table["data"] == data) & (table["detector"] == detector), "memory_mb"] = round(peak)
    table.to_csv(TABLE, index=False)


def _measured(detector: Detector, data: FirstShotDataModule, folder: Path) -> dict[str, Any]:
    training = scoring = 0.0
    scored, metrics, count = [], {}, 0
    if detector.network_spec():
        normals = data.clips.where(split="train", label="normal")
        training += _seconds(detector.prepare, normals, folder / "prepared")
    for (machine, section), section_clips in data.clips.sections.items():
        if len(set(section_clips.where(split="test").labels.tolist())) < 2:
            continue
        # With empty caches, so that times include features.
        train, test = (
            Clips(list(section_clips.where(**which)), FeatureCache())
            for which in ({"split": "train", "label": "normal"}, {"split": "test"})
        )
        fitted = clone(detector)
        training += _seconds(fitted.fit, train)
        started = time.process_time()
        scores = fitted.score(test)
        scoring += time.process_time() - started
        count += len(test)
        scored.append(Section(test.labels, test.domains, scores))
        metrics[machine, section] = section_metrics(test.labels, test.domains, scores)
    interval = bootstrap_official(scored, draw_sections=True)
    table = metrics_table(metrics, (interval.low, interval.high))
    mean = table.set_index("machine").loc["arithmetic mean"]
    official = table.set_index("machine").loc["official score", "official_score"]
    return {
        "parameters": fitted.n_parameters(),
        "training_seconds": round(training, 2),
        "scoring_ms": round(1e3 * scoring / count, 2),
        **{name: round(float(mean[name]), 4) for name in ("auc_source", "auc_target", "pauc")},
        "official": round(float(official), 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
    }


def _keep(row: dict[str, Any]) -> None:
    table = pd.DataFrame([row])
    if TABLE.is_file():
        known = pd.read_csv(TABLE)
        of_detector = known[(known["data"] == row["data"]) & (known["detector"] == row["detector"])]
        table["memory_mb"] = of_detector.get("memory_mb", pd.Series(dtype=float)).max()
        table = pd.concat([known, table]).drop_duplicates(KEY, keep="last")
    table.sort_values(KEY).to_csv(TABLE, index=False)


def _seconds(call, *args) -> float:
    # CPU time: on one core that of the clock, without other processes.
    started = time.process_time()
    call(*args)
    return time.process_time() - started


@dataclass(frozen=True)
class Entry:
    """The page's section on a detector, from its yaml and docstrings.

    Attributes:
        name: ``detector=<name>``.
        comment: First lines of the yaml.
        source: Authors and available material, the line ``# Source:`` of the yaml.
        kind: The class that describes it: of a learned representation that it scores, or its own.
        detector: The detector's class.
        grids: Settings to choose from.
    """

    name: str
    comment: str
    source: str
    kind: type
    detector: type
    grids: list[dict[str, Any]]

    @classmethod
    @functools.cache
    def of(cls, name: str) -> Entry:
        """Read the yaml and the class."""
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose("config", [f"detector={name}"])
        text = (resources.files("fsasd.conf") / "detector" / f"{name}.yaml").read_text()
        head = re.match(r"# @package _global_\n((?:#.*\n)*)", text)
        lines = [line.lstrip("# ") for line in (head[1] if head else "").splitlines()]
        comment = " ".join(line for line in lines if not line.startswith("Source: "))
        source = next((line[8:] for line in lines if line.startswith("Source: ")), "")
        kind = detector = hydra.utils.get_class(cfg.detector._target_)
        # An ensemble, or any detector that has a name of its own, describes itself.
        if "representation" in cfg and detector is not Ensemble:
            represented = hydra.utils.get_object(cfg.representation._target_)
            if isinstance(represented, type) and issubclass(represented, LearnedRepresentation):
                kind = represented
        grid = OmegaConf.to_container(cfg.selection, resolve=True)["grid"]
        return cls(
            name, comment, source, kind, detector, grid if isinstance(grid, list) else [grid]
        )

    @property
    def about(self) -> str:
        """The docstring of the class, without its arguments."""
        return inspect.cleandoc(self.kind.__doc__ or "").split("\nArgs:")[0].strip()

    @property
    def cited(self) -> str:
        """The docstring of the module after its first sentence: the papers."""
        return inspect.cleandoc(inspect.getmodule(self.kind).__doc__ or "").partition("\n\n")[2]


def page() -> str:
    """Return docs/reference/detectors.md."""
    entries = [Entry.of(name) for name in available()]
    measured = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=KEY)
    parts = ["# Detectors", _HEAD]
    for data, title in _TITLES.items():
        rows = measured[measured["data"] == data]
        parts += [f"## {title}", _MEASURED[data], _results(rows, entries)]
        if data != "real":
            parts += [_unmeasured(data, rows, measured[measured["data"] == "real"])]
    parts += ["## Encoders", _ENCODERS, _encoders(), "## Scores", _SCORES]
    parts += [_class(kind) for kind in SCORES]
    parts.append("## Descriptions")
    # The docstring of a class is shown at the detector with the shortest name.
    first: dict[type, Entry] = {}
    for entry in sorted(entries, key=lambda entry: len(entry.name)):
        first.setdefault(entry.kind, entry)
    parts += [_described(entry, first[entry.kind]) for entry in entries]
    return "\n\n".join(part for part in parts if part) + "\n"


_HEAD = """\
`detector=<name>` chooses one; `fsasd -m experiment=detectors 'detector=glob(*)'` runs all of them
on the chosen data, ends with the table below for them, and names those that could not run.
Descriptions, deviations from the sources and the settings that are chosen on synthetic clips are
[below](#descriptions).

This page is written by `python -m benchmarks.detectors` from the config group, the docstrings and
`docs/reference/detectors.csv`: do not edit it."""
_TITLES = {
    "real": "On real recordings",
    "eleven_real": "On eleven real machines",
    "factory": "On the simulated factory",
}
_MEASURED = {
    "real": """\
A small set cut from MIMII, DCASE 2020 and A2212 motors: seven machines with 4 to 92 training clips
and 8 to 69 test clips. On each machine a detector is fitted to normal clips only.

<!-- measured -->
```sh
python -m benchmarks.detectors --real path/to/firstshot-real
```

The best are first. Each detector has its default settings, except as noted with its seeds, and no
synthetic clips. In parentheses: the available material of the source. Training is that of all
machines together, scoring that of a clip from audio, both on one core. Memory is what training and
scoring add to the process at most (`--memory`: one epoch, one network). AUC, pAUC and official
score are in percent, means over seeds; ± is the spread over seeds, in brackets is the 95 %
bootstrap interval over machines and clips. The official score is a harmonic mean: a single AUC of
0, as eight test clips may give, makes it 0.

Rows of fkie, statex, thuee and mdam are of one seed, with one network each (fkie has ten by
default, statex five), on a core that took two to three times as long as that of the other rows.
Those of ibm_confidence, cmae, zeng, stgram_mfn and clp_scf were measured when log-mels were
computed by torchaudio, from which NumPy's differ by 1e-5; the command measures them again.

With 4 to 92 clips TWFR-GMM's covariance is shrunk, except in twfr_gmm_paper and
guan_heu_system2.""",
    "eleven_real": """\
The seven machines and four more, all of whose labels are known: an induction motor, and pump,
slider and valve of MIMII at -6 dB, with 24 to 42 training clips and 35 to 107 test clips. The last
three are the machines of MIMII above in louder noise: eleven machines are of eight kinds. The
columns are those above. Detectors that train a network have one seed.

<!-- measured -->
```sh
python -m benchmarks.detectors --real path/to/firstshot-real path/to/more-real
```""",
    "factory": """\
A simulation: it shows how detectors differ, not how good they are. The columns are those above.
With 60 training clips, 10 of them of the target domain, a shrunk covariance costs TWFR-GMM 3
points of AUC in the target domain and gains as many in the source domain (twfr_gmm_paper has the
full one).

<!-- measured -->
```sh
python -m benchmarks.detectors --factory
```""",
}
_ENCODERS = """\
Pretrained encoders are representations of any detector that takes one (`detector=knn
representation=beats`), and encoders to fine-tune (`representation=lv_huakong
representation.encoder=BEATs_iter3_plus_AS2M.pt`, `representation.tuning=full` or `lora`). No
weights ship with fsasd: a checkpoint is a hub id, a folder, or for BEATs, EAT, Dasheng and CED
the file that its authors publish, which is read without running code. One that lacks weights, or
has others, is refused. Licences are those of the hub's model cards or of the authors' repositories,
where they could be looked up; read them. Recordings are read at 16 kHz also for encoders at 48 kHz,
unless `representation.front_end.sampling_rate=48000` asks for more, as recordings and synthetic
clips at 16 kHz are refused then.

`representation.front_end.pool` is `mean`, `max`, `std` or `gem` (the generalised mean, of
`representation.front_end.power`), or several joined by `+`; `representation.front_end.bands=false`
averages the frequency bands that patches have, which are kept apart otherwise.
`representation.layer` is one layer or several (`[4,8]`), concatenated, or averaged with
`+representation.average=true`. A longer clip than the input is encoded in pieces that cover it,
whose states are pooled together.

`representation.front_end.revision`, or `representation.revision` of an encoder to fine-tune, is a
commit, a tag or a branch of a hub id. It is in the key, and the commit that was loaded in the
provenance. What the hub's cache holds is used without a network. Embeddings are cached under the
content of the weights, the settings and the recording."""
_SCORES = """\
What scores the embeddings of learned representations, beside the detectors that have a name of
their own ([knn](#knn), [lof](#lof), [mahalanobis](#mahalanobis) ...)."""
SCORES = [Confidence, Pooled, OneOf, ComponentMixture, PCAResidual]
"""Classes that configurations name and that are the detector of none by itself."""
_SEEDS = 3
"""Fewer seeds do not show the spread."""


def _class(kind: type) -> str:
    """Write what a class computes, and the configurations that name it."""
    about, _, rest = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")
    described = re.split(r"\nArgs:|\n>>> ", f"\n{rest}")[0].strip()
    name = f"{kind.__module__}.{kind.__qualname__}"
    group = resources.files("fsasd.conf") / "detector"
    using = [
        _link(one)
        for one in available()
        if re.search(rf"_target_: {re.escape(name)}$", (group / f"{one}.yaml").read_text(), re.M)
    ]
    parts = [f"### {kind.__name__}", _prose(about), _prose(described)]
    parts += [f"**Used by**: {', '.join(using)}", f"**Class**: `{name}`"]
    return "\n\n".join(part for part in parts if part)


def _encoders() -> str:
    """Write the table of encoders."""
    rows = pd.read_csv(ENCODERS, keep_default_na=False).itertuples(index=False)
    head = "| encoder | source | parameters | input | licence | configuration |"
    lines = [
        f"| {row.name} | {row.source} | {row.parameters} | {row.input} | {row.licence} "
        f"| `{row.config}` |"
        for row in rows
    ]
    return "\n".join([head, "|---|---|---|---|---|---|", *lines])


def _cells(rows: pd.DataFrame, units: Mapping[str, str]) -> list[str]:
    """Write means over jobs that differ in their seed, and the spread of the official score."""
    mean = rows[[*units, *OFFICIAL, "official", "low", "high"]].astype(float).mean(skipna=False)
    spread = rows["official"].std(ddof=0)
    official = percent(mean["official"])
    if spread > 5e-4:
        official += f" ± {percent(spread)}"
    if not math.isnan(mean["low"]):
        official += f" [{percent(mean['low'])} to {percent(mean['high'])}]"
    costs = [
        UNDEFINED if math.isnan(mean[name]) else unit.format(mean[name])
        for name, unit in units.items()
    ]
    return [*costs, *(percent(mean[name]) for name in OFFICIAL), official]


def _results(rows: pd.DataFrame, entries: Sequence[Entry]) -> str:
    # Memory was measured on some data.
    units = {name: unit for name, unit in _UNITS.items() if name in rows.dropna(axis=1, how="all")}
    costs = [name.partition("_")[0] for name in units]
    titles = ["detector", "source", *costs, "AUC source", "AUC target", "pAUC", "official score"]
    lines = [f"| {' | '.join(titles)} | seeds |", "|---" * len(titles) + "|---|"]
    measured: dict[str, pd.DataFrame] = {}
    without: dict[str, list[str]] = {}
    for entry in entries:
        of_detector = rows[rows["detector"] == entry.name]
        if "official" in of_detector and of_detector["official"].notna().any():
            measured[entry.name] = of_detector[of_detector["official"].notna()]
        else:
            note = next(iter(of_detector.get("note", pd.Series(dtype=str)).dropna()), "")
            without.setdefault(_WITHOUT.get(note, note), []).append(_link(entry.name))
    sources = {entry.name: entry.source for entry in entries}
    for name in sorted(measured, key=lambda name: -measured[name]["official"].mean()):
        one = measured[name]
        lines.append(
            f"| {' | '.join([_link(name), sources[name], *_cells(one, units), _seeds(one)])} |"
        )
    parts = ["\n".join(lines)] if measured else []
    if any(len(one) < _SEEDS for one in measured.values()):
        parts.append(f"† Fewer than {_SEEDS} seeds: the spread is not known.")
    parts += [f"{why}: {', '.join(names)}." for why, names in without.items()]
    return "\n\n".join(parts)


def _unmeasured(data: str, rows: pd.DataFrame, seven: pd.DataFrame) -> str:
    """Say what measuring the networks without a row would take, by the seven machines' rows."""
    seconds = seven.groupby("detector")["training_seconds"].mean().dropna()
    missing = seconds[(seconds > 60) & ~seconds.index.isin(rows["detector"])].sort_values()
    if missing.empty:
        return ""
    minutes = ", ".join(f"{_link(name)} {value / 60:.0f}" for name, value in missing.items())
    recordings = {
        "eleven_real": "--real path/to/firstshot-real path/to/more-real", "factory": "--factory"
    }  # fmt: skip
    return (
        "These detectors train a network, and were not measured here. Core minutes of one training "
        f"on the seven machines above: {minutes}. To measure one:\n\n<!-- measured -->\n```sh\n"
        f"python -m benchmarks.detectors {recordings[data]} --detectors {missing.index[0]}\n```"
    )


_WITHOUT = {
    "": "Not yet measured",
    NO_WEIGHTS: "Not measured, since pretrained weights were not available (tests use random ones)",
}


def _link(name: str) -> str:
    return f"[{name}](#{name})"


def _seeds(rows: pd.DataFrame) -> str:
    few = "" if len(rows) >= _SEEDS else " †"
    return f"{len(rows)}{few}" + "".join(f" with {note}" for note in rows["note"].dropna().unique())


def _described(entry: Entry, first: Entry) -> str:
    classes = {"Class": entry.detector}
    if entry.kind is not entry.detector:
        classes = {"Representation": entry.kind, "Scored by": entry.detector}
    tried = "; or ".join(
        "; ".join(f"`{name}`: {_values(values)}" for name, values in grid.items())
        for grid in entry.grids
    )
    of_class = [entry.about.replace("\nDeviations:", "\n**Deviations**:"), entry.cited]
    if entry is not first:
        of_class = [f"Description and deviations: see {_link(first.name)}."]
    parts = [
        f"### {entry.name}",
        entry.comment,
        *map(_prose, of_class),
        f"**Source**: {entry.source}" if entry.source else "",
        f"**Chosen on synthetic clips**: {tried}",
        *(f"**{what}**: `{one.__module__}.{one.__qualname__}`" for what, one in classes.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _prose(text: str) -> str:
    return text.replace("``", "`")


def _values(values: Sequence[Any]) -> str:
    if len(values) > 12:
        return f"{values[0]} to {values[-1]}, {len(values)} values"
    return ", ".join(map(str, np.array(values, dtype=object)))


if __name__ == "__main__":
    main()
