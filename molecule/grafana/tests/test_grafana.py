"""Asks the stand-in for Grafana and looks at what the role laid down for the real one."""

import json
import re

import pytest
import yaml

URL = "http://127.0.0.1:3030/grafana/"
PASSWORD = "molecule-0123456789"
DIR = "/etc/grafana/ai-idp"


def ask(host, path, *, anonymous=False):
    login = "" if anonymous else f"--user admin:{PASSWORD} "
    answer = host.check_output(f"curl --silent --write-out '\\n%{{http_code}}' {login}'{URL}{path}'")
    body, code = answer.rsplit("\n", 1)
    return int(code), json.loads(body)


def content(host, path):
    with host.sudo():
        return host.file(path).content_string


def test_wanted_version_runs(host):
    assert ask(host, "api/health", anonymous=True) == (200, {"database": "ok", "version": "13.2.2"})


def test_service_lives_through_a_boot(host):
    assert host.service("grafana-server").is_enabled


def test_nobody_gets_in_without_a_password(host):
    assert ask(host, "api/search", anonymous=True)[0] == 401


def test_dashboards_are_the_wanted_ones(host):
    uids = {one["uid"] for one in ask(host, "api/search")[1]}
    assert uids == {f"ai-idp-{name}" for name in ("overview", "gpu", "inference", "host", "gateway")}


def test_datasource_reaches_prometheus(host):
    assert ask(host, "api/datasources/uid/ai-idp-prometheus/health") == (200, {"status": "OK"})


def test_datasource_knows_the_scrape_interval(host):
    datasource = yaml.safe_load(content(host, f"{DIR}/provisioning/datasources/ai-idp.yml"))["datasources"][0]
    assert datasource["jsonData"]["timeInterval"] == "10s"
    assert datasource["editable"] is False


def test_home_page_is_a_dashboard_that_is_there(host):
    path = ask(host, "api/settings")[1]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert json.loads(content(host, path))["uid"] == "ai-idp-overview"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GF_AUTH_ANONYMOUS_ENABLED", "false"),
        ("GF_ANALYTICS_REPORTING_ENABLED", "false"),
        ("GF_PLUGINS_PREINSTALL_DISABLED", "true"),
        ("GF_SECURITY_COOKIE_SECURE", "true"),
        ("GF_SERVER_ROOT_URL", "https://gateway.example/grafana/"),
    ],
)
def test_settings_reach_the_service(host, name, value):
    assert ask(host, "api/settings")[1][name] == value


def test_listens_on_loopback_only(host):
    with host.sudo():
        lines = host.check_output("ss --listening --tcp --numeric --no-header").splitlines()
    assert [line.split()[3] for line in lines if line.split()[3].endswith(":3030")] == ["127.0.0.1:3030"]


def test_password_is_for_root_alone(host):
    with host.sudo():
        file = host.file("/etc/grafana/ai-idp.env")
        assert (file.mode, file.user, file.group) == (0o600, "root", "root")
        holding = host.run(f"grep --recursive --files-with-matches {PASSWORD} /etc").stdout.split()
        assert holding == ["/etc/grafana/ai-idp.env"]
        assert not re.search(PASSWORD, host.check_output("ps -eo args"))


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
