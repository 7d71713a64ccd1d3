#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: prometheus_check
short_description: Asks a running Prometheus whether it works with its settings
description:
  - Whether it has taken new settings over, watches as many targets as it should and can compute its rules. It is asked
    again until it does or the time is up.
options:
  url:
    description: Its address on the host, without a slash at its end.
    type: str
    required: true
  targets:
    description: How many targets it must watch.
    type: int
    required: true
  taken_over:
    description: Files and folders of settings that were changed. It must have taken its settings over after that.
    type: list
    elements: path
    default: []
  seconds:
    description: How long each of this may take.
    type: float
    default: 40
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: verify | Prometheus works with its settings
  prometheus_check:
    url: http://127.0.0.1:9090/prometheus
    targets: 12
    taken_over: [/etc/prometheus/prometheus.yml]
"""

RETURN = r"""
targets:
  description: How many targets it watches.
  returned: success
  type: int
  sample: 12
"""

from ansible.module_utils.ai_idp.http_ask import ask
from ansible.module_utils.ai_idp.prometheus_check import check, newest
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "targets": {"type": "int", "required": True},
            "taken_over": {"type": "list", "elements": "path", "default": []},
            "seconds": {"type": "float", "default": 40.0},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        since = newest(given["taken_over"])
    except OSError as error:
        module.fail_json(msg=f"{error.filename} can't be read: {error.strerror}.")
    problem = check(lambda path: ask(given["url"] + path), given["targets"], since, given["seconds"])
    if problem:
        module.fail_json(msg=f"Prometheus at {given['url']} does not work: {problem}.")
    module.exit_json(changed=False, targets=given["targets"])


if __name__ == "__main__":
    main()
