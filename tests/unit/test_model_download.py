"""model_download against a hub that misbehaves in every known way."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_download as module_under_test
import pytest
from ansible.module_utils.ai_idp import model_download as md
from hub_server import COMMIT, Hub

REPOSITORY = "ai-idp/tiny"
WEIGHTS = bytes(range(256)) * 12_288  # 3 MiB: several chunks
FILES = {
    "model.gguf": WEIGHTS,
    "config.json": b'{"model_type": "llama"}\n',
    "README.md": b"# tiny\n",
    "original/model.gguf": b"second copy" * 200,
    ".gitattributes": b"*.gguf filter=lfs\n",
}
LIBRARY = Path(module_under_test.__file__)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({REPOSITORY: dict(FILES)}) as server:
        yield server


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def folder(hub: Hub, dest: Path, **changes: Any) -> md.ModelFolder:
    source = {"type": "huggingface", "repository": REPOSITORY, "files": ["*.gguf", "config.json"]}
    source.update(changes.pop("source", {}))
    token = changes.pop("token", None)
    endpoint = changes.pop("endpoint", hub.url)
    options = {"retries": 3, "backoff": 0.01, **changes}
    return md.ModelFolder("tiny", str(dest), md.Source(**source), md.Web(endpoint, token, 5), **options)


def visible(dest: Path) -> list[str]:
    """What another program would take for the model's files."""
    if not dest.exists():
        return []
    own = {md.MANIFEST_NAME, md.LOCK_NAME}
    return sorted(
        str(path.relative_to(dest))
        for path in dest.rglob("*")
        if path.is_file() and path.name not in own and md.PARTIAL_NAME not in path.relative_to(dest).parts
    )


# -- a healthy hub -------------------------------------------------------------------------------------------


def test_full_download_is_verified_and_recorded(hub: Hub, tmp_path: Path) -> None:
    dest = tmp_path / "tiny"
    result = folder(hub, dest).ensure(check_mode=False)

    assert result["changed"]
    assert visible(dest) == ["config.json", "model.gguf"]
    assert (dest / "model.gguf").read_bytes() == WEIGHTS
    assert result["revision"] == COMMIT
    assert result["downloaded_bytes"] == result["bytes_total"] == len(WEIGHTS) + len(FILES["config.json"])
    assert {f["path"]: f["sha256"] for f in result["files"]} == {
        "config.json": sha256(FILES["config.json"]),
        "model.gguf": sha256(WEIGHTS),
    }
    assert not (dest / md.PARTIAL_NAME).exists()
    assert all(f"/resolve/{COMMIT}/" in seen.path for seen in hub.bodies()), "the commit is downloaded, not the branch"


def test_second_run_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    first = folder(hub, tmp_path / "tiny").ensure(check_mode=False)
    hub.seen.clear()
    for check_mode in (False, True):
        again = folder(hub, tmp_path / "tiny").ensure(check_mode=check_mode)
        assert not again["changed"]
        assert again["files"] == first["files"]
        assert again["downloaded_bytes"] == 0
    assert hub.seen == []


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
        with pytest.raises(md.DownloadError, match="cannot list files"):
            folder(hub, tmp_path / "b").ensure(check_mode=False)


def test_pattern_that_matches_nothing_names_what_is_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(md.DownloadError, match=r"no file matching \*\.safetensors; it has .*model\.gguf"):
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
    with pytest.raises(md.DownloadError, match="is not the file it should be: expected sha256 0000"):
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
    with pytest.raises(md.DownloadError, match="is not on this host"):
        folder(hub, tmp_path / "c", source={**source, "path": "/nowhere/at/all"}).ensure(check_mode=True)


def test_file_that_is_already_there_is_adopted_without_download(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    predicted = folder(hub, tmp_path).ensure(check_mode=True)
    assert predicted["reasons"]["model.gguf"] == "not verified yet"
    result = folder(hub, tmp_path).ensure(check_mode=False)
    assert result["changed"]
    assert result["downloaded_bytes"] == len(FILES["config.json"])


# -- broken connections --------------------------------------------------------------------------------------


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
    with pytest.raises(md.EndpointUnreachable, match=r"broke off after 1000000 of 3145728 bytes .*run again to resume"):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}, retries=0).ensure(check_mode=False)
    assert visible(tmp_path) == []
    result = folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert result["downloaded_bytes"] == len(WEIGHTS) - 1_000_000
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS


def test_file_that_changed_meanwhile_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.publish_hashes = False
    hub.behaviour.drop_after, hub.behaviour.drops = 1_000_000, 1
    with pytest.raises(md.EndpointUnreachable):
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
    with pytest.raises(md.EndpointUnreachable):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}, retries=0).ensure(check_mode=False)
    partial = tmp_path / md.PARTIAL_NAME / "model.gguf"
    partial.write_bytes(b"\0" * 1_000_000)
    folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS


