"""What the host itself says after host_baseline has run, and what a stranger can reach on it."""

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "filter_plugins"))
from benchmark import benchmark_door

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]
ADMITTED, REFUSED, MEASURED = 18000, 18001, 18002


@pytest.fixture(scope="module")
def listening(host) -> Iterator[None]:
    """One server on an admitted port and one on another, both on every address."""
    units = {port: f"ai-idp-test-{port}" for port in (ADMITTED, REFUSED)}
    with host.sudo():
        for port, unit in units.items():
            started = host.run(f"systemd-run --quiet --collect --unit={unit} python3 -m http.server {port}")
            assert started.rc == 0, started.stderr
        for _ in range(50):
            if all(host.socket(f"tcp://0.0.0.0:{port}").is_listening for port in units):
                break
            time.sleep(0.2)
    yield
    with host.sudo():
        for unit in units.values():
            host.run(f"systemctl stop {unit}")


def connects(port: int) -> bool:
    """Whether this machine gets through to the host's port."""
    try:
        socket.create_connection((ADDRESS, port), timeout=3).close()
    except TimeoutError:
        return False
    return True


def test_working_folder_has_its_owner(host):
    folder = host.file("/srv/platform")
    assert folder.is_directory
    assert (folder.user, folder.group, folder.mode) == ("keeper", "keeper", 0o755)


def test_admitted_port_is_reached_and_another_is_not(host, listening):
    assert host.run(f"curl -fsS --max-time 3 http://{ADDRESS}:{REFUSED}/").rc == 0, "the server itself is down"
    assert connects(ADMITTED)
    assert not connects(REFUSED)


@pytest.mark.parametrize("end", ["systemctl stop", "systemctl kill --signal=KILL"])
def test_who_measures_is_admitted_until_the_measurement_ends(host, end):
    """The server of a measurement opens its door as it starts; stopped or killed, it leaves it shut."""
    with host.sudo():
        for client, admitted in (("10.77.0.1", True), ("192.0.2.1", False)):
            doors = shlex.join(benchmark_door({"peer_address": ADDRESS, "port": MEASURED}, client, 60))
            unit = "--quiet --collect --unit=ai-idp-test-measured --property=DynamicUser=yes"
            host.check_output(f"systemd-run {unit} {doors} python3 -m http.server {MEASURED}")
            for _ in range(50):
                if host.socket(f"tcp://0.0.0.0:{MEASURED}").is_listening:
                    break
                time.sleep(0.2)
            assert connects(MEASURED) is admitted
            host.check_output(f"{end} ai-idp-test-measured.service")
            host.check_output(
                "timeout 5 sh -c 'while nft list set inet ai_idp measuring | grep -q elements; do sleep .1; done'"
            )
            assert not connects(MEASURED)


def test_refused_packets_are_counted(host, listening):
    connects(REFUSED)
    with host.sudo():
        counter = host.check_output("nft list counter inet ai_idp refused")
    assert "packets 0 " not in counter


def test_other_tables_are_left_alone(host):
    """The container's own name resolution hangs on rules that Docker put into its namespace."""
    with host.sudo():
        assert "table ip nat" in host.check_output("nft list tables")
    assert host.run("getent hosts role-test").rc == 0


def test_rules_come_back_after_a_boot_and_a_reload(host, listening):
    with host.sudo():
        assert host.service("ai-idp-firewall.service").is_enabled
        assert host.run("nft delete table inet ai_idp").rc == 0
        assert connects(REFUSED), "something else than the table refuses"
        assert host.run("systemctl reload ai-idp-firewall.service").rc == 0
    assert not connects(REFUSED)


def test_nothing_waits_to_undo_the_rules(host):
    with host.sudo():
        assert "ai-idp-firewall-undo" not in host.check_output("systemctl list-timers --all --no-pager")


def test_clock_is_left_to_the_host_of_the_container(host):
    assert host.service("systemd-timesyncd").is_enabled
    assert host.run("systemd-detect-virt --container").rc == 0


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
