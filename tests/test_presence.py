"""Commands that share a run's folder: which is the first, and which the last."""

from fsasd.pipeline import presence
from fsasd.pipeline.presence import Presence


def test_a_command_that_waited_for_the_last_one_is_the_first_of_those_after_it(
    tmp_path, monkeypatch
):
    with Presence(tmp_path) as earlier, Presence(tmp_path):
        assert not earlier.is_last()
    with Presence(tmp_path) as last:
        assert last.is_last()
        # It has written its tables.
        monkeypatch.setattr(presence.time, "sleep", lambda _: last.__exit__(None, None, None))
        with Presence(tmp_path) as later:
            assert later.first
            with Presence(tmp_path) as beside:
                assert not beside.first
