#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_databases
short_description: Makes databases and their owners in a PostgreSQL of this host
description:
  - Compares logins, passwords, databases and owners with what is wanted, makes what is missing, and lets each owner log
    in at the end. Nothing is ever removed. Run it as root; statements go by the socket, as the account C(postgres).
  - A password is compared with what PostgreSQL keeps of it, and is sent as a SCRAM verifier, so that it stands in no
    log. Names and passwords have to be of letters, digits and C(._~-).
options:
  databases:
    description: The databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      owner:
        description: Who owns it and logs in.
        type: str
        required: true
      password:
        description: The owner's password.
        type: str
        required: true
  address:
    description: Address at which the owners log in.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the server.
    type: int
    default: 5432
attributes:
  check_mode:
    support: full
    description: Tells what would be done. Where PostgreSQL does not answer yet, that is everything.
  diff_mode:
    support: full
    description: Tells the steps in words.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: databases | Make the database of MLflow
  postgresql_databases:
    databases: [{name: mlflow, owner: mlflow, password: "{{ mlflow_database_password }}"}]
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [make the login mlflow, make the database mlflow, close mlflow to others]
"""

from ansible.module_utils.ai_idp import postgresql
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "databases": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 5432},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        server = postgresql.read_server(postgresql.administer(postgresql.ASK, given["port"]))
    except postgresql.PostgresqlError as error:
        if not module.check_mode:
            module.fail_json(msg=f"{error}.")
        server = postgresql.Server()
    steps = postgresql.steps_to(server, given["databases"], postgresql.new_salt)
    try:
        if not module.check_mode:
            for step in steps:
                postgresql.administer(step.statement, given["port"])
            for one in given["databases"]:
                postgresql.log_in(one, given["address"], given["port"])
    except postgresql.PostgresqlError as error:
        module.fail_json(msg=f"{error}.")
    words = [step.words for step in steps]
    module.exit_json(
        changed=bool(steps), steps=words, diff={"before": "", "after": "".join(f"{one}\n" for one in words)}
    )


if __name__ == "__main__":
    main()
