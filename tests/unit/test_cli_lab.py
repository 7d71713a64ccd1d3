"""`ai-idp lab`: its playbooks are run as promised, and its containers are told as they are."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ai_idp.cli import app

PLAYBOOK = """---
- name: {name}
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: It speaks
      ansible.builtin.debug:
        msg: >-
          {name} install={{{{ lab_install | default('unset') }}}}
          images={{{{ lab_remove_images | default('unset') }}}}
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    (root / "playbooks").mkdir(parents=True)
    (root / "inventory" / "lab").mkdir(parents=True)
    (root / "ansible.cfg").write_text("[defaults]\nretry_files_enabled = false\n")
    (root / "inventory" / "lab" / "hosts.yml").write_text(
        "all: {hosts: {big: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n"
    )
    for name in ("lab_up", "lab_down", "site"):
        (root / "playbooks" / f"{name}.yml").write_text(PLAYBOOK.format(name=name))
    monkeypatch.setenv("AI_IDP_HOME", str(root))
    monkeypatch.delenv("LAB_INSTALL", raising=False)
    return root


def test_up_runs_hosts_then_site_then_the_doctor(checkout: Path) -> None:
    result = CliRunner().invoke(app, ["lab", "up"])
    # Nothing was deployed, and the doctor says so.
    assert result.exit_code == 1
    places = [result.stdout.index(text) for text in ("lab_up install=unset", "site install=unset", "endpoints.json")]
    assert places == sorted(places)
    assert "eval" not in result.stdout


def test_hosts_only(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_INSTALL", "0")
    result = CliRunner().invoke(app, ["lab", "up", "--hosts-only"])
    assert result.exit_code == 0, result.output
    assert "lab_up install=false" in result.stdout
    assert "site" not in result.stdout.replace("lab_up on", "")


@pytest.mark.parametrize(("arguments", "images"), [([], "unset"), (["--all"], "true")])
def test_down(checkout: Path, arguments: list[str], images: str) -> None:
    result = CliRunner().invoke(app, ["lab", "down", *arguments])
    assert result.exit_code == 0, result.output
    assert f"images={images}" in result.stdout


def container(name: str, address: str, *, running: bool = True) -> SimpleNamespace:
    began = datetime.now(UTC) - timedelta(minutes=5)
    attributes: dict[str, Any] = {
        "Name": f"/{name}",
        "State": {
            "Status": "running" if running else "exited",
            "Running": running,
            "StartedAt": began.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
        },
        "NetworkSettings": {
            "Networks": {
                "ai-idp-lab": {
                    "IPAddress": address if running else "",
                    "IPAMConfig": {"IPv4Address": address},
                }
            }
        },
    }
    return SimpleNamespace(attrs=attributes)


def show(monkeypatch: pytest.MonkeyPatch, *found: SimpleNamespace) -> Any:
    asked: list[dict[str, Any]] = []

    def listed(**arguments: Any) -> list[SimpleNamespace]:
        asked.append(arguments)
        return list(found)

    client = SimpleNamespace(containers=SimpleNamespace(list=listed), close=lambda: None)
    monkeypatch.setattr("docker.from_env", lambda **_: client)
    result = CliRunner().invoke(app, ["lab", "status"])
    assert asked[0]["filters"] == {"label": "ai-idp.lab"}
    assert asked[0]["all"] is True
    return result


def test_status_of_a_lab_that_is_up(checkout: Path, ssh_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = checkout / "inventory" / "lab" / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("ansible_port: 1", f"ansible_port: {ssh_port}"))
    result = show(monkeypatch, container("big", "127.0.0.1"), container("registry", "10.77.0.5"))
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["big"][1:3] == ["127.0.0.1", "running"]
    assert rows["big"][-1] == "answers"
    assert re.search(r"\(5 min 0\d s\)", result.stdout)
    assert rows["registry"][-1] == "-"


def test_status_of_a_lab_with_a_dead_host(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = show(monkeypatch, container("big", "127.0.0.1", running=False))
    assert result.exit_code == 1
    assert "exited" in result.stdout
    assert "no answer" in result.stdout


def test_status_of_a_lab_with_a_host_missing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = show(monkeypatch, container("registry", "10.77.0.5"))
    assert result.exit_code == 1
    assert "missing" in result.stdout


def test_status_without_a_lab(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = show(monkeypatch)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "the lab is not running: ai-idp lab up" in result.stderr


def test_status_without_docker(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    result = CliRunner().invoke(app, ["lab", "status"])
    assert result.exit_code == 2
    assert "Docker does not answer" in result.stderr
    assert len(result.stderr.splitlines()) == 1
