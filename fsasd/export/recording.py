"""The input of an exported detector: a waveform, of which each front end takes its part."""

from __future__ import annotations

from fsasd.export.graph import Graph, NotExportableError, Value

INPUT = Value("waveform")


class Recording:
    """What the front ends of a detector ask of a recording.

    Attributes:
        graph: Gets the nodes.
        sampling_rate: Of the waveform in Hz, as the first front end asked.
        both: Whether it is of two channels, (2, samples), near and far.
        seconds: How much the front ends read, from the start; ``None`` where one reads all.

    >>> recording = Recording(Graph())
    >>> _ = recording.waveform(16_000, 10.0), recording.waveform(16_000, 2.0)
    >>> recording.sampling_rate, recording.longest
    (16000, 10.0)
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sampling_rate: int | None = None
        self.both: bool | None = None
        self.seconds: list[float | None] = []

    def waveform(self, sampling_rate: int, seconds: float | None, both: bool = False) -> Value:
        """Return the waveform, (samples,) or (2, samples) float32.

        Args:
            sampling_rate: In Hz.
            seconds: How much of it, from the start; all of it without.
            both: Whether to return both channels.

        Raises:
            NotExportableError: Another front end asked for another rate, or for other channels.
        """
        for name, asked in (("sampling_rate", sampling_rate), ("both", both)):
            before = getattr(self, name)
            if before is not None and before != asked:
                what = "sampling rates" if name == "sampling_rate" else "channels"
                raise NotExportableError(
                    f"its front ends read recordings at different {what} ({before} and {asked}), "
                    "and an ONNX file has one waveform: expected the same of all of them"
                )
            setattr(self, name, asked)
        self.seconds.append(seconds)
        if seconds is None:
            return INPUT
        return self.graph.slice(INPUT, [0], [round(seconds * sampling_rate)], -1)

    @property
    def longest(self) -> float | None:
        """How many seconds are read, from the start; ``None`` for the whole recording."""
        return None if None in self.seconds else max(filter(None, self.seconds), default=None)


class Channel(Recording):
    """One of the two channels of a recording.

    Args:
        recording: The recording.
        number: 0 for the near one, 1 for the far one.
    """

    def __init__(self, recording: Recording, number: int) -> None:
        super().__init__(recording.graph)
        self.recording = recording
        self.number = number

    def waveform(self, sampling_rate: int, seconds: float | None, both: bool = False) -> Value:
        """Return the channel's waveform, (samples,)."""
        pair = self.recording.waveform(sampling_rate, seconds, both=True)
        return self.graph("Gather", pair, self.number, axis=0)
