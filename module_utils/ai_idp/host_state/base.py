# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which accounts and packages a host lacks. Both are only looked for here; apt and useradd are others' work."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from dataclasses import dataclass

from ansible.module_utils.ai_idp.host_state.changes import StateError
from ansible.module_utils.ai_idp.programs import Answer, run

DPKG_TIMEOUT_SECONDS = 60.0
SHOWN = "--showformat=${db:Status-Status}\t${Package}\t${Version}\t${Provides}\n"


@dataclass(frozen=True)
class Account:
    """A local account that is wanted, and the groups that it must be in besides its own."""

    name: str
    groups: tuple[str, ...] = ()
    shell: str | None = None


def lacking(account: Account) -> bool:
    """Whether an account is missing, has another shell or is not in one of its groups."""
    try:
        entry = pwd.getpwnam(account.name)
    except KeyError:
        return True
    if account.shell is not None and entry.pw_shell != account.shell:
        return True
    for name in account.groups:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            return True
        if account.name not in group.gr_mem and group.gr_gid != entry.pw_gid:
            return True
    return False


def unknown_accounts(names: list[str]) -> list[str]:
    """Name the accounts that this host does not have."""
    known = {entry.pw_name for entry in pwd.getpwall()} if names else set()
    return [name for name in names if name not in known]


def installed(text: str) -> dict[str, str]:
    """Read dpkg-query's ``STATUS PACKAGE VERSION PROVIDES`` lines.

    Args:
        text: one line a package, its fields parted by tabs.

    Returns:
        versions by the names of installed packages, and of what they provide.
    """
    versions: dict[str, str] = {}
    for line in text.splitlines():
        status, _, rest = line.partition("\t")
        if status != "installed":
            continue
        package, version, provides = [*rest.split("\t"), "", ""][:3]
        versions[package] = version
        for word in provides.split(","):
            if word.strip():
                versions.setdefault(word.split()[0], version)
    return versions


def package_names(asked: list[str], program: Callable[[list[str], float], Answer] = run) -> list[str]:
    """Tell which packages of these very names are installed. One that only provides such a name does not count.

    Raises:
        StateError: dpkg can't be asked.
    """
    if not asked:
        return []
    there = {line.split("\t")[1] for line in _dpkg(asked, program).splitlines() if line.startswith("installed\t")}
    return [name for name in asked if name in there]


def package_versions(wanted: list[str], program: Callable[[list[str], float], Answer] = run) -> dict[str, str]:
    """Tell the versions of those packages that are installed as wanted, in the order in which they are wanted.

    Args:
        wanted: names of packages, NAME=VERSION, or what packages provide, such as ``mail-transport-agent``.
        program: runs a program with a time limit.

    Raises:
        StateError: dpkg can't be asked.
    """
    found: dict[str, str] = {}
    # dpkg finds packages by their own names alone: who else provides one is asked only where one is missing.
    for names in ([name.partition("=")[0] for name in wanted], []):
        if len(found) == len(set(wanted)):
            break
        there = installed(_dpkg(names, program))
        for name in wanted:
            package, _, version = name.partition("=")
            if package in there and version in ("", there[package]):
                found[name] = there[package]
    return {name: found[name] for name in wanted if name in found}


def _dpkg(names: list[str], program: Callable[[list[str], float], Answer]) -> str:
    """What dpkg-query says of packages, or of all that it knows where none is named."""
    answer = program(["dpkg-query", "--show", SHOWN, *names], DPKG_TIMEOUT_SECONDS)
    # 1: it does not know one of them.
    if answer.rc not in (0, 1):
        raise StateError(f"dpkg-query can't tell which packages are installed: {answer.output.strip()}")
    return answer.output
