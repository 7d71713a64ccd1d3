#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_check
short_description: Tells which engine a host has and whether it does what its daemon.json says
description:
  - Asks the engine for its settings and compares them, key by key, with the wanted ones. Changes nothing, and does not
    start an engine that is stopped.
options:
  settings:
    description: The wanted settings, as in C(daemon.json).
    type: dict
    required: true
  settings_file:
    description: Where they stand, for the message.
    type: path
    default: /etc/docker/daemon.json
  packages:
    description: Packages to look for.
    type: list
    elements: str
    default: []
  wait_seconds:
    description: How long to wait until all is as wanted.
    type: float
    default: 0
  fail_on_problems:
    description: Whether to fail where something is not as wanted.
    type: bool
    default: false
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: verify | The engine runs with the wanted settings
  docker_engine_check:
    settings: {live-restore: true}
    fail_on_problems: true
"""

RETURN = r"""
running:
  description: Whether the engine's service runs.
  returned: success
  type: bool
  sample: true
version:
  description: Version of the engine that runs, or empty.
  returned: success
  type: str
  sample: 26.1.5
problems:
  description: A sentence for each thing that is not as wanted.
  returned: success
  type: list
  elements: str
  sample: [log-driver is journald]
installed:
  description: Those of O(packages) that are installed.
  returned: success
  type: list
  elements: str
  sample: [docker.io]
"""

import time
from dataclasses import asdict

from ansible.module_utils.ai_idp.docker_engine import look
from ansible.module_utils.ai_idp.host_state.base import package_names
from ansible.module_utils.ai_idp.host_state.changes import StateError
from ansible.module_utils.basic import AnsibleModule

PAUSE_SECONDS = 1.0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "settings_file": {"type": "path", "default": "/etc/docker/daemon.json"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "wait_seconds": {"type": "float", "default": 0.0},
            "fail_on_problems": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    until = time.monotonic() + module.params["wait_seconds"]
    try:
        installed = package_names(module.params["packages"])
        engine = look(module.params["settings"])
        while engine.problems and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)
            engine = look(module.params["settings"])
    except StateError as error:
        module.fail_json(msg=str(error))
    if engine.problems and module.params["fail_on_problems"]:
        module.fail_json(
            msg=f"The running engine does not do what {module.params['settings_file']} says: "
            f"{'; '.join(engine.problems)}. Look for options in systemctl cat docker.service and for errors in "
            "journalctl -u docker.service.",
            **asdict(engine),
        )
    module.exit_json(changed=False, installed=installed, **asdict(engine))


if __name__ == "__main__":
    main()
