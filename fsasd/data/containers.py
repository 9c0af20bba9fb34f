"""Containers of recordings: how much audio a header announces, and how much the file holds.

libsndfile reads a file that was cut as a shorter one, without an error, so the sizes in the header
are compared with the file. Not all sizes that are wrong mean a cut:

* A recorder that writes to a pipe cannot know the length, and a recorder that was killed never
  wrote it. They announce nothing, or the largest size there is: within 16 MiB of 2 GiB or 64 KiB of
  4 GiB. The audio goes on to the end of the file.
* A writer that counts its header as audio announces more audio than there is. Its size of the whole
  file is right; or both are too long by exactly what is easily counted, too: the header, the header
  without its first 8 bytes, or a chunk of it, with or without name and size (44, 36, 24 or 16 bytes
  of an ordinary wav file: a millisecond). It is 128 bytes at most.
* Chunks behind the audio, and the pad byte of an odd one, may be missing.

Whatever else announces more audio than there is was cut.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MOST_CHUNKS = 10_000
_LARGEST_MISCOUNT = 128
"""Bytes; disks and networks lose more at a time, of a file that was cut."""

_LARGEST_OGG_PAGE = 65_307
_LAST_PAGE = 4
_LARGEST_MP3_FRAME = 2881

_UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)
"""PCM, float, A-law, µ-law and WAVE_FORMAT_EXTENSIBLE, of which libsndfile knows these."""


@dataclass(frozen=True)
class Extent:
    """How much audio a file has.

    Attributes:
        cut: What is missing, if something is.
        frames: Samples of each channel that a compressed wav file announces, if it does.
        sizes: Sizes that were never filled in, as they should be: offset in the file -> bytes.
    """

    cut: str | None = None
    frames: int | None = None
    sizes: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layout:
    """How a container divides a file into chunks: a name, a size and a body each.

    Attributes:
        audio: Name of the chunk that holds the samples.
        size: Format of a size, for ``struct``.
        first: Offset of the first chunk.
        whole: Offset of the size of the whole file, if it has one.
        outside: Bytes at the start of the file that the size of the whole leaves out.
        included: Bytes that a chunk's size counts beside its body.
        before: Bytes of the audio chunk's body before the samples.
        align: Of chunks, in bytes.
    """

    audio: bytes = b"data"
    size: str = "<I"
    first: int = 12
    whole: int | None = 4
    outside: int = 8
    included: int = 0
    before: int = 0
    align: int = 2


# Sony's wave64 names chunks by 16 bytes, which begin as those of wav do.
_WAVE64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_LAYOUTS = {
    b"RIFF": _Layout(),
    b"RIFX": _Layout(size=">I"),
    b"RF64": _Layout(),
    b"FORM": _Layout(b"SSND", ">I", before=8),
    b"riff": _Layout(b"data" + _WAVE64, "<Q", first=40, whole=16, outside=0, included=24, align=8),
    b"caff": _Layout(size=">q", first=8, whole=None, before=4, align=1),
}
_SUN = {b".snd": ">I", b"dns.": "<I"}


class _Size(NamedTuple):
    """A size in a header: its offset, its format for ``struct``, and what else it counts."""

    place: int
    form: str
    beside: int

    def read(self, file: BinaryIO) -> int:
        return _number(file, self.place, self.form) - self.beside

    def written(self, size: int) -> bytes:
        return struct.pack(self.form, min(size + self.beside, _largest(self.form)))

    def says_nothing(self, file: BinaryIO) -> bool:
        """Whether it is a size that writers put where they do not know it."""
        number = _number(file, self.place, self.form)
        if _largest(self.form) > 1 << 32:
            return not 0 <= number < 1 << 62
        return 0x7F000000 <= number <= 0x80010000 or number >= 0xFFFF0000


def extent(file: BinaryIO) -> Extent | None:
    """Return how much audio a file has, or ``None`` where its header holds no size.

    >>> head = b"RIFF" + struct.pack("<I", 32) + b"WAVEdata" + struct.pack("<I", 20)
    >>> extent(io.BytesIO(head + bytes(20)))
    Extent(cut=None, frames=None, sizes={})
    >>> extent(io.BytesIO(head + bytes(15))).cut
    'its header announces more audio than the file holds: 20 bytes, found 15'
    """
    end = file.seek(0, io.SEEK_END)
    magic = _at(file, 0, 4)
    if layout := _LAYOUTS.get(magic):
        return _of_chunks(file, end, layout)
    if form := _SUN.get(magic):
        return _compared(file, end, _number(file, 4, form), _Size(8, form, 0))
    if magic == b"OggS":
        whole = _has_last_ogg_page(file, end)
        return Extent(cut=None if whole else "the last page of its Ogg stream is missing")
    return None


def mp3_tells_its_length(file: BinaryIO) -> bool:
    """Tell whether the first frame of an MP3 file holds its length; otherwise it is an estimate."""
    start = 0
    if _at(file, 0, 3) == b"ID3":
        # Seven bits of each byte.
        start = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(_at(file, 6, 4)))
    return any(name in _at(file, start, _LARGEST_MP3_FRAME) for name in (b"Xing", b"Info", b"VBRI"))


class Mended(io.FileIO):
    """A file with sizes filled in that its recorder left open.

    Args:
        path: The file.
        sizes: See ``Extent``.
    """

    def __init__(self, path: Path, sizes: dict[int, bytes]) -> None:
        super().__init__(path)
        self._sizes = sizes

    def readinto(self, buffer) -> int:
        start = self.tell()
        count = super().readinto(buffer) or 0
        view = memoryview(buffer)
        for place, size in self._sizes.items():
            for offset, byte in enumerate(size, place - start):
                if 0 <= offset < count:
                    view[offset : offset + 1] = bytes([byte])
        return count


def _of_chunks(file: BinaryIO, end: int, layout: _Layout) -> Extent | None:
    whole = None if layout.whole is None else _Size(layout.whole, layout.size, -layout.outside)
    compressed, frames, wide = False, None, None
    miscounts: set[int] = set()
    for name, start, length in _chunks(file, end, layout):
        if name == b"fmt ":
            compressed = _number(file, start, layout.size[0] + "H") not in _UNCOMPRESSED
        elif name == b"fact":
            frames = _number(file, start, layout.size)
        elif name == b"ds64":
            wide = start
        elif name == layout.audio:
            miscounts |= {start, start - 8}
            break
        miscounts |= {length, length + len(name) + struct.calcsize(layout.size)}
    else:
        return None
    place = start - struct.calcsize(layout.size)
    size = _Size(place, layout.size, layout.included + layout.before)
    if wide is not None and size.read(file) == 0xFFFFFFFF:
        # Sizes that 32 bits do not hold are in a chunk of their own.
        whole, size = _Size(wide, "<Q", -layout.outside), _Size(wide + 8, "<Q", 0)
    compared = _compared(file, end, start + layout.before, size, whole, miscounts)
    return replace(compared, frames=frames) if compressed and not compared.sizes else compared


def _chunks(file: BinaryIO, end: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's name, the offset of its body and its length."""
    width, head = len(layout.audio), len(layout.audio) + struct.calcsize(layout.size)
    place = layout.first
    for _ in range(_MOST_CHUNKS):
        if place + head > end:
            return
        length = _number(file, place + width, layout.size) - layout.included
        yield _at(file, place, width), place + head, length
        if length < 0:
            return
        place += head + length + -length % layout.align


