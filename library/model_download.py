#!/usr/bin/python
# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_download
short_description: Makes the folders of one or several models complete and verified
description:
  - Downloads the files of one model from a Hugging Face-compatible hub, from a URL, or copies them from a path on the
    host, and puts them under their final names only after size and hash were checked.
  - Interrupted downloads are resumed, also by a later run. Files that are there and verified are left alone without
    asking the network; a manifest in the folder (C(.ai-idp-model.json)) remembers their size, time and hash.
  - A module cannot print while it works. A long download can be watched from a second terminal with
    C(du -sh DEST/.partial).
attributes:
  check_mode:
    support: full
    description: Lists what would be downloaded where the source answers. Existing files without a record are named
      as not verified yet instead of being hashed. A source that cannot be reached is a warning, not a failure.
  diff_mode:
    support: full
    description: Shows the files with size and hash before and after.
  platform:
    support: full
    platforms: posix
options:
  name:
    description: The model's name, as messages and the manifest give it. Needed without O(models).
    type: str
  models:
    description:
      - Several models in one call; O(dest) is then the folder that holds a folder for each, and is itself made and
        given to its owner. What is wrong with any of them, or with all of them together, is told at once.
    type: list
    elements: dict
    suboptions:
      name:
        description: As O(name). It is the name of the folder too.
        type: str
        required: true
      source:
        description: As O(source).
        type: dict
        required: true
      lock:
        description: As O(lock).
        type: list
        elements: dict
        default: []
      lock_revision:
        description: As O(lock_revision).
        type: str
      sha256:
        description: As O(sha256).
        type: str
  must_answer:
    description: With O(models) in check mode, whether a source that does not answer is an error.
    type: bool
    default: false
  dest:
    description: The model's own folder. It is made when it is missing.
    type: path
    required: true
  state:
    description:
      - V(present) makes the folder complete.
      - V(absent) removes what this module put there; files that it does not know are kept and named.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: Where the model comes from. Required for O(state=present).
    type: dict
    suboptions:
      type:
        description: The kind of source.
        type: str
        choices: [huggingface, url, file]
        required: true
      repository:
        description: Repository on the hub, as C(ORGANISATION/NAME).
        type: str
      revision:
        description: Branch, tag or commit. A branch or tag is resolved to its commit where the hub can tell it.
        type: str
        default: main
      files:
        description:
          - Names or patterns of the files that are wanted; all files when it is left out.
          - A pattern without a slash looks at the top level only.
        type: list
        elements: str
      url:
        description: URL of the file, or of the folder (ending in C(/)) of the files named in O(source.files).
        type: str
      path:
        description: File or folder on the host that the model is copied from.
        type: path
  endpoint:
    description: The hub. Every mirror with the same paths will do.
    type: str
    default: https://huggingface.co
  token:
    description: Access token. It is sent to the origin of O(endpoint) and never to another one, also on redirects.
    type: str
  lock:
    description: What the files must be, from an earlier run. A file with another size or hash is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file, relative to the model's folder.
        type: str
        required: true
      size_bytes:
        description: Its size.
        type: int
      sha256:
        description: Its SHA-256.
        type: str
        required: true
  lock_revision:
    description: The commit that the lock was made from. It is downloaded in place of O(source.revision).
    type: str
  sha256:
    description: What a model of a single file must be.
    type: str
  keep_free_bytes:
    description: Bytes that stay free on the file system after the download.
    type: int
    default: 0
  timeout:
    description: Seconds without a byte after which a connection counts as broken.
    type: int
    default: 30
  retries:
    description: Further attempts after a broken connection. Every 16 MiB of progress refill them.
    type: int
    default: 5
  backoff:
    description: Seconds before the first further attempt; they double with each one, up to 30.
    type: float
    default: 1.0
  lock_timeout:
    description: Seconds to wait for another run that works on the same folder.
    type: int
    default: 7200
  verify:
    description:
      - V(quick) trusts files whose size and modification time are as recorded.
      - V(full) hashes every file again and asks the source again.
    type: str
    choices: [quick, full]
    default: quick
  owner:
    description: User that owns folder and files.
    type: str
  group:
    description: Group that owns folder and files.
    type: str
author: AI-IDP
"""

EXAMPLES = r"""
- name: Llama 3.2 1B is on the disk
  model_download:
    name: llama-3.2-1b-q4
    dest: /home/ubuntu/ai-idp/models/llama-3.2-1b-q4
    source:
      type: huggingface
      repository: bartowski/Llama-3.2-1B-Instruct-GGUF
      files: [Llama-3.2-1B-Instruct-Q4_K_M.gguf]
    keep_free_bytes: 20000000000

- name: Whether all models are complete, without a download
  model_download:
    dest: /home/ubuntu/ai-idp/models
    models:
      - {name: llama-3.2-1b-q4, source: {type: huggingface, repository: bartowski/Llama-3.2-1B-Instruct-GGUF}}
  check_mode: true

- name: Every byte of the model is what the lock says
  model_download:
    name: llama-3.2-1b-q4
    dest: /home/ubuntu/ai-idp/models/llama-3.2-1b-q4
    source: "{{ source }}"
    lock: "{{ locked_files }}"
    verify: full
