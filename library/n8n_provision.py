#!/usr/bin/python
# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: n8n_provision
short_description: Workflows and credentials with fixed ids in a running n8n
description:
  - Compares each workflow with what n8n has under its id, and changes and activates only what differs. Everything that
    is not named stays as it is. Nothing is ever deleted, and nothing deactivated but what is to be stopped.
  - What somebody changed of a workflow since the last run is told in a warning before it is put back, also where the
    run fails later.
  - n8n's API chooses the id of a new workflow itself, so a new one comes in by n8n's own import, which runs in the
    container, and is activated by the API. An import is never run on a workflow that is there already, because it would
    take its webhooks away.
  - n8n never tells what is inside a credential. What was written last is noted as a fingerprint, together with the
    time at which n8n says the credential was changed; where either differs, the credential is written again.
  - A workflow that somebody changed in n8n since the last run is told in a warning before it is put back.
  - The API key is made by logging in as the owner, once, and kept in O(api_key_file).
options:
  url:
    description: Address of n8n itself, without the gateway's path.
    type: str
    required: true
  email:
    description: E-mail address of the owner.
    type: str
    required: true
  password:
    description: The owner's password.
    type: str
    required: true
  api_key_file:
    description: File that keeps the API key. Only its owner reads it.
    type: path
    required: true
  memory_file:
    description: File that keeps the fingerprints of credentials, and workflows as they were left. Only its owner reads
      it.
    type: path
    required: true
  project_dir:
    description: Folder of the compose project in which the service C(n8n) runs.
    type: path
    required: true
  workflows:
    description: The workflows.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Its id, which never changes.
        type: str
        required: true
      name:
        description: Its name.
        type: str
        required: true
      content:
        description: Its nodes, connections and settings, as n8n exports them. Only a stopped one does without.
        type: dict
        default: {}
      active:
        description: Whether it is activated. One that is not is left as it is found.
        type: bool
        default: true
      stopped:
        description: Whether it is deactivated where it is there, and otherwise left alone. For a workflow whose service
          was taken away.
        type: bool
        default: false
  credentials:
    description: The credentials.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Its id, which workflows name.
        type: str
        required: true
      name:
        description: Its name.
        type: str
        required: true
      type:
        description: n8n's name of its type, for example C(httpHeaderAuth).
        type: str
        required: true
      data:
        description: What is inside.
        type: dict
        required: true
  timeout:
    description: Seconds that one request, and an import, may take.
    type: int
    default: 180
  asks:
    description: What to ask n8n in the end, as for M(http_answers). An answer that is not right is an error. A check
      asks nothing.
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
    description: Tells what would be done. Where no API key was made yet, that is everything.
    support: full
  diff_mode:
    description: Tells the steps and the parts that differ, never a credential's content.
    support: full
author: The AI-IDP authors
"""

EXAMPLES = r"""
- name: The platform's workflow is there and active
  n8n_provision:
    url: http://127.0.0.1:5678
    email: owner@ai-idp.lan
    password: "{{ n8n_owner_password }}"
    api_key_file: /srv/n8n/secrets/api_key
    memory_file: /srv/n8n/secrets/provisioned.json
    project_dir: /srv/n8n
    workflows:
      - id: aiIdpCommitNote01
        name: A commit becomes a note
        content: "{{ lookup('ansible.builtin.file', 'workflows/commit_note.json') | from_json }}"
"""

RETURN = r"""
workflows:
  description: Each workflow with the steps that were taken, in order.
  type: list
  elements: dict
  returned: always
  sample:
    - id: aiIdpCommitNote01
      name: A commit becomes a note
      steps: [update, activate]
      differences: [node Webhook]
