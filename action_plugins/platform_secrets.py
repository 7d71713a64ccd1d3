# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps the platform's keys in one file on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_secrets
short_description: Keep the platform's keys in one file on the controller
description:
  - Makes each named key that the file does not hold, with the strength of C(openssl rand -hex 32), and keeps what else
    is in it. Runs on the controller and returns no key.
options:
  path:
    description: The file. Readable by its owner alone.
    type: path
    required: true
  state:
    description: V(absent) removes the file.
    type: str
    choices: [present, absent]
    default: present
  names:
    description: Names of the keys.
    type: list
    elements: str
    default: []
  kept:
    description: Names of keys that are made where they are missing and never replaced.
    type: list
    elements: str
    default: []
  rotate:
    description: Replace the named keys by new ones.
    type: bool
    default: false
  overlapping:
    description: Which of them are good beside the new ones for a while. The former key is kept as C(NAME_before). While
      there is one, the key is not replaced again.
    type: list
    elements: str
    default: []
  retire:
    description: Names of keys whose former ones nobody presents any more. They are kept as C(NAME_retired), which says
      that they may be let in somewhere still.
    type: list
    elements: str
    default: []
  forget:
    description: Names of keys whose former ones, retired or not, are good no more.
    type: list
    elements: str
    default: []
  take_back:
    description: Names of keys whose former ones are put back in their place.
    type: list
    elements: str
    default: []
  vault_password_file:
    description: Password file of ansible-vault, or a program that prints the password. Empty keeps clear text.
    type: str
    default: ""
author: AI-IDP
"""

EXAMPLES = r"""
- name: main | Make the keys that are missing
  platform_secrets:
    path: "{{ platform_secrets_file }}"
    names: [first_key]
"""

import contextlib
import secrets
import stat
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.vault import VaultLib, get_file_vault_secret
from ansible.plugins.action import ActionBase
from ansible.plugins.filter.core import to_nice_yaml

BYTES = 32
MODE = 0o600
ENCRYPTED = "$ANSIBLE_VAULT"
HEAD = """\
# Keys of the platform, made by AI-IDP. Never share or commit this file.
# Yours to add when something asks for them: hugging_face_token, ngc_api_key, alert_webhook_url.
---
"""


def _former(name: str) -> str:
    return f"{name}_before"


def _retired(name: str) -> str:
    return f"{name}_retired"


class ActionModule(ActionBase):
    """Works on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(
        (
            *("path", "state", "names", "kept", "rotate", "overlapping"),
            *("retire", "forget", "take_back", "vault_password_file"),
        )
    )

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make what is missing.

        Raises:
            AnsibleActionFail: the file can't be read or written; the message quotes nothing of it.
        """
        super().run(tmp, task_vars)
        arguments = self._task.args
        if not arguments.get("path"):
            raise AnsibleActionFail("platform_secrets_file is empty: name the file that is to hold the keys.")
        path = Path(arguments["path"])
        if arguments.get("state") == "absent":
            return self._removed(path)
        password_file = str(arguments.get("vault_password_file") or "")
        there = path.is_file()
        known = self._known(path) if there else {}
        names, kept, overlapping, retire, forget, take_back = (
            [str(name) for name in arguments.get(key) or []]
            for key in ("names", "kept", "overlapping", "retire", "forget", "take_back")
        )
        # Of a key that was replaced and not forgotten, somebody may have the former one still: it is not replaced anew.
        rotated = (
            [name for name in names if name not in kept and not {_former(name), _retired(name)} & {*known}]
            if boolean(arguments.get("rotate", False))
            else []
        )
        back = {name: known[_former(name)] for name in take_back if _former(name) in known}
        retired = {_retired(name): known[_former(name)] for name in retire if _former(name) in known}
        gone = [*(_former(name) for name in [*retire, *forget, *back]), *map(_retired, forget)]
        forgotten = [name for name in gone if name in known]
        made = {name: secrets.token_hex(BYTES) for name in [*names, *kept] if name in rotated or name not in known}
        former = {_former(name): known[name] for name in made if name in overlapping and name in known}
        unchanged = {name: value for name, value in known.items() if name not in forgotten}
        left = {**unchanged, **former, **retired, **made, **back}
        encrypted = there and path.read_bytes().startswith(ENCRYPTED.encode())
        if encrypted and (made or forgotten) and not password_file:
            what = f"lacks {', '.join(made)}" if made else f"has {', '.join(forgotten)}, which is to go"
            raise AnsibleActionFail(
                f"{path} is encrypted and {what}, and platform_secrets_vault_password_file is empty: name the file of "
                "its password, or the keys would be written in clear text."
            )
        # An encrypted text differs each time it is made, so the file is only written when something changes.
        write = bool(made or forgotten) or not there or (bool(password_file) and not encrypted)
        wrong_mode = there and stat.S_IMODE(path.stat().st_mode) != MODE
        if not self._task.check_mode:
            if write:
                text = HEAD + to_nice_yaml(left, indent=2)
                self._write(path, self._encrypted(text, password_file) if password_file else text)
            elif wrong_mode:
                path.chmod(MODE)
        both = [name for name in overlapping if {_former(name), _retired(name)} & {*left}]
        without = [name for name in [*forget, *back] if {_former(name), _retired(name)} & {*forgotten}]
        return {
            **{"changed": write or wrong_mode, "made": sorted(made)},
            **{"overlapping": sorted(both), "forgotten": sorted(without)},
        }

    def _removed(self, path: Path) -> dict[str, Any]:
        there = path.is_file()
        if not self._task.check_mode:
            path.unlink(missing_ok=True)
        return {"changed": there, "made": [], "overlapping": [], "forgotten": []}

    def _known(self, path: Path) -> dict[str, Any]:
        """What the file holds."""
        try:
            found = self._loader.load_from_file(str(path), cache="none")
        except (AnsibleError, UnicodeDecodeError):
            # The error would quote the file.
            found = "unreadable"
        if not isinstance(found or {}, dict):
            raise AnsibleActionFail(
                f"{path} can't be read: it is no list of names and keys in YAML, or ansible-vault has no password "
                "for it. Correct it, or give the password with ANSIBLE_VAULT_PASSWORD_FILE."
            ) from None
        return found or {}

    def _encrypted(self, text: str, password_file: str) -> str:
        secret = get_file_vault_secret(filename=password_file, loader=self._loader)
        secret.load()
        return VaultLib().encrypt(text, secret=secret).decode()

    def _write(self, path: Path, text: str) -> None:
        """Put the file in place whole or not at all."""
        new = path.with_name(f".{path.name}.new")
        try:
            new.unlink(missing_ok=True)
            new.touch(mode=MODE, exist_ok=False)
            new.write_text(text, encoding="utf-8")
            new.replace(path)
        except OSError as error:
            raise AnsibleActionFail(f"{path} can't be written: {error.strerror}.") from error
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
