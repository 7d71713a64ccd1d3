# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of config_release: it renders the templates.

The module's own documentation is in library/config_release.py.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.loader import action_loader

# Templates are rendered as host_state does it. A lookup would copy every variable of the host for each of them.
HostState: Any = action_loader.get("host_state", class_only=True)


class ActionModule(HostState):  # type: ignore[misc]
    """Calls the module with a text in place of each template."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render the templates and call the module.

        Raises:
            AnsibleActionFail: a file has a text and a template, or a template can't be found or rendered.
        """
        super(HostState, self).run(tmp, task_vars)
        variables = task_vars or {}
        arguments = {**self._task.args}
        for templates, texts in (("templates", "files"), ("secret_templates", "secret_files")):
            names = arguments.pop(templates, None) or {}
            given = arguments.get(texts) or {}
            if twice := sorted(set(names) & set(given)):
                raise AnsibleActionFail(f"{', '.join(twice)} is in {templates} and in {texts}: name it in one of them.")
            known = {**variables, "ansible_managed": "Ansible managed"}
            arguments[texts] = {**given, **{name: self._rendered(template, known) for name, template in names.items()}}
        result: dict[str, Any] = self._execute_module("config_release", arguments, task_vars=variables)
        return result
