"""What a run looks like: pure pieces, and the live view on a real terminal."""

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.console import Console

from ai_idp.events import RunState, as_text
from ai_idp.progress import PlainView, clock, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_clock() -> None:
    assert clock(65.9) == "01:05"
    assert clock(3661) == "1:01:01"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a\nb\n", "a\nb"),
        (["a", ["b", "c"]], "a\nb\nc"),
        ({"key": "value"}, "key: value"),
        ("\x1b[31mred\x1b[0m\r\nnext", "red\nnext"),
        (7, "7"),
    ],
)
def test_messages_are_lines(value: Any, said: str) -> None:
    assert as_text(value) == said


class Script:
    """A run that is told event by event, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.written = StringIO()
        view = PlainView(Console(file=self.written, width=140, highlight=False))
        self.state = RunState(view=view, clock=lambda: self.now, shown_path=lambda path: path.removeprefix("/p/"))
        view.begin(self.state)
        self.event("playbook_on_play_start", name="A play")
        self.event("playbook_on_task_start", name="role : A task")

    def event(self, kind: str, *, stdout: str = "", **data: Any) -> None:
        task = {"task_uuid": "u1", "task": "A task", "role": "role", "task_path": "/p/roles/role/tasks/main.yml:3"}
        self.state.handle({"event": kind, "stdout": stdout, "event_data": {**task, **data}})

    @property
    def text(self) -> str:
        return self.written.getvalue()


def test_a_long_task_says_that_it_runs() -> None:
    script = Script()
    script.event("runner_on_start", host="one")
    script.state.tick()
    assert "running" not in script.text
    script.now = 2.5
    script.state.tick()
    script.now = 3.0
    script.event("runner_retry", host="one", res={"attempts": 1, "retries": 5})
    script.state.tick()
    assert script.text.count("running") == 1
    script.now = 33.0
    script.state.tick()
    assert "00:33 running     one  role : A task  [try 2 of 5]  (for 33 s)" in script.text
    script.event("runner_on_ok", host="one", res={"changed": True}, duration=33.0)
    script.state.tick()
    assert script.text.endswith("00:33 changed     one  role : A task  (33 s)\n")


def test_waiting_for_the_background_is_no_second_try() -> None:
    script = Script()
    script.event("runner_on_start", host="one")
    retry = {"attempts": 1, "retries": 1200}
    script.event("runner_retry", host="one", res=retry, task_action="ansible.builtin.async_status")
    script.now = 33.0
    script.state.tick()
    assert "00:33 running     one  role : A task\n" in script.text


def test_a_result_hidden_by_no_log_still_counts_as_changed() -> None:
    script = Script()
    script.event("runner_on_start", host="one")
    script.event("runner_on_ok", host="one", stdout="\nchanged: [one]", res={"censored": "hidden"}, duration=1)
    assert script.state.hosts["one"].changed == 1


def test_failed_items_are_told_one_by_one() -> None:
    script = Script()
    script.event("runner_on_start", host="one")
    for item in ("x", "y"):
        result = {"ansible_loop_var": "item", "item": item, "msg": f"no {item}", "rc": 1, "stderr": "log\n" * 100}
        script.event("runner_item_on_failed", host="one", res=result)
    script.event("runner_on_failed", host="one", res={"msg": "One or more items failed", "results": [{}, {}]})
    assert [(failure.item, failure.message) for failure in script.state.failures] == [("x", "no x"), ("y", "no y")]
    name, log = script.state.failures[0].logs[0]
    assert name == "stderr (exit code 1)"
    assert log.splitlines()[0] == "… 40 lines before these"
    assert len(log.splitlines()) == 61
    assert script.state.failures[0].path == "roles/role/tasks/main.yml:3"


def test_looped_and_variable_debug_messages_are_shown_once() -> None:
    script = Script()
    action = {"task_action": "ansible.builtin.debug"}
    script.event("runner_on_start", host="one")
    script.event("runner_item_on_ok", host="one", res={"msg": "first", "item": 1, "ansible_loop_var": "item"}, **action)
    script.event("runner_on_ok", host="one", res={"msg": "All items completed", "results": [{}]}, **action)
    script.event("runner_on_ok", host="two", res={"some_variable": ["a", "b"], "changed": False}, **action)
    assert "one says:\n        first\n" in script.text
    assert "All items completed" not in script.text
    assert "two says:\n        some_variable: a\n        b\n" in script.text


def test_warnings_are_one_line_and_said_once() -> None:
    script = Script()
    for _ in range(2):
        script.event("warning", stdout="[WARNING]: This is\nbroken at 79 columns\n")
        script.event("deprecated", stdout="[DEPRECATION WARNING]: nobody wants to know\n")
    assert script.text.count("warning: This is broken at 79 columns\n") == 1
    assert "nobody wants" not in script.text


PLAYBOOK = """---
- name: The play
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: A task that takes a while
      ansible.builtin.command: sleep 2
      changed_when: true
    - name: It speaks
      ansible.builtin.debug: {msg: "[bold]verbatim[/bold]"}
"""


def test_a_terminal_gets_a_live_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "inventory" / "lab").mkdir(parents=True)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    (tmp_path / "inventory" / "lab" / "hosts.yml").write_text("all: {hosts: {localhost: }}\n")
    (tmp_path / "playbooks" / "live.yml").write_text(PLAYBOOK)
    monkeypatch.setenv("AI_IDP_HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    child = pexpect.spawn(
        sys.executable, ["-m", "ai_idp.cli", "run", "live"], dimensions=(30, 100), encoding="utf-8", timeout=30
    )
    # Drawn while the task runs: the play, the task with its time, the host's row.
    child.expect("play  The play")
    child.expect("A task that takes a while")
    child.expect("localhost")
    child.expect("works")
    child.expect(r"\[bold\]verbatim\[/bold\]")
    child.expect(r"live on lab: .*ok.* after")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
