"""Ansible's event stream, turned into the state of a run and into notices that a view can show.

Pure: no terminal, no process, no clock of its own but the one it is given. The events are those of
ansible-runner: `playbook_on_*` for the run, `runner_on_*` for one task on one host.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ai_idp.forecast import Forecast

Status = Literal["ok", "changed", "failed", "ignored", "unreachable"]
# From harmless to bad: what a task is called whose hosts ended differently.
_SEVERITY: dict[Status, int] = {"ok": 0, "changed": 1, "ignored": 2, "failed": 3, "unreachable": 4}

DEBUG_ACTIONS = {"debug", "ansible.builtin.debug", "ansible.legacy.debug"}
# Steps in which Ansible only talks to itself: they count, and are not worth a line unless they fail.
_BOOKKEEPING = {
    "debug", "include_role", "include_tasks", "include_vars", "set_fact", "validate_argument_spec"
}  # fmt: skip
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BANNER = re.compile(r"^(TASK|RUNNING HANDLER|PLAY) \[.*\] \*+$", re.MULTILINE)
_CHANGED = re.compile(r"^changed: \[", re.MULTILINE)
# In the order in which they explain a failure best.
_LOG_KEYS = ("stderr", "stdout", "module_stderr", "module_stdout", "log", "logs", "exception")
_LOG_LINES = 60


def plain(text: str) -> str:
    """Text without terminal colours, with plain line ends."""
    return _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def as_text(value: Any) -> str:
    """A message as its author meant it: lists are lines, mappings are `key: value` lines."""
    if isinstance(value, str):
        return plain(value).rstrip("\n")
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {as_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(as_text(item) for item in value)
    return str(value)


@dataclass
class HostState:
    """What became of one host so far; counts are tasks."""

    name: str
    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    task: str | None = None

    def count(self, status: Status) -> None:
        """Counts a finished task; as Ansible does, a changed one is ok as well, and so is an ignored failure."""
        if status in ("ok", "changed", "ignored"):
            self.ok += 1
        if status == "changed":
            self.changed += 1
        if status == "failed":
            self.failed += 1
        if status == "unreachable":
            self.unreachable += 1


@dataclass
class Task:
    """One task of a play: on which hosts it runs since when, and how it ended on the others."""

    name: str
    path: str
    started: float
    running: dict[str, float] = field(default_factory=dict)
    done: dict[str, Status] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    told: float | None = None
    messages: set[str] = field(default_factory=set)

    @property
    def worst(self) -> Status | None:
        """The worst end on any host, None if it was skipped everywhere."""
        return max(self.done.values(), key=_SEVERITY.__getitem__, default=None)


@dataclass(frozen=True)
class Failure:
    """Why a task failed on a host: everything that a reader needs to go on."""

    host: str
    task: str
    path: str
    status: Status
    message: str
    logs: tuple[tuple[str, str], ...] = ()
    item: str | None = None


class View(Protocol):
    """What shows a run. Calls come one at a time."""

    def begin(self, run: RunState) -> None:
        """The first event is there; from now on `tick` is called a few times a second."""

    def play(self, name: str) -> None:
        """A play begins."""

    def finished(self, host: str, task: Task, status: Status, seconds: float) -> None:
        """A task ended on a host; skipped ones and bookkeeping are never told."""

    def message(self, host: str, task: Task, text: str, repeated: bool) -> None:
        """The playbook speaks to the user; `repeated` if another host said the same in this task."""

    def failure(self, failure: Failure) -> None:
        """A task failed on a host; it may still be rescued."""

    def diff(self, host: str, task: Task, text: str) -> None:
        """What a task changes, or would change, on a host."""

    def warning(self, text: str) -> None:
        """Ansible warns."""

    def tick(self) -> None:
        """Time has passed."""

    def end(self) -> None:
        """The run is over; nothing of the view may stay on the screen but what should be read."""


@dataclass
class RunState:
    """The state of a run, fed with events."""

    view: View
    shown_path: Callable[[str], str] = str
    clock: Callable[[], float] = time.monotonic
    forecast: Forecast = field(default_factory=Forecast)
    begun: float = 0.0
    play_name: str = ""
    hosts: dict[str, HostState] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    recent: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stats: dict[str, dict[str, int]] | None = None
    # What Ansible said outside of any task: the reason when a run doesn't even begin.
    complaints: list[str] = field(default_factory=list)
    stopping: bool = False
    _item_failures: dict[tuple[str, str], list[Failure]] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    # Events and ticks come from two threads.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the run was asked for."""
        return self.clock() - self.begun

    @property
    def running(self) -> list[Task]:
        """Tasks that run on some host at this moment, oldest first."""
        return [task for task in self.tasks.values() if task.running]

    def handle(self, event: Mapping[str, Any]) -> None:
        """Takes one event of ansible-runner."""
        with self._lock:
            self._handle(event)

    def tick(self) -> None:
        """Lets the view show that time has passed."""
        with self._lock:
            self.view.tick()

    def _handle(self, event: Mapping[str, Any]) -> None:
        kind = str(event.get("event", ""))
        data: Mapping[str, Any] = event.get("event_data") or {}
        match kind:
            case "playbook_on_play_start":
                self._settle()
                self.play_name = str(data.get("name", ""))
                self.view.play(self.play_name)
            case "playbook_on_task_start":
                self._settle()
                name = str(data.get("name") or data.get("task", ""))
                self.forecast.begin(f"{self.play_name} | {name}")
                self._task(data, name=name)
            case "runner_on_start":
                self._start(data)
            case "runner_on_ok":
                self._ok(event, data)
            case "runner_on_failed":
                self._failed(data)
            case "runner_on_unreachable":
                self._unreachable(data)
            case "runner_on_skipped":
                self._finish(data, None)
            case "runner_item_on_ok":
                self._item_ok(data)
            case "runner_item_on_failed":
                self._item_failed(data)
            case "runner_retry":
                self._retry(data)
            case "runner_on_file_diff":
                # The first difference of a task carries the task's banner with it.
                text = _BANNER.sub("", plain(str(event.get("stdout", "")))).strip("\n")
                if text.strip():
                    self.view.diff(str(data.get("host", "")), self._task(data), text)
            case "playbook_on_stats":
                self._settle()
                self.stats = {
                    key: dict(data.get(key) or {})
                    for key in ("ok", "changed", "failures", "dark", "rescued", "ignored", "processed")
                }
            case "warning" | "system_warning":
                self._warning(str(event.get("stdout", "")))
            case "error" | "verbose":
                text = plain(str(event.get("stdout", ""))).strip("\n")
                # Once plays run, other callbacks talk here too: only errors matter then.
                if text.strip() and (kind == "error" or not self.play_name):
                    self.complaints.append(text)

    def _task(self, data: Mapping[str, Any], name: str | None = None) -> Task:
        """The task that an event belongs to; `name` given means that it begins (again) now."""
        uuid = str(data.get("task_uuid", ""))
        if name is not None or uuid not in self.tasks:
            role = data.get("role")
            called = name or (f"{role} : {data.get('task', '')}" if role else str(data.get("task", "")))
            path = self.shown_path(str(data.get("task_path") or ""))
            self.tasks[uuid] = Task(name=called, path=path, started=self.clock())
        return self.tasks[uuid]

    def _host(self, data: Mapping[str, Any]) -> HostState:
        name = str(data.get("host", ""))
        return self.hosts.setdefault(name, HostState(name))

    def _start(self, data: Mapping[str, Any]) -> None:
        task, host = self._task(data), self._host(data)
        task.running[host.name] = self.clock()
        host.task = task.name

    def _finish(self, data: Mapping[str, Any], status: Status | None) -> None:
        """A task ended on a host; None means skipped."""
        task, host = self._task(data), self._host(data)
        since = task.running.pop(host.name, None)
        host.task = None
        if status is None:
            return
        told = data.get("duration")
        seconds = float(told) if told is not None else self.clock() - (since or task.started)
        host.count(status)
        task.done[host.name] = status
        task.seconds = max(task.seconds, seconds)
        if status != "ok" or not _is_bookkeeping(data):
            self.view.finished(host.name, task, status, seconds)

    def _settle(self) -> None:
        """Moves tasks that have ended everywhere to the recent ones."""
        for uuid in [uuid for uuid, task in self.tasks.items() if not task.running]:
            task = self.tasks.pop(uuid)
            if task.done:
                self.recent.append(task)
        del self.recent[:-50]

    def _message(self, data: Mapping[str, Any], value: Any) -> None:
        text, task = as_text(value), self._task(data)
        repeated = text in task.messages
        task.messages.add(text)
        self.view.message(str(data.get("host", "")), task, text, repeated)

    def _debug(self, data: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Shows what a debug task says; one with `var` has its value under the variable's own name."""
        if "msg" in result:
            self._message(data, result["msg"])
            return
        known = {"changed", "failed", "item", "ansible_loop_var", "censored", "results", "skipped"}
        rest = {key: value for key, value in result.items() if not key.startswith("_") and key not in known}
        if rest:
            self._message(data, rest)

    def _ok(self, event: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        result: Mapping[str, Any] = data.get("res") or {}
        changed = result.get("changed")
        if changed is None:
            # A result hidden by no_log has lost its fields, but Ansible's own line still tells.
            changed = _CHANGED.search(plain(str(event.get("stdout", "")))) is not None
        self._finish(data, "changed" if changed else "ok")
        # A looped debug has told its items one by one.
        if _is_debug(data) and "results" not in result:
            self._debug(data, result)

    def _item_ok(self, data: Mapping[str, Any]) -> None:
        result: Mapping[str, Any] = data.get("res") or {}
        label = _item_label(result)
        if label is not None:
            self._task(data).note = label
        if _is_debug(data):
            self._debug(data, result)

    def _retry(self, data: Mapping[str, Any]) -> None:
        if str(data.get("task_action", "")).endswith("async_status"):
            # It looks again whether something in the background has ended; nothing has failed.
            return
        result: Mapping[str, Any] = data.get("res") or {}
        retries, attempts = result.get("retries"), result.get("attempts")
        if isinstance(retries, int) and isinstance(attempts, int) and retries and attempts:
            # Ansible counts the first try among the retries.
            self._task(data).note = f"try {attempts + 1} of {retries}"

    def _failed(self, data: Mapping[str, Any]) -> None:
        if data.get("ignore_errors"):
            self._finish(data, "ignored")
            return
        task = self._task(data)
        host = str(data.get("host", ""))
        self._finish(data, "failed")
        items = self._item_failures.pop((str(data.get("task_uuid", "")), host), [])
        for failure in items or [_failure(data, task, "failed")]:
            self.failures.append(failure)
            self.view.failure(failure)

    def _item_failed(self, data: Mapping[str, Any]) -> None:
        key = (str(data.get("task_uuid", "")), str(data.get("host", "")))
        failure = _failure(data, self._task(data), "failed")
        self._item_failures.setdefault(key, []).append(failure)

    def _unreachable(self, data: Mapping[str, Any]) -> None:
        failure = _failure(data, self._task(data), "unreachable")
        self._finish(data, "unreachable")
        self.failures.append(failure)
        self.view.failure(failure)

    def _warning(self, stdout: str) -> None:
        # Ansible breaks its warnings at 79 columns; they are one sentence.
        text = " ".join(plain(stdout).split()).removeprefix("[WARNING]:").strip()
        if text and text not in self._warned:
            self._warned.add(text)
            self.view.warning(text)


def _is_debug(data: Mapping[str, Any]) -> bool:
    return bool({data.get("task_action"), data.get("resolved_action")} & DEBUG_ACTIONS)


def _is_bookkeeping(data: Mapping[str, Any]) -> bool:
    return str(data.get("task_action", "")).removeprefix("ansible.builtin.") in _BOOKKEEPING


def _item_label(result: Mapping[str, Any]) -> str | None:
    value = result.get("_ansible_item_label", result.get(str(result.get("ansible_loop_var", "item"))))
    return None if value is None else as_text(value).replace("\n", " ")


def _failure(data: Mapping[str, Any], task: Task, status: Status) -> Failure:
    result: Mapping[str, Any] = data.get("res") or {}
    message = as_text(result.get("msg", "")) or as_text(result.get("censored", ""))
    return Failure(
        host=str(data.get("host", "")),
        task=task.name,
        path=task.path,
        status=status,
        message=message or "the task failed and gave no reason",
        logs=tuple(_logs(result, message)),
        item=_item_label(result) if "ansible_loop_var" in result or "item" in result else None,
    )


def _logs(result: Mapping[str, Any], message: str) -> list[tuple[str, str]]:
    """What the failed program wrote, each part cut to its last lines and told once."""
    found: list[tuple[str, str]] = []
    told = {message.strip()}
    for key in _LOG_KEYS:
        text = as_text(result[key]).strip("\n") if result.get(key) else ""
        if not text.strip() or text.strip() in told or text.startswith("(traceback unavailable"):
            continue
        if key == "exception" and found:
            continue
        told.add(text.strip())
        lines = text.split("\n")
        if len(lines) > _LOG_LINES:
            text = "\n".join([f"… {len(lines) - _LOG_LINES} lines before these", *lines[-_LOG_LINES:]])
        found.append((key.removeprefix("module_"), text))
    if found and isinstance(result.get("rc"), int):
        found[0] = (f"{found[0][0]} (exit code {result['rc']})", found[0][1])
    return found
