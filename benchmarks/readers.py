"""The readers of files from outside, each with valid files to begin with.

``benchmarks.fuzz`` and ``tests/test_readers.py`` alter one of the files. Whatever it holds then, a
reader returns a value, or raises an error that says what is wrong with which file (``fault``).

Imports are in functions: what only one reader needs takes seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socketserver
import tempfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import fsasd
from fsasd.data.captions import Captions
from fsasd.data.dcase_names import clip_named
from fsasd.data.feature_file import read_features, write_features
from fsasd.data.metadata import Clip, read_clips, read_name
from fsasd.data.names import MetadataError, machine_name, section_name
from fsasd.data.recording import header, read
from fsasd.settings.files import read_yaml
from fsasd.settings.parameters import check_settings
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE

RATE = 16_000


@dataclass(frozen=True)
class Reader:
    """A reader, and the file that it is given.

    Attributes:
        file: That is altered, relative to a folder.
        read: Reads it, and the rest of the folder.
        write: Writes a valid folder.
        contents: Further valid contents of the file, beside what ``write`` writes.
        words: That mutations insert.
        named: Whether errors have to name the file or its folder.
    """

    file: str
    read: Callable[[Path], object]
    write: Callable[[Path], object] = lambda folder: None
    contents: Callable[[], list[bytes]] = list
    words: tuple[bytes, ...] = field(default=())
    named: bool = True

    def seeds(self, folder: Path) -> list[bytes]:
        """Write a valid folder; return valid contents of the file, at least one."""
        path = folder / self.file
        self.write(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        return [*([path.read_bytes()] if path.is_file() else []), *self.contents()]

    def error(self, folder: Path, content: bytes) -> Exception | None:
        """Read a folder with this content of the file; return the error that it raises."""
        (folder / self.file).write_bytes(content)
        try:
            self.read(folder)
        except Exception as error:
            return error
        return None

    def allows(self, folder: Path, error: Exception) -> bool:
        """Return whether an error is as it has to be.

        That are errors of the system, ``ValueError`` and the classes of fsasd, where they name the
        file or its folder.
        """
        is_own = type(error).__module__.partition(".")[0] == "fsasd"
        if not (is_own or isinstance(error, (ValueError, OSError))):
            return False
        # Beside the file, or what it was read as.
        is_named = str(folder) in str(error) or Path(self.file).name in str(error)
        return is_named or not self.named

    def fault(self, folder: Path, content: bytes) -> Exception | None:
        """Read a folder with this content; return the error that breaks the contract."""
        error = self.error(folder, content)
        return None if error is None or self.allows(folder, error) else error


def _read_names(folder: Path) -> None:
    text = (folder / "names").read_bytes().decode(errors="surrogateescape")
    for reader in (machine_name, section_name, read_name, clip_named):
        try:
            reader(text)
        except MetadataError:
            continue


def _dcase(folder: Path) -> None:
    for part, name in (
        ("train", "section_00_source_train_normal_0001.wav"), ("test", "section_00_0000.wav")
    ):  # fmt: skip
        (folder / "eval_data/pump" / part).mkdir(parents=True)
        (folder / "eval_data/pump" / part / name).touch()
    (folder / "eval_data/pump/attributes_00.csv").write_text(
        "file_name,d1p,d1v,d2p,d2v\n"
        "pump/train/section_00_source_train_normal_0001.wav,vel,6V,mic,1\n"
        'pump/test/section_00_0000.wav,vel,"6,5V",noAttribute,\n'
    )


def _dcase_with_truth(folder: Path) -> None:
    _dcase(folder)
    _truth(folder / "ground_truth")


def _truth(folder: Path) -> None:
    name = "ground_truth_pump_section_00_test.csv"
    rows = [f"section_00_{i:04d}.wav" for i in range(4)]
    labels, domains = ("normal", "anomaly"), ("source", "target")
    texts = {
        "data": "".join(f"{row},{i % 2}\n" for i, row in enumerate(rows)),
        "domain": "".join(f"{row},{i // 2}\n" for i, row in enumerate(rows)),
        "attributes": "".join(
            f"{row},section_00_{domains[i // 2]}_test_{labels[i % 2]}_{i:04d}_vel_6.wav\n"
            for i, row in enumerate(rows)
        ),
    }
    for kind, text in texts.items():
        path = folder / f"ground_truth_{kind}" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)


_LIST = (
    "pump,,\nid_00_00000000.wav,normal_id_00_00000000.wav,0\n"
    "id_00_00000001.wav,anomaly_id_00_00000001.wav,1\n"
)


def _scores(folder: Path) -> None:
    _truth(folder / "truth")
    for kind, value in (("anomaly_score", "{}.5"), ("decision_result", "{}")):
        path = folder / f"scores/{kind}_pump_section_00_test.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "".join(f"section_00_{i:04d}.wav,{value.format(i % 2)}\n" for i in range(4))
        )


_TABLE = (
    "path,machine,split,label,section,domain,role,speed [rpm]\n"
    "a.wav,fan,train,normal,00,source,target,1200\n"
    "b.wav,fan,test,,0,target,target,\n"
    'c.wav,"press ""2""",train,anomaly,1,,reference,n/a\n'
)


