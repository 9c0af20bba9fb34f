"""What is whole is read whole, what is cut is refused, in every container that is read."""

import contextlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fsasd.data.recording import AudioError, header, read

FRAMES = 4000
SAMPLES = (0.3 * np.random.default_rng(0).standard_normal(FRAMES)).clip(-1, 1)
PCM = (SAMPLES * 2**15).astype("<i2").tobytes()
PIPE = 0x7FFFF000


def riff(*, whole=None, data=None, before=b"", behind=b"", pcm=PCM, fmt=None, magic=b"RIFF"):
    """A wav file; sizes of the whole and of the data are right unless they are given."""
    fmt = fmt or struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVE" + chunk(b"fmt ", fmt) + before
    body += b"data" + struct.pack("<I", len(pcm) if data is None else data) + pcm + behind
    return magic + struct.pack("<I", len(body) if whole is None else whole) + body


def chunk(name, content, size="<I"):
    return name + struct.pack(size, len(content)) + content + b"\0" * (len(content) % 2)


def written(container, subtype=None, samples=SAMPLES):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format=container, subtype=subtype)
    return buffer.getvalue()


def changed(container, *numbers):
    """A file with other numbers in its header: each behind a name, so many bytes further."""
    content = written(container, "PCM_16")
    for name, further, form, number in numbers:
        place = content.index(name) + len(name) + further
        end = place + struct.calcsize(form)
        content = content[:place] + struct.pack(form, number) + content[end:]
    return content


@pytest.fixture
def read_bytes(tmp_path):
    def read_back(content):
        path = tmp_path / "clip.wav"
        path.write_bytes(content)
        assert header(path).seconds == pytest.approx(FRAMES / 16_000)
        return read(path)

    return read_back


LIST = chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 4) + b"sox\0")
EXTENSIBLE = struct.pack(
    "<HHIIHHHHI16s", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4,
    bytes.fromhex("0100000000001000800000aa00389b71"),
)  # fmt: skip
WHOLE = {
    "as it should be": riff(),
    "sox to a pipe": riff(whole=PIPE + 36, data=PIPE),
    "arecord to a pipe": riff(whole=0x7FFFFF24, data=0x7FFFFF00),
    "GStreamer to a pipe": riff(whole=0x7FFF0024, data=0x7FFF0000),
    "2 GiB": riff(whole=0x80000024, data=0x80000000),
    "ffmpeg to a pipe": riff(whole=0xFFFFFFFF, data=0xFFFFFFFF, before=LIST),
    "4 GiB less the header": riff(whole=0xFFFFFFFF, data=0xFFFFFFFF - 36),
    "the whole 0": riff(whole=0),
    "killed, 0 and 0": riff(whole=0, data=0),
    "killed, a header": riff(whole=36, data=0),
    "killed, a header with a list": riff(whole=0, data=0, before=LIST),
    "killed, -1 and 0": riff(whole=0xFFFFFFFF, data=0),
    "extensible to a pipe": riff(whole=PIPE, data=PIPE, fmt=EXTENSIBLE),
    "extensible, killed": riff(whole=0, data=0, fmt=EXTENSIBLE),
    "the whole is the file's size": riff(whole=len(riff())),
    "the whole 4 too small": riff(whole=len(riff()) - 12),
    "data 16 too long": riff(data=len(PCM) + 16),
    "data counts all of the header": riff(data=len(PCM) + 44),
    "all 16 too long": riff(whole=len(riff()) + 8, data=len(PCM) + 16),
    "all count the header": riff(whole=len(riff()) + 36, data=len(PCM) + 44),
    "all count the header but 8": riff(whole=len(riff()) + 28, data=len(PCM) + 36),
    "all count an extensible header": riff(
        whole=len(riff()) + 24 + 60, data=len(PCM) + 68, fmt=EXTENSIBLE
    ),
    "a list behind": riff(behind=LIST),
    "a list behind, cut": riff(behind=LIST)[:-3],
    "an odd list before": riff(before=chunk(b"LIST", b"odd")),
    **{name: written(name, "PCM_16") for name in ("RF64", "W64", "AIFF", "AU", "CAF")},
    "RF64, killed": changed("RF64", (b"ds64", 4, "<Q", 0), (b"ds64", 12, "<Q", 0)),
    "W64 to a pipe": changed("W64", (b"riff", 12, "<q", -1), (b"data", 12, "<q", 2**63 - 1)),
    "AIFF, killed": changed("AIFF", (b"FORM", 0, ">I", 46), (b"SSND", 0, ">I", 8)),
    "AIFF to a pipe": changed("AIFF", (b"FORM", 0, ">I", PIPE), (b"SSND", 0, ">I", 0x7F000008)),
    "AU to a pipe": changed("AU", (b".snd", 4, ">I", 0xFFFFFFFF)),
    "AU, killed": changed("AU", (b".snd", 4, ">I", 0)),
    "CAF to a pipe": changed("CAF", (b"data", 0, ">q", -1)),
}  # fmt: skip


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_all_samples_are_read_whatever_the_header_says(read_bytes, content):
    np.testing.assert_allclose(read_bytes(content), SAMPLES, atol=2**-15)


