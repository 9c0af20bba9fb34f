"""The model card: data and settings that a model was fine-tuned with, for its later users."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fsasd.data.clips import Clips

_LICENCES = {
    "nano": "The nano model's weights come with fsasd, under the MIT licence.",
    "random": "It was trained from random weights.",
    "other": (
        "The published weights of AudioLDM are for non-commercial use (CC BY-NC-SA 4.0), and so is "
        "what is fine-tuned from them."
    ),
}


_PIPELINE = """

```python
from diffusers import AudioLDMPipeline

pipeline = AudioLDMPipeline.from_pretrained("path/to/this/folder")
audio = pipeline(caption, audio_length_in_s=10.0, guidance_scale=2.5).audios[0]
```"""


def model_card(
    start: str,
    clips: Clips | None,
    captions: Sequence[str],
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    pipeline: bool = True,
) -> str:
    """Return the text of a model's ``README.md``.

    Args:
        start: The checkpoint that was fine-tuned, as it was configured.
        clips: Clips of training and validation, if any.
        captions: One per clip.
        settings: Of the training.
        metrics: At the checkpoint that was kept.
        pipeline: Whether diffusers' pipeline can use it; it cannot use Griffin-Lim.

    >>> text = model_card("cvssp/audioldm-s-full-v2", None, [], {"learning_rate": 3e-5}, {})
    >>> "base_model: cvssp/audioldm-s-full-v2" in text, "non-commercial" in text
    (True, True)
    """
    kind = "random" if start.startswith("random:") else start if start == "nano" else "other"
    # A path of this machine is not for others.
    is_hub = start.count("/") == 1 and not start.startswith((".", "/", "~"))
    base = start if kind != "other" or is_hub else "a local checkpoint"
    head = {"library_name": "diffusers", "pipeline_tag": "text-to-audio", "tags": ["audioldm"]}
    if kind == "other":
        head["license"] = "cc-by-nc-sa-4.0"
        if is_hub:
            head["base_model"] = start
    front = "\n".join(
        f"{key}: {json.dumps(value) if isinstance(value, list) else value}"
        for key, value in head.items()
    )
    sections = [
        f"---\n{front}\n---\n",
        f"# AudioLDM, fine-tuned on machine sounds\n\nStart: {base}. Fine-tuned with fsasd.\n",
        f"## Use\n\nIn fsasd: `generator.checkpoint=path/to/this/folder`.{_PIPELINE * pipeline}\n",
        _data(clips, captions),
        f"## Licence\n\n{_LICENCES[kind]} The recordings' own licence holds beside it.\n",
        f"## Settings\n\n```json\n{json.dumps(settings, indent=2, default=str)}\n```\n",
    ]
    if metrics:
        rows = "\n".join(f"| {name} | {value:.5g} |" for name, value in sorted(metrics.items()))
        sections.append(f"## Metrics\n\n| at the checkpoint kept | |\n|---|---|\n{rows}\n")
    return "\n".join(sections)


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
