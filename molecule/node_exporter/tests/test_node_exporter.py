"""What the running exporter tells after node_exporter has run."""

import os

import pytest

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]

URL = f"http://{ADDRESS}:9101/metrics"
UNIT = "prometheus-node-exporter"


def scrape(host) -> str:
    answer = host.run(f"curl -fsS --max-time 5 {URL}")
    assert answer.rc == 0, host.run(f"sudo journalctl --unit {UNIT} --lines 30 --no-pager").stdout
    return answer.stdout


@pytest.fixture(scope="module")
def metrics(host) -> str:
    return scrape(host)


def test_service_runs_now_and_after_a_boot(host):
    assert host.service(UNIT).is_running
    assert host.service(UNIT).is_enabled


def test_it_listens_on_one_address_only(host):
    assert host.socket(f"tcp://{ADDRESS}:9101").is_listening
    assert not host.socket("tcp://0.0.0.0:9101").is_listening
    assert not host.socket("tcp://127.0.0.1:9101").is_listening
    # The package's own start would have been on the usual port of every address.
    assert not host.socket("tcp://:::9100").is_listening


def test_no_collector_fails_inside_the_sandbox(metrics):
    success = [line for line in metrics.splitlines() if line.startswith("node_scrape_collector_success")]
    # Hardware and kernel features that a container does not have.
    missing = ("bonding", "btrfs", "dmi", "infiniband", "ipvs", "mdadm", "nfs", "nfsd", "rapl", "tapestats", "zfs")
    missing += ("fibrechannel", "nvme", "hwmon", "pressure", "schedstat")
    failed = [line for line in success if line.endswith(" 0") and not any(f'"{name}"' in line for name in missing)]
    assert success
    assert failed == []


@pytest.mark.parametrize(
    "series",
    [
        "node_cpu_seconds_total{",
        "node_memory_MemAvailable_bytes ",
        'node_filesystem_avail_bytes{device="overlay"',
        "node_network_receive_bytes_total{",
        "node_timex_offset_seconds ",
        'node_systemd_unit_state{name="ssh.service",state="active"',
    ],
)
def test_figures_that_dashboards_and_alerts_use_are_there(metrics, series):
    assert any(line.startswith(series) for line in metrics.splitlines())


def test_figures_of_other_programs_are_told(host):
    """Written without root, by the group that the role names."""
    line = 'ai_idp_benchmark_mean{claim_id="test"} 1'
    host.check_output(f"printf '%s\\n' '{line}' > /srv/figures/ai_idp_test.prom")
    assert line in scrape(host)


def test_it_is_nobody_and_may_write_nothing(host):
    with host.sudo():
        show = host.check_output(f"systemctl show {UNIT} --property=User,ProtectSystem,NoNewPrivileges")
    assert set(show.split()) == {"User=node-exporter", "NoNewPrivileges=yes", "ProtectSystem=strict"}


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
