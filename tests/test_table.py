"""ClipTable: what goes in comes out, however much of it, and it takes no more room than it must."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from fsasd.data.metadata import Clip
from fsasd.data.table import ClipTable

words = st.text(max_size=8)
# Any bytes but NUL and the slash, which need not be UTF-8.
names = (
    st.binary(min_size=1, max_size=8).filter(lambda x: not {0, ord("/")} & set(x)).map(os.fsdecode)
)
clips = st.builds(
    Clip,
    path=st.lists(names, min_size=1, max_size=3).map(lambda parts: Path("/".join(parts))),
    machine=words,
    role=st.sampled_from([None, "reference", "target"]),
    split=st.sampled_from([None, "train", "test"]),
    section=st.none() | words,
    domain=st.sampled_from([None, "source", "target"]),
    label=st.sampled_from([None, "normal", "anomaly"]),
    attributes=st.dictionaries(words, words, max_size=2),
    raw_label=words,
    source=st.none() | words,
)


@given(st.lists(clips, max_size=6))
def test_every_clip_comes_out_as_it_went_in(several):
    table = ClipTable(several)
    assert [table[i] for i in range(len(table))] == several
    # What captions are made of: equal dictionaries may differ in it.
    for i, clip in enumerate(several):
        assert list(table[i].attributes.items()) == list(clip.attributes.items())


@given(st.lists(clips, max_size=6))
def test_a_table_is_sent_to_another_process(several):
    table = pickle.loads(pickle.dumps(ClipTable(several)))
    assert [table[i] for i in range(len(table))] == several


def test_each_kind_is_asked_for_once_and_no_kind_of_other_rows():
    table = ClipTable(
        [
            Clip(Path(f"{machine}/{i}.wav"), machine)
            for i in range(3)
            for machine in ("fan", "pump", "valve")
        ]
    )
    asked = []

    def say(clip):
        asked.append(clip)
        return clip.machine.upper()

    assert table.groups(say, np.array([8, 0, 3])) == ["VALVE", "FAN", "FAN"]
    assert sorted(clip.machine for clip in asked) == ["fan", "valve"]
    assert table.groups(say, np.array([], dtype=int)) == []


# In a process of its own, after the clips were made: the names that pathlib interns may make the
# table of all interned strings grow, which is a large one.
_READ = """
import tracemalloc
from pathlib import Path
import numpy as np
from fsasd.data.metadata import Clip
from fsasd.data.table import ClipTable

def read():
    for i in range(10_000):
        state = {"speed": f"{i % 9} rpm", "mic": str(i % 3)}
        path = Path(f"/recordings/fan/section_00_source_train_normal_{i:06d}.wav")
        yield Clip(path, "fan", "target", "train", "00", "source", "normal", state)

clips = list(read())
tracemalloc.start()
table = ClipTable(clips)
del clips
kept, _ = tracemalloc.get_traced_memory()
print(len(table), len(table.kinds(np.arange(len(table)))), kept)
"""


def test_ten_thousand_clips_take_one_megabyte():
    clips, kinds, kept = map(int, subprocess.check_output([sys.executable, "-c", _READ]).split())
    assert (clips, kinds) == (10_000, 9)
    assert kept < 1e6


@given(st.lists(clips, max_size=6))
def test_rows_are_split_as_if_each_clip_were_asked(several):
    chosen = np.arange(len(several))[::-1]
    expected = {}
    for i in chosen:
        expected.setdefault(several[i].machine, []).append(i)
    split = ClipTable(several).split(lambda clip: clip.machine, chosen)
    assert {machine: rows.tolist() for machine, rows in split.items()} == expected
