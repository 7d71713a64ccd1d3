"""The lab as the tests see it: its endpoints, its hosts, and a way to run a playbook against it.

The tests share one lab and some of its runs, so the order of the files counts; README.md beside this says why.
"""

import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra
import yaml
from openai import DefaultHttpxClient, OpenAI
from playwright.sync_api import Browser

from .browser import chromium
from .suite import CHOSEN, COMMIT, DURATIONS, PHASES, PROFILE, ROOT, booleans_as_text

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

    def changed_roles(self, host: str) -> set[str]:
        """The roles that changed something on a host; of a playbook's own task its name."""
        tasks = re.split(r"^(?:TASK|RUNNING HANDLER) \[(.*)\] \*+$", self.output, flags=re.M)
        return {name.split(" : ")[0] for name, said in zip(tasks[1::2], tasks[2::2], strict=True)
                if re.search(rf"^changed: \[{re.escape(host)}\]", said, re.M)}  # fmt: skip


def run_playbook(*arguments: str, inventory: Path = INVENTORY, timeout: int = 900) -> Run:
    """Run a playbook the way a user does.

    Args:
        arguments: arguments of ``ansible-playbook``, the playbook among them.
        inventory: the inventory.
        timeout: seconds.
    """
    started = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    playbook = " ".join(Path(word).name for word in arguments if word.endswith(".yml") or word == "--check")
    DURATIONS.add_run(playbook, time.monotonic() - started, done.returncode)
    return Run(done.returncode, done.stdout + done.stderr)


def extra(**variables: Any) -> list[str]:
    """Extra variables with their types, as ``-e`` takes them."""
    return ["-e", json.dumps(variables)]


@dataclass
class Rotation:
    """A run that replaced the engines' keys, and the keys that it replaced."""

    run: Run
    before: dict[str, str]


class SharedRuns:
    """Runs that more than one test asks about, each made when the first of them does."""

    @cached_property
    def rotation(self) -> Rotation:
        """Week 2 with new keys; on a lab that served replayed GPUs it restores what the inventory says, too."""
        before = read_secrets()
        return Rotation(run_playbook("playbooks/week2.yml", *extra(rotate_keys=True)), before)

    @cached_property
    def no_change(self) -> Run:
        """All weeks on a lab that has everything, with every boolean given as text."""
        return run_playbook("playbooks/site.yml", *self.as_text)

    @cached_property
    def check(self) -> Run:
        """All weeks with ``--check --diff`` on a lab that has everything, with every boolean given as text."""
        return run_playbook("playbooks/site.yml", "--check", "--diff", *self.as_text)

    @property
    def as_text(self) -> list[str]:
        """Arguments that give every boolean as text, as the command line always does."""
        return extra(rotate_keys="false", **booleans_as_text(ROOT, "lab"))

    def restore(self) -> Run:
        """Bring week 2 back to what the inventory says, by the shared run where that was not made yet."""
        return run_playbook("playbooks/week2.yml") if "rotation" in vars(self) else self.rotation.run


@pytest.fixture(scope="session")
def shared() -> SharedRuns:
    """The runs that tests share."""
    return SharedRuns()


def read_secrets() -> dict[str, str]:
    """The lab's keys as they are now."""
    keys: dict[str, str] = yaml.safe_load((INVENTORY / "secrets.yml").read_text(encoding="utf-8"))
    return keys


@pytest.fixture(scope="session")
def endpoints() -> dict[str, dict[str, Any]]:
    """The endpoints of the lab by name."""
    report = json.loads((INVENTORY / "state" / "endpoints.json").read_text(encoding="utf-8"))
    return {endpoint["name"]: endpoint for endpoint in report["endpoints"]}


@pytest.fixture
def secrets() -> dict[str, str]:
    """The lab's keys, read anew for each test: a test may rotate them."""
    return read_secrets()


@pytest.fixture(scope="session")
def trust() -> ssl.SSLContext:
    """The platform's CA, and no other."""
    return ssl.create_default_context(cafile=str(INVENTORY / "state" / "ca.crt"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser that trusts the platform's CA. As long as it is there, no test can run an event loop of its own."""
    with chromium(INVENTORY / "state" / "ca.crt") as started:
        yield started


def engine_client(endpoint: dict[str, Any], key: str, trust: ssl.SSLContext) -> OpenAI:
    """The OpenAI client, pointed at an engine by the gate of its host."""
    transport = DefaultHttpxClient(verify=trust, timeout=120, trust_env=False)
    return OpenAI(base_url=f"{endpoint['url']}/v1", api_key=key, max_retries=0, http_client=transport)


@pytest.fixture
def client(endpoints: dict[str, dict[str, Any]], secrets: dict[str, str], trust: ssl.SSLContext) -> OpenAI:
    """The OpenAI client, pointed at vLLM by the gate of its host."""
    vllm = endpoints["vllm"]
    return engine_client(vllm, secrets[vllm["key"]], trust)


@pytest.fixture
def gates(secrets: dict[str, str], trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client with the key of the gates, which admit this machine (ai_idp_controllers)."""
    headers = {"Authorization": f"Bearer {secrets['engine_gate_key']}"}
    with httpx.Client(headers=headers, verify=trust, timeout=60, trust_env=False) as http:
        yield http


@pytest.fixture(scope="session")
def gpu_server() -> testinfra.host.Host:
    """The GPU server of the lab, over SSH as root."""
    return lab_host("10.77.0.11")


@pytest.fixture(scope="session")
def gateway() -> testinfra.host.Host:
    """The gateway of the lab, over SSH as root."""
    return lab_host("10.77.0.12")


def lab_host(address: str, state: Path = INVENTORY / "state") -> testinfra.host.Host:
    """A host of the lab, or of another whose keys lie elsewhere, over SSH as root."""
    return testinfra.get_host(
        f"ssh://ubuntu@{address}",
        ssh_identity_file=str(state / "id_ed25519"),
        ssh_extra_args=f"-o UserKnownHostsFile={state / 'known_hosts'}",
        sudo=True,
    )


@pytest.fixture(scope="session")
def jetson() -> testinfra.host.Host:
    """The edge of the lab, over SSH as root."""
    return lab_host("10.77.0.13")


def pytest_report_header() -> list[str]:
    """Which profile runs, and which cases it takes of those that take turns."""
    return [f"profile: {PROFILE}, commit {COMMIT[:12] or 'unknown'}"]


def pytest_report_collectionfinish() -> list[str]:
    return [f"{what}: {chosen[0]}: {'; '.join(chosen[1:])}" for what, chosen in CHOSEN.items()]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when in PHASES:
        DURATIONS.add_phase(report.nodeid, report.when, report.duration, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the durations where CI keeps what a run left."""
    if DURATIONS.tests:
        path = ROOT / "artifacts" / "integration-durations.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(DURATIONS.report(), indent=1) + "\n", encoding="utf-8")
