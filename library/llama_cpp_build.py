#!/usr/bin/python
# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llama_cpp_build
short_description: Builds one pinned llama.cpp and puts it in place whole or not at all
description:
  - Each build is a release in a folder of its own, named by its build number, backend and a hash of all that it was
    built from and with. The link C(current) changes in one step, after the new programs have said which build they are,
    that RPC is in them and that RDMA is not. The release before is kept, older ones are removed.
  - The build runs in a systemd unit without network, rights or a writable system. It goes on when the connection is
    cut, and the next run finds it.
  - What a build needs beside the compilers must be there before O(step=start).
options:
  step:
    description:
      - V(plan) says what is to be done and changes nothing. Settings that can't be built are a failure.
      - V(start) begins the build, or makes a release that was kept current.
      - V(wait) waits for the build for O(seconds), and puts it in place when it has ended. Call it until RV(finished).
      - V(verify) asks the current release's programs, and keeps it as a healthy one. A new one that is none is undone.
      - V(remove) ends a build that is under way and removes releases, links and logs.
    type: str
    choices: [plan, start, wait, verify, remove]
    required: true
  folder:
    description: Folder of the releases. Programs are in C(FOLDER/current/bin).
    type: path
    required: true
  settings:
    description: What is built. Required but for O(step=remove).
    type: dict
    suboptions:
      build:
        description: Upstream's build number.
        type: int
        required: true
      commit:
        description: Full commit; may be empty for an archive.
        type: str
        default: ''
      source_url:
        description: URL of an archive; empty for Git.
        type: str
        default: ''
      source_checksum:
        description: Checksum of the archive.
        type: str
        default: ''
      git_repository:
        description: URL of a Git repository; empty for an archive.
        type: str
        default: ''
      git_tag:
        description: The tag.
        type: str
        default: ''
      backend:
        description: What computes.
        type: str
        choices: [cpu, cuda]
        default: cpu
      architectures:
        description: CUDA's architectures, such as V(87).
        type: list
        elements: str
        default: []
      cuda_compiler:
        description: Path of C(nvcc); empty to look for it.
        type: str
        default: ''
      native:
        description: Whether to build for this very processor.
        type: bool
        default: false
      programs:
        description: What to build.
        type: list
        elements: str
        required: true
      cmake_options:
        description: Further options of CMake.
        type: dict
        default: {}
      allow_older:
        description: Whether a build from before the fix of CVE-2026-118375 is accepted, as RDMA is not in it.
        type: bool
        default: false
  source:
    description: The archive or folder with the source, for O(step=start).
    type: path
  jobs:
    description: How many compilers run at once; 0 for what processors and memory allow.
    type: int
    default: 0
  memory_per_job_bytes:
    description: Memory that one compiler is given.
    type: int
    default: 2000000000
  timeout:
    description: Seconds that the build may take.
    type: int
    default: 10800
  compiler_cache:
    description: Folder of ccache's cache, which the build may write to as well. Without it every file is compiled.
    type: path
  seconds:
    description: How long O(step=wait) waits at most.
    type: int
    default: 15
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
    description: Shows how the current release's record would change.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: Build of llama.cpp is under way
  llama_cpp_build:
    step: start
    folder: /opt/llama.cpp
    settings: "{{ __settings }}"
    source: /opt/llama.cpp/sources/source.tar.gz
  register: __start

- name: llama.cpp is built
  llama_cpp_build:
    step: wait
    folder: /opt/llama.cpp
    settings: "{{ __settings }}"
  when: __start.building
  loop: "{{ range(1, 700) | list }}"
  loop_control:
    label: "{{ __build.progress }}"
    break_when: __build.finished
  register: __build
"""

RETURN = r"""
action:
  description: What is to be done, V(none), V(switch) to a release that was kept, or V(build).
  returned: O(step=plan) or O(step=start)
  type: str
  sample: build
reason:
  description: Why.
  returned: O(step=plan) or O(step=start)
  type: str
  sample: nothing is installed yet
building:
  description: Whether a build of the wanted release is under way, or has ended and waits to be put in place.
  returned: O(step=plan) or O(step=start)
  type: bool
  sample: true
problems:
  description: What keeps the build from being possible on this host as it is now, each with what to do.
  returned: O(step=plan)
  type: list
  elements: str
  sample: []
jobs:
  description: How many compilers run at once.
  returned: O(step=plan) or O(step=start)
  type: int
  sample: 2
finished:
  description: Whether the build has ended, well or not.
  returned: O(step=wait)
  type: bool
  sample: false
progress:
  description: How far the build is.
  returned: O(step=wait)
  type: str
  sample: 37 % (step 143 of 386)
release:
  description: What the wanted release says about itself; for O(step=verify) that of the current one.
  returned: O(step=plan), O(step=start) or O(step=verify)
  type: dict
  sample: {name: b11865-cuda87-0123abcd, build: 11865, backend: cuda, architecture: "87", rpc: true, rdma: false}
log:
  description: The end of the build's log.
  returned: failure of a build
  type: str
"""

import difflib
import json
import os
import platform
import shutil
from typing import Any

from ansible.module_utils.ai_idp.llama_cpp import Settings, jobs, option_value, problems_of
from ansible.module_utils.ai_idp.llama_cpp_build import Builder, BuildError, remove
from ansible.module_utils.basic import AnsibleModule

NVCC = "/usr/local/cuda/bin/nvcc"


def free_memory_bytes() -> int:
    """Memory that programs may still take, from the kernel's own estimate."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        sizes = dict(line.split(":", 1) for line in stream)
    return int(sizes["MemAvailable"].split()[0]) * 1024


def found_compiler(wanted: str) -> str:
    """Where nvcc is, or where it is looked for."""
    return wanted or (NVCC if os.path.exists(NVCC) else shutil.which("nvcc") or NVCC)


