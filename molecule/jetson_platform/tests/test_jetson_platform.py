"""The constructed board (tests/golden/jetson) after jetson_platform has run; no real Jetson is claimed."""

import json

from testinfra.host import Host


def test_the_mode_is_set_and_the_clocks_are_held(host: Host) -> None:
    assert host.check_output("/usr/local/sbin/nvpmodel -q") == "NV Power Mode: 25W\n1"
    for end in ("min_freq", "max_freq"):
        assert host.file(f"/srv/jetson/sys/class/devfreq/17000000.gpu/{end}").content_string == "918000000\n"


def test_clocks_are_held_after_a_restart_too(host: Host) -> None:
    unit = host.service("ai-idp-jetson-clocks")
    assert unit.is_enabled
    assert "After=nvpmodel.service" in host.file("/etc/systemd/system/ai-idp-jetson-clocks.service").content_string
    with host.sudo():
        host.check_output("systemctl start ai-idp-jetson-clocks")


def test_the_board_is_recorded(host: Host) -> None:
    record = json.loads(host.file("/srv/jetson.json").content_string)
    assert record["release"] == "36.4.7"
    assert record["release_verdict"] == "known_bad"
    assert (record["power_mode"], record["clocks_locked"]) == ("25W", True)
    assert (record["cuda_status"], record["cuda_version"]) == ("ok", "12.6")
    assert record["swaps"][0] == {"name": "/dev/zram0", "kind": "zram", "size_bytes": 650203136}


def test_sensors_are_told_by_a_service_that_may_do_nothing_else(host: Host) -> None:
    unit = host.service("ai-idp-jetson-metrics")
    assert unit.is_running
    assert unit.is_enabled
    host.check_output("timeout 20 sh -c 'until test -s /srv/figures/ai_idp_jetson.prom; do sleep 0.5; done'")
    figures = host.file("/srv/figures/ai_idp_jetson.prom")
    assert figures.mode == 0o644
    assert 'ai_idp_jetson_power_watts{rail="VDD_IN"}' in figures.content_string
    with host.sudo():
        answer = host.run("systemd-analyze security --threshold=20 ai-idp-jetson-metrics")
    assert answer.rc == 0, answer.stdout


def test_nothing_else_was_touched(host: Host) -> None:
    assert not host.file("/etc/systemd/system/jtop.service").exists
    assert "swap" not in host.file("/etc/fstab").content_string


def test_no_unit_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
