#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_plan
short_description: Picks the NVIDIA driver for the GPUs of a host
description:
  - Looks at the PCI bus, the running kernel, Secure Boot and the installed packages, and says which driver packages
    the host needs, which of them are missing and whether it must be rebooted; or why there is nothing to do.
  - Whatever stands against the wanted driver is in RV(errors), each with what to do. It is a failure of the module
    only where O(fail_on_errors) says so.
  - Nothing is changed.
options:
  distribution:
    description: V(Debian) or V(Ubuntu), as the fact of that name.
    type: str
    choices: [Debian, Ubuntu]
    required: true
  distribution_version:
    description: Version of the distribution, as the fact of that name.
    type: str
    required: true
  architecture:
    description: Architecture, as the fact of that name.
    type: str
    required: true
  source:
    description: Where packages come from. V(auto) is the distribution on Ubuntu and NVIDIA on Debian.
    type: str
    choices: [auto, distribution, nvidia]
    default: auto
  branch:
    description: Branch of the driver.
    type: str
    required: true
  version:
    description: Exact version within the branch; empty for any.
    type: str
    default: ''
  edition:
    description: What is installed beside the kernel modules.
    type: str
    choices: [compute, desktop, server]
    default: compute
  modules:
    description: Flavour of the kernel modules.
    type: str
    choices: [auto, open, proprietary]
    default: auto
  module_build:
    description: Whether the kernel modules come ready made or are built on the host.
    type: str
    choices: [auto, prebuilt, dkms]
    default: auto
  kernel_flavour:
    description: Flavour that kernels come by; empty for what the installed kernel metapackage says.
    type: str
    default: ''
  allow_downgrade:
    description: Whether the wanted version may be older than the installed one.
    type: bool
    default: false
  cuda_toolkit_version:
    description: Version of the CUDA toolkit; empty for none.
    type: str
    default: ''
  cudnn_version:
    description: Version of cuDNN; empty for none.
    type: str
    default: ''
  repository:
    description: Address of NVIDIA's repository for this host, for the message about its key.
    type: str
    default: ''
  repository_key:
    description: Name of the key's file in O(repository). Where that repository is needed, an empty one is an error.
    type: str
    default: ''
  fail_on_errors:
    description: Whether to fail where RV(errors) holds one.
    type: bool
    default: false
  root:
    description: Folder under which C(/proc), C(/sys), C(/run), C(/etc) and C(/var) are read, so that a recorded machine
      can be replayed. The installed packages are always those of the host itself.
    type: path
    default: /
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: Driver for the host's GPUs is picked
  nvidia_driver_plan:
    distribution: "{{ ansible_facts['distribution'] }}"
    distribution_version: "{{ ansible_facts['distribution_version'] }}"
    architecture: "{{ ansible_facts['architecture'] }}"
    branch: "580"
  register: __driver
"""

RETURN = r"""
mode:
  description: V(host) or V(container) (an LXC one) where a driver is to be installed; V(none), V(jetson),
    V(passthrough), V(docker) or V(wsl) where not.
  returned: always
  type: str
  sample: host
reason:
  description: What was picked and for which GPUs, or why there is nothing to do.
  returned: always
  type: str
errors:
  description: What stands against the wanted driver, each with what to do.
  returned: always
  type: list
  elements: str
gpus:
  description: NVIDIA's display devices on the PCI bus.
  returned: always
  type: list
  elements: dict
  contains:
    address:
      description: PCI address.
      type: str
      sample: "0000:01:00.0"
    device_id:
      description: PCI device id.
      type: str
      sample: "0x2c05"
    generation:
      description: Generation.
      type: str
      sample: Blackwell
    driver:
      description: Kernel driver that the device is bound to.
      type: str
      sample: nvidia
source:
  description: V(distribution) or V(nvidia).
  returned: always
  type: str
modules:
  description: V(open) or V(proprietary).
  returned: always
  type: str
build:
  description: V(prebuilt) or V(dkms); null in a container.
  returned: always
  type: str
packages:
  description: Packages that are wanted, as apt takes them.
  returned: always
  type: list
  elements: str
  sample: ["nvidia-headless-no-dkms-580-open=580.*", "linux-modules-nvidia-580-open-generic"]
missing:
  description: Those of RV(packages) that are not installed in that version.
  returned: always
  type: list
  elements: str
