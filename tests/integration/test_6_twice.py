"""What a second run does, and what a check on bare hosts does."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from .conftest import SharedRuns, run_playbook
from .suite import FULL, ROOT, rotation

# Roles that others include, or that no week deploys, are no step of the site.
BESIDE = ("backup.yml", "restore.yml")
STEPS = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").rglob("*.yml") if path.name not in BESIDE
)
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if f"tags: [{path.name}]" in STEPS)
LIMITS = [
    f"{week} {host}"
    for week in ("week1", "week2", "week3", "week4", "week5", "site")
    # Hosts, and a group of them.
    for host in ("schlimers-server", "xps15", "jetson", "gpu_servers", "gateways", "edge")
]
OF_GROUPS = {"gpu_servers": "schlimers-server", "gateways": "xps15", "edge": "jetson"}


def test_a_second_run_changes_nothing(shared: SharedRuns) -> None:
    """After what was measured, a host and a client more and less, and services that were killed and came back.

    Text is true for who does not look at what it says, so a boolean that is used unread would show as a change.
    """
    run = shared.no_change
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}, run.output


def test_check_and_diff_of_what_runs_changes_nothing(shared: SharedRuns) -> None:
    run = shared.check
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}, run.output


@pytest.mark.parametrize("role", rotation("tags", ROLES, 3))
def test_a_tag_runs_its_role_alone(role: str) -> None:
    run = run_playbook("playbooks/site.yml", "--tags", role)
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}, run.output
    ran = set(re.findall(r"^TASK \[(\w+) : ", run.output, re.M))
    assert role in ran
    assert ran <= {role, "monitoring_daemon"}


@pytest.mark.parametrize("case", rotation("limits", LIMITS, 2))
def test_a_week_runs_on_one_host_or_group_alone(case: str) -> None:
    week, host = case.split()
    run = run_playbook(f"playbooks/{week}.yml", "--check", "--limit", host)
    assert run.code == 0, run.output
    assert set(run.changed) == {OF_GROUPS.get(host, host)}, run.output


@pytest.fixture
def named_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The lab's inventory without an address: its hosts have names that SSH's settings on this machine alone know."""
    lab = ROOT / "inventory" / "lab"
    folder = tmp_path / "named"
    folder.mkdir()
    settings = folder / "ssh_config"
    # Connections that other tests have left open do not tell one from the other. Their path is to be short.
    connections = TemporaryDirectory(prefix="named-")
    shared = f"-F {settings} -o IdentitiesOnly=yes -o ControlPath={connections.name}/%C"
    hosts = yaml.safe_load((lab / "hosts.yml").read_text(encoding="utf-8"))
    aliases = ""
    for group in hosts["all"]["children"].values():
        for name, variables in group["hosts"].items():
            aliases += f"Host {name}\n  HostName {variables.pop('ansible_host')}\n"
            variables |= {"ansible_ssh_common_args": shared, "ai_idp_lock_dir": str(ROOT / "locks" / "lab")}
    settings.write_text(f"{aliases}Host *\n  UserKnownHostsFile {lab}/state/known_hosts\n", encoding="utf-8")
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False), encoding="utf-8")
    (folder / "group_vars" / "all").mkdir(parents=True)
    for path in (lab / "group_vars").rglob("*.yml"):
        (folder / "group_vars" / path.relative_to(lab / "group_vars")).symlink_to(path)
    for name in ("state", "secrets.yml"):
        (folder / name).symlink_to(lab / name)
    # What is known of hosts that had addresses is of no use to a new inventory.
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN_CONNECTION", str(tmp_path / "facts"))
    with connections:
        yield folder


@pytest.mark.skipif(not FULL, reason="one more run of every week: the full profile makes it")
def test_hosts_that_have_names_alone_are_the_same_platform(named_inventory: Path) -> None:
    run = run_playbook("playbooks/site.yml", inventory=named_inventory)
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}, run.output


@pytest.fixture
def bare_inventory(tmp_path: Path) -> Path:
    """The lab's inventory with a bare host as its only GPU server."""
    folder = tmp_path / "bare"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "hosts.yml").write_text("gpu_servers: {hosts: {jetson: {ansible_host: 10.77.0.13}}}\n")
    for name in ("all", "gpu_servers.yml"):
        (folder / "group_vars" / name).symlink_to(ROOT / "inventory" / "lab" / "group_vars" / name)
    (folder / "state").symlink_to(ROOT / "inventory" / "lab" / "state")
    return folder


def test_check_and_diff_on_a_bare_host_do_not_fail(bare_inventory: Path) -> None:
    run = run_playbook("playbooks/week2.yml", "--check", "--diff", inventory=bare_inventory)
    assert run.code == 0, run.output
    assert run.changed["jetson"] > 5
