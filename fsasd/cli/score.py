"""The command ``fsasd-score``: score recordings or a stream with saved detectors, and decide."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsasd.cli.arguments import add_trust, command_parser
from fsasd.data.audio_files import READABLE
from fsasd.runtime.signals import raise_on_signals

if TYPE_CHECKING:
    from fsasd.cli.scoring import ScoringSession
    from fsasd.deployment.alarms import Alarms
    from fsasd.deployment.model import Model
    from fsasd.deployment.streaming import Source, Stream

_DESCRIPTION = """\
Score recordings, or a stream of samples, with saved detectors, and decide which are anomalous. A
CSV row for each recording and model is printed on standard output: file, score, threshold,
decision, p_value (the probability that a normal clip has this score or a higher one), time and
model. What cannot be scored, and warnings, are on standard error."""

_EXAMPLES = """\
examples:
  fsasd-score --model models/fan clip.wav more/ 'old/*.flac' > scores.csv
  find /recordings -newer yesterday -name '*.wav' | fsasd-score --model models/fan -
  fsasd-score --model models/fan --watch /recordings --alarm 3/5 --on-alarm 'mail.sh {file} {score}'
  arecord -q -f S16_LE -r 16000 -t raw | fsasd-score --model models/fan --pcm --rate 16000 --json

exit code: 0 when everything was scored, 1 when something could not be, 2 when nothing could begin,
130 and 143 when Ctrl-C and SIGTERM have ended it.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = command_parser(
        "fsasd-score", _DESCRIPTION, epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--model", type=Path, required=True, action="append", metavar="DIR",
        help="models/<machine>/ of a run's folder, models/<machine>/section_<nn>/, or "
        "hub:owner/name, which is downloaded from the Hugging Face hub; several models score "
        "each recording",
    )  # fmt: skip
    parser.add_argument(
        "recordings", nargs="*", metavar="WAV",
        help=f"recordings ({READABLE}), folders of recordings, patterns, or - for a list on "
        "standard input, a path in each line",
    )  # fmt: skip
    parser.add_argument(
        "--false-alarm-rate", type=float, metavar="SHARE",
        help="share of normal clips that may be called anomalous, in place of the run's "
        "(decision.false_alarm_rate)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each row, not CSV"
    )
    parser.add_argument(
        "--explain", type=Path, metavar="DIR",
        help="write a picture and a JSON file for each recording: what its bands and moments add "
        "to its score; with --watch, of anomalous recordings",
    )  # fmt: skip
    parser.add_argument(
        "--normal", type=Path, action="append", default=[], metavar="DIR",
        help="the training recordings, of which --explain draws the nearest",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="score in N processes (default: 1)"
    )
    add_trust(parser)
    _live_arguments(parser.add_argument_group("live", "until it is ended"))
    _alarm_arguments(parser.add_argument_group("alarms", "a column `alarm`, and what is run"))
    return parser


def _live_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--watch", type=Path, metavar="DIR",
        help="score recordings as they appear below a folder: when they are closed or renamed into "
        "place, else when they have not changed for 2 s",
    )  # fmt: skip
    group.add_argument(
        "--pcm", action="store_true", help="score raw samples on standard input, window by window"
    )
    group.add_argument(
        "--device", metavar="NAME",
        help="score what a sound card records: its name, number, or default (fsasd[device])",
    )  # fmt: skip
    group.add_argument("--rate", type=int, default=16_000, help="of sampling, in Hz (16000)")
    group.add_argument("--channels", type=int, default=1, help="interleaved in the stream (1)")
    group.add_argument(
        "--samples", default="s16le", choices=["s16le", "s32le", "f32le"],
        help="of the stream, named as ffmpeg does (s16le)",
    )  # fmt: skip
    group.add_argument(
        "--window", type=float, default=10.0, metavar="S", help="seconds of a window (10)"
    )
    group.add_argument(
        "--hop", type=float, default=1.0, metavar="S", help="seconds from window to window (1)"
    )