def _parquet() -> list[bytes]:
    import pandas as pd

    file = io.BytesIO()
    pd.read_csv(io.StringIO(_TABLE)).to_parquet(file)
    return [file.getvalue()]


def _recordings(folder: Path) -> None:
    for name in "abc":
        soundfile.write(folder / f"{name}.wav", np.zeros(9), RATE)


@cache
def _noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(RATE * seconds))
    return (0.1 * noise).astype(np.float32)


def _audio(*kinds: tuple[str, str]) -> Callable[[], list[bytes]]:
    def contents() -> list[bytes]:
        files = []
        for number, (form, subtype) in enumerate(kinds):
            file = io.BytesIO()
            # Every other one is resampled.
            rate = (RATE, 48_000)[number % 2]
            soundfile.write(file, _noise(0.05), rate, format=form, subtype=subtype)
            files.append(file.getvalue())
        return files

    return contents


def _read_recording(folder: Path) -> None:
    (path,) = folder.glob("recording.*")
    header(path)
    read(path, channel="mean")


def _knn() -> Any:
    from fsasd.detectors.knn import KNN

    return KNN()


def _mixture() -> Any:
    from fsasd.detectors.twfr_gmm import TWFRGMM

    return TWFRGMM(n_components=1)


def _network() -> Any:
    from fsasd.detectors.autoencoder import Autoencoder
    from fsasd.detectors.networks.training import NetworkTraining

    return Autoencoder(frames=1, training=NetworkTraining(epochs=1))


def _outliers() -> Any:
    from sklearn.neighbors import LocalOutlierFactor

    from fsasd.detectors.outliers import Outliers

    return Outliers(LocalOutlierFactor(2, novelty=True))


def _model(make: Callable[[], Any] = _knn) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from fsasd.data.clips import Clips
        from fsasd.deployment.about import About, TrainingData
        from fsasd.detection.decision import write_decision
        from fsasd.evaluation.calibration import Calibration

        with tempfile.TemporaryDirectory() as place:
            paths = [Path(place, f"{i}.wav") for i in range(6)]
            for i, path in enumerate(paths):
                soundfile.write(path, _noise(0.5, i), RATE)
            detector = make().fit(Clips([Clip(path, "fan", split="train") for path in paths]))
        soundfile.write(folder / "a.wav", _noise(0.5), RATE)
        detector.save(folder)
        held_out = {f"{i}.wav": 1.0 + i / 7 for i in range(9)}
        calibration = Calibration.of(held_out, ["source"] * 9, [None] * 9)
        write_decision(folder, calibration, None)
        about = About("fan", "00", "KNN", {"k": 1}, "chosen", 9, TrainingData(6), {"auc": 0.5})
        about.write(folder)
        profile = {
            "seconds": [1.0, 1.0], "level": [-20.0, -19.0], "median_level": -19.5,
            "lowest": [-60.0] * 16, "highest": [-40.0] * 16, "silent": 0.0, "clipped": 0.0,
        }  # fmt: skip
        (folder / "recordings.json").write_text(json.dumps(profile))

    return write


