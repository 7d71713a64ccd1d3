"""What the running Prometheus says after the role has run, and whether its own promtool agrees with the alert rules."""

import base64
import io
import json
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests import rule_tests  # noqa: E402

URL = "http://127.0.0.1:9190/prometheus"


def ask(host, path: str) -> dict:
    answer = host.run(f"curl -fsS --max-time 5 '{URL}/api/v1/{path}'")
    assert answer.rc == 0, host.run("sudo journalctl --unit prometheus --lines 30 --no-pager").stdout
    return json.loads(answer.stdout)["data"]


def test_service_runs_on_one_address_only(host):
    assert host.service("prometheus").is_running
    assert host.service("prometheus").is_enabled
    assert host.socket("tcp://127.0.0.1:9190").is_listening
    assert not host.socket("tcp://0.0.0.0:9190").is_listening
    assert not host.socket("tcp://:::9090").is_listening


def test_it_keeps_figures_for_a_time_and_up_to_a_size(host):
    flags = ask(host, "status/flags")
    assert flags["storage.tsdb.retention.time"] == "30d"
    assert flags["storage.tsdb.retention.size"] == "5GiB"
    # Whoever reaches it can read, and neither stop it nor delete.
    assert flags["web.enable-lifecycle"] == flags["web.enable-admin-api"] == "false"


def test_every_target_carries_its_host(host):
    targets = ask(host, "targets?state=active")["activeTargets"]
    assert {(target["labels"]["job"], target["labels"]["host"]) for target in targets} == {
        ("prometheus", "role-test"),
        ("vllm", "server"),
        ("blackbox", "role-test"),
    }
    by_job = {target["labels"]["job"]: target for target in targets}
    assert by_job["vllm"]["labels"]["replay"] == "true"
    assert by_job["blackbox"]["labels"]["instance"] == "https://gateway.example/"
    assert "target=https%3A%2F%2Fgateway.example%2F" in by_job["blackbox"]["scrapeUrl"]
    assert "module=https_ok" in by_job["blackbox"]["scrapeUrl"]


def test_an_engine_that_is_down_raises_its_alert(host):
    firing: set[tuple[str, str]] = set()
    for _ in range(20):
        alerts = ask(host, "alerts")["alerts"]
        firing = {
            (alert["labels"]["alertname"], alert["labels"]["job"]) for alert in alerts if "job" in alert["labels"]
        }
        if ("EngineDown", "vllm") in firing:
            break
        time.sleep(1)
    assert ("EngineDown", "vllm") in firing
    assert ("TargetDown", "prometheus") not in firing


def test_every_rule_is_loaded_and_can_be_computed(host):
    rules = [rule for group in ask(host, "rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(rule_tests.alerts())
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_rules_fire_when_they_should_and_not_when_they_should_not(host, tmp_path):
    files = rule_tests.write(tmp_path)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path, arcname="rules")
    host.check_output(f"mkdir -p /tmp/cases && echo {base64.b64encode(packed.getvalue()).decode()} > /tmp/cases/packed")
    host.check_output("base64 --decode /tmp/cases/packed | tar --extract --gzip --directory=/tmp/cases")
    done = host.run(f"cd /tmp/cases/rules && promtool test rules {' '.join(file.name for file in files)}")
    assert done.rc == 0, done.stdout + done.stderr


def test_credentials_are_where_only_prometheus_reads_them(host):
    with host.sudo():
        file = host.file("/etc/prometheus/credentials/vllm")
        assert (file.user, file.group, file.mode) == ("root", "prometheus", 0o640)
        assert file.content_string == "key-of-the-engine"
        assert host.file("/etc/prometheus/credentials").mode == 0o750
        assert "key-of-the-engine" not in host.file("/etc/prometheus/prometheus.yml").content_string
        assert "key-of-the-engine" not in host.check_output("ps -eo args")
        assert "key-of-the-engine" not in host.check_output("journalctl --no-pager --quiet")


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
