"""A model folder as a whole: planned, made, verified, removed; and the module itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import model_download as module_under_test
import pytest
from ansible.module_utils.ai_idp.hub_client import DownloadError
from ansible.module_utils.ai_idp.model_download import remove_model
from ansible.module_utils.ai_idp.model_manifest import LOCK_NAME, PARTIAL_NAME
from hub_server import COMMIT, Hub
from model_folders import FILES, REPOSITORY, WEIGHTS, folder, sha256, visible

LIBRARY = Path(module_under_test.__file__)


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
    assert not (dest / PARTIAL_NAME).exists()
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


def test_file_that_is_already_there_is_adopted_without_download(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    predicted = folder(hub, tmp_path).ensure(check_mode=True)
    assert predicted["reasons"]["model.gguf"] == "not verified yet"
    result = folder(hub, tmp_path).ensure(check_mode=False)
    assert result["changed"]
    assert result["downloaded_bytes"] == len(FILES["config.json"])


def test_lock_refuses_before_a_byte_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": "a" * 64}]
    for check_mode in (True, False):
        with pytest.raises(DownloadError, match=r"another hash than the lock allows: expected sha256 a{64}"):
            folder(hub, tmp_path / "tiny", lock=lock).ensure(check_mode=check_mode)
    assert hub.bodies() == []


def test_lock_is_enforced_where_the_hub_publishes_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.publish_hashes = False
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": "a" * 64}]
    with pytest.raises(DownloadError, match=r"expected sha256 a{64} \(the lock\), got " + sha256(WEIGHTS)):
        folder(hub, tmp_path, lock=lock).ensure(check_mode=False)
    assert visible(tmp_path) == []


def test_lock_that_differs_from_the_disk_is_noticed(hub: Hub, tmp_path: Path) -> None:
    folder(hub, tmp_path).ensure(check_mode=False)
    lock = [{"path": "model.gguf", "size_bytes": len(WEIGHTS), "sha256": "b" * 64}]
    with pytest.raises(DownloadError, match="another hash than the lock"):
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
    with pytest.raises(DownloadError):
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


def test_disk_too_small_is_said_before_a_byte_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    for check_mode in (True, False):
        with pytest.raises(DownloadError) as caught:
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


def test_two_runs_at_once_download_once(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour.delay_s = 0.5
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import sys; import ansible.module_utils as u; u.__path__.append(sys.argv[4])\n"
        "from ansible.module_utils.ai_idp import hub_client, model_download, model_source\n"
        "s = model_source.Source(type='huggingface', repository=sys.argv[2], files=['model.gguf'])\n"
        "f = model_download.ModelFolder('tiny', sys.argv[3], s, hub_client.Web(sys.argv[1], None, 5))\n"
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
    command = [sys.executable, "-c", code, str(tmp_path / LOCK_NAME)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DownloadError, match="is being worked on by process 42 on elsewhere"):
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
    assert remove_model(str(dest), "tiny", check_mode=True)["changed"]
    assert (dest / "model.gguf").exists()
    result = remove_model(str(dest), "tiny", check_mode=False)
    assert result["changed"]
    assert result["kept"] == ["notes.txt"]
    assert [path.name for path in dest.iterdir()] == ["notes.txt"]
    assert not remove_model(str(dest), "tiny", check_mode=False)["changed"]
    (dest / "notes.txt").unlink()
    folder(hub, dest).ensure(check_mode=False)
    remove_model(str(dest), "tiny", check_mode=False)
    assert not dest.exists()


def test_absent_of_a_folder_that_never_was(tmp_path: Path) -> None:
    assert not remove_model(str(tmp_path / "no"), "no", check_mode=False)["changed"]
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


def test_several_models_are_compared_in_one_call(hub: Hub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    source = {"type": "huggingface", "repository": REPOSITORY, "files": ["model.gguf"]}
    models = [{"name": name, "source": source} for name in ("one", "two")]
    arguments = {"dest": str(store), "endpoint": hub.url, "models": models}
    planned = run_module(arguments, check_mode=True)
    assert (planned["changed"], planned["folder_pending"]) == (True, True)
    assert [(model["name"], model["pending"]) for model in planned["models"]] == [("one", True), ("two", True)]
    assert not store.exists()
    run_module({"name": "one", "dest": str(store / "one"), "endpoint": hub.url, "source": source})
    planned = run_module(arguments, check_mode=True)
    assert (planned["changed"], planned["folder_pending"]) == (True, False)
    assert [model["pending"] for model in planned["models"]] == [False, True]
    assert run_module(arguments)["changed"]
    asked = len(hub.seen)
    again = run_module(arguments, check_mode=True)
    assert not again["changed"]
    assert len(hub.seen) == asked
    (store / "two" / "model.gguf").unlink()
    store.chmod(0o700)
    planned = run_module(arguments, check_mode=True)
    assert [model["pending"] for model in planned["models"]] == [False, True]
    assert planned["folder_pending"]


def test_all_that_is_wrong_with_several_models_is_told_at_once(hub: Hub, tmp_path: Path) -> None:
    source = {"type": "huggingface", "repository": REPOSITORY, "files": ["model.gguf"]}
    wrong = [{"name": "one", "source": source, "sha256": "0" * 64}, {"name": "two", "source": source, "sha256": "abc"}]
    arguments = {"dest": str(tmp_path), "endpoint": hub.url, "models": wrong}
    answer = run_module(arguments, check_mode=True)
    assert answer["failed"]
    assert "model one: model.gguf has another hash" in answer["msg"]
    assert "model two: sha256 is 'abc'" in answer["msg"]


@pytest.mark.parametrize(("keep", "refused"), [(0, False), (3, False), (4, True), (9, True)])
def test_each_model_may_have_room_but_not_both(keep: int, refused: bool) -> None:
    results = [{"name": name, "needed_bytes": needed, "free_bytes": 10} for name, needed in (("one", 5), ("two", 2))]
    problem = module_under_test.room_problem({"keep_free_bytes": keep, "dest": "/models"}, results)
    assert ("model_store_keep_free_bytes keeps" in problem) is refused
    assert ("one, two need" in problem) is refused


def test_sources_that_do_not_answer_are_an_error_where_they_must(tmp_path: Path) -> None:
    source = {"type": "huggingface", "repository": REPOSITORY}
    arguments = {
        **{"dest": str(tmp_path), "endpoint": "http://127.0.0.1:9", "retries": 0},
        "models": [{"name": "one", "source": source}],
    }
    answer = run_module(arguments, check_mode=True)
    assert not answer.get("failed")
    assert answer["models"][0]["pending"]
    answer = run_module({**arguments, "must_answer": True}, check_mode=True)
    assert answer["failed"]
    assert "127.0.0.1:9" in answer["msg"]


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
