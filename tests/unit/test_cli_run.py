"""`ai-idp run` with real, tiny playbooks: progress, failures, exit codes, what is left behind, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ai_idp.cli import app
from ai_idp.errors import FrontError
from ai_idp.runner import KEPT_RUNS, extra_vars

HOSTS = """
all:
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  hosts: {one: , two: }
"""
PLAYBOOKS = {
    "ok": """
- name: All is well
  hosts: all
  gather_facts: false
  tasks:
    - name: The file is there
      ansible.builtin.copy:
        dest: "{{ playbook_dir }}/../made-{{ inventory_hostname }}"
        content: "first\\nsecond\\n"
        mode: "0644"
    - name: Nobody wants this
      ansible.builtin.ping:
      when: false
    - name: It says where it runs
      ansible.builtin.debug:
        msg: ["in {{ lookup('env', 'PWD') }}", "word=[{{ word | default('none') }}]"]
""",
    "failing": """
- name: Not all is well
  hosts: all
  gather_facts: false
  tasks:
    - name: A program fails
      ansible.builtin.command: sh -c 'echo to-out; echo to-err >&2; exit 3'
      changed_when: false
      when: inventory_hostname == 'one'
    - name: A refusal
      ansible.builtin.fail:
        msg: |
          x is 1, allowed is 2:
          set x to 2 in group_vars
""",
    "rescued": """
- name: Goes on
  hosts: one
  gather_facts: false
  tasks:
    - block:
        - name: Breaks
          ansible.builtin.fail: {msg: the reason}
      rescue:
        - name: Undone
          ansible.builtin.debug: {msg: it was undone}
""",
    "unreachable": """
- name: Nobody there
  hosts: one
  gather_facts: false
  tasks:
    - name: Anybody?
      ansible.builtin.ping:
      vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
""",
    "syntax": "- name: Broken\n  hosts: all\n  tasks: [\n",
    "unknown_module": """
- name: Broken
  hosts: all
  tasks:
    - name: No such module
      no.such.module: {}
""",
    "nobody": "- name: For others\n  hosts: nobody_at_all\n  tasks: []\n",
    "secret": """
- name: Keeps a secret
  hosts: one
  gather_facts: false
  tasks:
    - name: Hidden
      ansible.builtin.command: echo {{ password }}
      changed_when: true
      no_log: true
""",
    "slow": """
- name: Takes its time
  hosts: one
  gather_facts: false
  tasks:
    - name: Sleeps
      ansible.builtin.command: sh -c 'echo $$ > {{ playbook_dir }}/../pid; exec sleep 300'
      changed_when: false
""",
    "stubborn": """
- name: Takes its time
  hosts: one
  gather_facts: false
  tasks:
    - name: Does not listen
      ansible.builtin.command:
        argv: ["{{ ansible_playbook_python }}", "{{ playbook_dir }}/../stubborn.py"]
      changed_when: false
""",
}
STUBBORN = """
import os, pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(__file__).with_name("pid").write_text(f"{os.getpid()}\\n")
time.sleep(300)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    (root / "playbooks").mkdir(parents=True)
    (root / "inventory" / "lab").mkdir(parents=True)
    (root / "ansible.cfg").write_text("[defaults]\ninventory = inventory/lab\nretry_files_enabled = false\n")
    (root / "inventory" / "lab" / "hosts.yml").write_text(HOSTS)
    for name, text in PLAYBOOKS.items():
        (root / "playbooks" / f"{name}.yml").write_text(f"---\n{text}")
    (root / "stubborn.py").write_text(STUBBORN)
    monkeypatch.setenv("AI_IDP_HOME", str(root))
    # The front finds Ansible beside its own Python, whatever PATH says.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return root


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", *arguments])


def latest(root: Path) -> Path:
    return max((root / ".ansible" / "runner" / "artifacts").iterdir(), key=lambda path: path.stat().st_mtime)


def test_a_good_run_reads_well_in_a_log(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    result = run("ok", "-e", 'word=a "quoted" word')
    assert result.exit_code == 0, result.output
    assert re.search(r"^\d\d:\d\d == All is well$", result.stdout, re.M)
    assert re.search(r"^\d\d:\d\d changed     one  The file is there  \(\d+\.\d s\)$", result.stdout, re.M)
    assert "Nobody wants this" not in result.stdout
    # The message as it was written, for one host; the other said the same but for nothing.
    assert f'        in {checkout}\n        word=[a "quoted" word]\n' in result.stdout
    assert "says the same" in result.stdout
    for host in ("one", "two"):
        assert re.search(rf"^{host} +2 +1 +0 +0$", result.stdout, re.M)
        assert (checkout / f"made-{host}").read_text() == "first\nsecond\n"
    assert re.search(r"^ok on lab: ok after ", result.stdout, re.M)
    assert "\x1b[" not in result.stdout
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) < 140


def test_check_mode_shows_differences_and_changes_nothing(checkout: Path) -> None:
    result = run("ok", "--check", "--limit", "one")
    assert result.exit_code == 0, result.output
    assert "+first\n        +second\n" in result.stdout
    assert "TASK [" not in result.stdout
    assert not (checkout / "made-one").exists()
    assert "two" not in result.stdout


