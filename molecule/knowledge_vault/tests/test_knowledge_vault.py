"""Commits on a real host: seen at once, each a note, whoever is away and however full the disk is."""

import json
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests import obsidian  # noqa: E402

VAULT = "/home/ubuntu/notes/vault"
UNITS = ("ai-idp-vault.service", "ai-idp-vault-events.service")


def health(host) -> dict:
    return json.loads(host.check_output("curl --silent --fail http://127.0.0.1:5690/health"))


def wait_for(host, what: Callable[[dict], bool], seconds: float = 30) -> float:
    """How long it took until the service said this."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        told = health(host)
        if what(told):
            return time.monotonic() - start
        time.sleep(0.2)
    journal = host.check_output("sudo journalctl --no-pager --lines=40 -u 'ai-idp-vault*'")
    raise AssertionError(f"{told}\n{journal}")


def metrics(host) -> str:
    return host.check_output("curl --silent --fail http://127.0.0.1:5690/metrics")


def total(told: dict) -> int:
    return sum(told["notes"].values())


def commit(host, message: str, folder: str = "/home/ubuntu/project", times: int = 1) -> None:
    host.check_output(
        f"sudo -u ubuntu sh -ec 'cd {folder}; for i in $(seq {times}); do echo $i >> file; git add file;"
        ' printf %%s "$0" | git commit --quiet --file -; done\' %s',
        message,
    )


def vault(host, tmp_path: Path) -> dict[str, dict]:
    """The notes of commits, after the whole vault was checked."""
    host.check_output(f"sudo tar --exclude .git -cf /var/tmp/vault.tar -C {VAULT} .")
    data = host.file("/var/tmp/vault.tar").content
    (tmp_path / "vault.tar").write_bytes(data)
    with tarfile.open(tmp_path / "vault.tar") as archive:
        archive.extractall(tmp_path / "vault", filter="data")
    found = obsidian.check_vault(tmp_path / "vault")
    return {path: one for path, one in found.items() if path.startswith("Commits/")}


@pytest.fixture(autouse=True)
def _everybody_there(host):
    yield
    host.check_output("sudo rm -rf /var/tmp/stand-in/*-away /var/tmp/stand-in/*-slow /home/ubuntu/notes/filler")


def test_a_commit_is_a_completed_note_within_seconds(host, tmp_path):
    before = total(health(host))
    commit(host, "Fix the thing\n\n---\ntags: [evil]\n---\n[[x]] \N{ROCKET}")
    took = wait_for(host, lambda told: total(told) == before + 1 and not told["notes"]["pending"])
    found = vault(host, tmp_path)
    assert "From before" not in {one["title"] for one in found.values()}
    note = [
        one
        for one in found.values()
        if one["commit"] == host.check_output("sudo -u ubuntu git -C /home/ubuntu/project rev-parse HEAD")
    ]
    assert note[0]["title"] == "Stand-in title"
    assert note[0]["tags"] == ["type/feature", "type/fix"]
    assert note[0]["url"].startswith("https://git.example/project/commit/")
    assert took < 12, "the sender did not see it at once, only after its interval"


def test_fifty_commits_pushed_at_once_while_n8n_is_away(host, tmp_path):
    before = total(health(host))
    host.check_output("mkdir /var/tmp/stand-in/n8n-away")
    host.check_output("sudo -u ubuntu git clone --quiet /home/ubuntu/shared.git /home/ubuntu/clone")
    host.check_output("sudo -u ubuntu git -C /home/ubuntu/clone config user.email b@example.org")
    host.check_output("sudo -u ubuntu git -C /home/ubuntu/clone config user.name Bob")
    commit(host, "One of fifty", "/home/ubuntu/clone", 50)
    host.check_output("sudo -u ubuntu git -C /home/ubuntu/clone push --quiet")
    wait_for(host, lambda told: told["spool"] == 50, 20)
    assert total(health(host)) == before
    host.check_output("rmdir /var/tmp/stand-in/n8n-away")
    wait_for(host, lambda told: total(told) == before + 50 and not told["notes"]["pending"] and not told["spool"], 40)
    found = [one["commit"] for one in vault(host, tmp_path).values()]
    pushed = host.check_output("sudo -u ubuntu git -C /home/ubuntu/clone rev-list HEAD~50..HEAD").split()
    assert sorted(one for one in found if one in pushed) == sorted(pushed)
    assert len(found) == len(set(found))


def test_without_the_model_notes_are_plain_and_completed_later(host, tmp_path):
    before = total(health(host))
    host.check_output("mkdir /var/tmp/stand-in/model-away")
    commit(host, "Plain for now", times=3)
    wait_for(host, lambda told: total(told) == before + 3 and told["notes"]["pending"] == 3)
    plain = [one for one in vault(host, tmp_path).values() if one["ai"] == "pending"]
    assert [one["tags"] for one in plain] == [[], [], []]
    host.check_output("rmdir /var/tmp/stand-in/model-away")
    wait_for(host, lambda told: not told["notes"]["pending"], 60)


def test_a_note_that_the_model_is_too_slow_for_keeps_no_other_waiting(host, tmp_path):
    before = health(host)["notes"]
    host.check_output("mkdir /var/tmp/stand-in/model-slow")
    commit(host, "Something hard")
    wait_for(host, lambda told: told["notes"]["pending"] == 1)
    commit(host, "Something easy", times=3)
    wait_for(host, lambda told: told["notes"]["done"] == before["done"] + 3)
    wait_for(host, lambda told: 'outcome="slow"} 1' in metrics(host))
    assert [one["title"] for one in vault(host, tmp_path).values() if one["ai"] == "pending"] == ["Something hard"]
    host.check_output("rmdir /var/tmp/stand-in/model-slow")
    # Nobody wants to wait a minute here.
    host.check_output("sudo systemctl restart ai-idp-vault.service")
    host.check_output(
        "curl --silent --fail --retry 30 --retry-delay 1 --retry-connrefused http://127.0.0.1:5690/health"
    )
    wait_for(host, lambda told: not told["notes"]["pending"], 60)


def test_a_repository_that_can_not_be_read_is_in_the_metrics_and_keeps_no_other_waiting(host):
    wait_for(host, lambda told: 'readable{repository="far"} 0' in metrics(host), 30)
    told = metrics(host)
    row = 'ai_idp_vault_repository_readable{{repository="{}"}} {}'
    states = [row.format(name, int(name != "gone")) for name in ("project", "shared", "gone")]
    assert [state in told for state in states] == [True] * 3
    assert "ai_idp_vault_rejected_events 0" in told


def test_a_commit_without_a_branch_is_a_note_too(host, tmp_path):
    before = total(health(host))
    host.check_output("sudo -u ubuntu git -C /home/ubuntu/project checkout --quiet --detach")
    commit(host, "Without a branch")
    wait_for(host, lambda told: total(told) == before + 1 and not told["notes"]["pending"])
    host.check_output("sudo -u ubuntu git -C /home/ubuntu/project checkout --quiet main")
    assert [one["branch"] for one in vault(host, tmp_path).values()].count("HEAD") == 1


def test_a_project_that_is_pushed_at_once_is_all_told(host, tmp_path):
    before = total(health(host))
    commit(host, "One of many", times=120)
    wait_for(host, lambda told: total(told) == before + 120 and not told["spool"], 90)
    made = host.check_output("sudo -u ubuntu git -C /home/ubuntu/project rev-list HEAD~120..HEAD").split()
    found = [one["commit"] for one in vault(host, tmp_path).values()]
    assert sorted(one for one in found if one in made) == sorted(made)
    wait_for(host, lambda told: not told["notes"]["pending"], 90)


def test_a_vault_that_nobody_else_may_read_stays_so(host):
    assert host.file(VAULT).mode == 0o700


def test_on_a_full_disk_nothing_is_half_written_and_nothing_is_lost(host, tmp_path):
    before = total(health(host))
    host.run("sudo dd if=/dev/zero of=/home/ubuntu/notes/filler bs=1k status=none")
    commit(host, "No room", times=5)
    wait_for(host, lambda told: told["spool"] == 5)
    time.sleep(6)
    assert health(host)["spool"] == 5
    vault(host, tmp_path)
    assert host.check_output(f"sudo find {VAULT} -name '.ai-idp-*'") == ""
    assert host.check_output(f"sudo find {VAULT} -name '*.md' -empty") == ""
    host.check_output("sudo rm /home/ubuntu/notes/filler")
    wait_for(host, lambda told: total(told) == before + 5 and not told["spool"] and not told["notes"]["pending"], 60)


def test_the_vaults_git_has_the_notes(host):
    for _ in range(60):
        if host.check_output(f"sudo -u ubuntu git -C {VAULT} status --porcelain") == "":
            break
        time.sleep(0.5)
    else:
        raise AssertionError(host.check_output(f"sudo -u ubuntu git -C {VAULT} status --porcelain"))
    assert host.check_output(f"sudo -u ubuntu git -C {VAULT} log -1 --format=%an") == "AI-IDP"


def test_days_are_summed_up_and_say_that_mlflow_is_away(host, tmp_path):
    day = host.check_output("TZ=Europe/Berlin date +%F")
    token = "not-a-secret-of-the-role-test-token"
    told = host.check_output(
        f"curl --silent --fail -X POST -H 'Authorization: Bearer {token}' -d '{{\"day\": \"{day}\"}}'"
        " http://127.0.0.1:5690/daily"
    )
    assert json.loads(told)["days"] == [day]
    # The work that came with the answer went with it; after a while it is handed out again.
    for _ in range(80):
        text = host.check_output(f"sudo cat {VAULT}/Daily/{day}.md")
        if "Stand-in summary." in text:
            break
        time.sleep(0.5)
    assert "Stand-in summary." in text
    assert "MLflow was not asked with success" in text
    vault(host, tmp_path)


def test_nobody_else_writes_notes(host):
    for path in ("events", "work", "answers", "daily"):
        code = host.check_output(
            f"curl --silent --output /dev/null --write-out %{{http_code}} -d '{{}}' http://127.0.0.1:5690/{path}"
        )
        assert code == "401"
    assert host.socket("tcp://127.0.0.1:5690").is_listening
    assert not host.socket("tcp://0.0.0.0:5690").is_listening


def test_secrets_are_seen_by_nobody(host):
    secrets = ("not-a-secret-of-the-role-test-hmac", "not-a-secret-of-the-role-test-token", "word")
    file = host.file("/etc/ai-idp/knowledge_vault.env")
    assert (file.user, file.mode) == ("root", 0o600)
    shown = host.check_output(
        "cat /etc/ai-idp/knowledge_vault.json; cat /etc/systemd/system/ai-idp-vault*; ps -eo args"
    )
    journal = host.check_output("sudo journalctl --no-pager -u 'ai-idp-vault*'")
    for secret in secrets:
        assert secret not in journal
    assert not any(secret in shown for secret in secrets[:2])
    pid = host.check_output("systemctl show -P MainPID ai-idp-vault.service")
    environment = host.check_output(f"sudo cat /proc/{pid}/environ | tr '\\0' '\\n'")
    assert 'KNOWLEDGE_VAULT_MLFLOW_PASSWORD=pass "word"' in environment


@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_tight(host, unit):
    said = host.check_output(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
    assert float(said.split(":")[1].split()[0]) <= 3.0, said


def test_the_units_come_back_after_a_boot_and_none_has_failed(host):
    for unit in UNITS:
        assert host.service(unit).is_enabled
        assert host.service(unit).is_running
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_the_service_survives_being_killed(host):
    before = health(host)
    host.check_output("sudo systemctl kill --signal=KILL ai-idp-vault.service")
    for _ in range(60):
        time.sleep(0.2)
        if host.run("curl --silent --fail http://127.0.0.1:5690/health").rc == 0:
            break
    assert total(health(host)) == total(before)
