"""The model card: data and settings that a model was fine-tuned with, for its later users."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsasd.data.clips import Clips
from fsasd.runtime.hub import TAG, is_hub_id

_UNPUBLISHED = {
    "nano": "The nano model's weights come with fsasd, under the MIT licence.",
    "random": "It was trained from random weights.",
}


@dataclass(frozen=True)
class Family:
    """What a model card says of a family of models.

    Attributes:
        name: As its authors call it.
        tag: Of the hub.
        pipeline: Class of diffusers that loads a saved model; ``None`` where there is none.
        call: How that is called with a ``caption``.
        licence: Of the published weights, as the hub calls it.
        terms: In a sentence, what this licence asks for.
    """

    name: str
    tag: str | None = None
    pipeline: str | None = None
    call: str = ""
    licence: str | None = None
    terms: str = "The licence of the weights that it was fine-tuned from holds for it, too."


def model_card(
    family: Family,
    start: str,
    clips: Clips | None,
    captions: Sequence[str],
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """Return the text of a model's ``README.md``.

    Args:
        family: What differs between families.
        start: The checkpoint that was fine-tuned, as it was configured.
        clips: Clips of training and validation, if any.
        captions: One per clip.
        settings: Of the training.
        metrics: At the checkpoint that was kept.

    >>> family = Family("AudioLDM", "audioldm", licence="cc-by-nc-sa-4.0")
    >>> text = model_card(family, "cvssp/audioldm-s-full-v2", None, [], {"learning_rate": 3e-5}, {})
    >>> "base_model: cvssp/audioldm-s-full-v2" in text, "license: cc-by-nc-sa-4.0" in text
    (True, True)
    """
    kind = start.partition(":")[0]
    published = kind not in _UNPUBLISHED
    base = start if not published or is_hub_id(start) else "a local checkpoint"
    head: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-audio"}
    head["tags"] = [TAG, *filter(None, [family.tag])]
    if published and family.licence:
        head["license"] = family.licence
    if is_hub_id(start):
        head["base_model"] = start
    front = "\n".join(
        f"{key}: {json.dumps(value) if isinstance(value, list) else value}"
        for key, value in head.items()
    )
    terms = family.terms if published else _UNPUBLISHED[kind]
    sections = [
        f"---\n{front}\n---\n",
        f"# {family.name}, fine-tuned on machine sounds\n\nStart: {base}. Fine-tuned with fsasd.\n",
        f"## Use\n\nIn fsasd: `generator.checkpoint=path/to/this/folder`.{_usage(family)}\n",
        _data(clips, captions),
        f"## Licence\n\n{terms} The recordings' own licence holds beside it.\n",
        f"## Settings\n\n```json\n{json.dumps(settings, indent=2, default=str)}\n```\n",
    ]
    if metrics:
        rows = "\n".join(f"| {name} | {value:.5g} |" for name, value in sorted(metrics.items()))
        sections.append(f"## Metrics\n\n| at the checkpoint kept | |\n|---|---|\n{rows}\n")
    return "\n".join(sections)


def _usage(family: Family) -> str:
    if family.pipeline is None:
        return ""
    return f"""

```python
from diffusers import {family.pipeline}

pipeline = {family.pipeline}.from_pretrained("path/to/this/folder")
audio = pipeline({family.call}).audios[0]
```"""


def _data(clips: Clips | None, captions: Sequence[str]) -> str:
    if clips is None:
        return "## Data\n\nNot known.\n"
    counts = Counter((clip.machine, clip.role or "", clip.label or "unknown") for clip in clips)
    rows = "\n".join(
        f"| {machine} | {role} | {label} | {count} |"
        for (machine, role, label), count in sorted(counts.items())
    )
    distinct = sorted(set(captions))
    listed = "\n".join(f"- {text}" for text in distinct[:: -(-len(distinct) // 10)])
    return (
        f"## Data\n\n| machine | role | label | clips |\n|---|---|---|---|\n{rows}\n\n"
        f"{len(distinct)} distinct captions, among them\n\n{listed}\n"
    )
