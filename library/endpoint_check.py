#!/usr/bin/python
# Copyright: (c) 2026, The AI-IDP authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: inference endpoints, asked by real requests."""

DOCUMENTATION = r"""
module: endpoint_check
short_description: Ask inference endpoints real requests
description:
  - Sends what a client would send, for every endpoint at once, and tells what came back. An OpenAI-compatible server
    is asked for its models, a chat completion, a streamed one, and one with a wrong key and with none; Triton for its
    loaded models and an embedding; every server for its metrics.
options:
  endpoints:
    description: The endpoints.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      kind:
        description: What it speaks.
        type: str
        choices: [openai, triton, metrics]
        required: true
      url:
        description: Address without a path.
        type: str
        required: true
      health_path:
        description: Path that answers 200 when the service is well.
        type: str
        default: /health
      metrics_url:
        description: Address of the metrics.
        type: str
        required: true
      api_key:
        description: Key that the service wants.
        type: str
      model:
        description: Model that an OpenAI-compatible server must list.
        type: str
      models:
        description: Models that Triton must have loaded.
        type: list
        elements: str
  listeners:
    description: Ports that must listen on one address of this host and on no other.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      address:
        description: The address.
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
      beside:
        description: Name of a program that may have the same port on another address.
        type: str
        default: ""
  timeout:
    description: Seconds for each request.
    type: int
    default: 120
extends_documentation_fragment: [read_only]
author: The AI-IDP authors
"""

EXAMPLES = r"""
- name: Every endpoint answers real requests
  endpoint_check:
    endpoints:
      - name: vllm
        kind: openai
        url: http://192.168.1.11:8000
        metrics_url: http://192.168.1.11:8000/metrics
        model: qwen2.5-7b-awq
        api_key: "{{ inference_stack_vllm_api_key }}"
"""

RETURN = r"""
checks:
  description: One entry for each request.
  type: list
  elements: dict
  returned: always
  sample:
    - name: "vllm: chat completion"
      status: ok
      detail: 8 tokens in 0.21 s
replayed:
  description: Names of the endpoints whose metrics are replayed and not measured.
  type: list
  elements: str
  returned: always
"""

from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.ai_idp.endpoint_check import CHECKS, check_endpoint, check_listeners
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.basic import AnsibleModule


def main():
    """Wire the module."""
    module = AnsibleModule(
        argument_spec={
            "endpoints": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "kind": {"type": "str", "choices": list(CHECKS), "required": True},
                    "url": {"type": "str", "required": True},
                    "health_path": {"type": "str", "default": "/health"},
                    "metrics_url": {"type": "str", "required": True},
                    "api_key": {"type": "str", "no_log": True},
                    "model": {"type": "str"},
                    "models": {"type": "list", "elements": "str"},
                },
            },
            "listeners": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "beside": {"type": "str", "default": ""},
                },
            },
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    endpoints, timeout = module.params["endpoints"], module.params["timeout"]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda endpoint: check_endpoint(endpoint, timeout), endpoints))
    checks = [check for answer in answers for check in answer]
    if module.params["listeners"]:
        ports = run(["ss", "--no-header", "--listening", "--numeric", "--tcp", "--processes"], 30).output
        checks += check_listeners(module.params["listeners"], ports)
    replayed = [
        endpoint["name"]
        for endpoint, answer in zip(endpoints, answers, strict=True)
        if any(check["detail"].endswith(", replayed") for check in answer)
    ]
    failed = [f"{check['name']}: {check['detail']}" for check in checks if check["status"] != "ok"]
    if failed:
        module.fail_json(msg="Endpoints that do not answer as they must:\n" + "\n".join(failed), checks=checks)
    module.exit_json(changed=False, checks=checks, replayed=replayed)


if __name__ == "__main__":
    main()