"""

RETURN = r"""
models:
  description: For each model what is returned for one.
  type: list
  elements: dict
  returned: models is given
  sample: [{name: llama-3.2-1b-q4, pending: false}]
folder_pending:
  description: In check mode, whether the folder of the models has to be made or given to its owner.
  type: bool
  returned: models is given
  sample: false
name:
  description: The model's name.
  type: str
  returned: models is not given
  sample: llama-3.2-1b-q4
dest:
  description: The model's folder.
  type: str
  returned: always
  sample: /home/ubuntu/ai-idp/models/llama-3.2-1b-q4
files:
  description: The model's files. In check mode C(sha256) and C(size_bytes) are null where nobody published them.
  type: list
  elements: dict
  returned: state is present
  sample:
    - path: config.json
      size_bytes: 3
      sha256: ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
revision:
  description: The commit (or, where the hub cannot tell it, the revision as given); null for other sources.
  type: str
  returned: state is present
  sample: main
downloaded_bytes:
  description: Bytes that came over the network (or were copied) in this run, bytes that were sent again included.
  type: int
  returned: state is present
  sample: 807694464
bytes_total:
  description: Size of the model.
  type: int
  returned: state is present
  sample: 807694464
needed_bytes:
  description: In check mode, the bytes that a run would still have to write; else 0.
  type: int
  returned: state is present
  sample: 0
pending:
  description: In check mode, whether a run would change something; else false. A task may hide C(changed), not this.
  type: bool
  returned: state is present
  sample: false
free_bytes:
  description: Bytes that are free on the file system of the folder.
  type: int
  returned: state is present
  sample: 512000000000
reachable:
  description: In check mode, whether the source answered (true where it did not have to be asked).
  type: bool
  returned: state is present
  sample: true
problem:
  description: In check mode, why the source did not answer; else null.
  type: str
  returned: state is present
  sample: null
reasons:
  description: For each file that was not as it should be, why.
  type: dict
  returned: state is present
  sample: {model.gguf: missing}
removed:
  description: Files that were removed.
  type: list
  elements: str
  returned: state is absent
  sample: [model.gguf]
kept:
  description: Files in the folder that this module did not put there and has left.
  type: list
  elements: str
  returned: state is absent
  sample: [notes.txt]
