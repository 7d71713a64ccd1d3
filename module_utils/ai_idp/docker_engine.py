# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the running Docker engine does what its daemon.json says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.host_state.changes import Journal
from ansible.module_utils.ai_idp.host_state.units import Units
from ansible.module_utils.ai_idp.programs import Answer, run

TIMEOUT_SECONDS = 60.0
UNIT = "docker.service"

Program = Callable[[list[str], float], Answer]


@dataclass(frozen=True)
class Engine:
    """What the engine says of itself.

    Attributes:
        running: whether its service runs. One that does not is asked nothing, because that would start it.
        version: its version, or empty.
        problems: a sentence for each thing that is not as wanted.
    """

    running: bool
    version: str
    problems: tuple[str, ...]


def differences(wanted: Mapping[str, Any], info: Mapping[str, Any], gateway: str) -> list[str]:
    """Compare settings with what the engine tells; settings that it does not tell are passed over.

    Args:
        wanted: what daemon.json holds.
        info: answer of ``docker info`` as JSON.
        gateway: address of the default bridge; it is no part of ``docker info``, and silently left as it was while
            containers run.

    Returns:
        a sentence for each difference.
    """
    found = []
    if "compose" not in {plugin["Name"] for plugin in (info.get("ClientInfo") or {}).get("Plugins") or []}:
        found.append("docker compose is not there")
    for key, told in (
        ("log-driver", "LoggingDriver"),
        ("live-restore", "LiveRestoreEnabled"),
        ("data-root", "DockerRootDir"),
    ):
        if key in wanted and info.get(told) != wanted[key]:
            found.append(f"{key} is {info.get(told)}")
    if "bip" in wanted and gateway != wanted["bip"].split("/")[0]:
        found.append(
            f"bip is {gateway} (it changes only at a restart with no container running: stop them, then systemctl "
            "restart docker)"
        )
    pools = [(pool["Base"], pool["Size"]) for pool in info.get("DefaultAddressPools") or []]
    for pool in wanted.get("default-address-pools") or []:
        if (pool["base"], int(pool["size"])) not in pools:
            found.append(f"default-address-pools lack {pool['base']}")
    return found + _registries(wanted, info.get("RegistryConfig") or {}) + _devices(wanted, info)


def _registries(wanted: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    found = []
    mirrors = {mirror.rstrip("/") for mirror in told.get("Mirrors") or []}
    for mirror in wanted.get("registry-mirrors") or []:
        if mirror.rstrip("/") not in mirrors:
            found.append(f"registry-mirrors lack {mirror}")
    for registry in wanted.get("insecure-registries") or []:
        secure = (told.get("IndexConfigs") or {}).get(registry, {}).get("Secure", True)
        if secure and registry not in (told.get("InsecureRegistryCIDRs") or []):
            found.append(f"insecure-registries lack {registry}")
    return found


def _devices(wanted: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    if (wanted.get("features") or {}).get("cdi") and not info.get("CDISpecDirs"):
        return [f"cdi is off (Docker {info.get('ServerVersion')}; it needs 25 or later)"]
    return []


def look(wanted: Mapping[str, Any], program: Program = run) -> Engine:
    """Ask the engine.

    Raises:
        StateError: systemd does not answer.
    """
    unit = Units(Journal(), check=True, program=program).show([UNIT])[UNIT]
    # Its socket would start it to answer a question.
    if not unit.runs:
        return Engine(False, "", (f"{UNIT} is {unit.active}",))
    answer = program(["docker", "info", "--format", "{{json .}}"], TIMEOUT_SECONDS)
    told = next((line for line in answer.output.splitlines() if line.startswith("{")), "")
    if answer.rc != 0 or not told:
        return Engine(True, "", (f"the engine does not answer docker info: {answer.output.strip()}",))
    gateway = ""
    if "bip" in wanted:
        form = "{{(index .IPAM.Config 0).Gateway}}"
        said = program(["docker", "network", "inspect", "bridge", "--format", form], TIMEOUT_SECONDS).output
        gateway = said.strip().rpartition("\n")[2]
    try:
        info = from_json(told)
        return Engine(True, str(info.get("ServerVersion") or ""), tuple(differences(wanted, info, gateway)))
    except WRONG_SHAPE as error:
        words = f"docker info answers in another form than is known ({type(error).__name__}): is docker Docker's own?"
        return Engine(True, "", (words,))
