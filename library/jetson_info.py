#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: jetson_info
short_description: Tells what a Jetson is and how it is set
description:
  - Reads the L4T release and says what is known about it, the power modes and the one in use, whether the clocks are
    held at their highest, memory and swap.
  - On a host that is no Jetson RV(is_jetson) is false and everything else is empty. That is no failure.
  - The GPU itself is told by M(gpu_info).
  - Nothing is changed.
options:
  root:
    description: Folder under which the files of the system are read, so that a recorded machine can be replayed.
    type: path
    default: /
  nvpmodel:
    description: The program that knows the power modes, a name that is looked up in the path or an absolute path.
    type: str
    default: nvpmodel
  timeout:
    description: Seconds that a program may take.
    type: int
    default: 30
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The board is known
  jetson_info:
  register: __jetson

- name: A release that is known to be bad is told
  ansible.builtin.debug:
    msg: "{{ __jetson.messages | join(' ') }}"
  when: __jetson.messages | length > 0
"""

RETURN = r"""
is_jetson:
  description: The device tree names a Jetson.
  returned: always
  type: bool
model:
  description: Name of the board.
  returned: always
  type: str
  sample: NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
compute_capability:
  description: Of its GPU.
  returned: always
  type: str
  sample: "8.7"
release:
  description: The L4T release; null when nothing tells it.
  returned: always
  type: str
  sample: 36.4.7
release_verdict:
  description: V(known_bad), V(old), V(no_known_problem) or V(unknown).
  returned: always
  type: str
release_reason:
  description: Why.
  returned: always
  type: str
release_remedy:
  description: What to do about it; empty where nothing is to be done.
  returned: always
  type: str
power_mode:
  description: The mode in use; null when it can't be told.
  returned: always
  type: str
  sample: 25W
power_modes:
  description: The modes that this board has.
  returned: always
  type: list
  elements: str
  sample: [15W, 25W, MAXN_SUPER, 7W]
boot_power_mode:
  description: The mode that the board comes up with when none was ever set.
  returned: always
  type: str
clocks_locked:
  description: The clocks of processors and GPU are held at their highest; null when they can't be read.
  returned: always
  type: bool
clocks:
  description: Name, least and most of each clock, in the units of the kernel.
  returned: always
  type: list
  elements: dict
memory_total_bytes:
  description: Memory of the board, which its GPU shares.
  returned: always
  type: int
memory_available_bytes:
  description: What is available of it now.
  returned: always
  type: int
swaps:
  description: Each swap with name, kind (V(zram), V(partition) or V(file)), size_bytes and used_bytes.
  returned: always
  type: list
  elements: dict
fingerprint:
  description: Changes when this is another board.
  returned: always
  type: str
messages:
  description: What is wrong and what to do about it.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.ai_idp import jetson
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "nvpmodel": {"type": "str", "default": "nvpmodel"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    root, timeout, program = module.params["root"], module.params["timeout"], module.params["nvpmodel"]
    # A recorded machine is not mixed with this one: its own programs are then used only when they are named.
    here = os.path.realpath(root) == "/"
    query = module.get_bin_path("dpkg-query") if here else None
    package = None
    if query:
        answer = run([query, "--show", "--showformat=${Version}", "nvidia-l4t-core"], timeout)
        package = answer.output if answer.rc == 0 else None
    module.exit_json(
        changed=False,
        **jetson.describe(
            root,
            timeout,
            package,
            module.get_bin_path(program, opt_dirs=["/usr/sbin"]) if here or os.path.isabs(program) else None,
            module.get_bin_path("tegrastats") if here else None,
        ),
    )


if __name__ == "__main__":
    main()