"""

import os
import re
from typing import Any

from ansible.module_utils.ai_idp.hub_client import DownloadError, Web
from ansible.module_utils.ai_idp.messages import exact_bytes
from ansible.module_utils.ai_idp.model_download import ModelFolder, remove_model
from ansible.module_utils.ai_idp.model_manifest import LOCK_NAME, MANIFEST_NAME
from ansible.module_utils.ai_idp.model_source import Source
from ansible.module_utils.basic import AnsibleModule

FOLDER_MODE = 0o755
FILE_MODE = 0o644


SOURCE: dict[str, Any] = {
    "type": "dict",
    "options": {
        "type": {"type": "str", "choices": ["huggingface", "url", "file"], "required": True},
        "repository": {"type": "str"},
        "revision": {"type": "str", "default": "main"},
        "files": {"type": "list", "elements": "str"},
        "url": {"type": "str"},
        "path": {"type": "path"},
    },
    "required_if": [
        ("type", "huggingface", ["repository"]),
        ("type", "url", ["url"]),
        ("type", "file", ["path"]),
    ],
    "mutually_exclusive": [("repository", "url", "path")],
}
# What a model has of its own, in a list of several.
OF_A_MODEL: dict[str, Any] = {
    "lock": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "size_bytes": {"type": "int"},
            "sha256": {"type": "str", "required": True},
        },
    },
    "lock_revision": {"type": "str"},
    "sha256": {"type": "str"},
}


def argument_spec() -> dict[str, Any]:
    return {
        "name": {"type": "str"},
        "models": {
            "type": "list",
            "elements": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "source": {**SOURCE, "required": True},
                **OF_A_MODEL,
            },
        },
        "must_answer": {"type": "bool", "default": False},
        "dest": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "source": SOURCE,
        **OF_A_MODEL,
        "endpoint": {"type": "str", "default": "https://huggingface.co"},
        "token": {"type": "str", "no_log": True},
        "keep_free_bytes": {"type": "int", "default": 0},
        "timeout": {"type": "int", "default": 30},
        "retries": {"type": "int", "default": 5},
        "backoff": {"type": "float", "default": 1.0},
        "lock_timeout": {"type": "int", "default": 7200},
        "verify": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
        "owner": {"type": "str"},
        "group": {"type": "str"},
    }


def check_values(params: dict[str, Any]) -> str:
    """What the argument specification cannot say; returns the problem or ''."""
    hashes = [params["sha256"], *(entry["sha256"] for entry in params["lock"])]
    for value in hashes:
        if value and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            return f"sha256 is {value!r}; it must be 64 hexadecimal digits."
    if not re.match(r"https?://[^/]", params["endpoint"]):
        return f"endpoint is {params['endpoint']!r}; it must begin with http:// or https:// and name a host."
    for key in ("keep_free_bytes", "retries", "lock_timeout", "backoff"):
        if params[key] < 0:
            return f"{key} is {params[key]}; it must not be negative."
    if params["timeout"] < 1:
        return f"timeout is {params['timeout']}; it must be at least 1 second."
    repository = (params["source"] or {}).get("repository")
    if repository is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        return f"source.repository is {repository!r}; it must be ORGANISATION/NAME."
    return ""


def set_owners(module: AnsibleModule, dest: str, files: list[str]) -> bool:
    """Gives folder, sub-folders and files to their owner; nothing that is not there is touched (check mode)."""
    folders = {dest}
    for path in files:
        folder = os.path.dirname(os.path.join(dest, path))
        while len(folder) > len(dest):
            folders.add(folder)
            folder = os.path.dirname(folder)
    changed = False
    names = [os.path.join(dest, name) for name in (*files, MANIFEST_NAME, LOCK_NAME)]
    for mode, paths in ((FOLDER_MODE, sorted(folders)), (FILE_MODE, names)):
        for path in paths:
            if os.path.exists(path):
                changed = module.set_mode_if_different(path, mode, changed)
                changed = module.set_owner_if_different(path, module.params["owner"], changed)
                changed = module.set_group_if_different(path, module.params["group"], changed)
    return changed


def run(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    dest = os.path.abspath(params["dest"])
    if params["state"] == "absent":
        return remove_model(dest, params["name"], check_mode=module.check_mode, lock_wait_s=params["lock_timeout"])
    folder = ModelFolder(
        params["name"],
        dest,
        Source(**params["source"]),
        Web(params["endpoint"], params["token"], params["timeout"]),
        lock=params["lock"],
        lock_revision=params["lock_revision"],
        sha256=params["sha256"],
        keep_free_bytes=params["keep_free_bytes"],
        retries=params["retries"],
        backoff=params["backoff"],
        verify=params["verify"],
    )
    result = folder.ensure(check_mode=module.check_mode, lock_wait_s=params["lock_timeout"])
    if set_owners(module, dest, [entry["path"] for entry in result["files"]]):
        result["changed"] = True
    result["pending"] = module.check_mode and result["changed"]
    if result["problem"]:
        module.warn(result["problem"])
    return result


def attempt(module: AnsibleModule, params: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """One model: what is returned for it, and what is wrong with it or ''."""
    about = {"name": params["name"], "dest": params["dest"]}
    problem = check_values(params)
    if problem:
        return about, f"model {about['name']}: {problem}"
    try:
        return {**about, **run(module, params)}, ""
    except DownloadError as error:
        return about, str(error)
    except OSError as error:
        return about, f"model {about['name']}: {error.filename or about['dest']}: {error.strerror}."


def room_problem(params: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """Why the disk has no room for all models together, or ''."""
    needed = sum(result["needed_bytes"] for result in results)
    free = min((result["free_bytes"] for result in results), default=0)
    if not needed or needed + params["keep_free_bytes"] <= free:
        return ""
    return (
        f"model_store_models: {', '.join(result['name'] for result in results)} need {exact_bytes(needed)} more and "
        f"model_store_keep_free_bytes keeps {exact_bytes(params['keep_free_bytes'])} free, but the disk of "
        f"{params['dest']} has {exact_bytes(free)}. Free space there, choose a larger disk (model_store_dir) or fewer "
        "models."
    )


def run_all(module: AnsibleModule) -> dict[str, Any]:
    """All models of the list; fails with everything that is wrong with them."""
    params = module.params
    dest = os.path.abspath(params["dest"])
    if not module.check_mode:
        os.makedirs(dest, mode=FOLDER_MODE, exist_ok=True)
    answers = [
        attempt(module, {**params, **model, "dest": os.path.join(dest, model["name"])}) for model in params["models"]
    ]
    results, problems = [result for result, _ in answers], [problem for _, problem in answers if problem]
    if not problems and params["must_answer"]:
        problems = [result["problem"] for result in results if result["problem"]]
    if not problems:
        problems = [problem for problem in [room_problem(params, results)] if problem]
    if problems:
        module.fail_json(msg=" ".join(problems), models=results)
    folder = not os.path.isdir(dest) or set_owners(module, dest, [])
    return {
        "changed": folder or any(result["changed"] for result in results),
        "folder_pending": folder and module.check_mode,
        "diff": [result.pop("diff") for result in results],
        "models": results,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        mutually_exclusive=[("name", "models"), ("source", "models")],
        required_one_of=[("name", "models")],
        supports_check_mode=True,
    )
    params = module.params
    if params["token"] and params["endpoint"].startswith("http://"):
        module.warn(f"the token goes to {params['endpoint']} without encryption")
    if params["models"] is not None:
        module.exit_json(**run_all(module))
    if params["state"] == "present" and params["source"] is None:
        module.fail_json(msg="state is present but all of the following are missing: source")
    result, problem = attempt(module, params)
    if problem:
        module.fail_json(msg=problem, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