def test_attempts_are_bounded(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.drop_after, hub.behaviour.drops = 10, 1000
    with pytest.raises(md.EndpointUnreachable, match="in 4 attempts"):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert len(hub.bodies()) == 4


def test_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.statuses = [503, 429]
    assert folder(hub, tmp_path).ensure(check_mode=False)["changed"]


def test_unreachable_endpoint(tmp_path: Path, hub: Hub) -> None:
    missing = folder(hub, tmp_path / "tiny", endpoint="http://127.0.0.1:9", retries=0)
    with pytest.raises(md.EndpointUnreachable, match="the connection was refused"):
        missing.ensure(check_mode=False)
    predicted = missing.ensure(check_mode=True)
    assert predicted["changed"]
    assert not predicted["reachable"]
    assert "refused" in predicted["problem"]


# -- wrong content -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.gguf", "config.json"])
def test_wrong_byte_never_gets_the_final_name(hub: Hub, tmp_path: Path, name: str) -> None:
    """Large files are known by SHA-256, small ones by git's hash; both are checked."""
    hub.behaviour.wrong_byte = True
    with pytest.raises(md.DownloadError) as caught:
        folder(hub, tmp_path, source={"files": [name]}).ensure(check_mode=False)
    message = str(caught.value)
    assert "is not the file it should be" in message
    assert f"{hub.url}/{REPOSITORY}/resolve/{COMMIT}/{name}" in message
    assert visible(tmp_path) == []
    assert not (tmp_path / md.PARTIAL_NAME / name).exists(), "a corrupt download is not resumed"
    if name == "model.gguf":
        assert sha256(WEIGHTS) in message
        assert sha256(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])) in message


def test_lock_refuses_before_a_byte_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": "a" * 64}]
    for check_mode in (True, False):
        with pytest.raises(md.DownloadError, match=r"another hash than the lock allows: expected sha256 a{64}"):
            folder(hub, tmp_path / "tiny", lock=lock).ensure(check_mode=check_mode)
    assert hub.bodies() == []


def test_lock_is_enforced_where_the_hub_publishes_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.publish_hashes = False
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": "a" * 64}]
    with pytest.raises(md.DownloadError, match=r"expected sha256 a{64} \(the lock\), got " + sha256(WEIGHTS)):
        folder(hub, tmp_path, lock=lock).ensure(check_mode=False)
    assert visible(tmp_path) == []


def test_lock_that_differs_from_the_disk_is_noticed(hub: Hub, tmp_path: Path) -> None:
    folder(hub, tmp_path).ensure(check_mode=False)
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": "b" * 64}]
    with pytest.raises(md.DownloadError, match="another hash than the lock"):
        folder(hub, tmp_path, lock=lock).ensure(check_mode=False)


def test_locked_commit_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.revision_page = False
    folder(hub, tmp_path, lock_revision=COMMIT).ensure(check_mode=False)
    assert all(COMMIT in seen.path for seen in hub.seen)


@pytest.mark.parametrize("verify", ["quick", "full"])
def test_file_damaged_on_disk_is_replaced(hub: Hub, tmp_path: Path, verify: str) -> None:
    folder(hub, tmp_path).ensure(check_mode=False)
    file = tmp_path / "model.gguf"
    stat = file.stat()
    file.write_bytes(b"\xff" + WEIGHTS[1:])
    if verify == "full":
        # Same size, same time: only hashing finds it out.
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = folder(hub, tmp_path, verify=verify).ensure(check_mode=False)
    assert result["changed"]
    assert file.read_bytes() == WEIGHTS


def test_full_verification_of_a_sound_model_changes_nothing(hub: Hub, tmp_path: Path) -> None:
    folder(hub, tmp_path).ensure(check_mode=False)
    assert not folder(hub, tmp_path, verify="full").ensure(check_mode=False)["changed"]
    assert not folder(hub, tmp_path, verify="full").ensure(check_mode=True)["changed"]


def test_old_version_stays_until_the_new_one_is_whole(hub: Hub, tmp_path: Path) -> None:
    folder(hub, tmp_path).ensure(check_mode=False)
    hub.files[REPOSITORY] = {"model.gguf": WEIGHTS[::-1], "config.json": b"{}"}
    hub.behaviour.wrong_byte = True
    with pytest.raises(md.DownloadError):
        folder(hub, tmp_path, source={"revision": COMMIT}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS
    assert (tmp_path / "config.json").read_bytes() == FILES["config.json"]
    hub.behaviour.wrong_byte = False
    folder(hub, tmp_path, source={"revision": COMMIT}).ensure(check_mode=False)
    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS[::-1]


def test_files_no_longer_wanted_go_and_foreign_files_stay(hub: Hub, tmp_path: Path) -> None:
    folder(hub, tmp_path).ensure(check_mode=False)
    (tmp_path / "notes.txt").write_text("mine")
    folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert visible(tmp_path) == ["model.gguf", "notes.txt"]


def test_size_that_differs_from_the_listing(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.listed_size = 100
    with pytest.raises(md.DownloadError, match="sends 3145728 bytes where 100 are expected"):
        folder(hub, tmp_path, source={"files": ["model.gguf"]}).ensure(check_mode=False)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".partial/x", md.MANIFEST_NAME, "a//b", "a\\b", ""])
