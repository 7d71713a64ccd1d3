# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps a text file on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: controller_file
short_description: Keep a text file on the controller
description:
  - What a run writes down on the controller, whichever host found it out; no module is started for it.
  - The file is replaced whole or not at all, by the user who runs Ansible. Its folder is made if it is missing.
  - With several hosts in a play, set C(run_once), or C(throttle) where each adds to what the one before wrote.
options:
  path:
    description: The file.
    type: path
    required: true
  content:
    description: Its text. Required where it is to be there.
    type: str
  state:
    description: V(absent) removes the file.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description: Mode of the file, in quotes.
    type: str
    default: "0644"
  directory_mode:
    description: Mode of the folder, if it is made.
    type: str
    default: "0755"
author: AI-IDP
"""

EXAMPLES = r"""
- name: main | Write down what was found
  controller_file:
    path: "{{ toy_lock_file }}"
    content: "{{ found | to_nice_json }}\n"
  run_once: true
"""

import os
import stat
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Works on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("path", "content", "state", "mode", "directory_mode"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare the file with what it is to be, and write it.

        Raises:
            AnsibleActionFail: an argument is missing or wrong, or the file can't be read or written.
        """
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "content": {"type": "str", "no_log": False},
                "state": {"choices": ["present", "absent"], "default": "present"},
                "mode": {"type": "str", "default": "0644"},
                "directory_mode": {"type": "str", "default": "0755"},
            },
            required_if=[("state", "present", ["content"])],
        )
        path = Path(arguments["path"])
        wanted = arguments["content"] if arguments["state"] == "present" else None
        try:
            return self._kept(path, wanted, octal(arguments, "mode"), octal(arguments, "directory_mode"))
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename or path} on the controller: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise AnsibleActionFail(f"{path} on the controller is no text file: remove it and run again.") from error

    def _kept(self, path: Path, wanted: str | None, mode: int, directory_mode: int) -> dict[str, Any]:
        there = path.is_file()
        before = path.read_bytes().decode() if there else None
        right_mode = wanted is None or not there or stat.S_IMODE(path.stat().st_mode) == mode
        changed = before != wanted or not right_mode
        if changed and not self._task.check_mode:
            if wanted is None:
                path.unlink()
            else:
                path.parent.mkdir(mode=directory_mode, parents=True, exist_ok=True)
                new = path.with_name(f".{path.name}.new")
                with new.open("wb") as stream:
                    os.fchmod(stream.fileno(), mode)
                    stream.write(wanted.encode())
                new.replace(path)
        result: dict[str, Any] = {"changed": changed, "path": str(path)}
        if changed and self._task.diff:
            result["diff"] = {
                "before_header": str(path),
                "after_header": str(path),
                "before": before or "",
                "after": wanted or "",
            }
        return result


def octal(arguments: dict[str, Any], name: str) -> int:
    """Read a mode.

    Raises:
        AnsibleActionFail: it is none; 0644 without quotes is a number, which is 420.
    """
    text = str(arguments[name])
    try:
        if not text.startswith("0"):
            raise ValueError
        return int(text, 8)
    except ValueError as error:
        raise AnsibleActionFail(
            f'{name} is {text!r}, which is no mode: put it into quotes with its leading zero, such as "0644".'
        ) from error
