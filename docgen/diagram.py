"""The diagram of the method: ``python -m docgen.diagram`` writes docs/assets/method.svg.

It has a light ground of its own, so that it is the same on light and dark pages.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "assets" / "method.svg"

WIDTH, HEIGHT = 640, 640
INK, PALE, TEAL, ORANGE, GREY = "#1f2933", "#ffffff", "#00796b", "#d9622b", "#52606d"


def box(x: int, y: int, w: int, h: int, title: str, *lines: str, colour: str = TEAL) -> str:
    """Return a box with a title and lines of text below it."""
    middle = x + w / 2
    first = y + h / 2 - 11 * len(lines) + 6
    texts = [_text(middle, first, title, size=19, weight=600)]
    texts += [_text(middle, first + 23 * n, line, GREY) for n, line in enumerate(lines, 1)]
    frame = (
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="10" fill="{PALE}" '
        f'stroke="{colour}" stroke-width="2"/>'
    )
    return "\n".join([frame, *texts])


def arrow(*points: tuple[int, int], colour: str = INK) -> str:
    """Return a line through points with a head at the last."""
    path = " L".join(f"{x} {y}" for x, y in points)
    return (
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" '
        'marker-end="url(#head)"/>'
    )


def _text(
    x: float, y: float, text: str, colour: str = INK, size: int = 16, weight: int = 400
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="middle">{escape(text)}</text>'
    )


def diagram() -> str:
    """Return the SVG."""
    parts = [
        box(20, 20, 290, 96, "References", "normal and anomalous recordings",
            "of other machines, metadata", colour=GREY),
        box(330, 20, 290, 96, "Target: the new machine", "normal recordings only,",
            "metadata", colour=ORANGE),
        arrow((165, 116), (165, 148)), arrow((400, 116), (400, 148)),
        box(20, 150, 460, 76, "1  Captions of all recordings",
            "“normal sound of a motor with speed 1400 rpm”"),
        arrow((250, 226), (250, 258)),
        box(20, 260, 460, 76, "2  AudioLDM, fine-tuned on them", "a text-to-audio diffusion model"),
        arrow((250, 336), (250, 368)),
        box(20, 370, 460, 76, "3  Synthetic clips of the target",
            "normal and anomalous, from captions"),
        arrow((250, 446), (250, 478)),
        box(20, 480, 460, 76, "4  The detector’s setting is chosen",
            "which time weight r finds these anomalies?"),
        # The target's own normal clips go to the detector past everything else.
        arrow((560, 116), (560, 584), colour=ORANGE),
        arrow((250, 556), (250, 584)),
        box(20, 586, 600, 38, "5  Detector, fitted on the target’s normal clips"),
    ]  # fmt: skip
    head = (
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif" role="img">',
            "<title>The method: captions, AudioLDM, synthetic clips, setting, detector</title>",
            f"<defs>{head}</defs>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="#f5f7f8"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    FILE.write_text(diagram(), encoding="utf-8")
