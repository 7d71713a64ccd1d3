"""The lab as the tests see it: its endpoints, its hosts, and a way to run a playbook against it."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from openai import OpenAI

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventory" / "lab"
STACK = "/home/ubuntu/ai-idp/inference"


@dataclass
class Run:
    """What a playbook run printed, and how it ended."""

    code: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        """Number of changed tasks by host, from the recap."""
        return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.M)}

    def changed_tasks(self, host: str) -> set[str]:
        """Names of the tasks that changed something on a host."""
        tasks = re.split(r"^TASK \[(.*)\] \*+$", self.output, flags=re.M)
        return {name for name, said in zip(tasks[1::2], tasks[2::2], strict=True)
                if re.search(rf"^changed: \[{re.escape(host)}\]", said, re.M)}  # fmt: skip


def run_playbook(*arguments: str, inventory: Path = INVENTORY, timeout: int = 900) -> Run:
    """Run a playbook the way a user does.

    Args:
        arguments: arguments of ``ansible-playbook``, the playbook among them.
        inventory: the inventory.
        timeout: seconds.
    """
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    return Run(done.returncode, done.stdout + done.stderr)


def extra(**variables: Any) -> list[str]:
    """Extra variables with their types, as ``-e`` takes them."""
    return ["-e", json.dumps(variables)]


@pytest.fixture(scope="session")
def endpoints() -> dict[str, dict[str, Any]]:
    """The endpoints of the lab by name."""
    report = json.loads((INVENTORY / "state" / "endpoints.json").read_text(encoding="utf-8"))
    return {endpoint["name"]: endpoint for endpoint in report["endpoints"]}


@pytest.fixture
def secrets() -> dict[str, str]:
    """The lab's keys, read anew for each test: a test may rotate them."""
    return yaml.safe_load((INVENTORY / "secrets.yml").read_text(encoding="utf-8"))


@pytest.fixture
def client(endpoints: dict[str, dict[str, Any]], secrets: dict[str, str]) -> OpenAI:
    """The OpenAI client, pointed at vLLM."""
    vllm = endpoints["vllm"]
    return OpenAI(base_url=f"{vllm['url']}/v1", api_key=secrets[vllm["key"]], max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def gpu_server() -> testinfra.host.Host:
    """The GPU server of the lab, over SSH as root."""
    return lab_host("10.77.0.11")


@pytest.fixture(scope="session")
def gateway() -> testinfra.host.Host:
    """The gateway of the lab, over SSH as root."""
    return lab_host("10.77.0.12")


def lab_host(address: str) -> testinfra.host.Host:
    """A host of the lab, over SSH as root."""
    return testinfra.get_host(
        f"ssh://ubuntu@{address}",
        ssh_identity_file=str(INVENTORY / "state" / "id_ed25519"),
        ssh_extra_args=f"-o UserKnownHostsFile={INVENTORY / 'state' / 'known_hosts'}",
        sudo=True,
    )