@pytest.mark.parametrize("behind", [b"", LIST])
@pytest.mark.parametrize("pad", [b"\0", b""])
def test_the_pad_byte_of_odd_audio_may_be_missing(tmp_path, pad, behind):
    fmt = struct.pack("<HHIIHH", 1, 1, 16_000, 16_000, 1, 8)
    pcm = bytes(range(1, 202))
    path = tmp_path / "odd.wav"
    path.write_bytes(
        riff(pcm=pcm, fmt=fmt, whole=4 + 24 + 8 + 202 + len(behind), behind=pad + behind)
    )
    np.testing.assert_array_equal(read(path), (np.arange(1, 202) - 128) / 128)


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "AU", "W64", "RF64"])
def test_a_recording_without_samples_holds_none(tmp_path, container):
    path = tmp_path / "none.wav"
    path.write_bytes(written(container, "PCM_16", SAMPLES[:0]))
    with pytest.raises(AudioError, match=r"none\.wav: (holds no samples|not readable)"):
        read(path)


def test_a_list_behind_no_samples_is_no_audio(tmp_path):
    path = tmp_path / "none.wav"
    path.write_bytes(riff(pcm=b"", behind=LIST))
    with pytest.raises(AudioError, match=r"none\.wav: holds no samples"):
        read(path)


@pytest.mark.parametrize("lost", [1, 2, 8, 10, 18, 100, 4000])
def test_cut_is_cut_though_it_be_by_few_bytes(tmp_path, lost):
    path = tmp_path / "cut.wav"
    path.write_bytes(riff()[:-lost])
    expected = f"cut short: its header announces more audio .*: 8000 bytes, found {8000 - lost}"
    for reader in (read, header):
        with pytest.raises(AudioError, match=rf"cut\.wav: {expected}"):
            reader(path)


def test_a_block_that_is_as_long_as_a_chunk_of_the_header_is_missing(tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(riff(before=chunk(b"JUNK", bytes(4096)))[:-4096])
    with pytest.raises(AudioError, match=r"cut\.wav: cut short: "):
        read(path)


# Of each container, and of what it may hold, what differs in how long it is.
READ = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610",
            "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"),
    "WAVEX": ("PCM_16", "FLOAT"),
    "RF64": ("PCM_16",),
    "W64": ("PCM_16", "IMA_ADPCM", "GSM610"),
    "AIFF": ("PCM_16", "FLOAT", "IMA_ADPCM", "DWVW_16"),
    "AU": ("PCM_16", "G721_32", "G723_24"),
    "CAF": ("PCM_16", "ALAC_16"),
    "FLAC": ("PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}  # fmt: skip
LONG = 0.3 * np.sin(np.arange(9001) / 20) + 0.01 * np.random.default_rng(0).standard_normal(9001)
FILES = {
    (container, subtype): written(container, subtype, LONG)
    for container, subtypes in READ.items()
    for subtype in subtypes
}
FORMS = [pytest.param(form, id=" ".join(form)) for form in FILES]


@pytest.mark.parametrize("form", FORMS)
def test_every_codec_is_read(tmp_path, form):
    path = tmp_path / "clip"
    path.write_bytes(FILES[form])
    waveform = read(path)
    # Codecs of blocks fill their last one.
    assert 9001 <= len(waveform) <= 9600
    assert np.abs(waveform).max() <= 1
    assert header(path).seconds == pytest.approx(len(waveform) / 16_000)
    exact = form[1].startswith(("PCM", "FLOAT", "ALAC", "DWVW"))
    if exact:
        np.testing.assert_allclose(waveform, LONG, atol=2**-7 if form[1] == "PCM_U8" else 2**-15)
    else:
        assert np.corrcoef(waveform[:9001], LONG)[0, 1] > 0.98


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1))
def test_what_was_cut_is_refused_or_whole(tmp_path_factory, form, share):
    path = tmp_path_factory.getbasetemp() / "cut.wav"
    path.write_bytes(FILES[form])
    whole = read(path)
    # Up to 120 bytes may be those of a header.
    path.write_bytes(FILES[form][: int(share * (len(FILES[form]) - 120))])
    with contextlib.suppress(AudioError):
        np.testing.assert_array_equal(read(path), whole)


