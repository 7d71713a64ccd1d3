#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_memory_info
short_description: Tells how much memory services may have, what they hold now included
description:
  - Memory that is available, and what the named services hold themselves. A service that is started anew gives its
    own part back first, so what it may have is both together; the answer is the same whether it runs or not.
  - On a Jetson what a service holds of the GPU's memory is read from NvMap's list of clients, which needs root.
  - Nothing is changed.
options:
  units:
    description: Names of the services, such as V(edge-inference.service). One that does not run holds nothing.
    type: list
    elements: str
    required: true
  gpus:
    description: The host's GPUs as M(gpu_info) returns them.
    type: list
    elements: dict
    default: []
  root:
    description: Folder under which C(/proc) and C(/sys) are read, for tests.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: The module only reads, so check mode gives the same answer.
  diff_mode:
    support: none
    description: There is nothing to compare.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: Memory that the edge may have is known
  unit_memory_info:
    units: [edge-inference.service, edge-rpc.service]
    gpus: "{{ __gpus.gpus }}"
  register: __memory
"""

RETURN = r"""
memory_total_bytes:
  description: Memory of the host; null when it can't be told.
  returned: always
  type: int
memory_available_bytes:
  description: What is available now.
  returned: always
  type: int
usable_bytes:
  description: What the services may have together.
  returned: always
  type: int
held_bytes:
  description: By service what it holds now.
  returned: always
  type: dict
  sample: {edge-inference.service: 1503238553, edge-rpc.service: 0}
gpus:
  description: The GPUs as they were given, with C(other_processes_bytes), what others than these services hold.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.ai_idp import unit_memory
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    options = module.params
    module.exit_json(changed=False, **unit_memory.describe(options["root"], options["units"], options["gpus"]))


if __name__ == "__main__":
    main()
