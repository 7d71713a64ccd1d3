"""Count what a run does, for the bench."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bench_counts
type: aggregate
short_description: Count tasks, module starts and changes of a run
description:
  - Writes the counts to C(counts.json) in the folder that E(AI_IDP_BENCH_DIR) names, when the run has ended.
  - A module that is started adds one byte to the file C(modules) there, C(h) on a host and C(l) on the controller.
  - Without the variable it does nothing, and it prints nothing.
author: AI-IDP (@ai-idp)
"""

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

LISTED = 50


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible tells no types.
    """Counts in the controller's process; module starts are counted where they happen, in the tasks' processes."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "bench_counts"

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ.get("AI_IDP_BENCH_DIR")
        self.disabled = not folder
        self._folder = Path(folder or "/")
        self._last_header: tuple[str, str] | None = None
        self._play = ""
        self._counts = {"task_headers": 0, "task_runs": 0, "task_skips": 0, "changed": 0}
        self._changed: list[str] = []

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Let every process that is forked from now on tell when it starts a module."""
        descriptor = os.open(self._folder / "modules", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        execute = ActionBase._execute_module

        def counted(action: Any, *args: Any, **kwargs: Any) -> Any:
            os.write(descriptor, b"l" if action._connection.transport == "local" else b"h")
            return execute(action, *args, **kwargs)

        ActionBase._execute_module = counted

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A play, or the next batch of its hosts."""
        self._last_header = None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Strategies that let hosts go their own ways say this once for each host; a header is said once."""
        header = (task._uuid, task.name)
        if header != self._last_header:
            self._counts["task_headers"] += 1
        self._last_header = header

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """A handler is a task too."""
        self.v2_playbook_on_task_start(task, False)

    def _run(self, result: Any) -> None:
        self._counts["task_runs"] += 1
        if result.is_changed():
            self._counts["changed"] += 1
            if len(self._changed) < LISTED:
                self._changed.append(f"{result.host.get_name()}: {result.task.get_name()}")

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task was run on a host."""
        self._run(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """One that failed, and may be rescued, was run too."""
        self._run(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """So was one whose host was away."""
        self._run(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task whose condition was worked out for a host, and no more."""
        self._counts["task_skips"] += 1

    def v2_playbook_on_stats(self, stats: object) -> None:
        """The run has ended."""
        (self._folder / "counts.json").write_text(json.dumps({**self._counts, "changed_tasks": self._changed}))