def _score(folder: Path) -> None:
    model = fsasd.load(folder)
    model.score([folder / "a.wav"])


def _read_about(folder: Path) -> None:
    from fsasd.deployment.about import About

    About.read(folder)


def _warn(folder: Path) -> None:
    from fsasd.deployment.recording_warnings import LikenessMonitor
    from fsasd.deployment.waveforms import Waveforms

    model = fsasd.load(folder)
    assert model.profile is not None
    cache = Waveforms({Path("a"): _noise(0.5)}, RATE, None)
    model.score_clips([Path("a")], cache)
    LikenessMonitor(model.profile).update(cache.measures)


def _saved(content: object) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _checkpoints() -> list[bytes]:
    import torch

    weights = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(3).half()}
    return [_saved({"state_dict": weights, "epoch": 1, "callbacks": {"a": [1, "b"]}})]


def _read_phrases(folder: Path) -> None:
    path = folder / "captions.yaml"
    try:
        content = read_yaml(path, dict)
    except ValueError:
        # Hydra reads it, and names it (``tests/test_hydra_errors.py``).
        return
    if set(content) != {"machines", "attributes"}:
        # As of any other class.
        return
    check_settings({"_target_": "fsasd.data.captions.Captions", **content}, "captions")
    captions = Captions(**content)
    captions(Clip(Path("a.wav"), "fan", attributes={"spd": "31V"}, raw_label="spd_31V"))


class _Server(socketserver.ThreadingTCPServer):
    """Answers each request with the same bytes, and hangs up."""

    daemon_threads = True
    content = b""

    class RequestHandlerClass(socketserver.StreamRequestHandler):  # type: ignore[assignment]
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(self.server.content)  # type: ignore[attr-defined]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@cache
def _server() -> _Server:
    return _Server()


_ZIP = "dev_fan.zip"


def _download(folder: Path) -> None:
    from fsasd.data.download.catalogue import Archive
    from fsasd.data.download.transfer import DownloadError, Zenodo

    server = _server()
    server.content = (folder / "answer").read_bytes()
    waits: list[float] = []
    zenodo = Zenodo(
        f"http://127.0.0.1:{server.server_address[1]}", attempts=1, wait=waits.append,
        timeout=(1.0, 1.0),
    )  # fmt: skip
    archive = Archive("dcase2023", "dev", "fan", 1, _ZIP)
    with contextlib.suppress(DownloadError):
        zenodo.describe([archive])
    known = Archive("dcase2023", "dev", "fan", 1, _ZIP, "900150983cd24fb0d6963f7d28e17f72", 3)
    path = folder / _ZIP
    for partial in (b"", b"a"):
        path.unlink(missing_ok=True)
        path.with_name(f"{_ZIP}.partial").write_bytes(partial)
        try:
            zenodo.fetch(known, path)
        except DownloadError:
            continue


def _answers() -> list[bytes]:
    record = {"files": [{"key": _ZIP, "checksum": f"md5:{'0' * 32}", "size": 3}]}
    body = json.dumps(record).encode()
    return [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body,
        b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: "x"\r\n\r\nabc',
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/3\r\n\r\nbc",
        b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]


def _zips() -> list[bytes]:
    files = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("fan/train/a.wav", b"abc" * 20)
            archive.writestr("fan/test/b.wav", b"")
            archive.writestr("fan/attributes_00.csv", "file_name\n")
        files.append(file.getvalue())
    return files


def _unpack(folder: Path) -> None:
    from fsasd.data.download.archive import unpack

    shutil.rmtree(folder / "unpacked", ignore_errors=True)
    unpack(folder / _ZIP, folder / "unpacked", "fan")


