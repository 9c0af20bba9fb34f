"""A saved model as a repository of the Hugging Face hub: its files, its card, what this lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from fsasd.deployment.about import CARD
from fsasd.deployment.downloading import DETECTOR_FILES
from fsasd.deployment.model import load
from fsasd.detectors.saved import SETTINGS, export_section
from fsasd.runtime.hub import GENERATOR_FILES, TAG

_VOCABULARIES = ("tokenizer.json", "vocab.json")
"""Their entries may look like paths."""

_PLACE = "path/to/this/folder"
"""Stands in a card for where the model is."""

_PATH = re.compile(
    r"(?<![\w/.:~<-])(?:/(?:[\w.@+~-]+/)+[\w.@+~-]*[\w@+~-]|~/[\w.-]+|[A-Za-z]:\\[\w.\\-]+)"
    r"|file://\S+"
)
_SHOWN = 5


class NotForTheHubError(ValueError):
    """A folder is no model of fsasd, or holds what is not to be uploaded."""


@dataclass(frozen=True)
class HubFolder:
    """A folder that is ready to be uploaded.

    Attributes:
        path: Of the folder.
        model: What it is, in words.
        sizes: Name of a file, relative to the folder, to its bytes.
        licence: Of the model, as the hub calls it; ``None`` without.
        missing: What the card does not have, a phrase each.
    """

    path: Path
    model: str
    sizes: Mapping[str, int]
    licence: str | None
    missing: Sequence[str]


def prepare(
    model: Path,
    target: Path,
    repository: str,
    licence: str | None = None,
    trust: Sequence[str] = (),
) -> HubFolder:
    """Copy a saved model as it is uploaded; a detector holds its networks itself there.

    Args:
        model: ``models/<machine>/section_<nn>/`` or ``model/`` of a run's folder.
        target: Gets the copy, in which a generator's weights are links: a folder that is empty or
            does not exist.
        repository: Its id, which the card names.
        licence: As the hub calls it; by default the card's.
        trust: Packages whose classes a detector may name (see ``fsasd.load``).

    Raises:
        NotForTheHubError: It is no model of fsasd, has no card, or holds files or paths that are
            not to be uploaded; names them.
        NotAModelError: A detector's file is damaged.
    """
    patterns: Sequence[str]
    if (model / SETTINGS).is_file() or any(model.glob(f"section_*/{SETTINGS}")):
        loaded = load(model, trust)
        model, name, patterns = loaded.folder, f"detector of {loaded.name}", DETECTOR_FILES
    else:
        name, patterns = "generator", GENERATOR_FILES
    card = _read_card(model)
    if name == "generator" and TAG not in (card.data.get("tags") or []):
        raise NotForTheHubError(
            f"{model}: expected a saved detector (models/<machine>/ of a run's folder) or a "
            f"fine-tuned generator (model/), found neither {SETTINGS} nor the tag {TAG!r} in {CARD}"
        )
    _require_fit_files(model, patterns)
    if name == "generator":
        _link(model, target)
    else:
        export_section(model, target)
    _license(card, licence)
    (target / CARD).unlink()
    text = str(card).replace(_PLACE, repository if name == "generator" else f"hub:{repository}")
    (target / CARD).write_text(text, encoding="utf-8")
    files = sorted(path for path in target.rglob("*") if path.is_file())
    sizes = {path.relative_to(target).as_posix(): path.stat().st_size for path in files}
    return HubFolder(target, name, sizes, card.data.get("license"), list(_missing(card)))


def _read_card(model: Path) -> ModelCard:
    path = model / CARD
    if not path.is_file():
        raise NotForTheHubError(
            f"{model}: expected a model of fsasd with its card, found no {CARD}: runs and "
            "fsasd-refit write it beside a detector, a fine-tuning beside a generator"
        )
    try:
        return ModelCard(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise NotForTheHubError(f"{path}: expected YAML between --- lines: {reason}") from error


def _license(card: ModelCard, licence: str | None) -> None:
    """Write a licence into a card that has none, or the same."""
    known = card.data.get("license")
    if licence and known not in (None, licence):
        raise NotForTheHubError(
            f"--licence {licence}: {CARD} has {known}, that of the weights from which "
            "it was fine-tuned: leave --licence out, or change the card if another one may hold"
        )
    if licence:
        card.data["license"] = licence


def _missing(card: ModelCard) -> Iterator[str]:
    if not card.data.get("license"):
        yield "a licence (--licence)"
    sections = dict(re.findall(r"^## (.+)\n+([^#\n].*)", card.text, re.MULTILINE))
    for phrase, headings in (
        ("the training data", ("Data", "Training recordings")),
        ("metrics", ("Metrics",)),
    ):
        known = [sections[heading] for heading in headings if heading in sections]
        if not known or known[0].startswith("Not known"):
            yield phrase


def _require_fit_files(model: Path, patterns: Sequence[str]) -> None:
    """Refuse what does not belong to a model, and paths of the machine that wrote it."""
    files = [path for path in sorted(model.rglob("*")) if path.is_symlink() or not path.is_dir()]
    foreign = [path for path in files if not _belongs(path.relative_to(model), patterns)]
    if foreign:
        names = [path.relative_to(model).as_posix() for path in foreign]
        raise NotForTheHubError(
            f"{model}: expected the files of a model alone ({', '.join(patterns)}), found also "
            f"{_listed(names)}: move them elsewhere"
        )
    leaks = [
        f"{path.relative_to(model).as_posix()} ({paths})"
        for path in files
        if (paths := _listed(list(dict.fromkeys(_paths_in(path)))))
    ]
    if leaks:
        raise NotForTheHubError(
            f"{model}: expected no paths of this machine, found some in {_listed(leaks)}: take "
            "them out of these files"
        )


def _belongs(name: Path, patterns: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and any(
        name.match(pattern) and ("*." in pattern or len(name.parts) == 1) for pattern in patterns
    )


def _paths_in(path: Path) -> Iterator[str]:
    """Yield the absolute paths that a card or a JSON file mentions."""
    if path.suffix == ".md":
        yield from _PATH.findall(path.read_text(encoding="utf-8"))
    elif path.suffix == ".json" and path.name not in _VOCABULARIES:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NotForTheHubError(f"{path}: expected JSON ({error})") from error
        for text in _texts(content):
            yield from _PATH.findall(text)


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from content
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def _link(model: Path, target: Path) -> None:
    for path in model.rglob("*"):
        if path.is_file():
            link = target / path.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
