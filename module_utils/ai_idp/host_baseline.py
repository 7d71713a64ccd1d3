# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the kernel filters with the declared rules, and whether something keeps the clock right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.units import STARTS_AT_BOOT, Unit, Units
from ansible.module_utils.ai_idp.programs import Answer, run

TIMEOUT_SECONDS = 30.0
LIST_TABLE = ["nft", "--stateless", "list", "table", "inet", "ai_idp"]
HOOK = "hook prerouting"
"""Stands in every form of the table: without the hook it filters nothing."""

Program = Callable[[list[str], float], Answer]


@dataclass(frozen=True)
class Declared:
    """What the host is to do.

    Attributes:
        fingerprint: text in the comment of the table that is to be in force; empty where the firewall is off.
        firewall_file: the table's file.
        firewall_unit: unit that loads it.
        time_unit: unit that keeps the clock right; empty where that is somebody else's business.
    """

    fingerprint: str
    firewall_file: str
    firewall_unit: str
    time_unit: str


@dataclass(frozen=True)
class Found:
    """What the host does.

    Attributes:
        container: kind of container that the host is, or empty.
        firewall: ``off`` (none is wanted), ``declared``, ``other`` or ``missing``.
        problems: a sentence for each thing that is not as declared.
    """

    container: str
    firewall: str
    problems: tuple[str, ...]


def kind_of_container(program: Program) -> str:
    """What kind of container this host is; empty for a machine.

    Raises:
        StateError: systemd-detect-virt can't tell.
    """
    answer = program(["systemd-detect-virt", "--container"], TIMEOUT_SECONDS)
    if answer.rc not in (0, 1):
        raise StateError(f"systemd-detect-virt can't tell whether this is a container: {answer.output.strip()}")
    return answer.output.strip() if answer.rc == 0 else ""


def state_of_table(declared: Declared, program: Program) -> str:
    """Compare the kernel's table with the one in the file: ``declared``, ``other`` or ``missing``.

    The file is loaded into an empty network namespace and listed there, so that a rule that somebody took out of the
    kernel by hand is missed, and the door of a measurement that somebody left open is seen. A host that allows no
    namespace is judged by the fingerprint alone.
    """
    live = program(LIST_TABLE, TIMEOUT_SECONDS)
    if live.rc != 0:
        return "missing"
    if declared.fingerprint not in live.output or HOOK not in live.output:
        return "other"
    script = f'nft -f "$1" && exec {" ".join(LIST_TABLE)}'
    fresh = program(["unshare", "--net", "--", "sh", "-c", script, "sh", declared.firewall_file], TIMEOUT_SECONDS)
    # In check mode the file may still be an older one.
    if fresh.rc != 0 or declared.fingerprint not in fresh.output:
        return "declared"
    return "declared" if fresh.output == live.output else "other"


def look(declared: Declared, program: Program = run) -> Found:
    """Ask the host for all of it.

    Raises:
        StateError: a program that every host has does not answer.
    """
    container = kind_of_container(program)
    firewall = state_of_table(declared, program) if declared.fingerprint else "off"
    names = [declared.firewall_unit] if declared.fingerprint else []
    # A container's clock is its host's, and the unit's own condition keeps it from starting.
    time_unit = "" if container else declared.time_unit
    names += [time_unit] if time_unit else []
    units = Units(Journal(), check=True, program=program).show(names) if names else {}
    problems = []
    if firewall != "off":
        problems += _firewall_problems(declared, firewall, units[declared.firewall_unit])
    if time_unit:
        problems += _clock_problems(time_unit, units[time_unit], program)
    return Found(container, firewall, tuple(problems))


def _firewall_problems(declared: Declared, firewall: str, unit: Unit) -> list[str]:
    problems = []
    if firewall != "declared":
        problems.append(
            f"the kernel's table inet ai_idp is not the one in {declared.firewall_file} (look at: systemctl status "
            f"{declared.firewall_unit}; nft list table inet ai_idp)"
        )
    if not unit.runs:
        problems.append(f"{declared.firewall_unit} is {unit.active or 'unknown'}")
    if unit.file_state not in STARTS_AT_BOOT:
        problems.append(f"{declared.firewall_unit} is not enabled at boot")
    return problems


def _clock_problems(name: str, unit: Unit, program: Program) -> list[str]:
    if not unit.runs:
        return [f"{name} does not run"]
    answer = program(["timedatectl", "show", "--property=NTPSynchronized", "--value"], TIMEOUT_SECONDS)
    if answer.rc == 0 and answer.output.strip() == "yes":
        return []
    return [
        f"the clock does not agree with a time server (look at: timedatectl; systemctl status {name}; "
        "host_baseline_time_service none leaves the clock to you)"
    ]
