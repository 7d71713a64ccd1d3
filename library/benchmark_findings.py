#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_findings
short_description: Gives each claim a verdict from what was measured and writes the findings
description:
  - Joins the claims with the results of M(benchmark_measure) and what was derived, and writes one row per claim and
    host of its group, with a 95 % interval, a verdict and its reason. What was not measured says why.
  - Runs on the controller, in the project's Python environment.
  - Writes C(week1_findings.csv), C(week1_findings.json) (which the report reads) and C(week1_mlflow.json), and appends
    each finished measurement to C(history.jsonl), once. Files are replaced in one step, and only when they differ.
  - Findings of another environment that are in O(output_dir) are moved, with their report, to the folder in it that
    has the environment's name. From there they come back when that environment is measured again. The history is
    one for all.
  - Measurements of earlier runs in the same environment that this run did not repeat are kept, so that a run of one
    host (C(--limit)) or one measurement loses nothing.
  - Statistics, rules and formulas are in C(module_utils/ai_idp), C(sample_statistics.py), C(verdict.py) and
    C(roofline.py).
options:
  state:
    description:
      - V(present) makes the findings.
      - V(stale) takes the verdict from those findings of O(host) that were measured on O(hardware_fingerprint), because
        its hardware is another now. The rows stay and say so.
    type: str
    choices: [present, stale]
    default: present
  output_dir:
    description: The folder of the files; made when it is not there.
    type: path
    required: true
  environment:
    description: >-
      Where this was measured, V(lab) or V(production). It names a folder too, so it has letters, digits, dots, dashes
      and underscores. Needed with O(state=present).
    type: str
  claims_file:
    description: The claims. Needed with O(state=present).
    type: path
  extra_claims:
    description: The user's own claims, with the same keys as those of the file.
    type: list
    elements: dict
    default: []
  hosts:
    description: >-
      The hosts, each with O(hosts[].host), its O(hosts[].groups), and the O(hosts[].hardware_fingerprint) that it has
      now; a result with another fingerprint is stale. Needed with O(state=present).
    type: list
    elements: dict
    suboptions:
      host:
        description: Its name in the inventory.
        type: str
        required: true
      groups:
        description: Names of its groups.
        type: list
        elements: str
        default: []
      hardware_fingerprint:
        description: As M(hardware_profile) returns it.
        type: str
  results:
    description: Results of all hosts, each as M(benchmark_measure) returns it (C(measurement)).
    type: list
    elements: dict
    default: []
  derived:
    description: What arithmetic says about a claim.
    type: list
    elements: dict
    default: []
    suboptions:
      claim_id:
        description: The claim.
        type: str
        required: true
      host:
        description: The host; every host of the claim's group when not given.
        type: str
      fit:
        description: The registered result of M(model_fit).
        type: dict
        required: true
      service:
        description: Which of its services is meant; the first when not given.
        type: str
      gpu_bandwidth_bytes_per_second:
        description: Memory bandwidth of the GPU; that of the data sheet for cards that the platform knows.
        type: int
      host_bandwidth_bytes_per_second:
        description: >-
          Memory bandwidth of the host. Where the host has a result of the measurement memory-bandwidth, that is used.
        type: int
      kv_bytes_per_token:
        description: KV cache that a token of the context takes.
        type: int
      context_length:
        description: Tokens of the context; an empty one is in favour of the claim.
        type: int
        default: 0
      documented_hardware:
        description: The figures are those of the documented machine and not of what the host has.
        type: bool
        default: false
  host:
    description: The host whose hardware has changed. Needed with O(state=stale).
    type: str
  hardware_fingerprint:
    description: The fingerprint that the host had before. Needed with O(state=stale).
    type: str
  changes:
    description: What changed, in sentences, as M(hardware_profile) returns it. Goes to the reason.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would be written and writes nothing.
  diff_mode:
    support: full
    description: Shows the CSV file before and after, and names the other files that differ.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The findings are written down
  benchmark_findings:
    environment: "{{ ai_idp_environment }}"
    claims_file: "{{ playbook_dir }}/../benchmarks/claims.yml"
    output_dir: "{{ playbook_dir }}/../benchmarks"
    hosts:
      - host: schlimers-server
        groups: [gpu_servers]
        hardware_fingerprint: 1f0c3a5e7b9d2468
    results: "{{ groups['all'] | map('extract', hostvars) | map(attribute='benchmark_results') | flatten }}"
    derived:
      - claim_id: llama-3.3-70b-hybrid
        fit: "{{ __fit_70b }}"
        host_bandwidth_bytes_per_second: 89600000000
        documented_hardware: true
  delegate_to: localhost

