#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_runs
short_description: Logs in MLflow what others have measured, each run once
description:
  - A run is known by its name, parameters, metrics and tags. One that is there is left alone, so that a measurement
    made anew is a new run and the one before stays.
  - Uses MLflow's REST API and the standard library, since MLflow's client is on no host.
options:
  url:
    description: Address of MLflow, its path included.
    type: str
    required: true
  username:
    description: Who logs.
    type: str
    required: true
  password:
    description: The password.
    type: str
    required: true
  experiment:
    description: Name of the experiment, which is made where there is none.
    type: str
    required: true
  runs:
    description: The runs, each with C(run_name), C(params), C(metrics) and C(tags).
    type: list
    elements: dict
    required: true
  artifacts:
    description: Texts that each run keeps as files, by their names.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Asks MLflow which runs it lacks, and logs none.
    support: full
  diff_mode:
    description: "Counts the runs, and shows none: they are logged whole or not at all."
    support: none
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: log_findings | Log what was measured
  mlflow_runs:
    url: http://127.0.0.1:5500/mlflow
    username: owner
    password: "{{ mlflow_admin_password }}"
    experiment: ai-idp week 1
    runs:
      - run_name: week1-lab-gpu
        params: {vllm/model: tiny-llama}
        metrics: {vllm/tokens_per_second: 12.5}
        tags: {host: gpu}
"""

RETURN = r"""
logged:
  description: Names of the runs that were not there yet.
  returned: success
  type: list
  elements: str
  sample: [week1-lab-gpu]
"""

from ansible.module_utils.ai_idp import mlflow_runs
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "experiment": {"type": "str", "required": True},
            "runs": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "run_name": {"type": "str", "required": True},
                    "params": {"type": "dict", "default": {}},
                    "metrics": {"type": "dict", "default": {}},
                    "tags": {"type": "dict", "default": {}},
                },
            },
            "artifacts": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    client = mlflow_runs.Client(mlflow_runs.sender(params["url"], params["username"], params["password"]))
    runs = [
        mlflow_runs.Wanted(one["run_name"], one["params"], one["metrics"], one["tags"], params["artifacts"])
        for one in params["runs"]
    ]
    try:
        logged = mlflow_runs.log_missing(client, params["experiment"], runs, check=module.check_mode)
    except mlflow_runs.MlflowError as error:
        module.fail_json(msg=f"MLflow at {params['url']}: {error}")
    module.exit_json(changed=bool(logged), logged=logged)


if __name__ == "__main__":
    main()
