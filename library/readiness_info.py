#!/usr/bin/python
# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_info
short_description: Tells what of the platform's needs a host already has
description:
  - Answers, for one host, whether hardware, network, storage, power and software are what the inventory says, one row
    for each question with V(ok), V(missing) or V(unknown), what was found, and what to do.
  - What a later week of the platform installs is V(missing) too, but not C(needed).
  - It only reads, needs no root, and works on a host that has nothing but Python.
extends_documentation_fragment: [read_only]
attributes:
  platform:
    support: full
    platforms: linux
options:
  host:
    description: The host's name in the inventory, for the rows.
    type: str
    required: true
  expected:
    description: What the inventory says of the hardware; what is not said is shown but not judged.
    type: dict
    default: {}
    suboptions:
      gpu:
        description: Model of the GPU, such as V(RTX 5070 Ti); V(none) for a host without one.
        type: str
      gpu_memory_gib:
        description: Memory of the GPU as it is sold.
        type: float
      cpu:
        description: Model of the CPU, such as V(9900X).
        type: str
      memory_gib:
        description: Memory as it is sold.
        type: float
      link_mbit:
        description: Speed that the link to the other hosts has to negotiate.
        type: int
      nas_free_gb:
        description: GB that the NAS with the models has to have free or filled with models.
        type: float
      ups:
        description: The UPS that feeds the host, as C([NAME@]HOST[:PORT]) of its NUT server.
        type: str
  peers:
    description: The other hosts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in the inventory.
        type: str
        required: true
      address:
        description: Its address.
        type: str
        required: true
      port:
        description: Its SSH port.
        type: int
        default: 22
  serves_models:
    description: Whether the host is to serve models. Without it models, NAS, UPS and inference software are left out,
      except for what O(expected) asks.
    type: bool
    default: false
  models:
    description: The models that the host is to hold.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      size_bytes:
        description: Size of the download, where it is known.
        type: int
  models_dir:
    description: Folder of the models.
    type: path
    default: /home/ubuntu/ai-idp/models
  keep_free_bytes:
    description: Space that stays free beside the models.
    type: int
    default: 0
  nas:
    description: The NAS with the models.
    type: dict
    default: {}
    suboptions:
      path:
        description: Where it is mounted.
        type: path
      source:
        description: C(SERVER:/EXPORT) or C(//SERVER/SHARE); left out where somebody else mounts it.
        type: str
      fstype:
        description: Its protocol.
        type: str
        default: nfs4
  driver_branch:
    description: Branch of the NVIDIA driver that week 1 installs.
    type: str
    default: ""
  software:
    description: Services of later weeks that belong on this host.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the program and of its unit.
        type: str
        required: true
      week:
        description: The week that installs it.
        type: int
        required: true
      port:
        description: Where it answers, for what runs in a container. Without it the program or unit is looked for.
        type: int
  address:
    description: Address at which this host serves.
    type: str
    default: 127.0.0.1
  serves_https:
    description: Whether the host is to serve HTTPS on port 443, which takes a certificate.
    type: bool
    default: false
  timeout:
    description: Seconds that each connection or program may take.
    type: int
    default: 5
  root:
    description: Folder under which C(/proc), C(/sys), C(/etc) and C(/usr) are read, to replay a recorded machine.
    type: path
    default: /
author: AI-IDP
"""

EXAMPLES = r"""
- name: What the host has is known
  readiness_info:
    host: "{{ inventory_hostname }}"
    expected: {gpu: RTX 5070 Ti, gpu_memory_gib: 16, cpu: 9900X, memory_gib: 128, link_mbit: 2500}
    peers:
      - {name: xps15, address: 192.168.1.12}
    serves_models: true
  register: __readiness
"""

RETURN = r"""
checks:
  description: The rows, in order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The question.
      type: str
      sample: link eno1
    host:
      description: O(host).
      type: str
    status:
      description: V(ok), V(missing) or V(unknown).
      type: str
    detail:
      description: What was found.
      type: str
      sample: 1000 Mbit/s, full duplex
    remedy:
      description: What to do; empty when ok.
      type: str
    needed:
      description: Whether the platform can't do without it now. What a later week provides is not needed.
      type: bool
ready:
  description: Everything that is needed is there.
  returned: always
  type: bool
"""

import getpass
import os
from typing import Any

from ansible.module_utils.ai_idp import gpu_environment, gpu_host, gpu_info, hardware_profile, readiness
from ansible.module_utils.ai_idp.files import free_bytes
from ansible.module_utils.ai_idp.gpu_common import read_line, read_text
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.readiness import Expected, Model, Nas, Row, Software
from ansible.module_utils.ai_idp.readiness_network import ask_ups, connects, parse_ups, read_links, serves_tls
from ansible.module_utils.basic import AnsibleModule

LOCAL_UPS = "localhost"
HTTPS = 443


def argument_spec() -> dict[str, Any]:
    return {
        "host": {"type": "str", "required": True},
        "expected": {
            "type": "dict",
            "default": {},
            "options": {
                "gpu": {"type": "str"},
                "gpu_memory_gib": {"type": "float"},
                "cpu": {"type": "str"},
                "memory_gib": {"type": "float"},
                "link_mbit": {"type": "int"},
                "nas_free_gb": {"type": "float"},
                "ups": {"type": "str"},
            },
        },
        "peers": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "address": {"type": "str", "required": True},
                "port": {"type": "int", "default": 22},
            },
        },
        "serves_models": {"type": "bool", "default": False},
        "models": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"name": {"type": "str", "required": True}, "size_bytes": {"type": "int"}},
        },
        "models_dir": {"type": "path", "default": "/home/ubuntu/ai-idp/models"},
        "keep_free_bytes": {"type": "int", "default": 0},
        "nas": {
            "type": "dict",
            "default": {},
            "options": {
                "path": {"type": "path"},
                "source": {"type": "str"},
                "fstype": {"type": "str", "default": "nfs4"},
            },
        },
        "driver_branch": {"type": "str", "default": ""},
        "software": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "week": {"type": "int", "required": True},
                "port": {"type": "int"},
            },
        },
        "address": {"type": "str", "default": "127.0.0.1"},
        "serves_https": {"type": "bool", "default": False},
        "timeout": {"type": "int", "default": 5},
        "root": {"type": "path", "default": "/"},
    }


class Examiner:
    """Asks one host, topic by topic."""

    def __init__(self, module: AnsibleModule, expected: Expected) -> None:
        self.module = module
        self.options = module.params
        self.expected = expected
        self.root: str = module.params["root"]
        self.timeout: int = module.params["timeout"]
        here = os.path.realpath(self.root) == "/"
        self.here = here
        traces = gpu_environment.read_traces(self.root, self.timeout, self.program("systemd-detect-virt"))
        self.container = readiness.is_container(gpu_environment.detect(traces))
        cards = gpu_host.nvidia_pci_devices(self.root)
        # The bus of a container is the machine's: a card there is not this host's unless the driver answers.
        self.cards = None if self.container and cards else cards
        tools = gpu_info.Tools(
            nvidia_smi=self.program("nvidia-smi"),
            nvml_library=gpu_info.PROBE_ARGUMENTS["nvml_library"]["default"] if here else None,
        )
        # Xid errors are a matter of gpu_check; an empty log spares reading the kernel's.
        probe = gpu_info.probe_machine(tools, self.root, self.timeout, log=gpu_host.KernelLog())
        self.gpus = gpu_info.describe(probe)

    def program(self, name: str) -> str | None:
        """Where a program is; a recorded machine is not mixed with this one."""
        return (
            self.module.get_bin_path(name, opt_dirs=["/usr/lib/wsl/lib", "/usr/local/cuda/bin"]) if self.here else None
        )

    def rows(self) -> list[Row]:
        return [*self.machine(), *self.network(), *self.software(), *self.storage(), *self.power()]

    def machine(self) -> list[Row]:
        key = (read_line(os.path.join(self.root, "etc/machine-id")) or "").encode()
        names = readiness.pci_names(self.root, self.cards or [])
        gpus, why = self.gpus["gpus"], self.gpus["messages"]
        rows: list[Row] = readiness.judge_gpu(self.expected, gpus, self.cards, names, why)
        rows += readiness.judge_cpu(self.expected, hardware_profile.read_cpu(self.root))
        memory = hardware_profile.read_memory(self.root, key, self.container)
        rows += readiness.judge_memory(self.expected, memory, self.container)
        return rows

    def network(self) -> list[Row]:
        peers = self.options["peers"]
        links = read_links(self.root, readiness.peer_addresses(peers))
        rows: list[Row] = readiness.judge_links(self.expected, links)
        rows += readiness.ask_peers(peers, self.timeout)
        return rows

    def software(self) -> list[Row]:
        rows: list[Row] = []
        if self.here:
            rows.append(self.sudo())
        gpus = self.gpus["gpus"]
        libraries = gpu_host.library_versions(self.root)
        loaded, _ = gpu_host.loaded_driver(self.root)
        driver = gpus[0]["driver_version"] if gpus else (libraries[-1] if libraries else None)
        seen = Software(
            driver=driver,
            # A driver that answers is loaded; a container does not always show the kernel's version file.
            loaded_driver=loaded or (driver if gpus else None),
            cuda=readiness.read_cuda(self.root, self.program("nvcc"), self.timeout),
            cudnn=readiness.read_cudnn(self.root),
        )
        expects_gpu = bool(gpus or self.cards or self.expected.gpu) and self.expected.gpu != readiness.NO_GPU
        rows += readiness.judge_driver(seen, self.options["driver_branch"], expects_gpu)
        if self.options["serves_models"]:
            seen.docker, seen.compose = readiness.read_docker(self.program("docker"), self.timeout)
            rows += readiness.judge_software(seen, expects_gpu)
        rows += [self.service(item) for item in self.options["software"]]
        return rows + self.certificate()

    def service(self, item: dict[str, Any]) -> Row:
        name, week, port = item["name"], item["week"], item["port"]
        if port:
            where = f"{self.options['address']}:{port}"
            there = connects(self.options["address"], port, self.timeout)
            return readiness.judge_service(name, week, there, f"answers at {where}", f"no answer at {where}")
        there = readiness.has_service(self.root, name, self.program(name))
        return readiness.judge_service(name, week, there, "installed", "not installed")

    def sudo(self) -> Row:
        if os.geteuid() == 0:
            return readiness.judge_sudo(0, True, "root")
        sudo = self.program("sudo")
        rc = run([sudo, "-n", "true"], self.timeout).rc if sudo else None
        return readiness.judge_sudo(rc, sudo is not None, getpass.getuser())

    def certificate(self) -> list[Row]:
        address = self.options["address"]
        if not self.options["serves_https"]:
            return []
        version = serves_tls(address, HTTPS, self.timeout)
        if version:
            return [Row("tls certificate", readiness.OK, f"{address}:{HTTPS} serves one ({version})", needed=False)]
        remedy = "Week 3 makes one, or takes yours."
        return [Row("tls certificate", readiness.MISSING, f"{address}:{HTTPS} serves none", remedy, needed=False)]

    def storage(self) -> list[Row]:
        folder = self.options["models_dir"]
        models = [Model(item["name"], os.path.join(folder, item["name"]), item["size_bytes"])
                  for item in self.options["models"]]  # fmt: skip
        given = self.options["nas"]
        nas = Nas(given.get("path") or "", given.get("source") or "", given.get("fstype") or "nfs4")
        if not (self.options["serves_models"] or self.expected.nas_free_gb or nas.path):
            return []
        mountinfo = read_text(os.path.join(self.root, "proc/self/mountinfo")) or ""
        mount, free, server = readiness.read_nas(nas, mountinfo, self.timeout)
        on_nas = bool(nas.path) and f"{folder}/".startswith(f"{nas.path.rstrip('/')}/")
        away = on_nas and (mount is None or mount.status != readiness.OK)
        # A NAS that does not answer would hold up whoever looks into it.
        held = {model.name: None if away else readiness.held_bytes(model) for model in models}
        on_it = sum(size or 0 for size in held.values()) if on_nas else 0
        rows: list[Row] = readiness.judge_nas(self.expected, nas, mount, free, on_it, server)
        room = None if away else free_bytes(folder)
        rows += readiness.judge_models(models, held, room, folder, self.options["keep_free_bytes"])
        return rows

    def power(self) -> list[Row]:
        if not (self.options["serves_models"] or self.expected.ups):
            return []
        name, address, port = parse_ups(self.expected.ups or LOCAL_UPS)
        return [readiness.judge_ups(self.expected, ask_ups(name, address, port, self.timeout))]


def expected_of(module: AnsibleModule) -> Expected:
    given = module.params["expected"]
    expected = Expected(**{key: value for key, value in given.items() if value not in (None, "")})
    for key in ("gpu_memory_gib", "memory_gib", "link_mbit", "nas_free_gb"):
        value = getattr(expected, key)
        if value is not None and value <= 0:
            module.fail_json(msg=f"ai_idp_expected_hardware.{key} is {value}. Give a number above 0, or leave it out.")
    if expected.ups:
        try:
            parse_ups(expected.ups)
        except ValueError:
            module.fail_json(
                msg=f"ai_idp_expected_hardware.ups is {expected.ups!r}. Give [NAME@]HOST[:PORT] of the NUT server, "
                "such as localhost or ups@192.168.1.5."
            )
    return expected


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout is {module.params['timeout']}; it must be at least 1 second.")
    rows = Examiner(module, expected_of(module)).rows()
    module.exit_json(
        changed=False,
        checks=[row.public(module.params["host"]) for row in rows],
        ready=all(row.status == readiness.OK or not row.needed for row in rows),
    )


if __name__ == "__main__":
    main()
