"""The templates of all pages, with the style, the colours and the script that they share."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from fsasd.report.comparison import SETTING_TITLES
from fsasd.report.figures import PALETTE
from fsasd.report.formatting import (
    count,
    decimal,
    duration,
    interval,
    percent,
    points,
    signed,
    size,
)


def environment() -> Environment:
    """Return the environment of the templates; they are named relative to this package.

    >>> page = environment().get_template("head.html").render(name="a & b", title="")
    >>> "<title>a &amp; b · fsasd</title>" in page
    True
    """
    shared = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(_resource),
    )  # fmt: skip
    shared.filters |= {
        "percent": percent, "points": points, "decimal": decimal, "signed": signed, "count": count,
        "duration": duration, "size": size,
    }  # fmt: skip
    shared.globals |= {
        "style": Markup(_resource("report.css")),
        "sorting": Markup(_resource("sorting.js")),
        "palette": PALETTE,
        "interval": interval,
        "setting_titles": SETTING_TITLES,
    }
    return shared


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
