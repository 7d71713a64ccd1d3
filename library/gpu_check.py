#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_check
short_description: Checks whether a host's NVIDIA GPUs work and are what is required
description:
  - Follows the way from the card on the PCI bus over driver, kernel module and versions to GPUs that answer, then
    holds these against requirements. Each step is a named check with V(ok), V(fail) or V(unknown), a reason, and
    what to do about it on bare metal, in a virtual machine, in an LXC container or in a Docker container.
  - What depends on a step that is not ok is V(unknown); unknown is never ok.
  - Nothing is changed. Only O(container) runs a program in a container.
options:
  requirements:
    description: What is required; what is not given is not checked.
    type: dict
    default: {}
    suboptions:
      minimum_gpus:
        description: How many GPUs have to answer. With 0 a host without a GPU is fine.
        type: int
        default: 1
      minimum_driver_version:
        description: Lowest driver, such as V("580") or V("580.95.05").
        type: str
      minimum_cuda_version:
        description: Lowest CUDA version that the driver has to support, such as V("13.0").
        type: str
      minimum_compute_capability:
        description: Lowest compute capability of each GPU, such as V("8.0").
        type: str
      minimum_memory_bytes:
        description: Lowest memory of each GPU.
        type: int
      minimum_pcie_generation:
        description: Lowest PCIe generation that card and slot can do; the present one drops when a card is idle.
        type: int
      minimum_pcie_width:
        description: Lowest number of PCIe lanes in use.
        type: int
      maximum_temperature_celsius:
        description: Highest temperature of each GPU now.
        type: int
      minimum_power_limit_watts:
        description: Lowest power limit that is set on each GPU.
        type: float
      no_xid_errors:
        description: The driver has not logged Xid errors since the host started.
        type: bool
        default: false
      ignored_xid_errors:
        description: Xid errors that do not count; the default are those that programs cause in a GPU that is well.
        type: list
        elements: int
        default: [13, 31, 43, 45]
      no_throttling:
        description: Nothing but idleness lowers the clocks now.
        type: bool
        default: false
  container:
    description: A running container in which C(nvidia-smi -L) has to list a GPU.
    type: str
  docker:
    description: The program that reaches the container.
    type: str
    default: docker
  fail_on_problems:
    description: Fail when a check is not V(ok), with all reasons and remedies as the message.
    type: bool
    default: false
extends_documentation_fragment: [gpu_probe, read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The GPU serves vLLM with CUDA 13
  gpu_check:
    requirements:
      minimum_driver_version: "580"
      minimum_cuda_version: "13.0"
      minimum_compute_capability: "8.0"
      minimum_memory_bytes: 16000000000
      no_xid_errors: true
    fail_on_problems: true

- name: The container still sees its GPU after the play
  gpu_check:
    container: ai-idp-vllm-1
  register: __gpu_check
"""

RETURN = r"""
ok:
  description: Every check is ok.
  returned: always
  type: bool
status:
  description: V(fail) when a check failed, else V(unknown) when one is unknown, else V(ok).
  returned: always
  type: str
  sample: ok
checks:
  description:
    - The checks in order, V(gpu_on_bus), V(driver_installed), V(module_loaded), V(versions_match), V(gpus_answer),
      V(gpu_count) and those that were required.
    - On a Jetson there is no bus, driver package or module to look at, so it begins with V(gpus_answer).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The check.
      type: str
      sample: versions_match
    status:
      description: V(ok), V(fail) or V(unknown).
      type: str
    reason:
      description: What was found.
      type: str
    remedy:
      description: What to do where this host runs; empty when ok.
      type: str
    problem:
      description: Name of the problem, by which C(docs/gpu-troubleshooting.md) knows it; null when ok.
      type: str
      sample: version_mismatch
problems:
  description:
    - A sentence for each check that is not ok, ready to print. Checks that are unknown only because an earlier one is
      not ok are left out here.
  returned: always
  type: list
  elements: str
environment:
  description:
    - Where the host runs. C(kind) is V(bare_metal), V(vm), V(lxc), V(docker), V(wsl) or V(unknown); C(proxmox) is null
      where that can't be told; C(description) and C(evidence) are text.
  returned: always
  type: dict
  sample: {kind: lxc, proxmox: true, description: This host is an LXC container on a Proxmox host.}
gpus:
  description: The GPUs as M(gpu_info) returns them.
  returned: always
  type: list
  elements: dict
"""

import os

from ansible.module_utils.ai_idp import gpu_check, gpu_info
from ansible.module_utils.basic import AnsibleModule

REQUIREMENTS = {
    "minimum_gpus": {"type": "int", "default": 1},
    "minimum_driver_version": {"type": "str"},
    "minimum_cuda_version": {"type": "str"},
    "minimum_compute_capability": {"type": "str"},
    "minimum_memory_bytes": {"type": "int"},
    "minimum_pcie_generation": {"type": "int"},
    "minimum_pcie_width": {"type": "int"},
    "maximum_temperature_celsius": {"type": "int"},
    "minimum_power_limit_watts": {"type": "float"},
    "no_xid_errors": {"type": "bool", "default": False},
    "ignored_xid_errors": {"type": "list", "elements": "int", "default": [13, 31, 43, 45]},
    "no_throttling": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "requirements": {"type": "dict", "default": {}, "options": REQUIREMENTS, "apply_defaults": True},
            "container": {"type": "str"},
            "docker": {"type": "str", "default": "docker"},
            "fail_on_problems": {"type": "bool", "default": False},
            **gpu_info.PROBE_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    options = module.params
    root, timeout = options["root"], options["timeout"]
    given = options["requirements"]
    try:
        wanted = gpu_check.Requirements(
            **{**given, "ignored_xid_errors": tuple(given["ignored_xid_errors"])}
        ).validated()
    except gpu_check.RequirementError as error:
        module.fail_json(msg=str(error))
    tools = gpu_info.tools_of(module)
    here = os.path.realpath(root) == "/"
    facts = gpu_check.gather(
        root,
        timeout,
        tools.nvidia_smi,
        detect_virt=module.get_bin_path("systemd-detect-virt") if here else None,
        modinfo=module.get_bin_path("modinfo", opt_dirs=["/sbin", "/usr/sbin"]) if here else None,
        journalctl=tools.journalctl,
    )
    probe = gpu_info.probe_machine(tools, root, timeout, options["backend"], facts.log)
    answer = gpu_info.describe(probe)
    container_answer = None
    if options["container"]:
        docker = module.get_bin_path(options["docker"])
        container_answer = gpu_check.ask_container(docker, options["container"], timeout)
    result = gpu_check.judge(
        facts, answer, wanted, gpu_check.library_answer(probe.nvml), options["container"], container_answer
    )
    if options["fail_on_problems"] and not result["ok"]:
        module.fail_json(
            msg="\n".join([result["environment"]["description"], *result["problems"]]), gpus=answer["gpus"], **result
        )
    module.exit_json(changed=False, gpus=answer["gpus"], **result)


if __name__ == "__main__":
    main()
