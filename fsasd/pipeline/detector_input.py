"""What a detector reads, its sampling rate and both channels or one: whether clips have it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fsasd.data.check.wording import many
from fsasd.data.recording import BOTH, SAMPLE_RATE, has_bands, without_bands
from fsasd.detectors.base import Detector, Params
from fsasd.generation.transfer import AnomalyTransfer
from fsasd.pipeline.experiment import Experiment


def highest_rate(detector: Detector, settings: Sequence[Params] = ()) -> int:
    """Return the highest sampling rate in Hz at which a detector reads recordings.

    Args:
        detector: One of its parameters may be a ``sampling_rate``, also of a component.
        settings: To choose from; they may set such a parameter.

    Returns:
        16,000 at least, at which recordings are read unless another rate is asked for.

    >>> from fsasd.detectors.twfr_gmm import TWFRGMM
    >>> highest_rate(TWFRGMM(), [{"sampling_rate": 48_000}])
    48000
    """
    named = [item for params in (detector.get_params(), *settings) for item in params.items()]
    return max([SAMPLE_RATE, *(v for name, v in named if name.split("__")[-1] == "sampling_rate")])


def takes_both(detector: Detector, settings: Sequence[Params] = ()) -> bool:
    """Return whether a detector takes both channels of recordings, by one of its components.

    >>> from fsasd.data.log_mel import LogMel
    >>> from fsasd.data.two_microphones import Denoised
    >>> from fsasd.detectors.knn import KNN
    >>> from fsasd.detectors.representations import TimeStatistics
    >>> takes_both(KNN()), takes_both(KNN(TimeStatistics(Denoised(LogMel.twfr()))))
    (False, True)
    """
    values = (v for params in (detector.get_params(), *settings) for v in params.values())
    return any(getattr(value, "channel", None) == BOTH for value in values)


def check_clips(run: Experiment, transferred: bool = False) -> None:
    """Check that the clips that settings are chosen on have what the detector reads.

    Args:
        run: The experiment.
        transferred: Whether settings are chosen on clips with transferred anomalies, too.

    Raises:
        ValueError: A generator's sampling rate is below the detector's, the detector takes both
            channels, or the grid varies the sampling rate of a front end.
    """
    settings = run.selector.settings()
    if run.generator is not None and takes_both(run.detector, settings):
        raise ValueError(
            f"generator ({run.generator.kind.__name__}): its clips are mono, and the detector "
            "takes both channels, near and far: no setting can be chosen on them. Keep the default "
            "setting (generator=none), or use a representation of one channel"
        )
    for name in {name for setting in settings for name in setting}:
        if name.endswith("front_end__sampling_rate"):
            raise ValueError(
                f"selection.grid: {name}: frames and bands of a front end follow from its sampling "
                f"rate when it is made. Sweep it instead: fsasd -m "
                f"{name.replace('__', '.')}=16000,48000"
            )
    wanted = highest_rate(run.detector, settings)
    if wanted == SAMPLE_RATE:
        return
    if transferred:
        _require("selection.sources.transfer", AnomalyTransfer.sampling_rate, wanted)
    if run.generator is not None:
        _require(f"generator ({run.generator.kind.__name__})", _rate_of_generator(run), wanted)


def _require(source: str, rate: int, wanted: int) -> None:
    if rate < wanted:
        raise ValueError(
            f"{source}: its clips have {rate} Hz, and the detector reads recordings at {wanted} "
            f"Hz: no setting can be chosen on clips without anything above {rate / 2:g} Hz. Use "
            f"generator=transforms generator.sampling_rate={wanted}, keep the default setting "
            f"(generator=none), or set the detector's sampling_rate to {rate}"
        )


def _rate_of_generator(run: Experiment) -> int:
    assert run.generator is not None
    if "sampling_rate" in run.generator.settings:
        return int(run.generator.settings["sampling_rate"])
    if run.uses_references or run.pretrain:
        return int(run.generator.kind.sampling_rate)
    # It is that of the model, which its checkpoint says.
    return int(run.generator().sampling_rate)


def check_recordings(run: Experiment, recordings: pd.DataFrame) -> None:
    """Check that recordings have what the detector reads.

    Args:
        run: The experiment.
        recordings: What was inspected (see ``data.check.inspection``).

    Raises:
        ValueError: Some of those that the detector is fitted on or scores have a lower sampling
            rate than it reads them at, or not two channels where it takes both; names the first.
    """
    settings = run.selector.settings()
    wanted = highest_rate(run.detector, settings)
    roles = {"target"}
    if run.generator is not None and (run.synthesis.references or run.selector.sources):
        roles.add("reference")
    read = recordings[recordings["role"].isin(roles) & recordings["problem"].isna()]
    single = read[read["channels"] != 2]
    if len(single) and takes_both(run.detector, settings):
        raise ValueError(
            f"{single.iloc[0]['path']}: expected two channels, near and far, which the detector "
            f"takes, found {single.iloc[0]['channels']:g}. Use a representation of one channel"
        )
    low = read[[not has_bands(rate, wanted) for rate in read["rate"]]]
    if low.empty:
        return
    first = low.sort_values("rate").iloc[0]
    raise ValueError(
        f"{many(len(low), 'recording')} of {len(read)} cannot be read for this detector, the first "
        f"is {first['path']}: {without_bands(int(first['rate']), wanted)}"
    )
