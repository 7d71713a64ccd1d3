#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: config_release
short_description: Puts a whole folder of configuration in place in one step, after a program has accepted it
description:
  - Writes all files of a program's configuration into a folder of their own (a release), lets the program itself check
    them there, and only then changes the link C(current) from the old release to the new one.
  - A configuration that is refused leaves everything as it was. One that is current is on trial until O(state=healthy)
    says that the program works with it; O(state=undone) goes back to the latest that did, keys included.
  - A release names the generation of each key and holds none. Keys lie beside the releases, and only those that the
    current release names outlast O(state=healthy), so going back to an older release later takes the keys of today.
  - The text C(@RELEASE@) in a file becomes the release's name, so that the running program can be asked which release
    it runs, and C(@PLACE:NAME@) the place of a part or a secret file, which changes with its content alone.
options:
  dest:
    description: Folder of the releases. Give the program C(DEST/current/...).
    type: path
    required: true
  state:
    description:
      - V(present) makes the files, or the release O(back_to), the current release.
      - V(healthy) says that the program works with the current release, and removes older ones.
      - V(undone) goes back to the latest healthy release, and to none where there is none. A current release that was
        healthy before stays.
    type: str
    choices: [present, healthy, undone]
    default: present
  back_to:
    description: Name of a healthy release to put in place again in place of O(files), or V(previous) for the latest
      that is not the current one.
    type: str
    default: ""
  keep:
    description: How many healthy releases V(healthy) keeps, the current one included.
    type: int
    default: 1
  files:
    description: Text of each file by its path in the release. Readable by everybody.
    type: dict
    default: {}
  secret_files:
    description: The same for files that hold secrets. Only root (and O(secret_group)) reads them; they are never shown.
      In the release there is a link to each.
    type: dict
    default: {}
  templates:
    description: Template of each file that comes from one, by its path in the release. Rendered on the controller.
    type: dict
    default: {}
  secret_templates:
    description: The same for files that hold secrets.
    type: dict
    default: {}
  secret_group:
    description: Group that may read the secret files.
    type: str
  secret_owners:
    description: Account that a secret file belongs to in place of root, by its path in the release.
    type: dict
    default: {}
  parts:
    description: Paths in the release, of files or folders, that programs go on using when another release comes, such
      as what a container has mounted. In the release there is a link to each.
    type: list
    elements: str
    default: []
  inputs:
    description:
      - Files of the host that the program reads besides, by a name. The text C(@NAME@) in O(files) becomes the file's
        SHA-256, so that another certificate, say, makes another release.
      - In check mode nothing is validated while one of them is missing.
    type: dict
    default: {}
  validate:
    description: Argument list of the program that must accept the release. C(%s) stands for the release's path.
    type: list
    elements: str
    default: []
  asks:
    description:
      - What to ask the program about the current release, as for M(http_answers). The text C(@RELEASE@) in an answer
        stands for the release's name.
      - With V(present) it is asked where nothing changed, and the caller decides about the RV(problems).
      - With V(healthy) an answer that is not right is an error, and the release stays on trial.
    type: list
    elements: dict
    default: []
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
- name: release | Have the configuration accepted and make it current
  config_release:
    dest: /etc/ai-idp/gateway
    files:
      names.json: "{{ toy_names | to_nice_json }}\n"
    templates: {nginx.conf: nginx.conf.j2}
    secret_templates: {clients.map: clients.map.j2}
    inputs: {CERTIFICATE: /etc/ai-idp/tls/server.crt}
    validate: [/usr/sbin/nginx, -t, -q, -c, "%s/nginx.conf"]
    asks:
      - {name: running release, url: http://127.0.0.1:8088/release, text: "@RELEASE@"}
"""

RETURN = r"""
release:
  description: Name of the release that is current now, or null.
  returned: success
  type: str
  sample: 3f0c9a2b71d44e8a
previous:
  description: Name of the release that was current before, or null.
  returned: success
  type: str
  sample: 9a2b71d44e8a3f0c
healthy:
  description: Name of the latest healthy release, or null. Where it is not C(release), that one is on trial.
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
problems:
  description: What was not answered as it must be, a sentence each.
  returned: success
  type: list
  elements: str
  sample: ["running release: http://127.0.0.1:8088/release does not answer (Connection refused)"]
"""

import os
from dataclasses import asdict
from typing import Any

from ansible.module_utils.ai_idp.config_release import MARK, ConfigReleases, ReleaseError
from ansible.module_utils.ai_idp.http_answers import ASKS_SPEC, ask_until_right, asks_of
from ansible.module_utils.basic import AnsibleModule

ANSWER_SECONDS = 10.0


def answered(release: str | None, asks: list[dict[str, Any]]) -> list[str]:
    """Ask the program about its release until each answer is right; tells what stays wrong, a sentence each."""
    wanted = [{**ask, "text": ask["text"] and ask["text"].replace(MARK, str(release))} for ask in asks]
    return ask_until_right(asks_of(wanted), ANSWER_SECONDS)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "healthy", "undone"], "default": "present"},
            "back_to": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 1},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "secret_group": {"type": "str"},
            # Names of files and of accounts.
            "secret_owners": {"type": "dict", "default": {}, "no_log": False},
            "parts": {"type": "list", "elements": "str", "default": []},
            "inputs": {"type": "dict", "default": {}},
            "validate": {"type": "list", "elements": "str", "default": []},
            "asks": ASKS_SPEC,
        },
        supports_check_mode=True,
    )
    given = module.params
    # Modes are the release's own, whatever the account's habits.
    os.umask(0o022)
    releases = ConfigReleases(
        given["dest"],
        given["validate"],
        given["secret_group"],
        given["inputs"],
        given["parts"],
        given["secret_owners"],
    )
    check = module.check_mode
    problems: list[str] = []
    try:
        if given["state"] == "healthy":
            problems = answered(releases.current, given["asks"])
            if problems:
                module.fail_json(msg=f"{'; '.join(problems)}.", problems=problems)
            result = releases.prove(given["keep"], check)
        elif given["state"] == "undone":
            result = releases.undo(check)
        elif given["back_to"]:
            result = releases.go_back(given["back_to"], given["secret_files"], check)
        else:
            result = releases.put(given["files"], given["secret_files"], check)
            problems = [] if result.changed else answered(result.release, given["asks"])
    except (ReleaseError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**asdict(result), problems=problems)


if __name__ == "__main__":
    main()