unwanted:
  description: Installed kernel modules of another build, flavour or branch.
  returned: always
  type: list
  elements: str
pin:
  description: Preferences for apt; C({repository_host}) stands for the host of NVIDIA's repository.
  returned: always
  type: str
repository_needed:
  description: Whether something comes from NVIDIA's repository.
  returned: always
  type: bool
installed_version:
  description: Version of the driver whose packages are installed.
  returned: always
  type: str
  sample: 580.126.09
loaded_version:
  description: Version of the module in the running kernel.
  returned: always
  type: str
  sample: 580.126.09
nouveau_loaded:
  description: Whether the module nouveau is loaded.
  returned: always
  type: bool
secure_boot:
  description: Whether the kernel takes signed modules only.
  returned: always
  type: bool
reboot_reasons:
  description: Why the installed driver is not the one in use.
  returned: always
  type: list
  elements: str
kernel_without_modules:
  description: The newest installed kernel, when the prebuilt modules are not for it; else null.
  returned: always
  type: str
  sample: 6.8.0-124-generic
driver_packages_installed:
  description: Everything of a driver that is installed.
  returned: always
  type: list
  elements: str
cuda_packages_installed:
  description: Those packages of the CUDA toolkit and of cuDNN that are installed.
  returned: always
  type: list
  elements: str
guarded:
  description: Installed packages of driver and kernel, which only move together.
  returned: always
  type: list
  elements: str
initramfs:
  description: Command that makes the first files of the kernel anew; empty where the host has none.
  returned: always
  type: list
  elements: str
to_hold:
  description: Installed packages of driver and kernel that are not held yet.
  returned: always
  type: list
  elements: str
held:
  description: Installed packages of driver and kernel that are held.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.ai_idp.nvidia_driver import Settings, initramfs_command, make_plan, parse_dpkg, read_host
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "distribution": {"type": "str", "choices": ["Debian", "Ubuntu"], "required": True},
            "distribution_version": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True},
            "source": {"type": "str", "choices": ["auto", "distribution", "nvidia"], "default": "auto"},
            "branch": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "edition": {"type": "str", "choices": ["compute", "desktop", "server"], "default": "compute"},
            "modules": {"type": "str", "choices": ["auto", "open", "proprietary"], "default": "auto"},
            "module_build": {"type": "str", "choices": ["auto", "prebuilt", "dkms"], "default": "auto"},
            "kernel_flavour": {"type": "str", "default": ""},
            "allow_downgrade": {"type": "bool", "default": False},
            "cuda_toolkit_version": {"type": "str", "default": ""},
            "cudnn_version": {"type": "str", "default": ""},
            "repository": {"type": "str", "default": ""},
            "repository_key": {"type": "str", "default": "", "no_log": False},
            "fail_on_errors": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    given = module.params
    _, output, _ = module.run_command(
        ["dpkg-query", "--show", "--showformat=${db:Status-Want} ${db:Status-Status} ${Package} ${Version}\\n"],
        check_rc=True,
        environ_update={"LC_ALL": "C"},
    )
    host = read_host(
        given["root"], given["distribution"], given["distribution_version"], given["architecture"], parse_dpkg(output)
    )
    settings = Settings(
        source=given["source"],
        branch=given["branch"],
        version=given["version"],
        edition=given["edition"],
        modules=given["modules"],
        module_build=given["module_build"],
        kernel_flavour=given["kernel_flavour"],
        allow_downgrade=given["allow_downgrade"],
        cuda_toolkit_version=given["cuda_toolkit_version"],
        cudnn_version=given["cudnn_version"],
    )
    try:
        plan = make_plan(host, settings)
    except ValueError as error:
        module.fail_json(msg=f"A branch or version of the settings is no number: {error}")
    if plan["repository_needed"] and given["repository"] and not given["repository_key"]:
        plan["errors"].append(
            f"nvidia_driver_repository_key: '' and the key of {given['repository']} is not known to this role; open "
            "that address, and set the name of the file there that ends in .pub"
        )
    if plan["errors"] and given["fail_on_errors"]:
        module.fail_json(msg=f"nvidia_driver can't install this driver: {'; '.join(plan['errors'])}.", **plan)
    module.exit_json(changed=False, initramfs=initramfs_command(), **plan)


if __name__ == "__main__":
    main()
