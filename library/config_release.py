#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: config_release
short_description: Puts a whole folder of configuration in place in one step, after a program has accepted it
description:
  - Writes all files of a program's configuration into a folder of their own (a release), lets the program itself check
    them there, and only then changes the link C(current) from the old release to the new one.
  - A configuration that is refused leaves everything as it was. The release before is kept as C(previous), to go back
    to.
  - The text C(@RELEASE@) in a file becomes the release's name, so that the running program can be asked which release
    it runs.
options:
  dest:
    description: Folder of the releases. Give the program C(DEST/current/...).
    type: path
    required: true
  state:
    description:
      - V(present) makes the files the current release.
      - V(previous) goes back to the release before.
    type: str
    choices: [present, previous]
    default: present
  files:
    description: Text of each file by its path in the release. Readable by everybody.
    type: dict
    default: {}
  secret_files:
    description: The same for files that hold secrets. Only root (and O(secret_group)) reads them; they are never shown.
    type: dict
    default: {}
  secret_group:
    description: Group that may read the secret files.
    type: str
  validate:
    description: Argument list of the program that must accept the release. C(%s) stands for the release's path.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: partial
    description: The release is validated and removed again. Where the program is not installed yet, it is not
      validated.
  diff_mode:
    support: full
    description: Shows what changes in each file; of secret files only that they change.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The web server's configuration is accepted and current
  config_release:
    dest: /etc/ai-idp/gateway
    files:
      nginx.conf: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
    secret_files:
      clients.map: "{{ lookup('ansible.builtin.template', 'clients.map.j2') }}"
    validate: [/usr/sbin/nginx, -t, -q, -c, "%s/nginx.conf"]
"""

RETURN = r"""
release:
  description: Name of the release that is current now.
  returned: success
  type: str
  sample: 3f0c9a2b71d44e8a
previous:
  description: Name of the release before it, or null.
  returned: success
  type: str
  sample: 9a2b71d44e8a3f0c
path:
  description: Folder of the release.
  returned: success
  type: str
  sample: /etc/ai-idp/gateway/releases/3f0c9a2b71d44e8a
validated:
  description: Whether the program was asked. It is not when nothing changed.
  returned: success
  type: bool
"""

import os
from dataclasses import asdict

from ansible.module_utils.ai_idp.config_release import ConfigReleases, ReleaseError
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "previous"], "default": "present"},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "secret_group": {"type": "str"},
            "validate": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    # Modes are the release's own, whatever the account's habits.
    os.umask(0o022)
    releases = ConfigReleases(given["dest"], given["validate"], given["secret_group"])
    try:
        if given["state"] == "previous":
            result = releases.back(module.check_mode)
        else:
            result = releases.put(given["files"], given["secret_files"], module.check_mode)
    except (ReleaseError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**asdict(result))


if __name__ == "__main__":
    main()
