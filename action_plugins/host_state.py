# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of host_state: it renders the files, and has packages and accounts made where one is missing.

The module's own documentation is in library/host_state.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

TEXTS = ("content", "template", "source")
APT = {"update_cache": True, "cache_valid_time": 86400, "policy_rc_d": 101}


class ActionModule(ActionBase):
    """Calls the module once where nothing is missing, and twice around apt and useradd where something is."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Set the state; see the module."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = {**self._task.args}
        for key in ("accounts", "directories", "files"):
            for entry in arguments.get(key) or []:
                check_entry(key, entry)
        arguments["files"] = [self._with_text(entry, variables) for entry in arguments.get("files") or []]
        result = self._call(arguments, variables)
        if result.get("failed") or self._task.check_mode:
            return result
        packages, accounts = result["missing_packages"], result["missing_accounts"]
        if not packages and not accounts:
            return result
        wanted_accounts = [entry for entry in arguments.get("accounts") or [] if entry["name"] in accounts]
        # Files of a package may be its account's; but a package may bring the group that an account is to be in.
        before = [entry for entry in wanted_accounts if not entry.get("groups")]
        after_packages = [entry for entry in wanted_accounts if entry.get("groups")]
        if failed := self._make_accounts(before, variables):
            return failed
        if packages:
            wanted = {**APT, "name": packages, "install_recommends": arguments.get("recommended_packages", False)}
            made = self._execute_module("ansible.builtin.apt", wanted, task_vars=variables)
            if made.get("failed"):
                # The lists may be older than a source that was named to apt just now.
                wanted["cache_valid_time"] = 0
                made = self._execute_module("ansible.builtin.apt", wanted, task_vars=variables)
            if made.get("failed"):
                return {**made, "msg": f"{', '.join(packages)} can't be installed: {made.get('msg')}"}
        if failed := self._make_accounts(after_packages, variables):
            return failed
        after = self._call({**arguments, "made": True}, variables)
        if after.get("failed"):
            return after
        still = after["missing_packages"] + after["missing_accounts"]
        if still:
            raise AnsibleActionFail(f"{', '.join(still)} is still not as wanted after it was installed or made.")
        for key in ("changes", "diff"):
            after[key] = result[key] + after[key]
        return {**after, "changed": True, "missing_packages": packages, "missing_accounts": accounts}

    def _make_accounts(self, entries: list[Mapping[str, Any]], variables: dict[str, Any]) -> dict[str, Any] | None:
        """Make or correct accounts; gives the result of the one that failed."""
        for entry in entries:
            made: dict[str, Any] = self._execute_module(
                "ansible.builtin.user", user_arguments(entry), task_vars=variables
            )
            if made.get("failed"):
                return {**made, "msg": f"The account {entry['name']} can't be made: {made.get('msg')}"}
        return None

    def _call(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module("host_state", arguments, task_vars=variables)
        # It would show the texts of secret files.
        result.pop("invocation", None)
        return result

    def _with_text(self, entry: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """An entry of `files` with its text in place of where that comes from."""
        if entry.get("state") == "absent":
            return {key: value for key, value in entry.items() if key not in (*TEXTS, "template_vars")}
        given = [key for key in TEXTS if entry.get(key) is not None]
        if len(given) != 1:
            raise AnsibleActionFail(
                f"The file {entry.get('path')} has {' and '.join(given) or 'none'} of content, template and source: "
                "give it one of them."
            )
        rest = {key: value for key, value in entry.items() if key not in (*TEXTS, "template_vars")}
        if given[0] == "content":
            content = entry["content"]
            if not isinstance(content, str):
                raise AnsibleActionFail(f"The content of {entry.get('path')} is no text: write data with to_nice_json.")
        elif given[0] == "source":
            content = self._loader.get_text_file_contents(self._found("files", entry["source"]))
        else:
            # The builtin template has the first, too.
            known = {"ansible_managed": "Ansible managed", **variables, **(entry.get("template_vars") or {})}
            content = self._rendered(entry["template"], known)
        return {**rest, "content": content}

    def _found(self, folder: str, name: str) -> str:
        try:
            return str(self._find_needle(folder, name))
        except AnsibleError as error:
            raise AnsibleActionFail(str(error)) from error

    def _rendered(self, name: str, variables: dict[str, Any]) -> str:
        """The text of a template, as ansible.builtin.template makes it."""
        path = self._found("templates", name)
        folders = [str(Path(path).parent)]
        for folder in variables.get("ansible_search_path", []):
            folders += [str(Path(folder) / "templates"), folder]
        templar = self._templar.copy_with_new_env(searchpath=folders, available_variables=variables)
        text = trust_as_template(self._loader.get_text_file_contents(path))
        return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True}) or "")


def check_entry(key: str, entry: Any) -> None:
    """Refuse what YAML has made something else of than was meant.

    Raises:
        AnsibleActionFail: an entry is no mapping, or a mode is a number: 0644 without quotes is one, which is 420.
    """
    if not isinstance(entry, Mapping):
        raise AnsibleActionFail(
            f"An entry of {key} is no mapping but a {type(entry).__name__}: write one such as {{path: /etc/toy}}."
        )
    if isinstance(entry.get("mode"), int):
        raise AnsibleActionFail(f'The mode of {entry.get("path")} is a number: put it into quotes, such as "0644".')


def user_arguments(account: Mapping[str, Any]) -> dict[str, Any]:
    """What ansible.builtin.user is to be given for an account."""
    system = bool(account.get("system"))
    arguments = {"name": account["name"], "system": system, "create_home": not system}
    for key in ("home", "shell"):
        if account.get(key):
            arguments[key] = account[key]
    if account.get("groups"):
        arguments |= {"groups": list(account["groups"]), "append": True}
    return arguments
