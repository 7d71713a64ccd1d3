"""n8n on the test host, asked by its workflow's clients, by its owner and by strangers."""

import json
import os
import time

from testinfra.host import Host

URL = "http://127.0.0.1:15678"
OUTSIDE = os.environ["ROLE_TEST_ADDRESS"]
CONTAINER = "role-test-n8n-1"


def status(host: Host, path: str, *arguments: str) -> int:
    """The status with which n8n answers."""
    return int(host.check_output(f"curl -s -o /dev/null -m 30 -w '%{{http_code}}' {' '.join(arguments)} {URL}{path}"))


def echo(host: Host, url: str, file: str) -> int:
    """Ask the workflow to fetch the token from a service and to write it to a file."""
    body = json.dumps({"url": url, "file": file})
    # A workflow that was just activated listens a moment later.
    for _ in range(40):
        answer = status(host, "/webhook/echo", "-H 'Content-Type: application/json'", f"-d '{body}'")
        if answer != 404:
            break
        time.sleep(0.25)
    return answer


def test_the_workflow_uses_its_credential_and_writes_its_file(host: Host) -> None:
    assert echo(host, "http://127.0.0.1:8099/", "/files/first.txt") == 200
    assert host.file("/srv/files/first.txt").content_string == "not-a-secret-token"


def test_other_folders_are_closed_to_workflows(host: Host) -> None:
    assert echo(host, "http://127.0.0.1:8099/", "/home/node/.n8n/x.txt") == 500
    assert echo(host, "http://127.0.0.1:8099/", "/tmp/x.txt") == 500
    assert echo(host, "http://127.0.0.1:8099/", "/files/../tmp/x.txt") == 500


def test_other_addresses_of_the_house_are_closed_to_workflows(host: Host) -> None:
    assert host.check_output(f"curl -s http://{OUTSIDE}:8099/") == '{"token": null}'
    assert echo(host, f"http://{OUTSIDE}:8099/", "/files/never.txt") == 500
    assert not host.file("/srv/files/never.txt").exists


def test_a_stranger_gets_nothing(host: Host) -> None:
    assert status(host, "/rest/workflows") == 401
    assert status(host, "/rest/credentials") == 401
    assert status(host, "/api/v1/workflows") == 401
    assert status(host, "/metrics") == 404
    # Nobody can make himself the owner.
    setup = json.dumps({"email": "a@b.example", "firstName": "A", "lastName": "B", "password": "Abcdefgh123"})
    assert status(host, "/rest/owner/setup", "-H 'Content-Type: application/json'", f"-d '{setup}'") in (400, 403)


def test_the_owner_logs_in(host: Host) -> None:
    login = json.dumps({"emailOrLdapLoginId": "owner@role.test", "password": "not-a-secret-Password-1"})
    answer = host.check_output(f"curl -si -H 'Content-Type: application/json' -d '{login}' {URL}/rest/login")
    cookie = next(line for line in answer.splitlines() if line.lower().startswith("set-cookie"))
    assert "n8n-auth=" in cookie
    # The gateway speaks HTTPS.
    assert {"httponly", "secure"} <= {part.strip().lower() for part in cookie.split(";")}
    user = json.loads(answer.splitlines()[-1])["data"]
    assert (user["role"], user["firstName"]) == ("global:owner", "Platform")


def test_the_page_knows_the_gateways_path(host: Host) -> None:
    assert 'src="/flows/' in host.check_output(f"curl -s {URL}/")


def test_it_listens_on_loopback_only(host: Host) -> None:
    with host.sudo():
        listeners = host.check_output("ss -Hltnp").splitlines()
    mine = {line.split()[3] for line in listeners if '"node"' in line or ":15678" in line or ":15679" in line}
    assert mine == {"127.0.0.1:15678", "127.0.0.1:15679"}


def test_the_container_can_do_little(host: Host) -> None:
    with host.sudo():
        found = json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0]
        uid = host.check_output("id -u ubuntu")
    assert found["Config"]["User"].split(":")[0] == uid
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert found["State"]["Health"]["Status"] == "healthy"


def test_it_says_nothing_to_its_vendor(host: Host) -> None:
    settings = json.loads(host.check_output(f"curl -s {URL}/rest/settings"))["data"]
    assert settings.get("telemetry", {"enabled": False})["enabled"] is False
    with host.sudo():
        environment = json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0]["Config"]["Env"]
    assert "N8N_DIAGNOSTICS_ENABLED=false" in environment
    assert "N8N_VERSION_NOTIFICATIONS_ENABLED=false" in environment


def test_no_secret_is_where_others_look(host: Host) -> None:
    with host.sudo():
        inspected = host.check_output(f"docker inspect {CONTAINER}")
        logs = host.run(f"docker logs {CONTAINER}")
        processes = host.check_output("ps -eo args")
        api_key = host.file("/srv/n8n/secrets/api_key")
        memory = host.file("/srv/n8n/secrets/provisioned.json")
        assert (api_key.user, api_key.mode) == ("root", 0o600)
        assert (memory.user, memory.mode) == ("root", 0o600)
        assert host.file("/srv/n8n/secrets").mode == 0o700
        assert host.file("/srv/n8n/data").mode == 0o700
        key, noted = api_key.content_string.strip(), memory.content_string
    assert key
    for text in (inspected, logs.stdout, logs.stderr, processes, noted):
        assert "not-a-secret" not in text
        assert "$2b$" not in text
        assert key not in text
