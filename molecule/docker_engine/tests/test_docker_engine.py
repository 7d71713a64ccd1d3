"""What the running engine says after docker_engine has run."""

import ipaddress
import json

import pytest


@pytest.fixture(scope="module")
def info(host) -> dict:
    with host.sudo():
        answer = host.run("docker info --format '{{json .}}'")
        assert answer.rc == 0, host.run("journalctl --unit docker --lines 30 --no-pager").stdout
    return json.loads(answer.stdout)


def test_engine_runs_now_and_after_a_boot(host):
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled


def test_engine_does_what_was_asked(info):
    assert info["LoggingDriver"] == "local"
    assert info["LiveRestoreEnabled"] is True
    assert info["DefaultAddressPools"] == [{"Base": "172.27.0.0/16", "Size": 26}]
    assert info["RegistryConfig"]["Mirrors"] == ["http://10.77.0.5:5000/"]
    assert info["RegistryConfig"]["IndexConfigs"]["10.77.0.5:5000"]["Secure"] is False
    assert info["CDISpecDirs"], "containers can't ask for devices by CDI name"
    assert info["Debug"] is True, "docker_engine_daemon_options did not win"


def test_options_are_merged_into_the_log_settings(host):
    with host.sudo():
        settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["log-opts"] == {"compress": "false", "max-file": "2", "max-size": "5m"}


def test_compose_is_the_second_generation(host):
    with host.sudo():
        version = host.check_output("docker compose version --short")
    assert int(version.lstrip("v").split(".")[0]) >= 2


def test_default_bridge_has_its_network(host):
    assert "172.28.7.1" in host.interface("docker0").addresses


def test_new_networks_come_from_the_pool(host):
    with host.sudo():
        host.check_output("docker network create ai-idp-test")
        try:
            network = json.loads(host.check_output("docker network inspect ai-idp-test"))[0]
        finally:
            host.run("docker network rm ai-idp-test")
    subnet = ipaddress.ip_network(network["IPAM"]["Config"][0]["Subnet"])
    assert subnet.subnet_of(ipaddress.ip_network("172.27.0.0/16"))
    assert subnet.prefixlen == 26


def test_named_account_uses_docker_without_sudo(host):
    assert host.run("docker ps").rc == 0


def test_engine_is_not_on_the_network(host):
    with host.sudo():
        assert "dockerd" not in host.check_output("ss --listening --tcp --processes --no-header")


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