def _receipt(folder: Path) -> None:
    from fsasd.data.download.catalogue import Archive
    from fsasd.data.download.folder import DataFolder

    archive = Archive("dcase2023", "dev", "fan", 7882613, _ZIP, "0" * 32, 3)
    DataFolder(folder, "dcase2023").has(archive)


_WANTED = Description(
    "detect", 1, {"k": 1, "of": [None, True]}, {"curve": "0" * 16}, "fan section 00"
)


def _store(folder: Path) -> None:
    from fsasd.store.registry import register
    from fsasd.store.store import Store

    store = Store(folder)
    built = store.build(_WANTED, lambda place: (place / "a.csv").write_text("a\n1\n"))
    # Files of an artifact are read-only.
    (built / PROVENANCE).chmod(0o644)
    partial = folder / "detect/fan section 00" / f"{'1' * 16}.partial"
    partial.mkdir()
    about = {**_WANTED.to_json(), "started": "2026-01-01", "seconds": 1.0, "since": 0.0}
    (partial / "building.json").write_text(json.dumps(about))
    register(folder, folder, [_WANTED.key])
    (path,) = (folder / "runs").iterdir()
    path.rename(path.with_name("run.jsonl"))


def _read_store(folder: Path) -> None:
    from fsasd.store.listing import artifacts, entry
    from fsasd.store.registry import registered
    from fsasd.store.store import Store

    store = Store(folder)
    for artifact in artifacts(folder):
        _ = artifact.bytes, artifact.description and artifact.description.title
        if artifact.provenance:
            json.dumps(artifact.provenance.to_json())
            artifact.provenance.damage(artifact.path)
    store.why(_WANTED)
    entry(folder / _WANTED.folder)
    [run.exists(folder) for run in registered(folder)]


def _runs(folder: Path) -> None:
    from fsasd.report.runs.status import Sweep

    _run(folder / "0")
    Sweep("2026-01-01T00:00:00+00:00", ["seed=0,1"], 2, [["seed=0"], ["seed=1"]]).write(folder)


def _run(run: Path) -> None:
    import pandas as pd

    from fsasd.evaluation.metrics import metrics_table, section_metrics
    from fsasd.report.runs.status import Status

    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/overrides.yaml").write_text("- seed=0\n")
    (run / ".hydra/config.yaml").write_text("seed: 0\ndata:\n  _target_: a.from_factory\n")
    (run / ".hydra/hydra.yaml").write_text(
        "hydra:\n  runtime:\n    choices:\n      detector: knn\n"
    )
    label, domain = np.tile([0, 1], 8), np.repeat(["source", "target"], 8)
    score = np.arange(16) % 5 + label
    pd.DataFrame({
        "machine": "pump", "section": "00", "file": [f"{i}.wav" for i in range(16)],
        "label": np.where(label, "anomaly", "normal"), "domain": domain, "score": score,
    }).to_csv(run / "clips.csv", index=False)  # fmt: skip
    metrics = metrics_table({("pump", "00"): section_metrics(label, domain, score)}, (0.4, 0.8))
    metrics.to_csv(run / "metrics.csv", index=False)
    pd.DataFrame({"machine": ["pump"], "section": "00", "parameters": 9, "fit_seconds": 0.25,
                  "score_ms": 4.0}).to_csv(run / "costs.csv", index=False)  # fmt: skip
    pd.DataFrame(columns=["machine", "section", "stage", "reason"]).to_csv(
        run / "failed.csv", index=False
    )
    Status.begin("2026-01-01T00:00:00+00:00", 0, ["seed=0"]).ending("done").write(run)


def _compare(folder: Path) -> None:
    from fsasd.report.runs.comparison import compare_runs

    comparison = compare_runs(folder)
    _ = comparison.table, comparison.machines if comparison.is_scored else None


def _system(folder: Path) -> None:
    from fsasd.evaluation.submission.meta import meta, write_meta

    results = {"fan": {"auc_source": 50.0, "auc_target": 40.0, "pauc": 51.5}}
    write_meta(folder / "meta.yaml", meta("Kim_CAU_task2_1", {}, 9, results))