credentials:
  description: Each credential with the steps that were taken.
  type: list
  elements: dict
  returned: always
  sample:
    - {id: aiIdpModel0000001, name: The platform's model, steps: []}
"""

import json

from ansible.module_utils.ai_idp import n8n
from ansible.module_utils.ai_idp.http_answers import ASKS_SPEC, ask_until_right, asks_of
from ansible.module_utils.basic import AnsibleModule

ANSWER_SECONDS = 10.0
IMPORT = ["docker", "compose", "exec", "--no-TTY", "n8n", "n8n", "import:workflow", "--input=/dev/stdin"]


def argument_spec():
    """What the module takes."""
    common = {"id": {"type": "str", "required": True}, "name": {"type": "str", "required": True}}
    return {
        "url": {"type": "str", "required": True},
        "email": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "api_key_file": {"type": "path", "required": True, "no_log": False},
        "memory_file": {"type": "path", "required": True},
        "project_dir": {"type": "path", "required": True},
        "workflows": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                **common,
                "content": {"type": "dict", "default": {}},
                "active": {"type": "bool", "default": True},
                "stopped": {"type": "bool", "default": False},
            },
        },
        "credentials": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "no_log": False,
            "options": {
                **common,
                "type": {"type": "str", "required": True},
                "data": {"type": "dict", "required": True, "no_log": True},
            },
        },
        "timeout": {"type": "int", "default": 180},
        "asks": ASKS_SPEC,
    }


def import_into(module):
    """Return what hands a document to n8n's own import."""

    def run(document):
        # n8n's command ends with 0 whatever happened: only what it says tells.
        rc, out, err = module.run_command(
            ["timeout", str(module.params["timeout"]), *IMPORT],
            data=document,
            cwd=module.params["project_dir"],
            environ_update={"LC_ALL": "C.UTF-8"},
        )
        if rc != 0 or "Successfully imported" not in out + err:
            last = " ".join((out + err).strip().splitlines()[-3:])
            raise n8n.N8nError(f"n8n did not import the new workflows (status {rc}): {last}")

    return run


def listed(result):
    """What was done, a line for each step, for the diff."""
    entries = [("credential", entry) for entry in result.credentials] + [("workflow", e) for e in result.workflows]
    lines = []
    for kind, entry in entries:
        why = f" ({', '.join(entry['differences'])})" if entry.get("differences") else ""
        lines += [f"{step} {kind} {entry['name']}{why}\n" for step in entry["steps"]]
    return "".join(lines)


def run(module):
    """Bring n8n to what is wanted; return the module's result."""
    params = module.params
    client = n8n.Client(params["url"], params["timeout"])
    workflows, credentials = params["workflows"], params["credentials"]
    made_key = False
    memory = n8n.read_memory(params["memory_file"])
    before = json.dumps(memory, sort_keys=True)
    # A key that a former release made may do less than is needed now.
    may = {"scopes": list(n8n.KEY_SCOPES)}
    known_key = n8n.find_key(client, n8n.read_private(params["api_key_file"]))
    if not known_key or memory.get(n8n.KEY_NOTE) != may:
        if module.check_mode and not known_key:
            everything = n8n.Provisioned(
                True,
                [{"id": w["id"], "name": w["name"], "steps": n8n.plan(w, None), "differences": []} for w in workflows],
                [{"id": c["id"], "name": c["name"], "steps": ["create"]} for c in credentials],
            )
            return everything, True
        if not module.check_mode:
            n8n.write_private(params["api_key_file"], n8n.make_key(client, params["email"], params["password"]))
            memory[n8n.KEY_NOTE] = may
        made_key = True
    try:
        result = n8n.provision(
            client,
            workflows,
            credentials,
            memory,
            params["password"],
            import_into(module),
            module.warn,
            check=module.check_mode,
        )
    finally:
        # What was written is noted also where a later step failed.
        if json.dumps(memory, sort_keys=True) != before:
            n8n.write_private(params["memory_file"], json.dumps(memory, sort_keys=True))
    return result, result.changed or made_key


def main():
    """Wire the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    problems = n8n.check_wanted(module.params["workflows"], module.params["credentials"])
    if problems:
        module.fail_json(msg=" ".join(problems))
    try:
        result, changed = run(module)
    except n8n.N8nError as error:
        module.fail_json(msg=str(error))
    wrong = [] if module.check_mode else ask_until_right(asks_of(module.params["asks"]), ANSWER_SECONDS)
    if wrong:
        module.fail_json(msg=f"{'; '.join(wrong)}.")
    module.exit_json(
        changed=changed,
        workflows=result.workflows,
        credentials=result.credentials,
        diff={"before": "", "after": listed(result)},
    )


if __name__ == "__main__":
    main()
