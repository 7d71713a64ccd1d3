#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_memory_check
short_description: Tries real CUDA allocations
description:
  - Asks the GPU for blocks of memory, all held at once, writes to them, reads back, and gives them back.
  - It needs the driver's library alone (C(libcuda.so.1)), no CUDA toolkit and no Python package.
  - The module does not fail when the GPU refuses; RV(status) and RV(message) say it, and the caller decides.
  - Nothing is changed. For the moment of the attempt the memory is taken.
options:
  blocks_bytes:
    description: Sizes of the blocks that must be had at the same time, such as a model's weights and its KV cache.
    type: list
    elements: int
    required: true
  index:
    description: The GPU, as CUDA counts them.
    type: int
    default: 0
  shared_memory:
    description: GPU and host have one memory, as on a Jetson. Then the attempt is made only where it leaves
      O(keep_free_bytes), else the status is V(unknown).
    type: bool
    default: false
  keep_free_bytes:
    description: Memory of the host that the attempt must leave. It counts with O(shared_memory).
    type: int
    default: 536870912
  library:
    description: The driver's library. Empty looks in the usual places.
    type: str
    default: ""
  timeout:
    description: Seconds for the attempt. A driver that hangs counts as failed.
    type: int
    default: 60
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The GPU gives the memory that the model will take
  cuda_memory_check:
    blocks_bytes: [807694464, 268435456]
    shared_memory: true
  register: __cuda

- name: A GPU that refuses stops the run
  ansible.builtin.assert:
    that: __cuda.status != 'fail'
    fail_msg: "{{ __cuda.message }}"
"""

RETURN = r"""
status:
  description: V(ok), V(fail) when the GPU refuses or CUDA does not work, V(unknown) when it was not tried.
  returned: always
  type: str
  sample: ok
message:
  description: The answer in words.
  returned: always
  type: str
device:
  description: Name of the GPU, null when CUDA did not get so far.
  returned: always
  type: str
  sample: Orin
cuda_version:
  description: Newest CUDA version that the driver supports.
  returned: always
  type: str
  sample: "12.6"
free_bytes:
  description: Memory that CUDA called free before the attempt.
  returned: always
  type: int
total_bytes:
  description: All memory that CUDA sees.
  returned: always
  type: int
allocated_bytes:
  description: What was held at once.
  returned: always
  type: int
refused_bytes:
  description: The block that was refused, else null.
  returned: always
  type: int
largest_block_bytes:
  description: The largest single block that could be had instead (to 16 MiB), else null.
  returned: always
  type: int
"""

from ansible.module_utils.ai_idp import cuda_memory
from ansible.module_utils.ai_idp.gpu_common import read_text
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "blocks_bytes": {"type": "list", "elements": "int", "required": True},
            "index": {"type": "int", "default": 0},
            "shared_memory": {"type": "bool", "default": False},
            "keep_free_bytes": {"type": "int", "default": 512 << 20},
            "library": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    blocks = options["blocks_bytes"]
    if not blocks or min(blocks) < 1:
        module.fail_json(msg=f"blocks_bytes is {blocks}; allowed are sizes of 1 byte and more, at least one.")
    answer = cuda_memory.empty_answer()
    meminfo = read_text("/proc/meminfo")
    message = cuda_memory.room(meminfo, options["shared_memory"], sum(blocks), options["keep_free_bytes"])
    status = cuda_memory.UNKNOWN
    if not message:
        libraries = (options["library"],) if options["library"] else cuda_memory.LIBRARIES
        answer = cuda_memory.ask(libraries, options["index"], blocks, options["timeout"])
        status, message = cuda_memory.judge(answer)
    public = {key: value for key, value in answer.items() if key not in ("error", "verified")}
    module.exit_json(changed=False, status=status, message=message, **public)


if __name__ == "__main__":
    main()
