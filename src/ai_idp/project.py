"""Where the project is on this machine, and what it holds: playbooks, inventories, programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_idp.errors import FrontError, from_json, home_path

HOME_VARIABLE = "AI_IDP_HOME"
DEFAULT_INVENTORY = "lab"
# Reading an inventory starts Ansible once; a dynamic inventory may ask something over the network.
INVENTORY_TIMEOUT_S = 60


@dataclass(frozen=True)
class Host:
    """A host of an inventory, with what is needed to reach it.

    The address may be a name that only SSH's own settings know; ``port`` is None where the inventory leaves it to SSH.
    """

    name: str
    address: str
    port: int | None
    connection: str
    groups: tuple[str, ...] = ()
    ssh_args: str = ""


@dataclass(frozen=True)
class Project:
    """A checkout of this project: the folder that holds ansible.cfg and playbooks/."""

    root: Path

    @property
    def playbooks(self) -> dict[str, Path]:
        """Playbooks by name (`week2` for playbooks/week2.yml), in order."""
        return {path.stem: path for path in sorted((self.root / "playbooks").glob("*.yml"))}

    @property
    def inventories(self) -> dict[str, Path]:
        """Inventories by name (`lab` for inventory/lab), in order."""
        base = self.root / "inventory"
        if not base.is_dir():
            return {}
        return {path.name: path for path in sorted(base.iterdir()) if (path / "hosts.yml").is_file()}

    def playbook(self, name: str) -> Path:
        """The playbook called `name`, with or without `.yml`. FrontError, listing what exists, if there is none."""
        known = self.playbooks
        wanted = name.removesuffix(".yml")
        if wanted not in known:
            raise FrontError(
                f"there is no playbook {name!r} in {self.shown(self.root / 'playbooks')}/; "
                f"there are: {', '.join(known) or 'none'}"
            )
        return known[wanted]

    def inventory(self, name: str) -> Path:
        """The inventory called `name`. FrontError, listing what exists, if there is none."""
        known = self.inventories
        if name not in known:
            raise FrontError(
                f"there is no inventory {name!r} in {self.shown(self.root / 'inventory')}/; "
                f"there are: {', '.join(known) or 'none'}"
            )
        return known[name]

    def shown(self, path: Path | str) -> str:
        """A path as a user types it: from the project root where it lies inside."""
        try:
            return str(Path(path).relative_to(self.root))
        except ValueError:
            return str(path)

    def environment(self) -> dict[str, str]:
        """What an Ansible program is started with on top of the caller's environment.

        Its own folder comes first in PATH, so that Ansible's helpers are the ones of this installation. The
        settings file is named because Ansible passes over one in a folder that everybody may write to.
        """
        programs = str(Path(sys.executable).parent)
        path = os.environ.get("PATH", os.defpath)
        found = {"PATH": f"{programs}{os.pathsep}{path}", "PWD": str(self.root)}
        if not os.environ.get("ANSIBLE_CONFIG"):
            found["ANSIBLE_CONFIG"] = str(self.root / "ansible.cfg")
        return found

    def ask(self, program: str, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run an Ansible program of this installation in the project, and keep what it says.

        Raises:
            subprocess.TimeoutExpired: It did not end within that many seconds.
            OSError: It can't be started.
        """
        return subprocess.run(
            [ansible_program(program), *arguments],
            cwd=self.root,
            env={**os.environ, **self.environment()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def hosts(self, inventory: str) -> list[Host]:
        """The hosts of an inventory as Ansible itself reads it. FrontError if it can't."""
        source = self.inventory(inventory)
        try:
            done = self.ask("ansible-inventory", "-i", str(source), "--list", timeout=INVENTORY_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise FrontError(f"inventory {inventory!r} could not be read within {INVENTORY_TIMEOUT_S} s") from error
        except OSError as error:
            raise FrontError(f"ansible-inventory can't be started: {error.strerror}: run `make setup`") from error
        if done.returncode != 0:
            raise FrontError(f"inventory {inventory!r} could not be read: {_first_error(done.stderr)}")
        try:
            return _parse_hosts(from_json(done.stdout))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FrontError(
                f"inventory {inventory!r}: ansible-inventory answered something unexpected ({error})"
            ) from error


def _first_error(stderr: str) -> str:
    """Ansible's complaint in one line: its error lines, else the last line of what it wrote."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines or ["no reason given"])[0 if errors else -1]


def _parse_hosts(listing: dict[str, Any]) -> list[Host]:
    """Hosts from `ansible-inventory --list`, in the inventory's order."""
    variables: dict[str, dict[str, Any]] = listing.get("_meta", {}).get("hostvars", {})
    groups: dict[str, list[str]] = {}
    for group, content in listing.items():
        if group != "_meta":
            for name in content.get("hosts", []):
                groups.setdefault(name, []).append(group)
    names = [*groups, *(name for name in variables if name not in groups)]
    return [_host(name, variables.get(name, {}), groups.get(name, [])) for name in names]


def _host(name: str, variables: Mapping[str, Any], groups: Iterable[str]) -> Host:
    return Host(
        name=name,
        address=str(variables.get("ansible_host", name)),
        port=_port(name, variables.get("ansible_port")),
        connection=str(variables.get("ansible_connection", "ssh")),
        groups=tuple(groups),
        ssh_args=" ".join(str(variables.get(f"ansible_ssh_{kind}_args", "")) for kind in ("common", "extra")).strip(),
    )


def _port(host: str, value: Any) -> int | None:
    """The SSH port of a host, if it has one of its own; FrontError for what can be none."""
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not 1 <= int(text[:6]) <= 65535:
        raise FrontError(f"ansible_port of {host} is {text[:40]!r}: write a number from 1 to 65535 into the inventory")
    return int(text)


def ansible_program(name: str) -> str:
    """The path of an Ansible program: the one installed beside this Python, else the one in PATH."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise FrontError(f"{name} is not installed beside {sys.executable} nor in PATH: run `make setup`")
    return found


def _is_project(folder: Path) -> bool:
    return (folder / "ansible.cfg").is_file() and (folder / "playbooks").is_dir()


def find_project(start: Path | None = None) -> Project:
    """The project to work on: AI_IDP_HOME, else upwards from `start` (default: here), else this package's own.

    FrontError if AI_IDP_HOME names something else, or if nothing is found.
    """
    override = os.environ.get(HOME_VARIABLE)
    if override:
        home = home_path(override).resolve()
        if not _is_project(home):
            raise FrontError(
                f"{HOME_VARIABLE}={override} is not a checkout of AI-IDP: it has no ansible.cfg and playbooks/"
            )
        return Project(home)
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if _is_project(folder):
            return Project(folder)
    raise FrontError(
        f"no AI-IDP project (ansible.cfg and playbooks/) at {here} or above: "
        f"change into a checkout or set {HOME_VARIABLE}"
    )
