"""Numbers as the console and the report page write them."""

from __future__ import annotations

import math

UNDEFINED = "—"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction in percent, without the sign; undefined is a dash.

    >>> percent(0.78958), percent(float("nan"))
    ('79.0', '—')
    """
    return UNDEFINED if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def decimal(value: float) -> str:
    """Format a number with three significant digits; undefined is a dash.

    >>> decimal(0.04309), decimal(1665.57), decimal(-1.0274), decimal(float("nan"))
    ('0.0431', '1670', '−1.03', '—')
    """
    if math.isnan(value):
        return UNDEFINED
    text = f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".")
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Format a number with its sign and two decimals; undefined is a dash.

    >>> signed(0.877), signed(-0.12), signed(float("nan"))
    ('+0.88', '−0.12', '—')
    """
    return UNDEFINED if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def points(difference: float) -> str:
    """Format a difference of fractions in percentage points, with its sign.

    >>> points(0.042), points(-0.01), points(-0.0001)
    ('+4.2', '−1.0', '0.0')
    """
    if math.isnan(difference):
        return UNDEFINED
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def interval(low: float, high: float) -> str:
    """Format an interval of differences in percentage points; undefined is a dash.

    >>> interval(-0.01, 0.042), interval(float("nan"), float("nan"))
    ('−1.0 to +4.2', '—')
    """
    return UNDEFINED if math.isnan(low) else f"{points(low)} to {points(high)}"


def span(low: float, high: float) -> str:
    """Format an interval of fractions in percent; undefined is a dash.

    >>> span(0.582, 1.0), span(float("nan"), float("nan"))
    ('58.2 to 100.0', '—')
    """
    return UNDEFINED if math.isnan(low) else f"{percent(low)} to {percent(high)}"


def count(number: int, noun: str) -> str:
    """Format a number of things.

    >>> count(1, "section"), count(0, "section")
    ('1 section', '0 sections')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def size(number: float) -> str:
    """Format a number of bytes; an unknown one is empty.

    >>> size(40), size(13_500_000), size(float("nan"))
    ('40 B', '13.5 MB', '')
    """
    if math.isnan(number):
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Format a time; an unknown one is a dash.

    >>> duration(0.4), duration(12.3), duration(754), duration(7384), duration(float("nan"))
    ('0 s', '12 s', '12 min 34 s', '2 h 3 min', '—')
    """
    if math.isnan(seconds):
        return UNDEFINED
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