- name: What was measured on the old card counts no more
  benchmark_findings:
    state: stale
    output_dir: "{{ playbook_dir }}/../benchmarks"
    host: "{{ inventory_hostname }}"
    hardware_fingerprint: "{{ __hardware.previous.fingerprint }}"
    changes: "{{ __hardware.changes }}"
  delegate_to: localhost
"""

RETURN = r"""
counts:
  description: How many findings have each verdict.
  returned: success
  type: dict
  sample: {confirmed: 0, within_expected: 2, meets_80_percent: 0, below: 0, refuted: 1, impossible: 1, not_measured: 5}
findings:
  description: The rows as the CSV file has them.
  returned: success
  type: list
  elements: dict
measurements:
  description: What they rest on, each with its C(host), C(id) and C(measured_at).
  returned: when O(state=present)
  type: list
  elements: dict
stale:
  description: How many findings were made stale.
  returned: when O(state=stale)
  type: int
files:
  description: The files, in the order in which they are written.
  returned: success
  type: list
  elements: str
changed_files:
  description: Those that differ.
  returned: success
  type: list
  elements: str
moved:
  description: What was moved because O(output_dir) held the findings of another environment, one sentence each.
  returned: when O(state=present)
  type: list
  elements: str
problems:
  description: What is wrong with the claims, one sentence each.
  returned: failure
  type: list
  elements: str
