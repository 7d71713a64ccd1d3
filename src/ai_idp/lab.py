"""The lab on this machine: which of its containers run, and how a client reaches what they serve."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai_idp.doctor import SSH_PORT, CheckFailed, ssh_banner
from ai_idp.endpoints import Secrets, ca_path, load_endpoints
from ai_idp.errors import WRONG_SHAPE, FrontError
from ai_idp.progress import STYLES, duration
from ai_idp.project import Host, Project

INVENTORY = "lab"
LABEL = "ai-idp.lab"
NOT_RUNNING = "the lab is not running: ai-idp lab up"
NO_DOCKER = "what answers as Docker answers in another form than is known: look at DOCKER_HOST and `docker context ls`"
DOCKER_TIMEOUT_S = 10


@dataclass(frozen=True)
class Container:
    """A container of the lab; `ssh` is None where no SSH is expected."""

    name: str
    address: str
    state: str
    up_since: datetime | None
    ssh: bool | None

    @property
    def well(self) -> bool:
        """It runs, and lets Ansible in where it should."""
        return self.state in ("running", "healthy") and self.ssh is not False


def containers(project: Project) -> list[Container]:
    """The lab's containers and the inventory's hosts that have none; empty if the lab is not there.

    FrontError if Docker can't be asked.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=DOCKER_TIMEOUT_S)
        try:
            found = [
                container.attrs
                for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
            ]
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise FrontError(
            f"Docker does not answer ({_first_line(error)}): `ai-idp lab up` starts it, or says what is missing"
        ) from error
    except WRONG_SHAPE as error:
        raise FrontError(NO_DOCKER) from error
    if not found:
        return []
    hosts = project.hosts(INVENTORY)
    try:
        return asyncio.run(_looked_at(found, hosts))
    except WRONG_SHAPE as error:
        raise FrontError(NO_DOCKER) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


async def _looked_at(found: list[Mapping[str, Any]], hosts: list[Host]) -> list[Container]:
    by_address = {host.address: host for host in hosts}
    looked = await asyncio.gather(*(_container(attributes, by_address) for attributes in found))
    there = {container.address for container in looked}
    missing = [Container(host.name, host.address, "missing", None, None) for host in hosts if host.address not in there]
    return sorted([*looked, *missing], key=lambda container: container.name)


async def _container(attributes: Mapping[str, Any], hosts: Mapping[str, Host]) -> Container:
    networks: Mapping[str, Any] = attributes["NetworkSettings"].get("Networks") or {}
    address = ""
    for network in networks.values():
        # A stopped container has no address, only the one it will ask for.
        wanted = (network.get("IPAMConfig") or {}).get("IPv4Address")
        address = address or str(network.get("IPAddress") or wanted or "")
    state = attributes["State"]
    running = bool(state.get("Running"))
    ssh: bool | None = None
    if address in hosts:
        ssh = running and await _ssh_answers(address, hosts[address].port or SSH_PORT)
    return Container(
        name=str(attributes["Name"]).lstrip("/"),
        address=address,
        state=str(state.get("Status", "unknown")),
        up_since=_moment(str(state.get("StartedAt", ""))) if running else None,
        ssh=ssh,
    )


async def _ssh_answers(address: str, port: int) -> bool:
    try:
        await ssh_banner(address, port)
    except CheckFailed:
        return False
    return True


def _moment(text: str) -> datetime | None:
    """Docker's RFC 3339 time, which may have nanoseconds."""
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None


def show_containers(console: Console, found: list[Container]) -> None:
    """The containers as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("name", "address", "state", "up since", "SSH"):
        table.add_column(name, no_wrap=True)
    now = datetime.now(UTC)
    for container in found:
        up = "-"
        if container.up_since is not None:
            ago = duration((now - container.up_since).total_seconds())
            up = f"{container.up_since.astimezone():%Y-%m-%d %H:%M} ({ago})"
        ssh = {
            None: Text("-", "dim"),
            True: Text("answers", STYLES["ok"]),
            False: Text("no answer", STYLES["fail"]),
        }[container.ssh]
        state = Text(container.state, STYLES["ok" if container.state == "running" else "fail"])
        table.add_row(container.name, container.address or "-", state, up, ssh)
    console.print(table)


def exports(project: Project) -> list[str]:
    """Lines for a shell's `eval` that point any OpenAI client at the lab. FrontError if nothing serves there.

    Until the gateway is there (week 3) the address is vLLM's own; plain HTTP needs no CA file.
    """
    inventory = project.inventory(INVENTORY)
    known = load_endpoints(inventory).endpoints
    speaking = [endpoint for endpoint in known if endpoint.kind == "openai"]
    by_name = {endpoint.name: endpoint for endpoint in reversed(speaking)}
    chosen = by_name.get("gateway") or by_name.get("vllm") or next(iter(speaking), None)
    if chosen is None:
        raise FrontError("no endpoint of the lab speaks OpenAI's protocol: run `ai-idp lab up`")
    key = Secrets(inventory).get(chosen.key) if chosen.key else ""
    return [
        f"export AI_IDP_BASE_URL={shlex.quote(chosen.at('/v1'))}",
        f"export AI_IDP_API_KEY={shlex.quote(key)}",
        *([f"export AI_IDP_CA_FILE={shlex.quote(str(ca_path(inventory)))}"] if chosen.url.startswith("https:") else []),
    ]
