#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_host_info
short_description: Tells what an edge host has for llama.cpp's services, in one call
description:
  - The build of the programs, the model's file, the units as they are, the GPUs with their nodes, and the memory that
    the services may have, what they hold now included.
  - Nothing is changed. Nodes and memory of a Jetson are read as root.
options:
  units:
    description: Paths of the services' units. Their names are those of the services.
    type: list
    elements: path
    required: true
  model_file:
    description: The model's file.
    type: path
    required: true
  release_file:
    description: File in which the build of the programs says what it is.
    type: path
    required: true
  gpu:
    description: Whether the host's GPUs are asked for. Without it the host counts as one that has none.
    type: bool
    default: true
  memory:
    description: Whether GPUs and memory are looked at. Without it only build, model and units are.
    type: bool
    default: true
extends_documentation_fragment: [gpu_probe, read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: budget | Ask what the host has
  edge_host_info:
    units: [/etc/systemd/system/edge-inference.service]
    model_file: /srv/models/tiny.gguf
    release_file: /opt/llama.cpp/current/release.json
  become: true
  register: __host
"""

RETURN = r"""
release:
  description: What the build says of itself; empty where there is none.
  returned: always
  type: dict
  sample: {"build": 11900, "commit": abc, "rpc": true}
model:
  description: Size in bytes, time of change in seconds and whether everybody reads it; null where there is none.
  returned: always
  type: dict
  sample: {"size": 1503238553, "mtime": 1790000000, "everybody_reads": true}
unit_texts:
  description: Texts of the units by name, empty where there is none.
  returned: always
  type: dict
gpu_status:
  description: V(ok), V(none) or V(unknown), as M(gpu_info) tells.
  returned: with memory
  type: str
gpu_messages:
  description: What it has to say about that.
  returned: with memory
  type: list
  elements: str
gpus:
  description: The GPUs as M(gpu_info) tells them.
  returned: with memory
  type: list
  elements: dict
nodes:
  description: Nodes of the GPUs below C(/dev).
  returned: with memory
  type: list
  elements: str
groups:
  description: Groups that own them on a Jetson.
  returned: with memory
  type: list
  elements: str
memory:
  description: What this host tells.
  returned: with memory
  type: dict
"""

import os

from ansible.module_utils.ai_idp import edge_host, gpu_info, unit_memory
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **gpu_info.PROBE_ARGUMENTS,
            "units": {"type": "list", "elements": "path", "required": True},
            "model_file": {"type": "path", "required": True},
            "release_file": {"type": "path", "required": True},
            "gpu": {"type": "bool", "default": True},
            "memory": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        result = {
            "release": edge_host.release_of(options["release_file"]),
            "model": edge_host.model_of(options["model_file"]),
            "unit_texts": edge_host.unit_texts(options["units"]),
        }
    except OSError as error:
        module.fail_json(msg=f"{error.filename} can't be read: {error.strerror}.")
    except ValueError as error:
        module.fail_json(msg=f"{options['release_file']} is no JSON ({error}): remove it and build llama.cpp again.")
    if options["memory"]:
        found = {"gpus": [], "status": "none", "messages": []}
        if options["gpu"]:
            probe = gpu_info.probe_machine(
                gpu_info.tools_of(module), options["root"], options["timeout"], options["backend"]
            )
            found = gpu_info.describe(probe)
        names = [os.path.basename(path) for path in options["units"]]
        result.update(
            gpu_status=found["status"],
            gpu_messages=found["messages"],
            gpus=found["gpus"],
            nodes=edge_host.device_nodes(options["root"]) if found["gpus"] else [],
            groups=edge_host.device_groups() if found["gpus"] else [],
            memory=unit_memory.describe(options["root"], names, found["gpus"]),
        )
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
