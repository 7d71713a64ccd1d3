"""What the running exporter finds at doors that are open, shut, and not what they should be."""

import pytest
import yaml

UNIT = "prometheus-blackbox-exporter"
OWN_DOOR = "http://127.0.0.1:9116/-/healthy"


def probe(host, module: str, target: str) -> str:
    answer = host.run(f"curl -fsS --max-time 8 'http://127.0.0.1:9116/probe?module={module}&target={target}'")
    assert answer.rc == 0, host.run(f"sudo journalctl --unit {UNIT} --lines 30 --no-pager").stdout
    return answer.stdout


def test_service_runs_on_one_address_only(host):
    assert host.service(UNIT).is_running
    assert host.service(UNIT).is_enabled
    assert host.socket("tcp://127.0.0.1:9116").is_listening
    assert not host.socket("tcp://0.0.0.0:9116").is_listening
    assert not host.socket("tcp://:::9115").is_listening


@pytest.mark.parametrize(
    ("module", "target", "success"),
    [
        ("http_ok", OWN_DOOR, 1),
        ("tcp_open", "127.0.0.1:9116", 1),
        ("tcp_open", "127.0.0.1:9", 0),
        # Plain http where https was promised, and no redirect where only that is allowed.
        ("https_ok", OWN_DOOR, 0),
        ("https_up", OWN_DOOR, 0),
        ("http_redirect", OWN_DOOR, 0),
    ],
)
def test_doors_are_told_apart(host, module, target, success):
    assert f"probe_success {success}" in probe(host, module, target).splitlines()


def test_checks_have_the_wanted_settings(host):
    modules = yaml.safe_load(host.file("/etc/prometheus/blackbox.yml").content_string)["modules"]
    assert {module["timeout"] for module in modules.values()} == {"3s"}
    assert modules["https_ok"]["http"]["tls_config"] == {"ca_file": "/etc/ssl/certs/ca-certificates.crt"}


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