def settings_of(given: dict[str, Any]) -> Settings:
    cuda = given["backend"] == "cuda"
    return Settings(
        build=given["build"],
        commit=given["commit"],
        source_url=given["source_url"],
        source_checksum=given["source_checksum"],
        git_repository=given["git_repository"],
        git_tag=given["git_tag"],
        backend=given["backend"],
        architectures=tuple(given["architectures"]) if cuda else (),
        cuda_compiler=found_compiler(given["cuda_compiler"]) if cuda else "",
        native=given["native"],
        programs=tuple(given["programs"]),
        cmake_options={str(name): option_value(value) for name, value in given["cmake_options"].items()},
        machine=platform.machine(),
    )


def host_problems(settings: Settings) -> list[str]:
    """What is not there on this host yet."""
    if settings.backend == "cuda" and not os.access(settings.cuda_compiler, os.X_OK):
        return [
            f"llama_cpp_backend: cuda needs the CUDA toolkit, and its compiler {settings.cuda_compiler} is not there. "
            "Install the toolkit (week 1 does with nvidia_driver_cuda_toolkit_version; on a Jetson: apt install "
            "cuda-toolkit), name another path (llama_cpp_cuda_compiler), or set llama_cpp_backend: cpu."
        ]
    return []


def diff_of(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, str]]:
    old, new = (
        json.dumps(told, indent=2, sort_keys=True).splitlines(keepends=True) if told else [] for told in (before, after)
    )
    lines = list(difflib.unified_diff(old, new, "before: release.json", "after: release.json"))
    return [{"prepared": "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)}] if lines else []


def plan(module: AnsibleModule, builder: Builder) -> dict[str, Any]:
    found = builder.plan()
    return {
        "action": found.action,
        "reason": found.reason,
        "building": found.building,
        "problems": host_problems(builder.settings) if found.action == "build" else [],
        "jobs": module.params["jobs"]
        or jobs(os.cpu_count() or 1, free_memory_bytes(), module.params["memory_per_job_bytes"]),
        "release": builder.settings.record(),
    }


def start(module: AnsibleModule, builder: Builder) -> dict[str, Any]:
    result = plan(module, builder)
    result["changed"] = result["action"] != "none"
    result["diff"] = diff_of(builder.known(), result["release"]) if result["changed"] else []
    if module.check_mode or not result["changed"]:
        result["building"] = False
    elif result["action"] == "switch":
        builder.make_current(builder.name)
        builder.clean()
    else:
        if result["problems"]:
            raise BuildError(" ".join(result["problems"]))
        if not result["building"] and not module.params["source"]:
            raise BuildError("The build of llama.cpp can't begin: the option source is missing.")
        builder.start(module.params["source"] or "", result["jobs"], module.params["timeout"])
        result["building"] = True
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["plan", "start", "wait", "verify", "remove"], "required": True},
            "folder": {"type": "path", "required": True},
            "settings": {
                "type": "dict",
                "options": {
                    "build": {"type": "int", "required": True},
                    "commit": {"type": "str", "default": ""},
                    "source_url": {"type": "str", "default": ""},
                    "source_checksum": {"type": "str", "default": ""},
                    "git_repository": {"type": "str", "default": ""},
                    "git_tag": {"type": "str", "default": ""},
                    "backend": {"type": "str", "choices": ["cpu", "cuda"], "default": "cpu"},
                    "architectures": {"type": "list", "elements": "str", "default": []},
                    "cuda_compiler": {"type": "str", "default": ""},
                    "native": {"type": "bool", "default": False},
                    "programs": {"type": "list", "elements": "str", "required": True},
                    "cmake_options": {"type": "dict", "default": {}},
                    "allow_older": {"type": "bool", "default": False},
                },
            },
            "source": {"type": "path"},
            "jobs": {"type": "int", "default": 0},
            "memory_per_job_bytes": {"type": "int", "default": 2_000_000_000},
            "timeout": {"type": "int", "default": 10800},
            "compiler_cache": {"type": "path"},
            "seconds": {"type": "int", "default": 15},
        },
        required_if=[("step", step, ["settings"]) for step in ("plan", "start", "wait", "verify")],
        supports_check_mode=True,
    )
    given = module.params
    if given["step"] == "remove":
        try:
            module.exit_json(changed=remove(given["folder"], module.check_mode))
        except OSError as error:
            module.fail_json(msg=f"llama.cpp can't be removed from {given['folder']}: {error}")
    # Programs are for everybody, whatever the account's habits.
    os.umask(0o022)
    settings = settings_of(given["settings"])
    problems = problems_of(settings, given["settings"]["allow_older"])
    # A loop ends at an answer that is finished, be it good or bad.
    ended = {"finished": True, "progress": "failed", "building": False}
    if problems:
        module.fail_json(msg=" ".join(problems), **ended)
    builder = Builder(given["folder"], settings, given["compiler_cache"] or "")
    try:
        if given["step"] == "plan":
            module.exit_json(changed=False, **plan(module, builder))
        if given["step"] == "start":
            module.exit_json(**start(module, builder))
        if given["step"] == "verify":
            module.exit_json(changed=builder.verify(), release=builder.known())
        finished, progress = (
            (True, "is not built in check mode") if module.check_mode else builder.wait(given["seconds"])
        )
        module.exit_json(changed=finished and not module.check_mode, finished=finished, progress=progress)
    except BuildError as error:
        said = {"log": error.log} if error.log else {}
        module.fail_json(msg=str(error), **said, **ended)
    except OSError as error:
        module.fail_json(msg=f"llama.cpp {builder.name} can't be built in {builder.folder}: {error}", **ended)


if __name__ == "__main__":
    main()
