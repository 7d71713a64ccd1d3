"""Downloads over connections that break, from a hub that misbehaves in every known way."""

import time
from pathlib import Path

import pytest
from ansible.module_utils.ai_idp import model_source
from ansible.module_utils.ai_idp.hub_client import DownloadError, EndpointUnreachable, Web
from ansible.module_utils.ai_idp.model_download import ModelFolder
from ansible.module_utils.ai_idp.model_manifest import PARTIAL_NAME
from ansible.module_utils.ai_idp.model_source import Source
from hub_server import COMMIT, Hub
from model_folders import FILES, REPOSITORY, WEIGHTS, folder, sha256, visible


def test_drop_is_resumed_without_sending_bytes_twice(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.drop_after, hub.behaviour.drops = 1_500_000, 1
    result = folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS
    assert hub.body_bytes() == len(WEIGHTS), "nothing is sent twice"
    assert result["downloaded_bytes"] == len(WEIGHTS)
    second = hub.bodies()[1]
    assert second.headers["range"] == "bytes=1500000-"
    assert second.headers["if-range"].startswith('"')


def test_later_run_resumes_what_an_earlier_one_left(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.drop_after, hub.behaviour.drops = 1_000_000, 1
    with pytest.raises(EndpointUnreachable, match=r"broke off after 1000000 of 3145728 bytes .*run again to resume"):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}, retries=0).ensure(check_mode=False)
    assert visible(tmp_path) == []
    result = folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert result["downloaded_bytes"] == len(WEIGHTS) - 1_000_000
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS


def test_file_that_changed_meanwhile_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.publish_hashes = False
    hub.behaviour.drop_after, hub.behaviour.drops = 1_000_000, 1
    with pytest.raises(EndpointUnreachable):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}, retries=0).ensure(check_mode=False)
    successor = WEIGHTS[::-1]
    hub.files[REPOSITORY]["model.gguf"] = successor
    folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == successor


def test_server_without_ranges_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.ranges = False
    hub.behaviour.drop_after, hub.behaviour.drops = 1_000_000, 1
    folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS
    assert hub.body_bytes() == len(WEIGHTS) + 1_000_000


def test_damaged_rest_of_an_earlier_run_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.drop_after, hub.behaviour.drops = 1_000_000, 1
    with pytest.raises(EndpointUnreachable):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}, retries=0).ensure(check_mode=False)
    partial = tmp_path / PARTIAL_NAME / "model.gguf"
    partial.write_bytes(b"\0" * 1_000_000)
    folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS


def test_attempts_are_bounded(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.drop_after, hub.behaviour.drops = 10, 1000
    with pytest.raises(EndpointUnreachable, match="in 4 attempts"):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert len(hub.bodies()) == 4


def test_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.statuses = [503, 429]
    assert folder(hub, tmp_path).ensure(check_mode=False)["changed"]


@pytest.mark.parametrize("name", ["model.gguf", "config.json"])
def test_wrong_byte_never_gets_the_final_name(hub: Hub, tmp_path: Path, name: str) -> None:
    """Large files are known by SHA-256, small ones by git's hash; both are checked."""
    hub.behaviour.wrong_byte = True
    with pytest.raises(DownloadError) as caught:
        folder(hub, tmp_path, source={"files": [name]}).ensure(check_mode=False)
    message = str(caught.value)
    assert "is not the file it should be" in message
    assert f"{hub.url}/{REPOSITORY}/resolve/{COMMIT}/{name}" in message
    assert visible(tmp_path) == []
    assert not (tmp_path / PARTIAL_NAME / name).exists(), "a corrupt download is not resumed"
    if name == "model.gguf":
        assert sha256(WEIGHTS) in message
        assert sha256(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])) in message


def test_size_that_differs_from_the_listing(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.listed_size = 100
    with pytest.raises(DownloadError, match="sends 3145728 bytes where 100 are expected"):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert visible(tmp_path) == []


def test_unknown_size_is_checked_when_the_download_begins(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_source, "size_from", lambda headers: None)
    source = {
        "type": "url",
        "repository": None,
        "files": None,
        "url": f"{hub.url}/{REPOSITORY}/resolve/main/model.gguf",
    }
    with pytest.raises(DownloadError, match="too little space"):
        folder(hub, tmp_path, source=source, keep_free_bytes=10**18).ensure(check_mode=False)
    assert visible(tmp_path) == []


def test_stalled_connection_ends_in_time(tmp_path: Path) -> None:
    with Hub({REPOSITORY: dict(FILES)}) as hub:
        hub.behaviour.delay_s = 30
        source = Source(type="huggingface", repository=REPOSITORY, files=["model.gguf"])
        stalled = ModelFolder("tiny", str(tmp_path), source, Web(hub.url, None, 0.3), retries=1, backoff=0.01)
        begun = time.monotonic()
        with pytest.raises(EndpointUnreachable, match="no answer in time"):
            stalled.ensure(check_mode=False)
        assert time.monotonic() - begun < 20
