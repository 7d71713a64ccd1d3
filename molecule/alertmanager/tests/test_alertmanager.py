"""What the running Alertmanager does with alerts: whom it tells, what it holds back, where its secrets are."""

import json
import time
from collections.abc import Iterator

import pytest

UNIT = "prometheus-alertmanager"
URL = "http://127.0.0.1:9193/alertmanager"
LISTENER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode().strip()
        with open("/run/told", "a") as file:
            file.write(self.path + " " + body + "\\n")
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 18099), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def webhook(host) -> Iterator[None]:
    """The owner's webhook; it writes down what it is told."""
    with host.sudo():
        host.check_output(f"cat > /run/listener.py <<'EOF'\n{LISTENER}\nEOF")
        host.check_output("systemd-run --quiet --collect --unit=ai-idp-test-webhook python3 /run/listener.py")
    yield
    with host.sudo():
        host.run("systemctl stop ai-idp-test-webhook")


@pytest.fixture(scope="module")
def alerts(host, webhook) -> None:
    """A machine that is down, something that follows from it, and something on another."""
    raised = [
        {"labels": {"alertname": "HostDown", "host": "server", "severity": "critical"}},
        {"labels": {"alertname": "TargetDown", "host": "server", "severity": "warning", "job": "node"}},
        {"labels": {"alertname": "TargetDown", "host": "edge", "severity": "warning", "job": "node"}},
    ]
    host.check_output(
        f"curl -fsS -X POST -H 'Content-Type: application/json' -d '{json.dumps(raised)}' {URL}/api/v2/alerts"
    )


def test_service_runs_on_one_address_only(host):
    assert host.service(UNIT).is_running, host.run(f"sudo journalctl --unit {UNIT} --lines 30 --no-pager").stdout
    assert host.service(UNIT).is_enabled
    assert host.socket("tcp://127.0.0.1:9193").is_listening
    assert not host.socket("tcp://0.0.0.0:9193").is_listening
    # It has no others to talk to.
    assert not host.socket("tcp://0.0.0.0:9094").is_listening
    assert not host.socket("tcp://:::9094").is_listening


def test_what_follows_from_a_machine_that_is_down_is_held_back(host, alerts):
    shown = json.loads(host.check_output(f"curl -fsS {URL}/api/v2/alerts"))
    states = {(alert["labels"]["alertname"], alert["labels"]["host"]): alert["status"]["state"] for alert in shown}
    assert states == {
        ("HostDown", "server"): "active",
        ("TargetDown", "server"): "suppressed",
        ("TargetDown", "edge"): "active",
    }


def test_the_owner_is_told_after_half_a_minute(host, alerts):
    told = ""
    for _ in range(30):
        time.sleep(2)
        told = host.run("cat /run/told").stdout
        if told.count("\n") == 2:
            break
    messages = [line.split(" ", 1) for line in told.splitlines()]
    assert {path for path, _ in messages} == {"/hook-of-the-owner"}
    groups = [json.loads(body)["groupLabels"] for _, body in messages]
    assert sorted((group["alertname"], group["host"]) for group in groups) == [
        ("HostDown", "server"),
        ("TargetDown", "edge"),
    ]


def test_mail_is_for_what_is_critical_only(host):
    told = [
        host.check_output(
            f"amtool config routes test --config.file=/etc/prometheus/alertmanager.yml severity={severity}"
        )
        for severity in ("critical", "warning", "none")
    ]
    assert told == ["owner,mail", "owner", "nobody"]


def test_secrets_are_where_only_alertmanager_reads_them(host):
    with host.sudo():
        for name, content in (
            ("owner.webhook_url", "http://127.0.0.1:18099/hook-of-the-owner"),
            ("mail.smtp_password", "password-of-the-mail"),
        ):
            file = host.file(f"/etc/prometheus/alertmanager_secrets/{name}")
            assert (file.user, file.group, file.mode) == ("root", "alertmanager", 0o640)
            assert file.content_string == content
        settings = host.file("/etc/prometheus/alertmanager.yml").content_string
        processes = host.check_output("ps -eo args")
    for secret in ("hook-of-the-owner", "password-of-the-mail"):
        assert secret not in settings
        assert secret not in processes


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