def _compared(
    file: BinaryIO,
    end: int,
    start: int,
    size: _Size,
    whole: _Size | None = None,
    miscounts: Collection[int] = (),
) -> Extent:
    """Compare the announced sizes of the audio and of the whole file with the file."""
    # A header may say that it is longer than the file.
    announced, there = size.read(file), max(end - start, 0)
    if announced > there:
        unknown = size.says_nothing(file)
    else:
        unknown = announced <= 0 < there and not _is_chunk(file, end, start, size.form)
    if unknown:
        sizes = {size.place: size.written(there)}
        return Extent(sizes=sizes if whole is None else sizes | {whole.place: whole.written(end)})
    whole_is_right = whole is not None and start < whole.read(file) <= end
    excess = announced - there
    counts_header = whole_is_right or excess in miscounts
    if excess <= 0 or (counts_header and excess <= _LARGEST_MISCOUNT):
        return Extent()
    return Extent(
        cut=f"its header announces more audio than the file holds: {announced} bytes, found {there}"
    )


def _is_chunk(file: BinaryIO, end: int, place: int, form: str) -> bool:
    name, length = _at(file, place, 4), _number(file, place + 4, form[0] + "I")
    return name.isascii() and name.decode().isprintable() and place + 8 + length <= end


def _has_last_ogg_page(file: BinaryIO, end: int) -> bool:
    tail = _at(file, max(end - _LARGEST_OGG_PAGE, 0), _LARGEST_OGG_PAGE)
    place = tail.rfind(b"OggS")
    head = tail[place : place + 27] if place >= 0 else b""
    if len(head) < 27:
        return False
    flags, segments = head[5], head[26]
    lengths = tail[place + 27 : place + 27 + segments]
    complete = len(lengths) == segments and place + 27 + segments + sum(lengths) <= len(tail)
    return complete and bool(flags & _LAST_PAGE)


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _number(file: BinaryIO, place: int, form: str) -> int:
    """Return a number of the header; 0 if the file ends before it."""
    count = struct.calcsize(form)
    return struct.unpack(form, _at(file, place, count).ljust(count, b"\0"))[0]


def _largest(form: str) -> int:
    return (1 << 8 * struct.calcsize(form) - (form[1] == "q")) - 1
