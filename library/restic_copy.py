#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: restic_copy
short_description: Makes one consistent copy of folders with restic, and brings it back
description:
  - While O(state=copied), services are stopped and containers halted, so that all folders are of one moment. They go on
    whatever happens.
  - With O(state=restored), every byte of the repository is read, and what is written is compared, before anything is
    touched. What is in the folders' places is kept beside, with C(.before-restore) and the time in its name. The
    services stay stopped, since whoever set them up starts them again.
options:
  state:
    description: What is wanted.
    type: str
    choices: [copied, restored]
    required: true
  repository:
    description: The repository as restic knows it, a folder or an address.
    type: str
    required: true
  new_repository:
    description: Makes a repository where there is none. Else that is refused, since a disk may not be mounted.
    type: bool
    default: false
  first:
    description:
      - Nobody can have made a repository with this password before. Then one is made where there is none, but not on a
        disk that holds what is copied.
    type: bool
    default: false
  password:
    description: Its password.
    type: str
    required: true
  paths:
    description:
      - The folders. Those that are not there are left out. Of a link, the folder that it leads to is copied, and
        restored to where it leads then.
    type: list
    elements: path
    required: true
  owner:
    description: Account that owns the folders after O(state=restored), as far as they were not root's.
    type: str
    required: true
  units:
    description: Services that write to them.
    type: list
    elements: str
    default: []
  projects:
    description: Folders of compose projects that write to them.
    type: list
    elements: path
    default: []
  host:
    description: Name that the copy bears.
    type: str
    default: ""
  snapshot:
    description: What is restored, V(latest) or the beginning of an id.
    type: str
    default: latest
  timeout:
    description: Seconds that one step may take.
    type: float
    default: 7200
attributes:
  check_mode:
    description:
      - Opens the repository as a run would, and reads all of it before a restore. Changes nothing. Where restic is not
        installed yet, it says so and looks at the folders alone.
    support: full
  diff_mode:
    description: "A copy is too large to show; what is restored is the copy that was asked for."
    support: none
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: main | Copy the vault
  restic_copy:
    state: copied
    repository: /mnt/nas/ai-idp
    password: "{{ backup_password }}"
    paths: [/srv/vault]
    owner: ubuntu
    units: [ai-idp-vault.service]
"""

RETURN = r"""
snapshot:
  description: Id of the copy; empty in a check.
  returned: success
  type: str
  sample: 5f3a91c2
paths:
  description: The folders that it holds.
  returned: success
  type: list
  elements: str
  sample: [/srv/vault]
files:
  description: How many files were looked at.
  returned: when state is copied
  type: int
  sample: 812
bytes_added:
  description: Bytes that were new to the repository.
  returned: when state is copied
  type: int
  sample: 1048576
held_seconds:
  description: How long what writes was held.
  returned: when state is copied
  type: float
  sample: 2.4
time:
  description: When the copy was made.
  returned: when state is restored
  type: str
  sample: "2026-11-27T10:00:00Z"
aside:
  description: Where the folders of before are.
  returned: when state is restored
  type: list
  elements: str
  sample: [/srv/vault.before-restore-20261127T100000]
"""

import pwd
import shutil

from ansible.module_utils.ai_idp import restic
from ansible.module_utils.basic import AnsibleModule


def copied(module: AnsibleModule, run: restic.Run, repository: restic.Repository, writers: restic.Writers) -> dict:
    params = module.params
    may = restic.Permission(params["new_repository"], params["first"])
    sources = restic.sources_of(params["paths"])
    links = restic.links_out(sources)
    if links:
        shown = ", ".join(links[: restic.LINKS_NAMED]) + (" and more" if len(links) > restic.LINKS_NAMED else "")
        module.warn(f"not in the copy, since these are links to elsewhere: {shown}. Name those folders in backup_paths")
    if module.check_mode:
        if is_installed(module):
            restic.is_ready(repository, sources, may)
        there = [one.path for one in sources]
        return {"snapshot": "", "paths": there, "files": 0, "bytes_added": 0, "held_seconds": 0.0}
    return restic.back_up(run, repository, params["paths"], writers, params["host"], may)


def restored(module: AnsibleModule, run: restic.Run, repository: restic.Repository, writers: restic.Writers) -> dict:
    params = module.params
    try:
        owner = pwd.getpwnam(params["owner"])
    except KeyError:
        raise restic.ResticError(f"there is no account {params['owner']} that could own what is restored") from None
    if module.check_mode and not is_installed(module):
        return {"snapshot": "", "time": "", "paths": [], "aside": []}
    if params["repository"].startswith("/"):
        restic.must_be_mounted(params["repository"])
    if not repository.is_there():
        raise restic.ResticError(f"there is no repository at {params['repository']}: name the one that has the copy")
    if module.check_mode:
        snapshot = restic.chosen(repository.snapshots(), params["snapshot"])
        places = restic.places_of(snapshot, params["paths"])
        repository.check(whole=True)
        paths = [place.source.path for place in places]
        return {"snapshot": "", "time": snapshot.get("time", ""), "paths": paths, "aside": []}
    numbers = (owner.pw_uid, owner.pw_gid)
    return restic.restore(run, repository, params["snapshot"], params["paths"], writers, numbers)


def is_installed(module: AnsibleModule) -> bool:
    """Whether restic is there, which a check does not install."""
    found = shutil.which("restic") is not None
    if not found:
        module.warn("restic is not installed yet, so this check did not open the repository")
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["copied", "restored"], "required": True},
            "repository": {"type": "str", "required": True},
            "new_repository": {"type": "bool", "default": False},
            "first": {"type": "bool", "default": False},
            "password": {"type": "str", "required": True, "no_log": True},
            "paths": {"type": "list", "elements": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "str", "default": []},
            "projects": {"type": "list", "elements": "path", "default": []},
            "host": {"type": "str", "default": ""},
            "snapshot": {"type": "str", "default": "latest"},
            "timeout": {"type": "float", "default": 7200.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    run = restic.program(params["password"], params["timeout"])
    writers = restic.Writers(params["units"], params["projects"])
    do = copied if params["state"] == "copied" else restored
    try:
        result = do(module, run, restic.Repository(run, params["repository"]), writers)
    except (restic.ResticError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
