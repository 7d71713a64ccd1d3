#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: http_answers
short_description: Asks programs of a host over HTTP until each answers as it must
description:
  - Asks several addresses in one call. What does not answer as it must is asked again until the time is over.
  - No proxy is used, no redirect followed, and no certificate checked, since it is the host itself that is asked.
options:
  asks:
    description: Whom to ask for what.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the answer shows, for the message.
        type: str
        required: true
      url:
        description: The address.
        type: str
        required: true
      method:
        description: The HTTP method.
        type: str
        default: GET
      status:
        description: Status codes that are right.
        type: list
        elements: int
        default: [200]
      text:
        description: What the whole answer must be. Any text is right when not set.
        type: str
  seconds:
    description: How long what is not right is asked again.
    type: float
    default: 10
  fail_on_problems:
    description: Fail with the problems as the message. Without it the caller decides.
    type: bool
    default: true
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: verify | The web server runs its new settings and lets nobody in without a key
  http_answers:
    asks:
      - {name: running release, url: http://127.0.0.1:8088/release, text: 3f0c9a2b71d44e8a}
      - {name: no key, url: https://10.77.0.12/v1/models, status: [401]}
"""

RETURN = r"""
problems:
  description: What was still wrong when the time was over, a sentence each.
  returned: always
  type: list
  elements: str
  sample: ["no key: https://10.77.0.12/v1/models answers 200, not 401"]
"""

from ansible.module_utils.ai_idp.http_answers import ASKS_SPEC, ask_until_right, asks_of
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "asks": {**ASKS_SPEC, "required": True, "default": None},
            "seconds": {"type": "float", "default": 10.0},
            "fail_on_problems": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    problems = ask_until_right(asks_of(module.params["asks"]), module.params["seconds"])
    if problems and module.params["fail_on_problems"]:
        module.fail_json(msg=f"{'; '.join(problems)}.", problems=problems)
    module.exit_json(changed=False, problems=problems)


if __name__ == "__main__":
    main()
