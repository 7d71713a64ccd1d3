#!/usr/bin/python
# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_check
short_description: Tells whether a host is ready, in one read-only call
description:
  - Checks accounts, ports, disks, mounts, memory and URLs on the target and returns every problem as one sentence that
    says what to do, so that a run can be refused before anything is changed.
  - Run it as root (C(become)) where ports are checked, or the process that holds a port can't be named.
extends_documentation_fragment: [read_only]
attributes:
  platform:
    support: full
    platforms: linux
options:
  ports:
    description:
      - Ports that must be free, or held by what this platform itself started there.
      - Two entries that want the same port are a problem as well.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address that the service will bind to.
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
      protocol:
        description: The transport.
        type: str
        choices: [tcp, udp]
        default: tcp
      owner_compose_project:
        description: A container of this compose project may hold the port.
        type: str
      owner_unit:
        description: A process of this systemd unit may hold the port.
        type: str
      owner_processes:
        description: Processes of these names may hold the port.
        type: list
        elements: str
      variable:
        description: Name of the variable that the port comes from, for the message.
        type: str
  accounts:
    description: Accounts that must be there, each with a group of its name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the account.
        type: str
        required: true
      variable:
        description: Name of the variable that the account comes from, for the message.
        type: str
  disk:
    description: Free space under paths; a path that does not exist yet is looked at in its nearest parent.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The path.
        type: path
        required: true
      min_free_bytes:
        description: Bytes that must be free.
        type: int
        required: true
      variable:
        description: Name of the variable that the path comes from.
        type: str
  mounts:
    description: Paths that must really be mount points. A network file system must answer within 10 seconds.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The path.
        type: path
        required: true
      fstype:
        description: Type of file system that is expected; V(nfs) and V(nfs4) count as the same.
        type: str
      source:
        description: What must be mounted there, as C(/proc/self/mountinfo) names it.
        type: str
      variable:
        description: Name of the variable that the path comes from.
        type: str
  urls:
    description: Services that must answer. Redirects are followed, proxies of the environment are used.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: A C(http://) or C(https://) URL, or C(tcp://HOST:PORT) to do no more than connect.
        type: str
        required: true
      accept_status:
        description: Status codes that count as an answer; 200 to 399 when it is left out.
        type: list
        elements: int
      method:
        description: The HTTP method.
        type: str
        choices: [GET, HEAD]
        default: GET
      purpose:
        description: What the service is needed for.
        type: str
      variable:
        description: Name of the variable that the URL comes from.
        type: str
  memory:
    description: Memory that the host must have.
    type: dict
    suboptions:
      min_total_bytes:
        description: In all.
        type: int
      min_available_bytes:
        description: Available now without swapping.
        type: int
      variable:
        description: Name of the variable that the need comes from.
        type: str
  timeout:
    description: Seconds to wait for each URL.
    type: int
    default: 10
  fail_on_problems:
    description: Fail with the problems as the message. Without it the caller decides.
    type: bool
    default: false
author: AI-IDP
"""

EXAMPLES = r"""
- name: The host is ready for the inference stack
  preflight_check:
    ports:
      - address: 10.77.0.11
        port: 8000
        owner_compose_project: ai-idp-inference
        variable: inference_stack_vllm_port
    disk:
      - path: /var/lib/docker
        min_free_bytes: 40000000000
        variable: inference_stack_min_free_bytes
    mounts:
      - path: /mnt/nas
        fstype: nfs4
        variable: model_store_mount
    urls:
      - url: https://registry-1.docker.io/v2/
        accept_status: [200, 401]
        purpose: container images
        variable: inference_stack_registry
    fail_on_problems: true
  become: true
"""

RETURN = r"""
problems:
  description: One sentence for each check that failed.
  type: list
  elements: str
  returned: always
  sample:
    - "inference_stack_vllm_port: 8000 on 10.77.0.11 (tcp) is already taken by nginx (process 812), which listens on
      0.0.0.0: choose a free port, or stop what holds it."
checks:
  description: Every check with its result. V(unknown) means that it could not be told; it is not ok.
  type: list
  elements: dict
  returned: always
  sample:
    - name: port 10.77.0.11:8000/tcp
      status: ok
      detail: free
"""

import ipaddress
from typing import Any

from ansible.module_utils.ai_idp.preflight_check import FAIL, run_checks
from ansible.module_utils.basic import AnsibleModule


def argument_spec() -> dict[str, Any]:
    return {
        "ports": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "address": {"type": "str", "required": True},
                "port": {"type": "int", "required": True},
                "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
                "owner_compose_project": {"type": "str"},
                "owner_unit": {"type": "str"},
                "owner_processes": {"type": "list", "elements": "str"},
                "variable": {"type": "str"},
            },
        },
        "accounts": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"name": {"type": "str", "required": True}, "variable": {"type": "str"}},
        },
        "disk": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "path": {"type": "path", "required": True},
                "min_free_bytes": {"type": "int", "required": True},
                "variable": {"type": "str"},
            },
        },
        "mounts": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "path": {"type": "path", "required": True},
                "fstype": {"type": "str"},
                "source": {"type": "str"},
                "variable": {"type": "str"},
            },
        },
        "urls": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "url": {"type": "str", "required": True},
                "accept_status": {"type": "list", "elements": "int"},
                "method": {"type": "str", "choices": ["GET", "HEAD"], "default": "GET"},
                "purpose": {"type": "str"},
                "variable": {"type": "str"},
            },
        },
        "memory": {
            "type": "dict",
            "options": {
                "min_total_bytes": {"type": "int"},
                "min_available_bytes": {"type": "int"},
                "variable": {"type": "str"},
            },
        },
        "timeout": {"type": "int", "default": 10},
        "fail_on_problems": {"type": "bool", "default": False},
    }


def check_values(params: dict[str, Any]) -> str:
    """What the argument specification cannot say; returns the problem or ''."""
    for item in params["ports"]:
        variable = item["variable"] or "ports.port"
        if not 1 <= item["port"] <= 65535:
            return f"{variable} is {item['port']}; a port is a number from 1 to 65535."
        try:
            ipaddress.ip_address(item["address"])
        except ValueError:
            return f"the address of {variable} is {item['address']!r}; it must be an IP address of this host."
    if params["timeout"] < 1:
        return f"timeout is {params['timeout']}; it must be at least 1 second."
    return ""


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    problem = check_values(module.params)
    if problem:
        module.fail_json(msg=problem)
    checks = run_checks(module.params)
    problems = [check.problem for check in checks if check.status == FAIL]
    result = {"problems": problems, "checks": [check.public() for check in checks]}
    if problems and module.params["fail_on_problems"]:
        module.fail_json(msg=" ".join(problems), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
