"""A hub that cannot be reached is asked once, and what was downloaded is used."""

import socket
import time

import huggingface_hub
import pytest
from huggingface_hub import constants

from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.hub import local
from fsasd.runtime import hub


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not asked yet, and may be without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub._check_once.cache_clear()
    yield monkeypatch
    hub._check_once.cache_clear()


class Session:
    def __init__(self, error=None):
        self.error, self.asked = error, 0

    def head(self, url, timeout):
        self.asked += 1
        assert url == constants.ENDPOINT
        if self.error:
            raise self.error


def test_without_a_network_a_model_of_the_hub_is_one_message(fresh, caplog):
    session = Session(OSError("Name or service not known"))
    fresh.setattr(huggingface_hub, "get_session", lambda: session)
    before = time.monotonic()
    message = r"somebody/audioldm: could not be loaded.*give its path as generator\.checkpoint"
    for _ in range(2):
        with pytest.raises(CheckpointError, match=message) as raised:
            local("somebody/audioldm")
    assert time.monotonic() - before < 5
    assert "HF_HUB_OFFLINE" in str(raised.value)
    assert session.asked == 1
    assert [record.message for record in caplog.records if "does not answer" in record.message]
    assert "Retrying" not in caplog.text


def test_a_hub_that_answers_is_used(fresh):
    fresh.setattr(huggingface_hub, "get_session", Session)
    hub.go_offline_without_hub("a/b")
    assert not constants.HF_HUB_OFFLINE


def test_a_name_server_that_is_silent_is_not_waited_for(fresh):
    fresh.setattr(hub, "_PATIENCE", -0.9)
    fresh.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(1))
    fresh.setattr(huggingface_hub, "get_session", lambda: time.sleep(1) or Session())
    before = time.monotonic()
    hub.go_offline_without_hub("a/b")
    assert constants.HF_HUB_OFFLINE
    assert time.monotonic() - before < 1


def test_in_offline_mode_the_hub_is_not_asked(fresh):
    fresh.setattr(constants, "HF_HUB_OFFLINE", True)
    fresh.setattr(huggingface_hub, "get_session", pytest.fail)
    hub.go_offline_without_hub("a/b")


@pytest.mark.parametrize("source", ["/a/folder", "./here", "torchaudio:WAVLM_BASE", "a/b/c", "a b"])
def test_the_hub_is_not_asked_for_what_is_no_id(fresh, source):
    fresh.setattr(huggingface_hub, "get_session", pytest.fail)
    hub.go_offline_without_hub(source)


def test_the_hub_is_not_asked_for_a_folder(fresh, tmp_path):
    fresh.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    fresh.setattr(huggingface_hub, "get_session", pytest.fail)
    hub.go_offline_without_hub("model")
