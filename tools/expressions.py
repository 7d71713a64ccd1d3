"""What Ansible makes of an expression on every host of an inventory, with the playbooks' variables and filters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def evaluated(inventory: Path, expression: str, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Ask Ansible for the value of an expression on each host. No host is connected to.

    Args:
        inventory: the inventory's folder.
        expression: what stands between the braces.
        secrets: the platform's keys, in place of those of the inventory.

    Returns:
        The value by host.

    Raises:
        RuntimeError: Ansible can't; the message is what it said.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "adhoc", "all", "--inventory", inventory),
            *("--playbook-dir", ROOT / "playbooks", "--extra-vars", json.dumps({"ai_idp_secrets": secrets})),
            *("--module-name", "ansible.builtin.debug"),
            *("--args", json.dumps({"msg": "{{ " + expression + " | to_json }}"})),
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            # It prints nothing; the table of times would stand around the answer.
            "ANSIBLE_CALLBACKS_ENABLED": "warm_start",
            "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.memory",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    hosts = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]
    return {name: json.loads(answer["msg"]) for name, answer in hosts.items()}