def _published(folder: Path) -> None:
    _model()(folder)
    # A repository of the hub has no recordings.
    (folder / "a.wav").unlink()


def _push(folder: Path) -> None:
    from fsasd.deployment.hub_folder import prepare

    shutil.rmtree(folder.parent / f"{folder.name}.copy", ignore_errors=True)
    prepare(folder, folder.parent / f"{folder.name}.copy", "me/mine")


def _features(folder: Path) -> None:
    write_features(folder / "a.npy", np.arange(6, dtype=np.float32).reshape(2, 3))


def _read_manifest(folder: Path) -> None:
    from fsasd.data.manifest import read_manifest

    (path,) = folder.glob("clips.*")
    read_manifest(path)


def _evaluate(folder: Path) -> None:
    from fsasd.evaluation.submission.evaluation import evaluate

    evaluate(folder / "scores", folder / "truth", 0)


def _read_checkpoint(folder: Path) -> None:
    from fsasd.runtime.resuming import read_checkpoint

    read_checkpoint(folder / "last.ckpt")


def _read_weights(folder: Path) -> None:
    from fsasd.generation.audioldm.checkpoint.original import read as read_weights

    read_weights(folder / "a.ckpt")


def _read_meta(folder: Path) -> None:
    from fsasd.evaluation.submission.meta import meta_problems

    meta_problems(folder / "meta.yaml", "Kim_CAU_task2_1")


_CSV = (
    b'"', b'""', b",", b"\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3\xa4", b"nan",
)  # fmt: skip
_JSON = (
    b"[" * 2000, b'{"a":' * 2000, b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 5000, b"null",
    b"true", b"{}", b"[]", b'""', b'"\\ud800"', b'"\\u0000"', b'"a"',
)  # fmt: skip
_YAML = (
    b"&a [*a]", b"!!int ''", b"!!python/object:a.B {}", b"- ", b": ", b"{", b"\t", b"? ",
    b"2026-13-01", b"---\n", b"[" * 2000,
)  # fmt: skip
_SIZES = (
    b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\xff" * 8,
)  # fmt: skip

