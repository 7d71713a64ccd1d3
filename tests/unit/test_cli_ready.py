"""`ai-idp ready` with the real playbook and module, on this machine and on a host that nobody reaches."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from ai_idp import ready
from ai_idp.cli import app

ROOT = Path(__file__).parent.parent.parent
TOKEN = "hf_never-shown"
PARTS = ("ansible.cfg", "playbooks", "library", "module_utils", "roles", "filter_plugins", "action_plugins")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This project with an inventory of its own."""
    root = tmp_path / "checkout"
    folder = root / "inventory" / "lab"
    (folder / "group_vars" / "all").mkdir(parents=True)
    for part in PARTS:
        (root / part).symlink_to(ROOT / part)
    (folder / "group_vars" / "all" / "wiring.yml").symlink_to(ROOT / "inventory" / "wiring.yml")
    (folder / "secrets.yml").write_text(f"---\nhugging_face_token: {TOKEN}\n")
    (folder / "secrets.yml").chmod(0o600)
    monkeypatch.setenv("AI_IDP_HOME", str(root))
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    return root


def write_hosts(root: Path, **more: Any) -> None:
    here = {
        "ansible_connection": "local",
        "ansible_host": "127.0.0.1",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "ai_idp_dir": str(root / "home"),
        "model_store_keep_free_bytes": "1MB",
        **more,
    }
    lost = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "somebody"}
    odd = {**here, "ai_idp_expected_hardware": {"memory_gib": 0}}
    children: dict[str, Any] = {"gpu_servers": {"hosts": {"here": here}}}
    if more:
        children["edge"] = {"hosts": {"lost": lost, "odd": odd}}
    variables = {"ai_idp_environment": "test"}
    path = root / "inventory" / "lab" / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": variables, "children": children}}))


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ready", *arguments])


def test_everything_needed_is_there(checkout: Path) -> None:
    write_hosts(checkout)
    result = ask("--json")
    report = json.loads(result.stdout)
    assert set(report) == {"ok", "checks"}
    rows = {(row["name"], row["host"]): row for row in report["checks"]}
    assert all(set(row) == {"name", "host", "status", "detail", "remedy", "needed"} for row in rows.values())
    needed = {name: row["status"] for (name, _), row in rows.items() if row["needed"]}
    # This machine may let nobody become root without a password.
    assert {name for name, status in needed.items() if status != "ok"} <= {"sudo"}
    assert report["ok"] is (needed["sudo"] == "ok")
    assert result.exit_code == (0 if report["ok"] else 1)
    assert rows["ssh", "here"]["detail"] == "this machine itself"
    # The models are the role's own defaults; week 2 brings them.
    model = rows["model qwen2.5-7b-awq", "here"]
    assert (model["status"], model["needed"], model["remedy"]) == ("missing", False, "Week 2 downloads it.")
    assert model["detail"] == "to be downloaded, 5.57 GB"
    token = rows["Hugging Face token", "controller"]
    assert (token["status"], token["detail"]) == ("ok", "hugging_face_token in inventory/lab/secrets.yml")
    assert rows["NGC key", "controller"]["status"] == "missing"
    assert TOKEN not in result.output
    # Nothing was made: not on the host, nor beside the inventory.
    assert not (checkout / "home").exists()
    assert not (checkout / "inventory" / "lab" / "state").exists()


def test_what_is_missing_says_what_to_do_and_holds_nobody_up(checkout: Path) -> None:
    gated = {"name": "closed", "format": "gguf", "source": {"repository": "a/b"}, "gated": True}
    write_hosts(
        checkout,
        ai_idp_expected_hardware={"cpu": "MOS 6510"},
        ai_idp_extra_models=[gated],
        model_store_models=["closed"],
    )
    secrets = checkout / "inventory" / "lab" / "secrets.yml"
    # No password is at hand for it.
    secrets.write_text("$ANSIBLE_VAULT;1.1;AES256\n3333\n")
    result = ask("--json")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["ok"] is False
    rows = {(row["name"], row["host"]): row for row in report["checks"]}
    assert rows["cpu", "here"]["status"] == "missing"
    assert "not MOS 6510" in rows["cpu", "here"]["detail"]
    assert rows["memory", "here"]["status"] == "ok"
    lost = rows["ssh", "lost"]
    assert (lost["status"], lost["needed"]) == ("missing", True)
    assert "Connection refused" in lost["detail"]
    assert "ssh-copy-id somebody@127.0.0.1" in lost["remedy"]
    assert [name for name, host in rows if host == "lost"] == ["ssh"]
    assert ("reaches lost", "here") in rows
    # A wrong expectation is a row of that host, too.
    odd = rows["readiness", "odd"]
    assert (odd["status"], odd["needed"]) == ("unknown", True)
    assert "ai_idp_expected_hardware.memory_gib is 0" in odd["detail"]
    token = rows["Hugging Face token", "controller"]
    assert (token["status"], token["needed"]) == ("unknown", True)
    assert "closed is gated" in token["remedy"]
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in token["remedy"]


def test_the_table_tells_what_is_needed_now(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"name": "ups", "host": "here", "status": "missing", "detail": "no NUT server", "remedy": "Connect it."}
    later = {"name": "docker", "host": "here", "status": "missing", "detail": "not installed", "remedy": "Week 2."}
    report = ready.Readiness.model_validate(
        {"ok": False, "checks": [{**row, "needed": True}, {**later, "needed": False}]}
    )
    monkeypatch.setattr(ready, "look", lambda *_: report)
    result = ask()
    assert result.exit_code == 1
    assert "→ needed now: Connect it." in result.stdout
    assert "→ Week 2." in result.stdout
    assert "lab: 1 needed thing is not there: 2 missing" in result.stdout


@pytest.mark.parametrize(
    ("hosts", "said"),
    [("all: {hosts: {}}\n", "names no hosts"), ("all: [\n", "lab could not be asked")],
)
def test_what_can_not_be_asked(checkout: Path, hosts: str, said: str) -> None:
    (checkout / "inventory" / "lab" / "hosts.yml").write_text(hosts)
    result = ask("--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr


def test_no_such_inventory(checkout: Path) -> None:
    write_hosts(checkout)
    result = ask("--inventory", "moon")
    assert result.exit_code == 2
    assert "there are: lab" in result.stderr
