"""What a second run does, and what a check on bare hosts does."""

from pathlib import Path

import pytest

from .conftest import ROOT, run_playbook


def test_a_second_run_changes_nothing() -> None:
    # The front page takes over what week 1 has measured meanwhile.
    assert run_playbook("playbooks/week3.yml").code == 0
    run = run_playbook("playbooks/site.yml")
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}, run.output


def test_check_and_diff_of_what_runs_changes_nothing() -> None:
    run = run_playbook("playbooks/site.yml", "--check", "--diff")
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
