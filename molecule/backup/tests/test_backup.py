"""A copy of one moment, made while somebody writes, and told to Prometheus."""

import json
import time

import pytest

PASSWORD = "not-a-secret-of-the-role-test"
RESTIC = "sudo restic --no-cache --password-file /srv/password --repo /srv/elsewhere/ai-idp"


@pytest.fixture(autouse=True)
def _password(host):
    host.run(f"echo {PASSWORD} | sudo tee /srv/password")
    yield
    host.run("sudo rm /srv/password")


def test_the_copy_holds_every_folder_as_it_was_at_one_moment(host):
    [snapshot] = json.loads(host.check_output(f"{RESTIC} snapshots --json"))
    assert snapshot["paths"] == ["/srv/data/keys", "/srv/data/mounted", "/srv/data/notes", "/srv/disk/linked"]
    assert snapshot["hostname"] == "role-test"
    dumped = [int(host.check_output(f"{RESTIC} dump latest /srv/data/notes/{name}")) for name in ("a", "b")]
    # The writer was stopped between two files at the worst.
    assert dumped[0] - dumped[1] in (0, 1)


def test_what_a_link_leads_to_is_in_the_copy(host):
    assert host.check_output(f"{RESTIC} dump latest /srv/disk/linked/note") == "linked"
    [snapshot] = json.loads(host.check_output(f"{RESTIC} snapshots --json"))
    assert snapshot["tags"] == ["ai-idp", "/srv/data/linked=/srv/disk/linked"]


def test_nothing_waits_for_the_copy_any_more(host):
    assert host.run("systemctl is-active ai-idp-backup-guard.service").stdout.strip() == "inactive"
    assert host.check_output(f"{RESTIC} --no-lock list locks") == ""


def test_the_service_goes_on(host):
    assert host.service("writer").is_running
    before = int(host.check_output("sudo cat /srv/data/notes/b"))
    time.sleep(0.2)
    assert int(host.check_output("sudo cat /srv/data/notes/b")) > before


def test_prometheus_is_told(host):
    text = host.file("/srv/metrics/ai_idp_backup.prom").content_string
    told = float(text.splitlines()[-1].split()[1])
    assert abs(told - float(host.check_output("date +%s"))) < 600


def test_the_role_leaves_the_password_nowhere_on_the_host(host):
    found = host.run(f"sudo grep -rsl --exclude-dir=journal {PASSWORD} /etc /root /home /srv/metrics /var/log /tmp")
    assert found.stdout == ""
    modules = [row for row in host.check_output("sudo journalctl --no-pager").splitlines() if "restic_copy" in row]
    assert modules
    assert not any(PASSWORD in row for row in modules)
