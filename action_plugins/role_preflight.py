# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks the settings of roles, and what they need of the host, before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: role_preflight
short_description: Check the settings of roles, and what they need of the host, before anything is changed
description:
  - Compares the variables of the role that calls it with the role's own C(meta/argument_specs.yml), and fails with all
    that is wrong at once. That is done on the controller.
  - Then the host is asked for what the role needs, in one call of M(preflight_check), unless that is nothing.
  - Outside a role, O(roles) has that done for several roles in one task, which registers C(__role_preflight). Where
    such a task has checked a role, the role's own task is skipped.
options:
  problems:
    description:
      - Sentences on what else is wrong with the settings. An empty list is well. With O(roles) they are about none of
        them, and come first.
    type: list
    elements: str
    default: []
  advice:
    description: A sentence that is said after the problems.
    type: str
    default: ""
  accounts:
    description: As for M(preflight_check), which is called with it; so are the four that follow.
    type: list
    elements: dict
    default: []
  ports:
    description: See O(accounts).
    type: list
    elements: dict
    default: []
  disk:
    description: See O(accounts).
    type: list
    elements: dict
    default: []
  mounts:
    description: See O(accounts).
    type: list
    elements: dict
    default: []
  urls:
    description: See O(accounts).
    type: list
    elements: dict
    default: []
  roles:
    description:
      - Roles to check, each as the first task of its C(tasks/preflight.yml) says. A role whose preflight begins with
        something else, and one that was checked in this run, is left out.
    type: list
    elements: str
  roles_dir:
    description: Folder of the roles on the controller.
    type: path
author: AI-IDP
"""

EXAMPLES = r"""
- name: preflight | Check the settings
  role_preflight:
    problems: "{{ __toy_errors if toy_state == 'present' else [] }}"

- name: Check the settings of the roles
  role_preflight:
    roles: [toy, other_toy]
    roles_dir: "{{ playbook_dir }}/../roles"
  register: __role_preflight
"""

RETURN = r"""
roles:
  description: The roles that were checked in this run so far.
  type: list
  elements: str
  returned: with O(roles)
asking:
  description: Those of O(roles) whose preflight does more than this.
  type: list
  elements: str
  returned: with O(roles)
"""

from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

NEEDS = ("accounts", "ports", "disk", "mounts", "urls")


class ActionModule(ActionBase):
    """Works on the controller, and starts one module where a role needs something of the host."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("roles", "roles_dir", "problems", "advice", *NEEDS))

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        """Leave a role's own for later: the expressions may rely on what the role's spec promises."""
        return super().finalize_task_arg(name, value, templar, context) if name.startswith("roles") else value

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check one role, or several.

        Raises:
            AnsibleActionFail: the task stands in no role and names none.
        """
        super().run(tmp, task_vars)
        variables = task_vars or {}
        checked = list((variables.get("__role_preflight") or {}).get("roles", []))
        if "roles" in self._task.args:
            return self._check_several(self._task.args["roles"], checked, variables)
        role = self._task._role
        if role is None:
            raise AnsibleActionFail("role_preflight checks the settings of a role, and this task stands in none.")
        folder = Path(role._role_path)
        # What failed, and was rescued, is checked again.
        if folder.name in checked and not (variables.get(f"__{folder.name}_preflight") or {}).get("failed"):
            return {"changed": False, "skipped": True}
        problem, needs = self._check(folder, self._task.args, variables)
        return {"failed": True, "msg": problem} if problem else self._ask_host(needs, variables)

    def _check_several(self, names: list[str], checked: list[str], variables: dict[str, Any]) -> dict[str, Any]:
        """Check all roles of which nobody has: their settings first, then the host for all of them."""
        asking, needs, new = [], dict[str, list[Any]](), []
        problems = list(self._templar.template(self._task.args.get("problems")) or [])
        for name in dict.fromkeys(names):
            folder = Path(self._task.args["roles_dir"]) / name
            first, *more = self._load(folder / "tasks" / "preflight.yml")
            if more or "role_preflight" not in first:
                asking.append(name)
            if name in checked or "role_preflight" not in first:
                continue
            new.append(name)
            known = {**self._load(folder / "defaults" / "main.yml"), **variables}
            known |= self._load(folder / "vars" / "main.yml") | first.get("vars", {}) | {"role_path": str(folder)}
            problem, wanted = self._check(folder, first["role_preflight"] or {}, known)
            problems += [problem] if problem else []
            needs = {key: needs.get(key, []) + wanted.get(key, []) for key in NEEDS}
        if problems:
            return {"failed": True, "msg": "\n".join(problems)}
        result = self._ask_host(needs, variables)
        if not new:
            result["skipped"] = True
        return result if result.get("failed") else {**result, "roles": checked + new, "asking": asking}

    def _load(self, path: Path) -> Any:
        """What a file of a role says, with its expressions still to be computed."""
        return self._loader.load_from_file(str(path), trusted_as_template=True) if path.is_file() else {}

    def _check(
        self, folder: Path, arguments: dict[str, Any], variables: dict[str, Any]
    ) -> tuple[str, dict[str, list[Any]]]:
        """A role's problem with its settings, or '', and what it then needs of the host."""
        text = (folder / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
        options = yaml.load(text, Loader=yaml.CSafeLoader)["argument_specs"]["main"]["options"]
        templar = self._templar.copy_with_new_env(available_variables=variables)
        given = templar.template({name: variables[name] for name in options if name in variables})
        validated = ArgumentSpecValidator(options).validate(given, validate_role_argument_spec=True)
        if validated.error_messages:
            words = f"The settings of {folder.name} are not valid:\n" + "\n".join(validated.error_messages)
            return str(remove_values(words, validated._no_log_values)), {}
        problems = templar.template(arguments.get("problems")) or []
        if not isinstance(problems, list):
            raise AnsibleActionFail(f"The problems of {folder.name} are no list of sentences: {problems!r}")
        if problems:
            listed = "; ".join(str(problem).rstrip(".") for problem in problems)
            words = f"{folder.name} can't work with these settings: {listed}."
            return f"{words} {arguments.get('advice') or ''}".strip(), {}
        return "", {key: templar.template(arguments.get(key)) or [] for key in NEEDS}

    def _ask_host(self, needs: dict[str, list[Any]], variables: dict[str, Any]) -> dict[str, Any]:
        """The answer of preflight_check, which is not called where nothing is needed."""
        if not any(needs.values()):
            return {"changed": False}
        asked = {**needs, "fail_on_problems": True}
        return dict(self._execute_module("preflight_check", asked, task_vars=variables))
