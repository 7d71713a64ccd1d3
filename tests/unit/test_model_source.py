"""What a hub, a URL or a path is asked for a model: lists of files, tokens, refusals."""

import json
import threading
from pathlib import Path

import pytest
from ansible.module_utils.ai_idp.hub_client import DownloadError, EndpointUnreachable, next_page
from ansible.module_utils.ai_idp.messages import display_url
from ansible.module_utils.ai_idp.model_manifest import MANIFEST_NAME
from ansible.module_utils.ai_idp.model_source import Source, safe_relative_path
from hub_server import Hub
from model_folders import FILES, REPOSITORY, WEIGHTS, folder, sha256, visible


def test_all_files_without_a_list_but_no_git_files(hub: Hub, tmp_path: Path) -> None:
    folder(hub, tmp_path, source={"files": None}).ensure(check_mode=False)
    assert visible(tmp_path) == ["README.md", "config.json", "model.gguf", "original/model.gguf"]


def test_listing_over_several_pages(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.page_size = 2
    folder(hub, tmp_path, source={"files": None}).ensure(check_mode=False)
    assert len(visible(tmp_path)) == 4
    assert sum("/tree/" in seen.path for seen in hub.seen) == 3


def test_static_mirror_without_revision_page(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.revision_page = False
    result = folder(hub, tmp_path).ensure(check_mode=False)
    assert result["revision"] == "main"
    assert visible(tmp_path) == ["config.json", "model.gguf"]


def test_endpoint_without_listing_serves_named_files(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.tree_page = False
    with Hub({REPOSITORY: dict(FILES)}) as cdn:
        hub.behaviour.redirect_to = cdn.url
        result = folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
        assert result["files"][0]["sha256"] == sha256(WEIGHTS)
        with pytest.raises(DownloadError, match="cannot list files"):
            folder(hub, tmp_path / "b").ensure(check_mode=False)


def test_pattern_that_matches_nothing_names_what_is_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"no file matching \*\.safetensors; it has .*model\.gguf"):
        folder(hub, tmp_path, source={"files": ["*.safetensors"]}).ensure(check_mode=False)


def test_url_source_with_hash(hub: Hub, tmp_path: Path) -> None:
    source = {
        "type": "url",
        "repository": None,
        "files": None,
        "url": f"{hub.url}/{REPOSITORY}/resolve/main/model.gguf",
    }
    result = folder(hub, tmp_path, source=source, sha256=sha256(WEIGHTS)).ensure(check_mode=False)
    assert visible(tmp_path) == ["model.gguf"]
    assert result["revision"] is None
    with pytest.raises(DownloadError, match="is not the file it should be: expected sha256 0000"):
        folder(hub, tmp_path / "b", source=source, sha256="0" * 64).ensure(check_mode=False)
    assert visible(tmp_path / "b") == []


def test_file_source_copies_and_verifies(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "model.gguf").write_bytes(WEIGHTS)
    (tmp_path / "nas" / "notes.txt").write_text("not wanted")
    source = {"type": "file", "repository": None, "files": ["*.gguf"], "path": str(tmp_path / "nas")}
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": sha256(WEIGHTS)}]
    result = folder(hub, tmp_path / "store", source=source, lock=lock).ensure(check_mode=False)
    assert result["changed"]
    assert visible(tmp_path / "store") == ["model.gguf"]
    assert not folder(hub, tmp_path / "store", source=source, lock=lock).ensure(check_mode=False)["changed"]
    with pytest.raises(DownloadError, match="is not on this host"):
        folder(hub, tmp_path / "c", source={**source, "path": "/nowhere/at/all"}).ensure(check_mode=True)


def test_unreachable_endpoint(tmp_path: Path, hub: Hub) -> None:
    missing = folder(hub, tmp_path / "tiny", endpoint="http://127.0.0.1:9", retries=0)
    with pytest.raises(EndpointUnreachable, match="the connection was refused"):
        missing.ensure(check_mode=False)
    predicted = missing.ensure(check_mode=True)
    assert predicted["changed"]
    assert not predicted["reachable"]
    assert "refused" in predicted["problem"]


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".partial/x", MANIFEST_NAME, "a//b", "a\\b", ""])
def test_names_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(DownloadError, match="refused"):
        safe_relative_path(path)


def test_token_goes_to_the_endpoint_and_to_nobody_else(hub: Hub, tmp_path: Path) -> None:
    with Hub({REPOSITORY: dict(FILES)}) as cdn:
        hub.behaviour.token, hub.behaviour.redirect_to = "hf_secret", cdn.url
        folder(hub, tmp_path, token="hf_secret").ensure(check_mode=False)
        assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS
        assert cdn.seen, "the files came from the other host"
        assert all("authorization" not in seen.headers for seen in cdn.seen)
        assert all(seen.headers["authorization"] == "Bearer hf_secret" for seen in hub.seen)
        folder(hub, tmp_path / "b", token="hf_secret").ensure(check_mode=True)
        assert all("authorization" not in seen.headers for seen in cdn.seen)


def test_token_is_not_sent_to_a_plain_url(hub: Hub, tmp_path: Path) -> None:
    source = {
        "type": "url",
        "repository": None,
        "files": None,
        "url": f"{hub.url}/{REPOSITORY}/resolve/main/model.gguf",
    }
    folder(hub, tmp_path, source=source, token="hf_secret", endpoint="https://hub.invalid").ensure(check_mode=False)
    assert all("authorization" not in seen.headers for seen in hub.seen)


@pytest.mark.parametrize("token_for_listing", [True, False])
@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "HTTP 401: it wants a token and none is set"),
        ("hf_wrong", "HTTP 401: the token was refused"),
        ("hf_stranger", "HTTP 403: the token's account has no access"),
    ],
)
def test_gated_model_says_what_to_do(
    hub: Hub, tmp_path: Path, token: str | None, words: str, token_for_listing: bool
) -> None:
    hub.behaviour.token, hub.behaviour.forbidden_tokens = "hf_right", ("hf_stranger",)
    hub.behaviour.token_for_listing = token_for_listing
    for check_mode in (True, False):
        with pytest.raises(DownloadError) as caught:
            folder(hub, tmp_path / "tiny", token=token).ensure(check_mode=check_mode)
        assert words in str(caught.value)
        assert "hf_" not in str(caught.value), "no token in messages"
    assert visible(tmp_path / "tiny") == []


def test_missing_repository_and_revision(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="there is no repository ai-idp/other"):
        folder(hub, tmp_path, source={"repository": "ai-idp/other"}).ensure(check_mode=False)
    with pytest.raises(DownloadError, match="there is no revision v9"):
        folder(hub, tmp_path, source={"revision": "v9"}).ensure(check_mode=False)


def test_signed_urls_are_shown_without_their_secrets() -> None:
    assert display_url("https://user:pw@h.example:8443/a/b?sig=secret#x") == "https://h.example:8443/a/b"
    assert "secret" not in json.dumps(Source(type="url", url="https://h/x?sig=secret").identity())


def test_next_page_of_a_link_header() -> None:
    assert next_page('<https://h/a?cursor=x>; rel="next"') == "https://h/a?cursor=x"
    assert next_page('<https://h/a>; rel="prev", <https://h/b>; rel="next"') == "https://h/b"
    assert next_page('<https://h/a>; rel="prev"') is None
    assert next_page(None) is None


def test_hub_is_stopped_with_its_thread() -> None:
    with Hub({}) as server:
        thread: threading.Thread = server.thread
    thread.join(2)
    assert not thread.is_alive()