def test_failures_are_told_with_host_place_message_and_log(checkout: Path) -> None:
    result = run("failing")
    assert result.exit_code == 1
    account = result.stdout[result.stdout.index("FAILED") :]
    assert "FAILED  one  A program fails\n  at playbooks/failing.yml:7\n" in account
    assert "  stderr (exit code 3):\n    to-err\n" in account
    assert "  stdout:\n    to-out\n" in account
    assert "FAILED  two  A refusal\n" in account
    assert "  x is 1, allowed is 2:\n  set x to 2 in group_vars\n" in account
    assert re.search(r"^one +0 +0 +1 +0$", account, re.M)
    assert "failing on lab: failed after" in account
    assert "Ansible's own output: .ansible/runner/artifacts/" in account


def test_a_rescued_failure_is_no_failure(checkout: Path) -> None:
    result = run("rescued")
    assert result.exit_code == 0, result.output
    assert "it was undone" in result.stdout
    assert "the reason" in result.stdout
    assert "FAILED" not in result.stdout


def test_an_unreachable_host_is_could_not_run(checkout: Path) -> None:
    result = run("unreachable")
    assert result.exit_code == 2
    assert "UNREACHABLE  one  Anybody?" in result.stdout
    assert re.search(r"^one +0 +0 +0 +1$", result.stdout, re.M)


@pytest.mark.parametrize(
    ("playbook", "said"),
    [
        ("syntax", "playbooks/syntax.yml"),
        ("unknown_module", "no.such.module"),
        ("nobody", "No host of the inventory belongs to any play"),
    ],
)
def test_what_never_began_says_why(checkout: Path, playbook: str, said: str) -> None:
    result = run(playbook)
    assert result.exit_code == 2
    assert said in result.stdout
    assert "could not run" in result.stdout
    assert "Traceback" not in result.output


def test_a_limit_that_matches_nothing_says_so(checkout: Path) -> None:
    result = run("ok", "--limit", "three")
    assert result.exit_code == 2
    assert "three" in result.stdout


def test_nothing_secret_is_left_behind(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-in-the-environment")
    result = run("secret", "-e", "password=s3cret-of-mine")
    assert result.exit_code == 0, result.output
    assert re.search(r"changed +one +Hidden", result.stdout)
    kept = [path for path in (checkout / ".ansible" / "runner").rglob("*") if path.is_file()]
    assert any(path.name == "stdout" for path in kept)
    for path in kept:
        text = path.read_text()
        assert "s3cret-of-mine" not in text, path
        assert "hf-in-the-environment" not in text, path
    assert json.loads((latest(checkout) / "command").read_text())["cwd"] == str(checkout)


def test_old_runs_are_pruned(checkout: Path) -> None:
    artifacts = checkout / ".ansible" / "runner" / "artifacts"
    for number in range(KEPT_RUNS + 5):
        (artifacts / f"old-{number}").mkdir(parents=True)
    assert run("nobody").exit_code == 2
    assert len(list(artifacts.iterdir())) == KEPT_RUNS
    assert latest(checkout).name.startswith("2")


def test_settings_of_the_project_are_honoured(checkout: Path) -> None:
    (checkout / "ansible.cfg").write_text(
        "[defaults]\nfact_caching = jsonfile\nfact_caching_connection = .ansible/facts\nhost_key_checking = true\n"
    )
    (checkout / "playbooks" / "settings.yml").write_text(
        "---\n- hosts: one\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.set_fact: {kept: 1, cacheable: true}\n"
        "    - ansible.builtin.debug:\n"
        "        msg: \"checking {{ lookup('config', 'HOST_KEY_CHECKING') }}\"\n"
    )
    result = run("settings")
    assert result.exit_code == 0, result.output
    assert "checking True" in result.stdout
    assert any("one" in path.name for path in (checkout / ".ansible" / "facts").iterdir())


def test_variables_reach_ansible_as_they_are() -> None:
    assert extra_vars(["a=b=c", "empty="]) == ["-e", '{"a": "b=c"}', "-e", '{"empty": ""}']
    with pytest.raises(FrontError) as caught:
        extra_vars(["s3cret"])
    assert "s3cret" not in str(caught.value)


def _start(playbook: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ai_idp.cli", "run", playbook],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _pid_of_the_task(root: Path) -> int:
    for _ in range(300):
        try:
            return int((root / "pid").read_text().strip())
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise AssertionError("the task never began")


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_stops_ansible_and_says_what_was_interrupted(checkout: Path) -> None:
    front = _start("slow")
    pid = _pid_of_the_task(checkout)
    front.send_signal(signal.SIGINT)
    output, _ = front.communicate(timeout=30)
    assert front.returncode == 130, output
    assert re.search(r"^Interrupted: one: Sleeps \(\d", output, re.M)
    assert "slow on lab: interrupted after" in output
    assert "Traceback" not in output
    assert _gone(pid)


def test_a_second_ctrl_c_kills_what_does_not_listen(checkout: Path) -> None:
    front = _start("stubborn")
    pid = _pid_of_the_task(checkout)
    front.send_signal(signal.SIGINT)
    time.sleep(1.5)
    front.send_signal(signal.SIGINT)
    output, _ = front.communicate(timeout=30)
    try:
        assert front.returncode == 130, output
        assert "Interrupted: one: Does not listen" in output
        assert "Traceback" not in output
        assert _gone(pid)
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
