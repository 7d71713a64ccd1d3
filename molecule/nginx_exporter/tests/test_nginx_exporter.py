"""What the running exporter tells, without NGINX and with a page such as NGINX makes."""

import os
import time

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]

UNIT = "prometheus-nginx-exporter"
PAGE = """Active connections: 3
server accepts handled requests
 7 7 31
Reading: 0 Writing: 1 Waiting: 2
"""


def scrape(host) -> str:
    answer = host.run("curl -fsS --max-time 8 http://127.0.0.1:9114/metrics")
    assert answer.rc == 0, host.run(f"sudo journalctl --unit {UNIT} --lines 30 --no-pager").stdout
    return answer.stdout


def test_service_runs_on_one_address_only(host):
    assert host.service(UNIT).is_running
    assert host.service(UNIT).is_enabled
    assert host.socket("tcp://127.0.0.1:9114").is_listening
    assert not host.socket("tcp://0.0.0.0:9114").is_listening
    assert not host.socket(f"tcp://{ADDRESS}:9114").is_listening


def test_without_nginx_it_says_so(host):
    assert "nginx_up 0" in scrape(host)


def test_figures_of_nginx_are_told(host):
    with host.sudo():
        host.check_output(f"mkdir -p /srv/page && printf %s '{PAGE}' > /srv/page/status")
        host.check_output(
            "systemd-run --quiet --collect --unit=ai-idp-test-page"
            " python3 -m http.server --bind 127.0.0.1 --directory /srv/page 18088"
        )
        try:
            for _ in range(50):
                if host.socket("tcp://127.0.0.1:18088").is_listening:
                    break
                time.sleep(0.2)
            metrics = scrape(host)
        finally:
            host.run("systemctl stop ai-idp-test-page")
    assert "nginx_up 1" in metrics
    assert "nginx_connections_active 3" in metrics
    assert "nginx_http_requests_total 31" in metrics


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
