"""Containers that an edge grows by: started for the bench and removed by it, whatever happens."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench import runs

SIZES = (1, 4, 16)
CONTAINER = "ai-idp-lab-"
NAME = "bench-"
# Above the lab's own hosts and those that roles are tested on.
FIRST_ADDRESS = 140
UP = Path(__file__).resolve().parent / "hosts_up.yml"
PLAYBOOK = Path(__file__).resolve().parent / "edge_hosts.yml"


def hosts(count: int) -> list[dict[str, str]]:
    """Names and addresses of that many light hosts, as lab/tasks/hosts.yml takes them."""
    return [{"name": f"{NAME}{number + 1}", "address": f"10.77.0.{FIRST_ADDRESS + number}"} for number in range(count)]


def grown(inventory: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The lab's inventory with another edge: that many light hosts, and none of its own."""
    groups = dict(inventory["all"]["children"])
    groups["edge"] = {"hosts": {host["name"]: {"ansible_host": host["address"]} for host in hosts(count)}}
    return {"all": {"children": groups}}


def write_inventories(root: Path, folder: Path, sizes: tuple[int, ...]) -> dict[int, Path]:
    """An inventory for each size. All have the lab's variables, and share one folder of keys.

    Args:
        root: The tree.
        folder: Where they are written.
        sizes: Numbers of light hosts.
    """
    state = folder / "state"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = state / "id_ed25519"
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    key.write_bytes((root / "inventory/lab/state/id_ed25519").read_bytes())
    lab = yaml.safe_load((root / "inventory/lab/hosts.yml").read_text(encoding="utf-8"))
    variables = {path.name: path for path in sorted((root / "inventory/lab/group_vars").iterdir()) if path.is_file()}
    found = {}
    for size in sizes:
        found[size] = folder / f"edge-{size}"
        everybody = found[size] / "group_vars/all"
        everybody.mkdir(parents=True, exist_ok=True)
        # What holds for every inventory lies beside the weeks' playbooks, where this one's can't see it.
        links = {everybody / "lab": root / "inventory/lab/group_vars/all"}
        links |= {everybody / "playbooks": root / "playbooks/group_vars/all", found[size] / "state": state}
        links |= {found[size] / "group_vars" / name: path for name, path in variables.items()}
        for link, target in links.items():
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        text = yaml.safe_dump(grown(lab, size), sort_keys=False)
        (found[size] / "hosts.yml").write_text(text, encoding="utf-8")
    return found


@contextmanager
def started(
    count: int, *, root: Path, known_hosts: Path, program: Path, env: Mapping[str, str], log: Path
) -> Iterator[None]:
    """Light hosts for as long as the block lasts; what a bench that was killed left is removed first.

    Args:
        count: How many.
        root: The tree whose lab they join.
        known_hosts: The file for their host keys.
        program: ansible-playbook.
        env: Its environment.
        log: The file for its output.

    Raises:
        RunFailedError: They can't be started.
    """
    remove()
    variables = {"lab_root": str(root), "lab_known_hosts": str(known_hosts), "lab_hosts": hosts(count)}
    try:
        runs.run(
            [str(program), "-i", "inventory/lab", "-e", json.dumps(variables), str(UP)], cwd=root, env=env, log=log
        )
        yield
    finally:
        remove()


def remove() -> None:
    """Removes every light host and its volume.

    Raises:
        RunFailedError: Docker can't be asked, or does not do it.
    """
    ours = f"name=^{CONTAINER}{NAME}[0-9]+"
    if containers := _docker("ps", "--all", "--quiet", "--filter", ours):
        _docker("rm", "--force", "--volumes", *containers)
    if volumes := _docker("volume", "ls", "--quiet", "--filter", ours):
        _docker("volume", "rm", *volumes)


def _docker(*arguments: str) -> list[str]:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise runs.RunFailedError(f"docker can't be run: {error.strerror}") from error
    if done.returncode != 0:
        raise runs.RunFailedError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.split()
