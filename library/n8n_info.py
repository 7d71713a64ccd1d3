#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: n8n_info
short_description: Tells what there is of n8n on a host
description:
  - The release that runs, the numbers of the account that it runs as, and whether its data was made with a key, in one
    call. Nothing is changed, and no key is told.
options:
  dir:
    description: Folder of the compose project, with C(compose.yml) and C(data).
    type: path
    required: true
  user:
    description: Account that n8n runs as.
    type: str
    required: true
  encryption_key:
    description: Key that the data should have been made with.
    type: str
    required: true
  ca_file:
    description: Certificate of the authority that n8n is to trust. One that is missing is an error, except in a check.
    type: path
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: preflight | Look at what there is of n8n
  n8n_info:
    dir: /srv/n8n
    user: ubuntu
    encryption_key: "{{ n8n_encryption_key }}"
  register: __n8n_found
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
encryption_key_matches:
  description: Whether the data was made with the key; null where there is no data yet.
  returned: always
  type: bool
  sample: true
authority:
  description: The content of O(ca_file) in Base64; empty where there is none.
  returned: always
  type: str
"""

import base64
import os

from ansible.module_utils.ai_idp import n8n
from ansible.module_utils.ai_idp.stack_info import describe
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dir": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "encryption_key": {"type": "str", "required": True, "no_log": True},
            "ca_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    authority = b""
    try:
        if given["ca_file"] and (os.path.exists(given["ca_file"]) or not module.check_mode):
            with open(given["ca_file"], "rb") as stream:
                authority = stream.read()
        found = describe(given["dir"], given["user"])
        matches = n8n.key_matches(f"{given['dir']}/data/config", given["encryption_key"])
    except OSError as error:
        module.fail_json(msg=f"{error.filename} can't be read: {error.strerror}.")
    except n8n.N8nError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        release=found["release"],
        user_ids=found["user_ids"],
        encryption_key_matches=matches,
        authority=base64.b64encode(authority).decode(),
    )


if __name__ == "__main__":
    main()
