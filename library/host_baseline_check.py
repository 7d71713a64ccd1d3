#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_baseline_check
short_description: Tells whether the declared firewall is in force and the clock is kept right
description:
  - Compares the kernel's nftables table C(inet ai_idp) with the declared one, rule by rule, looks at the unit that
    loads it, and asks whether the clock agrees with a time server. Changes nothing.
options:
  fingerprint:
    description: Text in the comment of the declared table. Empty where the firewall is off.
    type: str
    default: ""
  firewall_file:
    description: File of the declared table.
    type: path
    required: true
  firewall_unit:
    description: Unit that loads it.
    type: str
    required: true
  time_unit:
    description: Unit that keeps the clock right. Empty where nobody is to ask; a container's clock is its host's.
    type: str
    default: ""
  wait_seconds:
    description: How long to wait until all is as declared.
    type: float
    default: 0
  fail_on_problems:
    description: Whether to fail where something is not as declared.
    type: bool
    default: false
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: verify | The firewall is in force
  host_baseline_check:
    fingerprint: ai-idp 0123456789abcdef
    firewall_file: /etc/nftables.d/ai-idp.nft
    firewall_unit: ai-idp-firewall.service
    fail_on_problems: true
"""

RETURN = r"""
container:
  description: Kind of container that the host is, or empty.
  returned: success
  type: str
  sample: docker
firewall:
  description: V(off) where none is wanted, V(declared), V(other) or V(missing).
  returned: success
  type: str
  sample: declared
problems:
  description: A sentence for each thing that is not as declared.
  returned: success
  type: list
  elements: str
  sample: []
"""

import time

from ansible.module_utils.ai_idp.host_baseline import Declared, look
from ansible.module_utils.ai_idp.host_state.changes import StateError
from ansible.module_utils.basic import AnsibleModule

PAUSE_SECONDS = 1.0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fingerprint": {"type": "str", "default": ""},
            "firewall_file": {"type": "path", "required": True},
            "firewall_unit": {"type": "str", "required": True},
            "time_unit": {"type": "str", "default": ""},
            "wait_seconds": {"type": "float", "default": 0.0},
            "fail_on_problems": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    declared = Declared(given["fingerprint"], given["firewall_file"], given["firewall_unit"], given["time_unit"])
    until = time.monotonic() + given["wait_seconds"]
    try:
        found = look(declared)
        while found.problems and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)
            found = look(declared)
    except StateError as error:
        module.fail_json(msg=str(error))
    result = {"container": found.container, "firewall": found.firewall, "problems": list(found.problems)}
    if found.problems and given["fail_on_problems"]:
        module.fail_json(msg=f"This host is not as declared: {'; '.join(found.problems)}.", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
