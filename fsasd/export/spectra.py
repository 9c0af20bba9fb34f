"""Spectra and log-mel spectrograms of an exported detector.

A discrete Fourier transform is two products with small matrices (Cooley and Tukey, "An algorithm
for the machine calculation of complex Fourier series", 1965, in two stages). ONNX's STFT, as
onnxruntime computes it, is slower, and of lengths that are no power of two it takes ten times as
long and is off by 0.4 dB; one product with the whole matrix takes three times as long and megabytes
(``benchmarks/export.py``).
"""

from __future__ import annotations

import math

import numpy as np

from fsasd.data.log_mel import LogMel, mel_filters
from fsasd.export.graph import Graph, Value
from fsasd.export.recording import Recording


def log_mel(front_end: LogMel, recording: Recording) -> Value:
    """Return the (n_mels, frames) float32 log-mel spectrogram of a recording."""
    waveform = recording.waveform(front_end.sampling_rate, front_end.max_seconds)
    return log_mel_of(recording.graph, waveform, front_end)


def log_mel_of(graph: Graph, waveform: Value, front_end: LogMel) -> Value:
    """Return the (n_mels, frames) float32 log-mel spectrogram of (samples,) (``LogMel``)."""
    reach = front_end.n_fft // 2 if front_end.pad is None else front_end.pad
    # A clip that is too short to be mirrored is repeated until it is not.
    times = graph("Add", graph("Div", [reach], graph.size(waveform, 0)), [1])
    padded = graph("Pad", graph("Tile", waveform, times), [reach, reach], mode="reflect")
    strength = power(graph, padded, front_end.n_fft, front_end.hop)
    if front_end.power != 2:
        strength = graph("Pow", strength, np.float32(front_end.power / 2))
    mel = graph("MatMul", strength, graph.matrix(mel_filters(front_end).T))
    mel = graph("Max", mel, np.float32(front_end.floor))
    logarithm = graph("Log", mel)
    if front_end.decibel:
        logarithm = graph("Mul", logarithm, np.float32(10 / math.log(10)))
    per_decade = 10.0 if front_end.decibel else math.log(10)
    lowest = np.float32(per_decade * math.log10(front_end.floor))
    return graph("Transpose", graph("Max", logarithm, lowest), perm=[1, 0])


def power(graph: Graph, samples: Value, n_fft: int, hop: int) -> Value:
    """Return the (frames, n_fft // 2 + 1) powers of Hann-windowed frames of (samples,)."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    windowed = graph("Mul", frames(graph, samples, n_fft, hop), window)
    real, imaginary = dft(graph, windowed, None, n_fft)
    return graph("Add", graph("Mul", real, real), graph("Mul", imaginary, imaginary))


def frames(graph: Graph, samples: Value, size: int, hop: int) -> Value:
    """Return the (frames, size) overlapping frames of (samples,), those that are whole."""
    rest = graph("Sub", graph.size(samples, 0), [size])
    count = graph("Squeeze", graph("Add", graph("Div", rest, [hop]), [1]), [0])
    starts = graph("Mul", graph("Range", 0, count, 1), hop)
    places = graph("Add", graph("Unsqueeze", starts, [1]), np.arange(size))
    return graph("Gather", samples, places, axis=0)


def dft(
    graph: Graph,
    real: Value,
    imaginary: Value | None,
    size: int,
    *,
    half: bool = True,
    dtype: type[np.floating] = np.float32,
) -> tuple[Value, Value]:
    """Return the real and the imaginary part of the spectra of rows (m, size).

    With size = a b, sample n = b i + j and frequency k = p + a q it is

        X[p + a q] = sum_j W_b^(j q) W_size^(j p) sum_i W_a^(i p) x[b i + j],  W_n = exp(-2 pi i/n).

    Args:
        graph: Gets the nodes.
        real: (m, size).
        imaginary: The same; ``None`` of real rows.
        size: Of a row.
        half: Whether to return the first size // 2 + 1 frequencies, or all of them.
        dtype: Of the rows and of what is computed.
    """
    a = max(factor for factor in range(1, math.isqrt(size) + 1) if size % factor == 0)
    b = size // a
    inner = _roots(np.outer(np.arange(a), np.arange(a)), a)
    twist = _roots(np.outer(np.arange(b), np.arange(a)), size)
    outer = _roots(np.outer(np.arange(b), np.arange(b // 2 + 1 if half else b)), b)

    def folded(rows: Value) -> Value:
        # (m, b, a): sample b i + j at [j, i].
        return graph("Transpose", graph("Reshape", rows, [-1, a, b]), perm=[0, 2, 1])

    def unfolded(columns: Value) -> Value:
        # Frequency p + a q at [p, q].
        row = graph(
            "Reshape", graph("Transpose", columns, perm=[0, 2, 1]), [-1, a * outer.shape[1]]
        )
        return graph.slice(row, [0], [size // 2 + 1], 1) if half else row

    imaginary = None if imaginary is None else folded(imaginary)
    real, imaginary = _product(graph, folded(real), imaginary, inner, dtype)
    cosine, sine = (part.astype(dtype) for part in (twist.real, twist.imag))
    turned = (
        graph("Sub", graph("Mul", real, cosine), graph("Mul", imaginary, sine)),
        graph("Add", graph("Mul", real, sine), graph("Mul", imaginary, cosine)),
    )
    real, imaginary = (graph("Transpose", part, perm=[0, 2, 1]) for part in turned)
    real, imaginary = _product(graph, real, imaginary, outer, dtype)
    return unfolded(real), unfolded(imaginary)


def _product(
    graph: Graph,
    real: Value,
    imaginary: Value | None,
    matrix: np.ndarray,
    dtype: type[np.floating],
) -> tuple[Value, Value]:
    """Return both parts of the product of a complex value, or a real one, and a matrix."""
    cosine, sine = (part.astype(dtype) for part in (matrix.real, matrix.imag))
    of_real = graph("MatMul", real, cosine), graph("MatMul", real, sine)
    if imaginary is None:
        return of_real
    return (
        graph("Sub", of_real[0], graph("MatMul", imaginary, sine)),
        graph("Add", of_real[1], graph("MatMul", imaginary, cosine)),
    )


def _roots(exponents: np.ndarray, size: int) -> np.ndarray:
    return np.exp(-2j * np.pi * (exponents % size) / size)