"""

import os
import re
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.ai_idp import findings
from ansible.module_utils.ai_idp.files import write_atomically
from ansible.module_utils.basic import AnsibleModule, missing_required_lib

IMPORT_ERROR = None
try:
    from ai_idp.benchmarks.claims import ClaimsError, load_claims
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

CSV = "week1_findings.csv"
JSON = "week1_findings.json"
MLFLOW = "week1_mlflow.json"
HISTORY = "history.jsonl"
# What belongs to one environment; the findings come last, since by them it is told whether there is something to move.
ITS_OWN = (CSV, MLFLOW, "week1_report.html", "week1_report.md", JSON)


def read(module: AnsibleModule, path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"{path} can't be read: {error}. Move it away or correct its permissions.")
        raise


def write(module: AnsibleModule, path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        module.fail_json(msg=f"{path} can't be written: {error}. Make room or correct the folder's permissions.")


def read_findings(module: AnsibleModule, path: str) -> dict[str, Any] | None:
    content = read(module, path)
    document = findings.read_document(content) if content else None
    if content and document is None:
        module.warn(f"{path} holds no findings of this version; nothing is taken over from it.")
    return document


def plan_moves(module: AnsibleModule) -> list[tuple[str, str]]:
    """Which files of another environment make way, and which of this one come back: from where to where."""
    folder, environment = module.params["output_dir"], module.params["environment"]
    found = read_findings(module, os.path.join(folder, JSON))
    there = found["environment"] if found else environment
    if found and there == environment:
        return []
    moves = []
    for name in (environment, there):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            module.fail_json(
                msg=f"environment is {name!r}; it names a folder: letters, digits, dots, dashes and underscores."
            )
    if there != environment:
        moves += [(os.path.join(folder, name), os.path.join(folder, there, name)) for name in ITS_OWN]
    moves += [(os.path.join(folder, environment, name), os.path.join(folder, name)) for name in ITS_OWN]
    return [move for move in moves if os.path.isfile(move[0])]


def move_files(module: AnsibleModule, moves: list[tuple[str, str]]) -> None:
    for source, target in moves:
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(source, target)
        except OSError as error:
            module.fail_json(msg=f"{source} can't be moved to {target}: {error}. Correct the folder's permissions.")


def make(module: AnsibleModule, paths: dict[str, str]) -> tuple[dict[str, Any], str]:
    """The document of the findings and the text of the history."""
    options = module.params
    if IMPORT_ERROR:
        module.fail_json(
            msg=missing_required_lib(
                "ai-idp", reason="to check the claims; run the playbook from `make setup`'s .venv"
            ),
            exception=IMPORT_ERROR,
        )
    names = [host["host"] for host in options["hosts"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        module.fail_json(msg=f"hosts names {twice[0]} twice; name each host once.")
    try:
        claims = load_claims(Path(options["claims_file"]), options["extra_claims"])
    except ClaimsError as error:
        module.fail_json(msg=str(error), problems=error.problems)
    history, broken = findings.parse_history(read(module, paths[HISTORY]))
    if broken:
        module.warn(f"{paths[HISTORY]} has {len(broken)} lines that are no measurement; they are left as they are.")
    inputs = findings.Inputs(
        environment=options["environment"],
        claims=[claim.model_dump(mode="json") for claim in claims],
        hosts=options["hosts"],
        results=options["results"],
        derived=options["derived"],
        previous=read_findings(module, paths[JSON]),
        history=history,
    )
    try:
        document, history, warnings = findings.join(inputs)
    except findings.FindingsError as error:
        module.fail_json(msg=str(error), problems=[str(error)])
    for warning in warnings:
        module.warn(warning)
    return document, findings.history_text(history, broken)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "present", "choices": ["present", "stale"]},
            "output_dir": {"type": "path", "required": True},
            "environment": {"type": "str"},
            "claims_file": {"type": "path"},
            "extra_claims": {"type": "list", "elements": "dict", "default": []},
            "hosts": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "host": {"type": "str", "required": True},
                    "groups": {"type": "list", "elements": "str", "default": []},
                    "hardware_fingerprint": {"type": "str"},
                },
            },
            "results": {"type": "list", "elements": "dict", "default": []},
            "derived": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "claim_id": {"type": "str", "required": True},
                    "host": {"type": "str"},
                    "fit": {"type": "dict", "required": True},
                    "service": {"type": "str"},
                    "gpu_bandwidth_bytes_per_second": {"type": "int"},
                    "host_bandwidth_bytes_per_second": {"type": "int"},
                    "kv_bytes_per_token": {"type": "int"},
                    "context_length": {"type": "int", "default": 0},
                    "documented_hardware": {"type": "bool", "default": False},
                },
            },
            "host": {"type": "str"},
            # A hash of what the machine is made of; it opens nothing.
            "hardware_fingerprint": {"type": "str", "no_log": False},
            "changes": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[
            ("state", "present", ("environment", "claims_file", "hosts")),
            ("state", "stale", ("host", "hardware_fingerprint")),
        ],
        supports_check_mode=True,
    )
    folder = module.params["output_dir"]
    paths = {name: os.path.join(folder, name) for name in (HISTORY, JSON, MLFLOW, CSV)}
    # Where each file is now; another path where it is to be moved first.
    now = dict(paths)
    moves: list[tuple[str, str]] = []
    result: dict[str, Any] = {}
    wanted: dict[str, str] = {}
    if module.params["state"] == "stale":
        kept = read_findings(module, paths[JSON])
        if kept is None:
            module.exit_json(changed=False, stale=0, counts={}, findings=[], files=[], changed_files=[])
            return
        document = kept
        fingerprint = module.params["hardware_fingerprint"]
        result["stale"] = findings.mark_stale(document, module.params["host"], fingerprint, module.params["changes"])
    else:
        moves = plan_moves(module)
        back = {target: source for source, target in moves}
        gone = {source for source, _ in moves}
        # A path that is left and not taken again holds nothing.
        now = {name: back.get(path, os.devnull if path in gone else path) for name, path in paths.items()}
        document, wanted[HISTORY] = make(module, now)
        result["moved"] = [f"{source} to {target}" for source, target in moves]
    # The history first: a measurement that is in the findings is never missing there.
    wanted[JSON] = findings.json_text(document)
    wanted[MLFLOW] = findings.json_text(findings.mlflow_document(document))
    wanted[CSV] = findings.csv_text(document)
    before = {name: read(module, now[name]) for name in wanted}
    differ = [name for name, text in wanted.items() if text != before[name]]
    if not module.check_mode:
        # Not before everything is known to be right.
        move_files(module, moves)
        for name in differ:
            write(module, paths[name], wanted[name])
    others = "".join(f"{paths[name]} differs\n" for name in differ if name != CSV)
    others += "".join(f"{source} moves to {target}\n" for source, target in moves)
    module.exit_json(
        changed=bool(differ or moves),
        counts=findings.counts(document),
        findings=[{name: row[name] for name in findings.COLUMNS} for row in document["findings"]],
        measurements=[
            {name: row.get(name) for name in ("host", "id", "measured_at")} for row in document["measurements"]
        ],
        files=[paths[name] for name in wanted],
        changed_files=[paths[name] for name in differ],
        diff={
            "before": before[CSV],
            "after": wanted[CSV] + others,
            "before_header": paths[CSV],
            "after_header": paths[CSV],
        },
        **result,
    )


if __name__ == "__main__":
    main()
