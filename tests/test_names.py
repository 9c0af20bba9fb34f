import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.names import (
    NAME_BYTES,
    SUMMARY_ROWS,
    MetadataError,
    as_written,
    machine_name,
    require_distinct,
    require_known,
    section_name,
)
from fsasd.evaluation.metrics import SectionMetrics, metrics_table
from fsasd.evaluation.submission import write_decisions


@pytest.mark.parametrize(
    "name", ["NA", "nan", "None", "null", "101", "1e3", "fan[1]", "a b", "№ 5"]
)
def test_a_name_may_look_like_something_else(name):
    assert machine_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "without '/'"),
        (" ", "without '/'"),
        (".", "not begin with a point"),
        ("..", "not begin with a point"),
        ("a/b", "without '/'"),
        ("a\\b", "without '/'"),
        ("a\0b", "that can be printed"),
        ("a\nb", "that can be printed"),
        ("L\udcfcfter", "that can be printed"),
        ("x" * 300, "at most 128 bytes"),
        ("manifest.csv", "without the suffix of a table"),
        ("Recipe.JSON", "without the suffix of a table"),
        ("Official score", "rows of tables"),
        ("all machines", "rows of tables"),
    ],
)
def test_what_cannot_be_a_machines_name_is_told(name, message):
    with pytest.raises(MetadataError, match=f"machine: expected .*{message}.*, found "):
        machine_name(name)


def test_the_rows_of_tables_that_are_no_machines_are_reserved():
    rows = metrics_table({("fan", "00"): SectionMetrics(1.0, 1.0, 1.0)})["machine"]
    assert set(rows) - {"fan"} <= set(SUMMARY_ROWS)


def test_the_longest_name_fits_into_the_longest_file_name(tmp_path):
    path = write_decisions(tmp_path, "x" * NAME_BYTES, "123456789", ["a.wav"], [1])
    assert len(os.fsencode(path.name)) < 255


@given(st.integers(0, 999_999_999), st.integers(0, 3))
def test_a_section_has_one_spelling(number, zeros):
    texts = [f"{'0' * zeros}{number}"[-9:], str(number), number, f"{number}.0"]
    assert {section_name(text) for text in texts} == {f"{number:02d}"}


@pytest.mark.parametrize("text", ["", "A", "-1", "1.5", "١", "1" * 5000])
def test_a_section_is_digits(text):
    with pytest.raises(MetadataError, match="section: expected digits such as 00, found"):
        section_name(text)


@pytest.mark.parametrize(
    "names", [("Motor", "motor"), ("pump ", "pump"), ("p\u00f6mp", "po\u0308mp")]
)
def test_machines_that_are_taken_for_each_other_are_refused(names):
    with pytest.raises(MetadataError, match=r"plant: expected one spelling of each machine, found"):
        require_distinct(names, "plant")


def test_numbers_of_a_configuration_are_names():
    known = ["101", "1e3", "null", "nan", "07"]
    given = [101, 1000.0, None, float("nan"), 7]
    assert as_written(given, known, "machines") == known
    assert as_written([None, "None"], ["None", "null"], "machines") == ["null", "None"]
    with pytest.raises(MetadataError, match='7 may be "007" or "07": write the name in quotes'):
        as_written([7], ["007", "07"], "machines")
    with pytest.raises(MetadataError, match="'102' is not among the machines: 101"):
        require_known(as_written([102], ["101"], "machines"), ["101"], "machines")
