"""Where the front finds its project, and what it says when it doesn't."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ai_idp.cli import app
from ai_idp.errors import FrontError
from ai_idp.project import Project, find_project


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for folder in ("playbooks", "inventory/lab", "inventory/production", "inventory/notes"):
        (root / folder).mkdir(parents=True)
    (root / "ansible.cfg").write_text("[defaults]\n")
    (root / "inventory/lab/hosts.yml").write_text(
        "all:\n"
        "  vars: {ansible_port: 2222}\n"
        "  children:\n"
        "    gpu_servers: {hosts: {big: {ansible_host: 10.77.0.11}}}\n"
        "    edge: {hosts: {small: {ansible_connection: local}}}\n"
    )
    (root / "inventory/production/hosts.yml").write_text("all: {hosts: }\n")
    for name in ("week2", "site"):
        (root / f"playbooks/{name}.yml").write_text("---\n- hosts: all\n")
    return root


def test_found_upwards_from_the_current_folder(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AI_IDP_HOME", raising=False)
    assert find_project(checkout / "inventory" / "lab").root == checkout.resolve()


def test_found_beside_the_package_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AI_IDP_HOME", raising=False)
    root = find_project(tmp_path).root
    assert (root / "src" / "ai_idp").is_dir()


def test_home_variable_wins_over_the_current_folder(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_IDP_HOME", str(checkout))
    assert find_project().root == checkout.resolve()


def test_home_variable_that_is_no_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_IDP_HOME", str(tmp_path))
    with pytest.raises(FrontError, match="AI_IDP_HOME"):
        find_project()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "week9"], "no playbook 'week9' in playbooks/; there are: site, week2"),
        (["run", "../../etc/passwd"], "there are: site, week2"),
        (["run", "week2", "--inventory", "moon"], "no inventory 'moon' in inventory/; there are: lab, production"),
        (["doctor", "--json", "--inventory", "moon"], "there are: lab, production"),
        (["run", "week2", "-e", "nonsense"], "-e takes KEY=VALUE"),
        (["run", "week2", "-e", "@nowhere.yml"], "there is no file 'nowhere.yml'"),
        (["lab", "up"], "no playbook 'lab_up'"),
        (["lab", "down"], "no playbook 'lab_down'"),
    ],
)
def test_bad_input_is_one_clear_line(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("AI_IDP_HOME", str(checkout))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_names_may_carry_their_suffix(checkout: Path) -> None:
    assert Project(checkout).playbook("week2.yml") == checkout / "playbooks" / "week2.yml"


def test_hosts_are_read_by_ansible_itself(checkout: Path) -> None:
    hosts = {host.name: host for host in Project(checkout).hosts("lab")}
    assert hosts["big"].address == "10.77.0.11"
    assert hosts["big"].port == 2222
    assert hosts["big"].connection == "ssh"
    assert hosts["big"].groups == ("gpu_servers",)
    assert hosts["small"].address == "small"
    assert hosts["small"].connection == "local"


def test_broken_inventory_is_one_clear_error(checkout: Path) -> None:
    script = checkout / "inventory/lab/hosts.yml"
    script.write_text("all: [\n")
    # Ansible itself only warns about a source that it can't read.
    assert Project(checkout).hosts("lab") == []
