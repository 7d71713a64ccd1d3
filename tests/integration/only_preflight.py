"""A week's plays as far as nothing is changed, on which one host's refusal stops no other.

A week stops all hosts as soon as one is refused (``any_errors_fatal``), so many wrong settings would take as many runs.
Here the plays that a week runs before its first change are taken from the playbook itself, without that keyword: an
inventory that names one machine once for each wrong setting has each of them refused, in one run.
"""

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .suite import DURATIONS

STOPS_ALL = "any_errors_fatal"


@dataclass
class Outcome:
    """What became of one host."""

    refused: bool
    changed: int
    # The results of the tasks that failed there, as text.
    said: str = field(repr=False)


def plays_of(playbook: Path) -> list[dict[str, Any]]:
    """The plays of a playbook, those that it imports among them."""
    plays: list[dict[str, Any]] = []
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")):
        imported = play.get("import_playbook") or play.get("ansible.builtin.import_playbook")
        plays += plays_of(playbook.parent / imported) if imported else [play]
    return plays


def before_the_first_change(plays: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plays up to those that refuse, without what makes one host's refusal that of all.

    Plays further down may stop all hosts for another reason, when much was changed already.

    Raises:
        ValueError: no play refuses for all hosts, so this module has to learn how the week does it now.
    """
    refusing = [place for place, play in enumerate(plays) if play.get(STOPS_ALL)]
    if not refusing:
        raise ValueError(f"no play says {STOPS_ALL}")
    end = refusing[0]
    while end in refusing:
        end += 1
    return [{key: value for key, value in play.items() if key != STOPS_ALL} for play in plays[:end]]


def lay_out(root: Path, folder: Path, playbook: str, inventory: Path, hosts: dict[str, Any]) -> tuple[Path, Path]:
    """A project that is the checkout but for one playbook and the hosts of one inventory.

    Args:
        root: the checkout.
        folder: where the project is made.
        playbook: the playbook's file name.
        inventory: the inventory's folder in the checkout.
        hosts: what ``hosts.yml`` is to hold.

    Returns:
        The playbook and the inventory.
    """
    mine = ("playbooks", "inventory")
    for entry in root.iterdir():
        if entry.name not in mine:
            (folder / entry.name).symlink_to(entry)
    playbooks = folder / "playbooks"
    playbooks.mkdir()
    for entry in (root / "playbooks").iterdir():
        if entry.is_dir():
            (playbooks / entry.name).symlink_to(entry)
    plays = before_the_first_change(plays_of(root / "playbooks" / playbook))
    (playbooks / playbook).write_text(yaml.safe_dump(plays, sort_keys=False, width=1000), encoding="utf-8")
    there = folder / "inventory" / inventory.name
    there.mkdir(parents=True)
    for entry in inventory.iterdir():
        if entry.name != "hosts.yml":
            (there / entry.name).symlink_to(entry)
    (there / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False), encoding="utf-8")
    return playbooks / playbook, there


def outcomes(answer: dict[str, Any]) -> dict[str, Outcome]:
    """What the callback ``ansible.posix.json`` told, by host."""
    said: dict[str, list[str]] = {}
    for play in answer["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                if result.get("failed") or result.get("unreachable"):
                    said.setdefault(host, []).append(json.dumps(result, ensure_ascii=False))
    return {
        host: Outcome(
            refused=stats["failures"] > 0 and stats["unreachable"] == 0,
            changed=stats["changed"],
            said="\n".join(said.get(host, [])),
        )
        for host, stats in answer["stats"].items()
    }


def refuse_all(root: Path, playbook: Path, inventory: Path, environment: dict[str, str]) -> dict[str, Outcome]:
    """Run a playbook that ``lay_out`` made, once, and tell what became of each host.

    Args:
        root: the checkout, whose ``ansible.cfg`` counts.
        playbook: the playbook.
        inventory: the inventory.
        environment: the variables of the environment.
    """
    started = time.monotonic()
    done = subprocess.run(
        # All names are one machine, whose SSH server takes ten sessions of a connection.
        ["ansible-playbook", "-i", str(inventory), "--forks", "8", str(playbook)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
        env={**environment, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
    )
    DURATIONS.add_run(f"{playbook.name}, preflight of every refusal", time.monotonic() - started, done.returncode)
    # Other callbacks print what they have to say around it.
    start = f"\n{done.stdout}".find("\n{\n")
    assert start >= 0, done.stdout + done.stderr
    return outcomes(json.JSONDecoder().raw_decode(done.stdout[start:])[0])
