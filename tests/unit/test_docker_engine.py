"""What docker_engine refuses, and how it tells a running engine that does something else than its settings."""

import json
from typing import Any

import docker_engine_check
import pytest
from ansible.module_utils.ai_idp.docker_engine import Engine, differences, look
from ansible.module_utils.ai_idp.programs import Answer
from ansible.module_utils.testing import patch_module_args
from docker_engine import docker_engine_accounts, docker_engine_problems

GOOD: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_version": "13.2",
    "log_max_size": "10m",
    "log_max_file": 3,
    "bip": "172.29.0.1/24",
    "registry_mirrors": ["https://mirror.example", "http://10.77.0.5:5000/"],
    "insecure_registries": ["10.77.0.5:5000", "10.0.0.0/8", "[::1]:5000"],
    "data_root": "/srv/docker",
}
POOL = {"base": "172.30.0.0/16", "size": 24}


@pytest.mark.parametrize(("name", "version"), [("Debian", "13"), ("Ubuntu", "22.04"), ("Ubuntu", "26.04")])
def test_good_settings_pass(name: str, version: str) -> None:
    assert docker_engine_problems([POOL], **{**GOOD, "distribution": name, "distribution_version": version}) == []
    assert docker_engine_problems([], **{**GOOD, "bip": "", "data_root": ""}) == []


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("distribution", "Fedora", "the host runs Fedora 13.2, not Debian 13 or Ubuntu 22.04 or later"),
        ("distribution_version", "12.9", "the host runs Debian 12.9, not Debian 13"),
        ("log_max_size", "10", "docker_engine_log_max_size: '10' is no size such as 10m"),
        ("log_max_file", 0, "docker_engine_log_max_file: '0' is less than 1"),
        ("bip", "172.29.0.1", "docker_engine_bip: '172.29.0.1' is no address with prefix"),
        ("bip", "172.29.0.1/31", "docker_engine_bip"),
        ("bip", "172.29.0.256/24", "docker_engine_bip"),
        ("registry_mirrors", ["https://a/path"], "docker_engine_registry_mirrors: 'https://a/path' is no URL"),
        (
            "insecure_registries",
            ["http://a:5000"],
            "docker_engine_insecure_registries: 'http://a:5000' is no host:port",
        ),
        ("data_root", "docker", "docker_engine_data_root: 'docker' is no absolute path"),
    ],
)
def test_each_wrong_setting_has_its_sentence(setting: str, value: object, words: str) -> None:
    (problem,) = docker_engine_problems([], **{**GOOD, setting: value})
    assert problem.startswith(words)


@pytest.mark.parametrize(
    "pool", [{"base": "172.30.0.0/16", "size": 8}, {"base": "x", "size": 24}, {**POOL, "size": 31}, {}]
)
def test_a_pool_that_can_not_be_cut_is_named(pool: dict[str, Any]) -> None:
    (problem,) = docker_engine_problems([pool], **GOOD)
    assert problem.startswith("docker_engine_address_pools: ")


def test_accounts_must_be_there_already() -> None:
    assert docker_engine_accounts(["me"]) == [{"name": "me", "groups": ["docker"], "named_by": "docker_engine_users"}]


WANTED: dict[str, Any] = {
    "log-driver": "local",
    "live-restore": True,
    "data-root": "/srv/docker",
    "bip": "172.29.0.1/24",
    "default-address-pools": [{"base": "172.27.0.0/16", "size": "26"}],
    "registry-mirrors": ["http://10.77.0.5:5000"],
    "insecure-registries": ["10.77.0.5:5000", "10.0.0.0/8"],
    "features": {"cdi": True},
}
INFO: dict[str, Any] = {
    "ServerVersion": "26.1.5",
    "LoggingDriver": "local",
    "LiveRestoreEnabled": True,
    "DockerRootDir": "/srv/docker",
    "DefaultAddressPools": [{"Base": "172.27.0.0/16", "Size": 26}],
    "RegistryConfig": {
        "Mirrors": ["http://10.77.0.5:5000/"],
        "InsecureRegistryCIDRs": ["10.0.0.0/8", "127.0.0.0/8"],
        "IndexConfigs": {"10.77.0.5:5000": {"Secure": False}},
    },
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
    "ClientInfo": {"Plugins": [{"Name": "compose"}]},
}
GATEWAY = "172.29.0.1"


def test_an_engine_that_does_what_it_should_differs_in_nothing() -> None:
    assert differences(WANTED, INFO, GATEWAY) == []
    assert differences({}, INFO, "") == []


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ClientInfo": {"Plugins": None}}, "docker compose is not there"),
        ({"LoggingDriver": "journald"}, "log-driver is journald"),
        ({"LiveRestoreEnabled": False}, "live-restore is False"),
        ({"DockerRootDir": "/var/lib/docker"}, "data-root is /var/lib/docker"),
        ({"DefaultAddressPools": None}, "default-address-pools lack 172.27.0.0/16"),
        ({"CDISpecDirs": None}, "cdi is off (Docker 26.1.5; it needs 25 or later)"),
        (
            {"RegistryConfig": {**INFO["RegistryConfig"], "Mirrors": None}},
            "registry-mirrors lack http://10.77.0.5:5000",
        ),
        (
            {"RegistryConfig": {**INFO["RegistryConfig"], "IndexConfigs": None}},
            "insecure-registries lack 10.77.0.5:5000",
        ),
    ],
)
def test_each_difference_has_its_sentence(told: dict[str, Any], words: str) -> None:
    assert differences(WANTED, {**INFO, **told}, GATEWAY) == [words]


def test_the_bridge_is_looked_at_by_itself() -> None:
    (problem,) = differences(WANTED, INFO, "172.17.0.1")
    assert problem.startswith("bip is 172.17.0.1 (it changes only at a restart")


class Host:
    """A host with an engine; ``active`` says whether systemd has it running."""

    def __init__(self, active: str = "active", info: Answer | None = None) -> None:
        self.shown = f"LoadState=loaded\nActiveState={active}\nSubState=running\nUnitFileState=enabled\n"
        self.info = info or Answer(0, f"WARNING: no swap limit\n{json.dumps(INFO)}\n")
        self.asked: list[str] = []

    def __call__(self, argv: list[str], timeout: float) -> Answer:
        self.asked.append(" ".join(argv[:2]))
        if argv[0] == "systemctl":
            return Answer(0, self.shown)
        return self.info if argv[1] == "info" else Answer(0, f"{GATEWAY}\n")


def test_a_running_engine_is_asked() -> None:
    assert look(WANTED, Host()) == Engine(True, "26.1.5", ())


def test_a_stopped_engine_is_not_started_by_a_question() -> None:
    host = Host("inactive")
    assert look(WANTED, host) == Engine(False, "", ("docker.service is inactive",))
    assert host.asked == ["systemctl show"]


def test_an_engine_that_does_not_answer_is_a_problem() -> None:
    (problem,) = look(WANTED, Host(info=Answer(1, "Cannot connect to the Docker daemon"))).problems
    assert problem == "the engine does not answer docker info: Cannot connect to the Docker daemon"


def test_the_module_tells_engine_and_packages_in_one_call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine_check, "look", lambda wanted: look(wanted, Host("inactive")))
    monkeypatch.setattr(docker_engine_check, "package_names", lambda names: names[1:])
    with patch_module_args({"settings": WANTED, "packages": ["docker-ce", "docker.io"]}), pytest.raises(SystemExit):
        docker_engine_check.main()
    told = json.loads(capsys.readouterr().out)
    assert (told["installed"], told["problems"]) == (["docker.io"], ["docker.service is inactive"])