READERS = {
    "names": Reader(
        "names", _read_names, named=False,
        contents=lambda: [b"fan", b"00", b"section_00_source_test_anomaly_0001_spd_31V_mic_1.wav"],
        words=(b"section_", b"id_", b"/", b"..", b"\\", "\u0130".encode(), b"9" * 5000, b"\0"),
    ),
    "attributes": Reader("eval_data/pump/attributes_00.csv", read_clips, _dcase, words=_CSV),
    "ground_truth_data": Reader(
        "ground_truth/ground_truth_data/ground_truth_pump_section_00_test.csv", read_clips,
        _dcase_with_truth, words=_CSV,
    ),
    "ground_truth_attributes": Reader(
        "ground_truth/ground_truth_attributes/ground_truth_pump_section_00_test.csv", read_clips,
        _dcase_with_truth, words=_CSV,
    ),
    "eval_data_list": Reader(
        "ground_truth/eval_data_list.csv", read_clips, _dcase, lambda: [_LIST.encode()], words=_CSV
    ),
    "manifest.csv": Reader(
        "clips.csv", _read_manifest, _recordings,
        lambda: [_TABLE.encode(), _TABLE.encode("utf-16")], words=_CSV,
    ),
    "manifest.parquet": Reader(
        "clips.parquet", _read_manifest, _recordings,
        _parquet, words=_SIZES,
    ),
    "scores": Reader(
        "scores/anomaly_score_pump_section_00_test.csv",
        _evaluate, _scores,
        words=(*_CSV, b"1e999", b"1e308", b"-1e308", b"1_0"),
    ),
    "decisions": Reader(
        "scores/decision_result_pump_section_00_test.csv",
        _evaluate, _scores, words=_CSV,
    ),
    "detector.json": Reader("detector.json", _score, _model(), words=_JSON),
    "detector.json of TWFR-GMM": Reader(
        "detector.json", _score, _model(_mixture), words=_JSON
    ),
    "detector.json of scikit-learn": Reader(
        "detector.json", _score, _model(_outliers), words=_JSON
    ),
    "detector.json of a network": Reader(
        "detector.json", _score, _model(_network), words=_JSON
    ),
    "safetensors": Reader("detector.safetensors", _score, _model(), words=(*_JSON, *_SIZES)),
    "safetensors of TWFR-GMM": Reader(
        "detector.safetensors", _score, _model(_mixture), words=(*_JSON, *_SIZES)
    ),
    "decision.json": Reader("decision.json", _score, _model(), words=_JSON),
    "about.json": Reader("about.json", _read_about, _model(), words=_JSON),
    "recordings.json": Reader("recordings.json", _warn, _model(), words=_JSON),
    "checkpoint": Reader(
        "last.ckpt", _read_checkpoint, contents=_checkpoints,
        words=_SIZES,
    ),
    "AudioLDM checkpoint": Reader(
        "a.ckpt", _read_weights, contents=_checkpoints, words=_SIZES
    ),
    "wav": Reader(
        "recording.wav", _read_recording, words=(b"data", b"fmt ", b"LIST", *_SIZES),
        contents=_audio(
            ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("WAV", "GSM610"),
            ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"),
            ("AU", "PCM_16"),
        ),
    ),
    "flac": Reader(
        "recording.flac", _read_recording, words=_SIZES,
        contents=_audio(("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    ),
    "ogg": Reader(
        "recording.ogg", _read_recording,
        contents=_audio(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
        words=(b"OggS", *_SIZES),
    ),
    "captions.yaml": Reader(
        "captions.yaml", _read_phrases, named=False,
        contents=lambda: [
            b"machines:\n  fan: a fan at {spd}\n  101: {name: a press, spd: speed {}}\n"
            b"attributes: {spd: speed {}, mic: ', at {}'}\n".replace(b"speed {}", b"'speed {}'")
        ],
        words=_YAML,
    ),
    "download": Reader(
        "answer", _download, contents=_answers, named=False,
        words=(b"\r\n", b"Content-Length: ", b"Retry-After: ", b"Location: /\r\n", *_JSON),
    ),
    "zip": Reader(_ZIP, _unpack, contents=_zips, words=(b"PK", b"../", *_SIZES)),
    "receipt": Reader(
        f"archives/{_ZIP}.json", _receipt, words=_JSON,
        contents=lambda: [
            b'{"record": 7882613, "md5": "0", "files": {"fan/train/a.wav": 3}}'
        ],
    ),
    "edition.txt": Reader(
        "archives/edition.txt", _receipt, contents=lambda: [b"dcase2023\n"], words=(b"\xff",)
    ),
    "provenance.json": Reader(f"{_WANTED.folder}/{PROVENANCE}", _read_store, _store, words=_JSON),
    "building.json": Reader(
        f"detect/fan section 00/{'1' * 16}.partial/building.json", _read_store, _store, words=_JSON
    ),
    "runs.jsonl": Reader("runs/run.jsonl", _read_store, _store, words=_JSON),
    **{
        name: Reader(f"0/{name}", _compare, _runs, words=_CSV)
        for name in ("clips.csv", "metrics.csv", "costs.csv", "failed.csv")
    },
    **{
        f".hydra/{name}.yaml": Reader(f"0/.hydra/{name}.yaml", _compare, _runs, words=_YAML)
        for name in ("config", "hydra", "overrides")
    },
    "status.json": Reader("0/status.json", _compare, _runs, words=_JSON),
    "sweep.json": Reader("sweep.json", _compare, _runs, words=_JSON),
    "meta.yaml": Reader(
        "meta.yaml", _read_meta, _system,
        words=_YAML,
    ),
    "model card": Reader("README.md", _push, _published, words=_YAML),
    "features": Reader(
        "a.npy", lambda folder: read_features(folder / "a.npy"), _features, named=False
    ),
}  # fmt: skip
"""By name."""
