#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_info
short_description: Tells what there is of a compose project on a host
description:
  - The release that runs, and the numbers of the account that services run as, in one call. Nothing is changed.
options:
  dir:
    description: Folder of the project, with its C(compose.yml) or, where there are releases, C(current/compose.yml).
    type: path
    required: true
  user:
    description: Account that services run as.
    type: str
    required: true
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: preflight | Look at the release that runs
  stack_info:
    dir: /home/ubuntu/ai-idp/inference
    user: ubuntu
  register: __stack
"""

RETURN = r"""
release:
  description: Text of the release that runs; null where there is none.
  returned: always
  type: str
user_ids:
  description: Numbers of the account and its group; null where the host does not have it.
  returned: always
  type: str
  sample: "1000:1000"
project_dir:
  description: Folder that the release lies in; null where there is none.
  returned: always
  type: str
  sample: /home/ubuntu/ai-idp/inference/current
"""

from ansible.module_utils.ai_idp.stack_info import describe
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={"dir": {"type": "path", "required": True}, "user": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **describe(module.params["dir"], module.params["user"]))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} can't be read: {error.strerror}.")


if __name__ == "__main__":
    main()