def test_names_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(md.DownloadError, match="refused"):
        md.safe_relative_path(path)


# -- space ---------------------------------------------------------------------------------------------------


def test_disk_too_small_is_said_before_a_byte_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    for check_mode in (True, False):
        with pytest.raises(md.DownloadError) as caught:
            folder(hub, tmp_path / "tiny", keep_free_bytes=10**18).ensure(check_mode=check_mode)
        for part in (
            "too little space",
            "3145752 bytes",
            str(tmp_path),
            "model_store_dir",
            "model_store_keep_free_bytes",
        ):
            assert part in str(caught.value)
    assert hub.bodies() == []


def test_unknown_size_is_checked_when_the_download_begins(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(md, "_size_from", lambda headers: None)
    source = {
        "type": "url",
        "repository": None,
        "files": None,
        "url": f"{hub.url}/{REPOSITORY}/resolve/main/model.gguf",
    }
    with pytest.raises(md.DownloadError, match="too little space"):
        folder(hub, tmp_path, source=source, keep_free_bytes=10**18).ensure(check_mode=False)
    assert visible(tmp_path) == []


# -- tokens --------------------------------------------------------------------------------------------------


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
        with pytest.raises(md.DownloadError) as caught:
            folder(hub, tmp_path / "tiny", token=token).ensure(check_mode=check_mode)
        assert words in str(caught.value)
        assert "hf_" not in str(caught.value), "no token in messages"
    assert visible(tmp_path / "tiny") == []


def test_missing_repository_and_revision(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(md.DownloadError, match="there is no repository ai-idp/other"):
        folder(hub, tmp_path, source={"repository": "ai-idp/other"}).ensure(check_mode=False)
    with pytest.raises(md.DownloadError, match="there is no revision v9"):
        folder(hub, tmp_path, source={"revision": "v9"}).ensure(check_mode=False)


def test_signed_urls_are_shown_without_their_secrets() -> None:
    assert md.display_url("https://user:pw@h.example:8443/a/b?sig=secret#x") == "https://h.example:8443/a/b"
    assert "secret" not in json.dumps(md.Source(type="url", url="https://h/x?sig=secret").identity())


# -- together ------------------------------------------------------------------------------------------------


def test_two_runs_at_once_download_once(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.delay_s = 0.5
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import sys; import ansible.module_utils as u; u.__path__.append(sys.argv[4])\n"
        "from ansible.module_utils.ai_idp import model_download as md\n"
        "s = md.Source(type='huggingface', repository=sys.argv[2], files=['model.gguf'])\n"
        "f = md.ModelFolder('tiny', sys.argv[3], s, md.Web(sys.argv[1], None, 5))\n"
        "print(f.ensure(check_mode=False, lock_wait_s=20)['downloaded_bytes'])\n"
    )
    utils = str(LIBRARY.parent.parent / "module_utils")
    command = [sys.executable, "-c", code, hub.url, REPOSITORY, str(tmp_path / "tiny"), utils]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    outputs = sorted(int(run.communicate(timeout=30)[0]) for run in runs)
    assert outputs == [0, len(WEIGHTS)]
    assert len(hub.bodies()) == 1


def test_busy_folder_names_its_holder(hub: Hub, tmp_path: Path) -> None:
    code = (
        "import fcntl, os, sys, time\n"
        "h = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.lockf(h, fcntl.LOCK_EX)\n"
        "os.write(h, b'process 42 on elsewhere')\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / md.LOCK_NAME)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(md.DownloadError, match="is being worked on by process 42 on elsewhere"):
            folder(hub, tmp_path).ensure(check_mode=False, lock_wait_s=0)
    finally:
        holder.kill()
        holder.wait()


def test_check_mode_predicts_and_creates_nothing(hub: Hub, tmp_path: Path) -> None:
    dest = tmp_path / "not" / "there"
    predicted = folder(hub, dest).ensure(check_mode=True)
    assert predicted["changed"]
    assert predicted["needed_bytes"] == len(WEIGHTS) + len(FILES["config.json"])
    assert predicted["files"][1] == {"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": sha256(WEIGHTS)}
    assert predicted["diff"]["before"] == ""
    assert "model.gguf  3145728 bytes" in predicted["diff"]["after"]
    assert list(tmp_path.iterdir()) == []
    assert hub.bodies() == []


def test_absent_removes_its_own_and_keeps_the_rest(hub: Hub, tmp_path: Path) -> None:
    dest = tmp_path / "tiny"
    folder(hub, dest, source={"files": None}).ensure(check_mode=False)
    (dest / "notes.txt").write_text("mine")
    assert md.remove_model(str(dest), "tiny", check_mode=True)["changed"]
    assert (dest / "model.gguf").exists()
    result = md.remove_model(str(dest), "tiny", check_mode=False)
    assert result["changed"]
    assert result["kept"] == ["notes.txt"]
    assert [path.name for path in dest.iterdir()] == ["notes.txt"]
    assert not md.remove_model(str(dest), "tiny", check_mode=False)["changed"]
    (dest / "notes.txt").unlink()
    folder(hub, dest).ensure(check_mode=False)
    md.remove_model(str(dest), "tiny", check_mode=False)
    assert not dest.exists()


def test_absent_of_a_folder_that_never_was(tmp_path: Path) -> None:
    assert not md.remove_model(str(tmp_path / "no"), "no", check_mode=False)["changed"]
    assert not (tmp_path / "no").exists()


# -- the module itself ---------------------------------------------------------------------------------------


def run_module(arguments: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    """Runs library/model_download.py the way Ansible does: arguments as JSON on standard input."""
    code = (
        "import runpy, sys; import ansible.module_utils as u; u.__path__.append(sys.argv[1])\n"
        "import ansible.module_utils.testing as t, json\n"
        "args = json.load(sys.stdin)\n"
        "with t.patch_module_args(args):\n"
        "    runpy.run_path(sys.argv[2], run_name='__main__')\n"
    )
    utils = str(LIBRARY.parent.parent / "module_utils")
    sent = json.dumps({**arguments, "_ansible_check_mode": check_mode})
    done = subprocess.run(
        [sys.executable, "-c", code, utils, str(LIBRARY)], input=sent, capture_output=True, text=True, timeout=60
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_module_end_to_end(hub: Hub, tmp_path: Path) -> None:
    arguments = {
        "name": "tiny",
        "dest": str(tmp_path / "tiny"),
        "endpoint": hub.url,
        "token": "hf_secret",
        "source": {"type": "huggingface", "repository": REPOSITORY, "files": ["model.gguf"]},
    }
    assert run_module(arguments, check_mode=True)["changed"]
    first = run_module(arguments)
    assert first["changed"]
    assert "hf_secret" not in json.dumps(first)
    assert any("without encryption" in str(warning) for warning in first["warnings"])
    assert not run_module(arguments)["changed"]
    (tmp_path / "tiny" / "model.gguf").chmod(0o600)
    assert run_module(arguments)["changed"], "the mode is put right"
    assert not run_module(arguments)["changed"]
    gone = run_module({"name": "tiny", "dest": str(tmp_path / "tiny"), "state": "absent"})
    assert gone["removed"] == ["model.gguf"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "abc"}, "sha256 is 'abc'"),
        ({"endpoint": "huggingface.co"}, "endpoint is 'huggingface.co'"),
        ({"keep_free_bytes": -1}, "keep_free_bytes is -1"),
        ({"source": {"type": "huggingface", "repository": "../x/y"}}, "source.repository is"),
        ({"source": {"type": "url"}}, "url"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    arguments = {"name": "x", "dest": str(tmp_path), "source": {"type": "huggingface", "repository": "a/b"}}
    answer = run_module({**arguments, **changes})
    assert answer["failed"]
    assert words in answer["msg"]


def test_stalled_connection_ends_in_time(tmp_path: Path) -> None:
    with Hub({REPOSITORY: dict(FILES)}) as hub:
        hub.behaviour.delay_s = 30
        source = md.Source(type="huggingface", repository=REPOSITORY, files=["model.gguf"])
        stalled = md.ModelFolder("tiny", str(tmp_path), source, md.Web(hub.url, None, 0.3), retries=1, backoff=0.01)
        begun = time.monotonic()
        with pytest.raises(md.EndpointUnreachable, match="no answer in time"):
            stalled.ensure(check_mode=False)
        assert time.monotonic() - begun < 20


def test_next_page_of_a_link_header() -> None:
    assert md.next_page('<https://h/a?cursor=x>; rel="next"') == "https://h/a?cursor=x"
    assert md.next_page('<https://h/a>; rel="prev", <https://h/b>; rel="next"') == "https://h/b"
    assert md.next_page('<https://h/a>; rel="prev"') is None
    assert md.next_page(None) is None


def test_hub_is_stopped_with_its_thread() -> None:
    with Hub({}) as server:
        thread: threading.Thread = server.thread
    thread.join(2)
    assert not thread.is_alive()
