import errno

import pytest

from fsasd.store.atomic import is_read_only, replace_folder, replacing, write_text


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def write():
        with replacing(path) as unfinished:
            unfinished.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_visible_before_the_block_ends(tmp_path):
    path = tmp_path / "table.csv"
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
        assert unfinished.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "text", "Lüfter")
    assert (tmp_path / "text").read_bytes() == "Lüfter".encode()


def test_a_folder_takes_the_place_of_another(tmp_path):
    old, new = tmp_path / "artifact", tmp_path / "artifact.partial"
    for folder in (old, new, tmp_path / "artifact.replaced"):
        folder.mkdir()
        (folder / folder.name).touch()
    replace_folder(new, old)
    assert list(tmp_path.iterdir()) == [old]
    assert [path.name for path in old.iterdir()] == ["artifact.partial"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_cannot_be_written_is_read_only(number):
    assert is_read_only(OSError(number, ""))
    assert not is_read_only(OSError(errno.ENOSPC, ""))