@pytest.mark.parametrize("container", ["VOC", "NIST", "PAF", "IRCAM", "SVX", "SDS"])
def test_a_container_that_does_not_tell_a_cut_is_refused(tmp_path, container):
    path = tmp_path / "odd.wav"
    path.write_bytes(written(container, "PCM_16" if container != "SDS" else "PCM_S8"))
    with pytest.raises(AudioError, match=r"odd\.wav: expected a wav, AIFF, AU, .* found "):
        read(path)


def flac(total, frames=FRAMES):
    """A FLAC file that announces another number of samples, of which 0 says that it is unknown."""
    content = bytearray(written("FLAC", "PCM_16", SAMPLES[:frames]))
    content[21] = content[21] & 0xF0 | total >> 32
    content[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(content)


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "streamed.flac"
    path.write_bytes(flac(0))
    np.testing.assert_allclose(read(path), SAMPLES, atol=2**-15)
    np.testing.assert_array_equal(read(path, seconds=0.1), read(path)[:1600])
    assert np.isnan(header(path).seconds)
    path.write_bytes(flac(0)[:-5])
    with pytest.raises(AudioError, match=r"streamed\.flac: not readable as audio: .*flac decoder"):
        read(path)


def test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end(tmp_path):
    buffer = io.BytesIO()
    constant = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(buffer, LONG, 16_000, format="MP3", **constant)
    content = buffer.getvalue()
    second = 360  # 80 kbit/s
    tag = b"ID3\x04\0\0\0\0\x01\x05" + bytes(133)
    for start in (b"", tag):
        path = tmp_path / "stream.mp3"
        path.write_bytes(start + content)
        assert len(read(path)) == 9001
        assert header(path).seconds == pytest.approx(9001 / 16_000)
        path.write_bytes(start + content[second:])
        assert 9001 <= len(read(path)) < 9001 + 5 * 576
        assert np.isnan(header(path).seconds)


def ogg(granule):
    """An Ogg file whose last page says that so many samples end there."""
    content = bytearray(written("OGG", "VORBIS", np.tile(SAMPLES, 40)))
    page = content.rindex(b"OggS")
    content[page + 6 : page + 14] = struct.pack("<q", granule)
    content[page + 22 : page + 26] = bytes(4)
    check = 0
    for byte in content[page:]:
        check ^= byte << 24
        for _ in range(8):
            check = (check << 1 ^ (0x04C11DB7 if check >> 31 else 0)) & 0xFFFFFFFF
    content[page + 22 : page + 26] = struct.pack("<I", check)
    return bytes(content)


@pytest.mark.parametrize("content", [flac(2**36 - 1), ogg(2**36)], ids=["flac", "ogg"])
@pytest.mark.parametrize("reader", [read, header])
def test_nothing_is_allocated_that_a_header_claims(tmp_path, content, reader):
    path = tmp_path / "huge.wav"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(
        AudioError, match=r"huge\.wav: its header announces 68719476\d+ samples, mo"
    ):
        reader(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_header_that_claims_a_little_too_much_is_refused_when_it_is_decoded(tmp_path):
    path = tmp_path / "more.flac"
    path.write_bytes(flac(FRAMES + 1))
    with pytest.raises(AudioError, match=r"cut short: .*: 4001 samples, found 4000|not readable"):
        read(path)


def test_the_cases_are_read_or_named(shared):
    folder = shared / "cases" / "headers"
    for name in ("sox_pipe", "arecord_pipe", "riff_is_file_size", "killed_recorder"):
        assert read(folder / f"{name}.wav").shape == (4000,), name
    for name in ("W64_trunc", "AIFF_trunc"):
        with pytest.raises(AudioError, match=rf"{name}\.wav: cut short"):
            read(folder / f"{name}.wav")
    folder = shared / "cases" / "codecs"
    for name in ("GSM610.wav", "G721_32.wav", "flac_total_samples_unknown.flac"):
        waveform = read(folder / name)
        assert 4000 <= len(waveform) <= 16_000, name
        assert np.abs(waveform).max() < 0.9, name
    with pytest.raises(AudioError, match=r"FLAC_2e36\.flac: its header announces 687194767"):
        read(folder / "FLAC_2e36.flac")
