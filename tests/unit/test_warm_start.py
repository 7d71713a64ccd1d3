"""The callback that loads what every task needs before tasks are forked."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import warm_start

ROOT = Path(__file__).resolve().parents[2]

# Written by a task's own process: the names of the filters' files that it had to import itself.
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: imported | Tell what this process imported
      ansible.builtin.debug:
        msg: "{{ 1 | imported_here }}"
"""
FILTER = """
import os
PID = os.getpid()
class FilterModule:
    def filters(self):
        return {"imported_here": lambda value: PID == os.getpid()}
"""


@pytest.mark.parametrize(("callbacks", "here"), [(ROOT / "callback_plugins", False), (Path("/nowhere"), True)])
def test_filters_are_imported_before_tasks_are_forked(tmp_path: Path, callbacks: Path, here: bool) -> None:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    filters = tmp_path / "filter_plugins"
    (tmp_path / "none.cfg").touch()
    filters.mkdir()
    (filters / "imported.py").write_text(FILTER)
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "play.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "ANSIBLE_CALLBACK_PLUGINS": str(callbacks),
            "ANSIBLE_CONFIG": str(tmp_path / "none.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (play,) = json.loads(done.stdout[done.stdout.index("{") :])["plays"]
    assert play["tasks"][0]["hosts"]["localhost"]["msg"] is here


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that Ansible knows."""
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "toy.py").write_text("one\n")
    monkeypatch.setattr(warm_start.constants, "DEFAULT_MODULE_PATH", [str(folder)])
    return folder


def test_packed_modules_are_kept_until_a_source_changes(tmp_path: Path, modules: Path) -> None:
    kept, runs = tmp_path / "kept", [tmp_path / f"run{number}" for number in range(3)]
    for run in runs:
        run.mkdir()
    warm_start.keep_modules(kept, runs[0])
    (runs[0] / "ansiballz_cache" / "toy").write_text("packed")
    # A command with two playbooks says twice that one starts.
    warm_start.keep_modules(kept, runs[0])
    warm_start.keep_modules(kept, runs[1])
    assert (runs[1] / "ansiballz_cache" / "toy").read_text() == "packed"
    os.utime(modules / "toy.py", ns=(1, 1))
    warm_start.keep_modules(kept, runs[2])
    assert list((runs[2] / "ansiballz_cache").iterdir()) == []


def test_what_was_packed_and_not_used_for_a_week_goes(tmp_path: Path, modules: Path) -> None:
    kept, run = tmp_path / "kept", tmp_path / "run"
    run.mkdir()
    for name, days in (("old", 8), ("recent", 6)):
        (kept / name).mkdir(parents=True)
        moment = time.time() - days * 24 * 3600
        os.utime(kept / name, (moment, moment))
    warm_start.keep_modules(kept, run)
    assert {path.name for path in kept.iterdir()} == {"recent", warm_start.sources_key()}
