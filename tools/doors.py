"""Writes docs/doors.md, the table of doors, from an inventory and the wiring. ``--check`` only compares.

Doors are what a host's firewall admits; who is behind each is asked of Ansible with the wiring itself.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from expressions import evaluated

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "doors.md"
EXPRESSION = "ai_idp_doors | door_table(group_names, ai_idp_admitted, ai_idp_address)"
# Of a platform that has been set up: the edge is there once it has its key.
MADE = {"edge_inference_api_key": "made", "engine_gate_key": "made"}
WORDS = {
    "network": "the platform's network",
    "gpu_servers": "GPU servers",
    "edge": "the edge",
    "controllers": "machines in `ai_idp_controllers`",
    "borrower": "the GPU server that borrows memory",
}

Item = dict[str, Any]


def host_doors(inventory: Path) -> dict[str, list[Item]]:
    """Ask Ansible for the doors of each host of an inventory.

    Args:
        inventory: the inventory's folder.

    Returns:
        By host, rows as the filter ``door_table`` gives them.
    """
    return evaluated(inventory, EXPRESSION, MADE)


def as_checked_out(inventory: Path, folder: Path) -> Path:
    """Link an inventory without what a platform keeps beside it, so that the page is the same on every machine."""
    for part in ("hosts.yml", "group_vars"):
        (folder / part).symlink_to(inventory / part)
    return folder


def page(hosts: dict[str, list[Item]], name: str) -> str:
    """Write the page.

    Args:
        hosts: doors by host.
        name: the inventory's.
    """
    lines = [
        *("# The table of doors", ""),
        "What a host's firewall admits from other machines. Everything else gets no answer: engines listen on",
        "loopback, and on the network there is their gate. SSH (22, or `host_baseline_firewall_ssh_port`) is open to",
        "`host_baseline_firewall_ssh_sources`, everybody unless the inventory says less, and wants a key.",
        "",
        f"By `inventory/{name}` with every week deployed:",
        "",
        *("| host | address | port | what | who may | what it takes |", "|---|---|---|---|---|---|"),
    ]
    for host, rows in hosts.items():
        for row in sorted(rows, key=lambda row: int(row["port"])):
            who = ", ".join(WORDS.get(word, word) for word in row["who"])
            who += "; only while measuring" if row["measured"] else ""
            cells = [host, row["address"], str(row["port"]), row["name"], who, row["wants"]]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "All are TCP. What listens for a measurement opens its door for who measures and shuts it when it ends,",
        "however it ends; `nft list set inet ai_idp measuring` shows who is admitted now.",
        "",
        "`ai_idp_controllers` is empty unless the inventory names machines there: `ai-idp doctor` asks engines one by",
        "one only from these, and else through the gateway. A host that Ansible calls by a name is admitted once its",
        "facts have told its address.",
        "",
        "Rows come from `playbooks/group_vars/all/engines.yml` and `ai_idp_doors` in `inventory/wiring.yml`;",
        "`tests/integration/test_3_doors.py` holds them against what listens and against scans from other machines.",
        "",
        "Made by `make docs`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Write or compare the page; return 1 where it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, and exit 1 where the page is out of date")
    parser.add_argument("--inventory", default="production")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hosts = host_doors(as_checked_out(ROOT / "inventory" / options.inventory, Path(folder)))
    text = page(hosts, options.inventory)
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{'out of date' if options.check else 'written'}: {PAGE.relative_to(ROOT)}")
    if options.check:
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
