#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: hardware_profile
short_description: Keeps a profile of a host's hardware and says what has changed
description:
  - Reads GPUs, CPU, memory and disks, compares them with the profile that the last run kept on the host, and says in
    sentences what was added, removed or replaced.
  - The profile is a local fact, C(ansible_local.ai_idp_hardware) from the next gathering of facts on.
  - It changes with the hardware only, not with restarts, kernels, drivers, device names or slots. Memory whose modules
    can't be read is compared with a tolerance. Removable, USB and network disks are left out.
  - Serial numbers and UUIDs are kept as keyed hashes, never in clear text.
  - What can't be read this time (a GPU whose driver does not answer) is named in RV(unknown_parts) and keeps its last
    known state; it is not taken for removed.
options:
  state:
    description: V(absent) removes the profile; the folder stays, since other facts may be in it.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The file.
    type: path
    default: /etc/ansible/facts.d/ai_idp_hardware.fact
  gpu_info:
    description: The result of M(gpu_info) when it was asked already; without it this module asks itself.
    type: dict
  replay:
    description: A recorded machine, as M(gpu_info) takes it, in place of the one that is there.
    type: dict
  container:
    description:
      - Whether the host is a container, whose memory is a limit rather than modules. Found out when not given.
    type: bool
attributes:
  check_mode:
    support: full
    description: Says what would be kept and what has changed, and writes nothing.
  diff_mode:
    support: full
    description: Shows the kept profile before and after.
extends_documentation_fragment: [gpu_probe]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The host's hardware is known
  hardware_profile:
    gpu_info: "{{ __gpus }}"
  register: __hardware

- name: What has changed is said
  ansible.builtin.debug:
    msg: "{{ __hardware.changes }}"
  when: __hardware.status == 'changed'
"""

RETURN = r"""
status:
  description: V(new), V(unchanged) or V(changed) against the kept profile; V(absent) with O(state=absent).
  returned: always
  type: str
  sample: changed
changes:
  description: What was added, removed or replaced, one sentence each.
  returned: always
  type: list
  elements: str
  sample:
    - "GPU replaced: NVIDIA GeForce RTX 5070 Ti (15.9 GiB) by NVIDIA GeForce RTX 4090 (24.0 GiB)."
changed_parts:
  description: Which of V(gpus), V(cpu), V(memory) and V(disks) have changed, to plan again only what hangs on them.
  returned: always
  type: list
  elements: str
unknown_parts:
  description: Which of them can't be read now.
  returned: always
  type: list
  elements: str
fingerprint:
  description: Changes with the hardware; kept by findings to tell on what they were measured.
  returned: when O(state=present)
  type: str
  sample: 1f0c3a5e7b9d2468
profile:
  description: What is kept now.
  returned: when O(state=present)
  type: dict
kept:
  description: Whether the file held this profile before.
  returned: when O(state=present)
  type: bool
gpu_info:
  description: What M(gpu_info) tells of the host's GPUs.
  returned: when O(state=present)
  type: dict
previous:
  description: What was kept before; null when there was none that can be read.
  returned: always
  type: dict
path:
  description: The file.
  returned: always
  type: str
"""

import os
import stat
import tempfile

from ansible.module_utils.ai_idp import gpu_environment, gpu_info, hardware_profile
from ansible.module_utils.ai_idp.gpu_common import read_text
from ansible.module_utils.basic import AnsibleModule

MODE = 0o644


def is_container(module: AnsibleModule) -> bool:
    given = module.params["container"]
    if given is not None:
        return bool(given)
    root = module.params["root"]
    program = module.get_bin_path("systemd-detect-virt") if os.path.realpath(root) == "/" else None
    traces = gpu_environment.read_traces(root, module.params["timeout"], program)
    return gpu_environment.detect(traces).kind in (gpu_environment.LXC, gpu_environment.DOCKER)


def ask_gpus(module: AnsibleModule) -> dict:
    options = module.params
    if options["gpu_info"] is not None:
        return options["gpu_info"]
    if options["replay"] is not None:
        try:
            return gpu_info.replay(options["replay"])
        except gpu_info.AnswerError as error:
            module.fail_json(msg=str(error))
    probe = gpu_info.probe_machine(gpu_info.tools_of(module), options["root"], options["timeout"], options["backend"])
    return {"replayed": False, **gpu_info.describe(probe)}


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Beside the old one first, then in its place in one step."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, MODE)
        module.atomic_move(temporary, path)
        os.chmod(path, MODE)
    except OSError as error:
        module.fail_json(msg=f"The profile can't be written to {path}: {error}. Run the module as root (become).")


def remove(module: AnsibleModule, path: str, stored: dict | None, text: str | None) -> None:
    there = os.path.lexists(path)
    if there and not module.check_mode:
        try:
            os.remove(path)
        except OSError as error:
            module.fail_json(msg=f"The profile {path} can't be removed: {error}. Run the module as root (become).")
    module.exit_json(
        changed=there,
        status="absent",
        changes=[],
        changed_parts=[],
        unknown_parts=[],
        previous=stored,
        path=path,
        diff={"before": text or "", "after": "", "before_header": path, "after_header": path},
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "path": {"type": "path", "default": "/etc/ansible/facts.d/ai_idp_hardware.fact"},
            "gpu_info": {"type": "dict"},
            "replay": {"type": "dict"},
            "container": {"type": "bool"},
            **gpu_info.PROBE_ARGUMENTS,
        },
        mutually_exclusive=[("gpu_info", "replay")],
        supports_check_mode=True,
    )
    path = module.params["path"]
    text = read_text(path)
    stored = hardware_profile.parse_stored(text)
    if module.params["state"] == "absent":
        remove(module, path, stored, text)
    given = module.params["gpu_info"]
    if given is not None and not ("gpus" in given and "status" in given):
        module.fail_json(msg="gpu_info has no gpus and status. Give the registered result of the module gpu_info.")
    if text is not None and stored is None:
        module.warn(f"{path} is not a hardware profile of this version; it is written anew.")
    gpus = ask_gpus(module)
    now = hardware_profile.read_profile(module.params["root"], gpus, is_container(module))
    result = hardware_profile.decide(stored, now)
    wanted = hardware_profile.dump(result["profile"])
    mode_differs = text is not None and stat.S_IMODE(os.stat(path).st_mode) != MODE
    changed = wanted != text or mode_differs
    if changed and not module.check_mode:
        write(module, path, wanted)
    module.exit_json(
        changed=changed,
        previous=stored,
        path=path,
        gpu_info=gpus,
        kept=not changed,
        diff={"before": text or "", "after": wanted, "before_header": path, "after_header": path},
        **result,
    )


if __name__ == "__main__":
    main()