def _alarm_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--alarm", metavar="K/N",
        help="an alarm begins with K anomalous decisions of the last N of a model",
    )  # fmt: skip
    group.add_argument(
        "--release", type=int, metavar="K", help="it ends with K of N or fewer (K - 1 of --alarm)"
    )
    group.add_argument(
        "--cool-down", type=float, default=0.0, metavar="S",
        help="seconds after its end in which none begins (0)",
    )  # fmt: skip
    group.add_argument(
        "--on-alarm", metavar="COMMAND",
        help="run when an alarm begins, without a shell: {file}, {time}, {score}, {threshold}, "
        "{p_value} and {model} are replaced, the row is JSON on its standard input",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-score``.

    Returns:
        Exit code: 0 when everything was scored; 1 when something could not be, which is on stderr;
        2 when there is no such model, no recording, or an argument that cannot be.
    """
    command = parser()
    arguments = command.parse_args(argv)
    if problem := _contradiction(arguments):
        command.error(problem)
    from fsasd.deployment.files import grouped, listed, recordings
    from fsasd.deployment.model import load_all

    if arguments.watch or arguments.pcm or arguments.device:
        # Commands of alarms that have begun are waited for.
        raise_on_signals()
    try:
        models = load_all(arguments.model, arguments.trust)
        if arguments.false_alarm_rate is not None:
            models = [model.at(arguments.false_alarm_rate) for model in models]
        paths = list(recordings(place for place in arguments.recordings if place != "-"))
        stream, alarms = _stream(arguments), _alarms(arguments)
        with _session(models, arguments, alarms) as session:
            if paths:
                session.score_files(grouped(paths), arguments.jobs)
            if "-" in arguments.recordings:
                session.score_files(listed(map(os.fsdecode, sys.stdin.buffer)), arguments.jobs)
            if arguments.watch:
                session.watch(arguments.watch)
            if stream:
                with _source(arguments.device, stream) as (name, source):
                    session.score_stream(stream, source, name)
    except BrokenPipeError:
        # Whoever reads has ended.
        raise
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    return int(session.failed > 0)


def _contradiction(arguments: argparse.Namespace) -> str | None:
    """Return what is wrong with arguments that exclude each other."""
    live = [name for name in ("watch", "pcm", "device") if getattr(arguments, name)]
    if not live and not arguments.recordings:
        return "expected recordings, or one of --watch, --pcm and --device"
    if len(live) > 1:
        return f"expected one of --watch, --pcm and --device, found --{' and --'.join(live)}"
    if live in (["pcm"], ["device"]) and arguments.recordings:
        return f"--{live[0]} scores a stream: expected no recordings beside it"
    if arguments.explain and live in (["pcm"], ["device"]):
        return f"--explain needs recordings in files, found --{live[0]}"
    if arguments.normal and not arguments.explain:
        return "--normal needs --explain DIR"
    if arguments.device and arguments.samples != "s16le":
        return f"--device records s16le, found --samples {arguments.samples}"
    if not arguments.alarm:
        names = ("release", "cool_down", "on_alarm")
        if given := [n for n in names if getattr(arguments, n) not in (None, 0.0)]:
            return f"--{given[0].replace('_', '-')} needs --alarm K/N"
    return None


def _stream(arguments: argparse.Namespace) -> Stream | None:
    if not (arguments.pcm or arguments.device):
        return None
    from fsasd.deployment.streaming import Stream

    names = ("rate", "channels", "samples", "window", "hop")
    return Stream(**{name: getattr(arguments, name) for name in names})


def _alarms(arguments: argparse.Namespace) -> Alarms | None:
    if not arguments.alarm:
        return None
    from fsasd.deployment.alarms import AlarmPolicy, Alarms, Hook

    policy = AlarmPolicy.of(arguments.alarm, arguments.release, arguments.cool_down)
    return Alarms(policy, Hook(arguments.on_alarm) if arguments.on_alarm else None)


def _session(
    models: list[Model], arguments: argparse.Namespace, alarms: Alarms | None
) -> ScoringSession:
    from fsasd.cli.scoring import ScoringSession
    from fsasd.deployment.results import ResultWriter

    explanations = None
    if arguments.explain:
        from fsasd.deployment.explanation.folder import ExplanationFolder

        explanations = ExplanationFolder(arguments.explain, models, arguments.normal)
    live = bool(arguments.watch or arguments.pcm or arguments.device)
    writer = ResultWriter(sys.stdout, as_json=arguments.json, alarms=alarms is not None)
    return ScoringSession(models, writer, alarms, explanations, live=live)


@contextlib.contextmanager
def _source(device: str | None, stream: Stream) -> Iterator[tuple[str, Source]]:
    """Yield the name of a stream and where its bytes come from."""
    if device is None:
        yield "-", sys.stdin.buffer
        return
    from fsasd.deployment.streaming import Device

    with contextlib.closing(Device(device, stream)) as source:
        yield device, source


if __name__ == "__main__":
    sys.exit(main())
