import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.csv_table import is_known, read_column, read_rows
from fsasd.data.names import MetadataError

TEXT = "path,machine\na.wav,Öler\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_every_encoding_that_says_what_it_is(tmp_path, encoding):
    (tmp_path / "t.csv").write_text(TEXT, encoding=encoding)
    assert list(read_rows(tmp_path / "t.csv")) == [(1, ["path", "machine"]), (2, ["a.wav", "Öler"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("cp1252"), r"expected UTF-8 text, found byte 0xd6 in line 2"),
        (TEXT.encode("utf-16-le"), "expected UTF-8 text, found .*save it as CSV UTF-8"),
        ("path,machine\n".encode("utf-16-le"), "expected UTF-8 text, found a NUL .* in line 1"),
        (b"\xff\xfe\x00", "expected UTF-8 text"),
        (b'path\n"a.wav', "near line 2: expected comma-separated text"),
        (b"path\n" + b"x" * 200_000, "near line 2: expected comma-separated text: field larger"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(MetadataError, match=rf"t\.csv.*{message}"):
        list(read_rows(tmp_path / "t.csv"))


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, found in (
        ("folder", "a folder"),
        ("link", "a link to nothing"),
        ("pipe", "a device or a pipe"),
        ("none", "nothing"),
    ):
        with pytest.raises(
            MetadataError, match=rf"{name}\.csv: expected a CSV file, found {found}"
        ):
            list(read_rows(tmp_path / f"{name}.csv"))


def test_rows_have_the_numbers_of_their_lines(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n\n , \n"x\ny",1\n,,\nz,2\n')
    assert list(read_rows(tmp_path / "t.csv")) == [
        (1, ["a", "b"]),
        (4, ["x\ny", "1"]),
        (7, ["z", "2"]),
    ]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA", "N/A", "-", "None", "noAttribute"])
def test_signs_for_the_unknown_are_no_values(cell):
    assert not is_known(cell)


def test_a_row_may_be_repeated_but_not_contradicted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,1\nb,0\na,1\nb,1\n")
    problems = []
    assert read_column(path, int, problems, str, repeats=True) == {"a": 1, "b": 0}
    assert problems == [f"{path}, row 4: 'b' contradicts row 2"]


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"a,b\n"]))
def test_any_bytes_are_rows_or_an_error(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("bytes") / "t.csv"
    path.write_bytes(start + content)
    rows = []
    with contextlib.suppress(MetadataError):
        rows = list(read_rows(path))
    assert all(any(cell.strip() for cell in cells) for _, cells in rows)
    assert [number for number, _ in rows] == sorted({number for number, _ in rows})
