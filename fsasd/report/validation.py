"""The leave-one-machine-out validation in words."""

from __future__ import annotations

import math

import pandas as pd

from fsasd.report.formatting import count, interval, percent, points


def verdict_of_choices(validation: pd.DataFrame) -> str:
    """Describe in a sentence what the choice of settings gained on the reference machines.

    Args:
        validation: ``Results.validation``.
    """
    mean = validation[validation["machine"] == "mean"].iloc[0]
    machines = validation[validation["machine"] != "mean"]
    low, high = mean["gain_low"], mean["gain_high"]
    if machines["abstain_reason"].notna().all():
        outcome = "the default setting was kept everywhere"
    elif low > 0:
        outcome = "the choice of settings helped"
    elif high < 0:
        outcome = "the choice of settings did harm"
    else:
        outcome = "the choice of settings made no significant difference"
    closed = "" if math.isnan(mean["closed"]) else (
        f" That is {percent(mean['closed'], 0)} % of the gain of the oracle, the best setting on "
        "the test labels."
    )  # fmt: skip
    return (
        f"On {count(len(machines), 'reference machine')}, {outcome}: {points(mean['gain'])} points "
        f"of the objective against the default setting (95 % interval {interval(low, high)})."
        f"{closed}"
    )


def gain_with_site(validation: pd.DataFrame) -> str:
    """Describe in a sentence what choices gained that machines of the same site took part in.

    Args:
        validation: ``Results.validation``.

    Returns:
        Empty where such machines were not left out.

    >>> gain_with_site(pd.DataFrame([{"machine": "mean", "gain_with_site": 0.04,
    ...     "gain_with_site_low": -0.02, "gain_with_site_high": 0.09}]))
    ... # doctest: +NORMALIZE_WHITESPACE
    'Each machine’s type and site are left out of what its setting is chosen on. With its type alone
    left out, the mean gain is +4.0 points (95 % interval −2.0 to +9.0).'
    """
    if "gain_with_site" not in validation:
        return ""
    mean = validation[validation["machine"] == "mean"].iloc[0]
    low, high = mean["gain_with_site_low"], mean["gain_with_site_high"]
    return (
        "Each machine’s type and site are left out of what its setting is chosen on. With its type "
        f"alone left out, the mean gain is {points(mean['gain_with_site'])} points (95 % interval "
        f"{interval(low, high)})."
    )
