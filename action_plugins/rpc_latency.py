# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of rpc_latency: it gives the program of both ends to the steps that run it.

The module can't read the program out of itself on the host: not everything that ships modules keeps their text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROGRAM = Path(__file__).resolve().parents[1] / "module_utils" / "ai_idp" / "rpc_link.py"
STEPS = ("serve", "measure")


class ActionModule(ActionBase):
    """Calls the module with the program's text."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run one step; see the module."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("step") in STEPS:
            arguments["program"] = PROGRAM.read_text(encoding="utf-8")
        result: dict[str, Any] = self._execute_module("rpc_latency", arguments, task_vars=task_vars)
        return result
