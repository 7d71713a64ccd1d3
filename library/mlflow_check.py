#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_check
short_description: Asks a running MLflow whether it works
description:
  - Whether it is healthy, asks strangers for a password, accepts the administrator's, and refuses requests by a name
    that is not its own. It is asked again until it is healthy or the time is up; the rest is asked once.
options:
  url:
    description: Its address on the host, with a slash at its end.
    type: str
    required: true
  username:
    description: Name of the administrator.
    type: str
    required: true
  password:
    description: The administrator's password.
    type: str
    required: true
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
- name: verify | MLflow works
  mlflow_check:
    url: http://127.0.0.1:5500/mlflow/
    username: admin
    password: "{{ mlflow_admin_password }}"
"""

RETURN = r"""
password_accepted:
  description: Whether the password was accepted.
  returned: success
  type: bool
  sample: true
"""

from ansible.module_utils.ai_idp.http_ask import Reply, ask
from ansible.module_utils.ai_idp.mlflow_check import check
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "password_may_be_refused": {"type": "bool", "default": False, "no_log": False},
        },
        supports_check_mode=True,
    )
    given = module.params

    def of_mlflow(path: str, login: bool = True, host: str = "") -> Reply:
        return ask(given["url"] + path, given["username"] if login else "", given["password"], host=host)

    finding = check(of_mlflow, given["username"])
    refused = finding.refused and given["password_may_be_refused"]
    if finding.problem and not refused:
        module.fail_json(msg=f"MLflow at {given['url']} does not work: {finding.problem}.")
    module.exit_json(changed=False, password_accepted=not finding.refused)


if __name__ == "__main__":
    main()
