"""What the page says on a real host, with Prometheus away and with Prometheus there."""

import base64
import re
import time
from collections.abc import Iterator

import pytest

PAGE = "/var/lib/ai-idp-status/index.html"
PROMETHEUS = """
import http.server, json, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(parts.query).get("query", [""])[0]
        found = []
        if query.startswith("min by (job, host) (probe_success or up)"):
            jobs = {"node": "1", "vllm": "0"}
            found = [{"metric": {"job": j, "host": "role-test"}, "value": [0, v]} for j, v in jobs.items()]
        data = {"alerts": []} if parts.path.endswith("/alerts") else {"result": found}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 19090), Handler).serve_forever()
"""


def shown(host) -> str:
    """The page as a person reads it."""
    body = host.file(PAGE).content_string.partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def wait_for(host, words: str) -> str:
    """The page, once it says this; it is written every 5 seconds."""
    for _ in range(40):
        text = shown(host)
        if words in text:
            return text
        time.sleep(0.5)
    raise AssertionError(f"the page never said '{words}': {text}")


@pytest.fixture
def prometheus(host) -> Iterator[None]:
    code = base64.b64encode(PROMETHEUS.encode()).decode()
    with host.sudo():
        started = host.run(
            "systemd-run --quiet --collect --unit=fake-prometheus "
            f"python3 -c \"import base64; exec(base64.b64decode('{code}'))\""
        )
        assert started.rc == 0, started.stderr
    yield
    with host.sudo():
        host.run("systemctl stop fake-prometheus")


def test_without_prometheus_the_page_says_so(host):
    text = wait_for(host, "Prometheus does not answer")
    assert "no data yet" in text
    assert "test" in text
    assert "16 findings" in text


def test_with_prometheus_it_tells_what_runs_and_remembers_it(host, prometheus):
    text = wait_for(host, "data from")
    assert "vLLM is down" in text
    assert "role-test ● up" in text
    assert "elsewhere ? not known" in text
    with host.sudo():
        host.run("systemctl stop fake-prometheus")
    text = wait_for(host, "Prometheus does not answer")
    assert "What is below was true at" in text
    assert "data from" in text


def test_everybody_may_read_the_page_and_its_account_can_do_little(host):
    page = host.file(PAGE)
    assert (page.user, page.mode) == ("ai-idp-status", 0o644)
    with host.sudo():
        unit = host.check_output(
            "systemctl show ai-idp-status-page.service -p User -p ProtectSystem -p NoNewPrivileges"
        )
        assert host.run("sudo -u ai-idp-status touch /etc/ai-idp/x").rc != 0
        assert host.user("ai-idp-status").shell == "/usr/sbin/nologin"
    assert "User=ai-idp-status" in unit
    assert "ProtectSystem=strict" in unit


def test_it_is_kept_fresh_after_a_boot(host):
    assert host.service("ai-idp-status-page.timer").is_enabled
    assert host.service("ai-idp-status-page.timer").is_running
    first = host.file(PAGE).mtime
    for _ in range(30):
        if host.file(PAGE).mtime > first:
            return
        time.sleep(0.5)
    raise AssertionError("the page was not written again")


def test_the_journal_is_not_flooded(host):
    with host.sudo():
        lines = host.check_output("journalctl -u ai-idp-status-page.service --output=cat --no-pager").splitlines()
    assert all("Prometheus does not answer" in line for line in lines)


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
