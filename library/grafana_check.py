#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_check
short_description: Asks a running Grafana whether it works
description:
  - Whether it is healthy, accepts the password of the user admin, admits nobody without one, reaches Prometheus and has
    its dashboards. It is asked again until it does or the time is up, but for the password, which is tried once.
options:
  url:
    description: Its address on the host, with a slash at its end.
    type: str
    required: true
  password:
    description: Password of the user admin.
    type: str
    required: true
  datasource_uid:
    description: Uid of the datasource that must reach Prometheus.
    type: str
    required: true
  dashboards:
    description: Uids of dashboards that must be in the folder C(ai-idp). There may be others.
    type: list
    elements: str
    default: []
  password_may_be_refused:
    description: Whether a refused password is told in RV(password_accepted) and is no failure. The rest is not asked
      then.
    type: bool
    default: false
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: verify | Grafana works
  grafana_check:
    url: http://127.0.0.1:3000/grafana/
    password: "{{ grafana_admin_password }}"
    datasource_uid: ai-idp-prometheus
    dashboards: [ai-idp-overview]
"""

RETURN = r"""
password_accepted:
  description: Whether the password was accepted.
  returned: success
  type: bool
  sample: true
"""

from ansible.module_utils.ai_idp.grafana_check import check
from ansible.module_utils.ai_idp.http_ask import Reply, ask
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "datasource_uid": {"type": "str", "required": True},
            "dashboards": {"type": "list", "elements": "str", "default": []},
            "password_may_be_refused": {"type": "bool", "default": False, "no_log": False},
        },
        supports_check_mode=True,
    )
    given = module.params

    def of_grafana(path: str, login: bool = True) -> Reply:
        return ask(given["url"] + path, "admin" if login else "", given["password"])

    finding = check(of_grafana, given["datasource_uid"], given["dashboards"])
    refused = finding.refused and given["password_may_be_refused"]
    if finding.problem and not refused:
        module.fail_json(msg=f"Grafana at {given['url']} does not work: {finding.problem}.")
    module.exit_json(changed=False, password_accepted=not finding.refused)


if __name__ == "__main__":
    main()
