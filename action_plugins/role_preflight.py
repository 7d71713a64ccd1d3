# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks a role's settings before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: role_preflight
short_description: Check a role's settings before anything is changed
description:
  - Compares the variables of the role that calls it with the role's own C(meta/argument_specs.yml), and fails with all
    that is wrong at once. Runs on the controller and asks no host.
options:
  problems:
    description: Sentences on what else is wrong with the settings. An empty list is well.
    type: list
    elements: str
    default: []
  advice:
    description: A sentence that is said after the problems.
    type: str
    default: ""
author: AI-IDP
"""

EXAMPLES = r"""
- name: preflight | Check the settings
  role_preflight:
    problems: "{{ __toy_errors if toy_state == 'present' else [] }}"
"""

from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Works on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("problems", "advice"))

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        """Leave the problems for later: their expression may rely on what the role's spec promises."""
        return value if name == "problems" else super().finalize_task_arg(name, value, templar, context)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the settings.

        Raises:
            AnsibleActionFail: the task stands in no role.
        """
        super().run(tmp, task_vars)
        variables = task_vars or {}
        role = self._task._role
        if role is None:
            raise AnsibleActionFail("role_preflight checks the settings of a role, and this task stands in none.")
        specs = Path(role._role_path) / "meta" / "argument_specs.yml"
        text = specs.read_text(encoding="utf-8")
        options = yaml.load(text, Loader=yaml.CSafeLoader)["argument_specs"]["main"]["options"]
        given = self._templar.template({name: variables[name] for name in options if name in variables})
        checked = ArgumentSpecValidator(options).validate(given, validate_role_argument_spec=True)
        if checked.error_messages:
            words = f"The settings of {role.get_name()} are not valid:\n" + "\n".join(checked.error_messages)
            return {"failed": True, "msg": remove_values(words, checked._no_log_values)}
        problems = self._templar.template(self._task.args.get("problems")) or []
        if not isinstance(problems, list):
            raise AnsibleActionFail(f"The problems of {role.get_name()} are no list of sentences: {problems!r}")
        if problems:
            listed = "; ".join(str(problem).rstrip(".") for problem in problems)
            words = f"{role.get_name()} can't work with these settings: {listed}."
            return {"failed": True, "msg": f"{words} {self._task.args.get('advice') or ''}".strip()}
        return {"changed": False}
