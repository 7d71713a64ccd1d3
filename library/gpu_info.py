#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tells which NVIDIA GPUs a host has and how they are
description:
  - Reads the GPUs of the host through NVML, the library that comes with the driver (no Python package is needed),
    else through C(nvidia-smi -q -x), on a Jetson through its device tree, C(/proc), C(/sys) and C(tegrastats).
  - A host without a GPU gives an empty list with the status V(none); a GPU or driver that is there but does not
    answer gives V(unknown) with a message that says what to do. Neither is a failure of the module.
  - Nothing is changed.
options:
  replay:
    description:
      - A recorded answer of this module, given back in place of asking the host, with RV(replayed) set. What it does
        not say of a GPU is null.
      - It is for tests of what follows from a GPU where there is none.
    type: dict
extends_documentation_fragment: [gpu_probe, read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The GPUs of the host are known
  gpu_info:
  register: __gpus

- name: The same through nvidia-smi, to compare
  gpu_info:
    backend: nvidia-smi

- name: A GPU that does not answer stops the run
  ansible.builtin.assert:
    that: __gpus.status != 'unknown'
    fail_msg: "{{ __gpus.messages | join('\n') }}"
"""

RETURN = r"""
status:
  description: V(ok), V(none) when the host has no GPU, V(unknown) when that can't be told.
  returned: always
  type: str
  sample: ok
backend:
  description: Where the answer comes from, V(nvml), V(nvidia-smi), V(jetson) or V(none).
  returned: always
  type: str
  sample: nvml
replayed:
  description: The answer is O(replay) and says nothing about this host.
  returned: always
  type: bool
  sample: false
messages:
  description: What is wrong and what to do about it.
  returned: always
  type: list
  elements: str
xid_errors:
  description:
    - Errors that the driver wrote into the kernel's log since the start, of GPUs that answer and of those that no
      longer do; each with pci_id, xid, count and text.
    - Null when the log can't be read, or may have lost its beginning and shows none.
  returned: always
  type: list
  elements: dict
  sample: [{pci_id: "0000:01:00", xid: 79, count: 1, text: GPU has fallen off the bus.}]
fingerprint:
  description: Changes when a GPU is added, removed or replaced, and with nothing else.
  returned: always
  type: str
  sample: 4b68ab3847feda7d
gpus:
  description: The GPUs in the order of PCI addresses, as nvidia-smi counts them. What a GPU does not tell is null.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Index as C(nvidia-smi -L) shows it.
      type: int
      sample: 0
    name:
      description: Product name.
      type: str
      sample: NVIDIA H100 80GB HBM3
    uuid:
      description: The card's own id.
      type: str
    pci_id:
      description: PCI address.
      type: str
      sample: "00000000:00:06.0"
    architecture:
      description: Generation.
      type: str
      sample: Hopper
    compute_capability:
      description: CUDA compute capability.
      type: str
      sample: "9.0"
    memory_total_bytes:
      description: All memory of the card.
      type: int
      sample: 85520809984
    memory_reserved_bytes:
      description: What the driver keeps; CUDA gives out the rest.
      type: int
      sample: 503316480
    memory_used_bytes:
      description: Memory in use now.
      type: int
    memory_free_bytes:
      description: Memory that is free now.
      type: int
    memory_is_shared:
      description: The GPU has no memory of its own and uses the host's.
      type: bool
    driver_version:
      description: Driver; on a Jetson the L4T release.
      type: str
      sample: 580.159.04
    cuda_version:
      description: Newest CUDA version that the driver supports.
      type: str
      sample: "13.0"
    vbios_version:
      description: Firmware of the card.
      type: str
    virtualization:
      description: How the GPU reaches this machine, such as V(Pass-Through).
      type: str
    power_limit_watts:
      description: Power limit now.
      type: float
      sample: 700.0
    power_limit_max_watts:
      description: Highest power limit that can be set.
      type: float
    power_draw_watts:
      description: Power taken now.
      type: float
    temperature_celsius:
      description: Temperature of the GPU.
      type: int
      sample: 38
    clock_sm_mhz:
      description: Clock of the multiprocessors now.
      type: int
    clock_memory_mhz:
      description: Clock of the memory now.
      type: int
    clock_sm_max_mhz:
      description: Highest clock of the multiprocessors.
      type: int
    clock_memory_max_mhz:
      description: Highest clock of the memory.
      type: int
    pcie_generation:
      description: PCIe generation now; idle cards lower it.
      type: int
      sample: 5
    pcie_generation_max:
      description: Highest generation of card and slot.
      type: int
    pcie_width:
      description: PCIe lanes now.
      type: int
      sample: 16
    pcie_width_max:
      description: Most lanes of card and slot.
      type: int
    ecc_enabled:
      description: Memory errors are corrected; null on cards without it.
      type: bool
    mig_enabled:
      description: The card is split into instances; null on cards that can't be.
      type: bool
    mig_devices:
      description: The instances with index, ids and memory.
      type: list
      elements: dict
    persistence_enabled:
      description: The driver stays loaded without clients.
      type: bool
    throttle_reasons:
      description: Why clocks are lowered now, idleness left out; an empty list when nothing lowers them.
      type: list
      elements: str
    xid_errors:
      description: The Xid errors of this GPU with xid, count and text; null when they can't be told.
      type: list
      elements: dict
    processes:
      description: Programs on the GPU with pid, type, name and used_memory_bytes.
      type: list
      elements: dict
    fingerprint:
      description: Changes when this is another card.
      type: str
"""

from ansible.module_utils.ai_idp import gpu_info
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={**gpu_info.PROBE_ARGUMENTS, "replay": {"type": "dict"}}, supports_check_mode=True
    )
    options = module.params
    if options["replay"] is not None:
        try:
            module.exit_json(changed=False, **gpu_info.replay(options["replay"]))
        except gpu_info.AnswerError as error:
            module.fail_json(msg=str(error))
    probe = gpu_info.probe_machine(gpu_info.tools_of(module), options["root"], options["timeout"], options["backend"])
    module.exit_json(changed=False, replayed=False, **gpu_info.describe(probe))


if __name__ == "__main__":
    main()
