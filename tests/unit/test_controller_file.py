"""What a run writes down on the controller."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Step = dict[str, Any]


def run(folder: Path, *steps: Step, options: tuple[str, ...] = ()) -> tuple[list[Step], str]:
    """Each step's result, and all that was printed. The host is one that nobody can reach: no step asks it."""
    tasks = [
        {"controller_file": step, "register": f"step_{number}", "ignore_errors": True}
        for number, step in enumerate(steps)
    ]
    names = "{{ [" + ", ".join(f"step_{number}" for number in range(len(steps))) + "] | to_json }}"
    results = folder / "results.json"
    tasks.append(
        {"controller_file": {"path": str(results), "content": names + "\n"}, "check_mode": False, "diff": False}
    )
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (folder / "play.yml").write_text(yaml.safe_dump(play, sort_keys=False))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "away.invalid,", *options, folder / "play.yml"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(results.read_text()), done.stdout


def test_a_file_is_written_once_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "state" / "found.txt"
    step = {"path": str(path), "content": "äöü\n", "mode": "0600", "directory_mode": "0700"}
    (first, second), _said = run(tmp_path, step, step)
    assert (first["changed"], second["changed"]) == (True, False)
    assert path.read_text(encoding="utf-8") == "äöü\n"
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]


def test_another_text_and_another_mode_are_put_right(tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    path.write_text("one\n")
    path.chmod(0o666)
    (text, mode), said = run(
        tmp_path,
        {"path": str(path), "content": "two\n"},
        {"path": str(path), "content": "two\n", "mode": "0640"},
        options=("--diff",),
    )
    assert text["changed"]
    assert mode["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "-one\n+two\n" in said


def test_a_check_tells_and_leaves_alone(tmp_path: Path) -> None:
    new, old = tmp_path / "folder" / "new.txt", tmp_path / "old.txt"
    old.write_text("old\n")
    results, said = run(
        tmp_path,
        {"path": str(new), "content": "new\n"},
        {"path": str(old), "state": "absent"},
        options=("--check", "--diff"),
    )
    assert [result["changed"] for result in results] == [True, True]
    assert not new.parent.exists()
    assert old.exists()
    assert "+new\n" in said


def test_what_is_to_be_gone_is_removed_once(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old\n")
    step = {"path": str(path), "state": "absent"}
    (first, second), _said = run(tmp_path, step, step)
    assert (first["changed"], second["changed"]) == (True, False)
    assert not path.exists()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"path": "FOLDER/a"}, "state is present but all of the following are missing: content"),
        ({"path": "FOLDER/a", "content": "a", "mode": 420}, "mode is '420'"),
        ({"path": "FOLDER/file/below", "content": "a"}, "FOLDER/file"),
        ({"path": "FOLDER/binary", "content": "a"}, "is no text file"),
        ({"path": "FOLDER/a", "content": "a", "owner": "root"}, "owner"),
    ],
)
def test_what_can_not_be_is_one_sentence(tmp_path: Path, step: Step, words: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (result,), _said = run(tmp_path, {**step, "path": step["path"].replace("FOLDER", str(tmp_path))})
    assert result["failed"]
    assert words.replace("FOLDER", str(tmp_path)) in result["msg"]
    assert "Traceback" not in result["msg"]
