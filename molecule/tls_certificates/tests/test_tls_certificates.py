"""What a client sees of the certificates, and who can read the keys."""

import os
import re
import ssl
import sys
import time
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests import converged_again  # noqa: E402

ADDRESS, PORT = os.environ["ROLE_TEST_ADDRESS"], 18443
TLS = "/etc/ai-idp/tls"
CA = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ca.crt"


# The role, run once more with other variables.
converge = partial(converged_again.converge, "tls_certificates")


def serial(host) -> str:
    return host.check_output(f"openssl x509 -noout -serial -in {TLS}/server.crt")


def test_keys_are_root_s_alone(host):
    with host.sudo():
        for name in ("server.key", "ca.key"):
            key = host.file(f"{TLS}/{name}")
            assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    assert host.file(f"{TLS}/server.crt").mode == 0o644


def test_a_client_with_the_ca_alone_connects_by_name_and_address(host):
    """Python's own checks are strict since 3.13: key identifiers, critical extensions, no common name."""
    with host.sudo():
        started = host.run(
            f"systemd-run --quiet --collect --unit=tls-test openssl s_server -accept {ADDRESS}:{PORT} -www "
            f"-cert {TLS}/server.crt -key {TLS}/server.key"
        )
        assert started.rc == 0, started.stderr
    try:
        context = ssl.create_default_context(cafile=str(CA))
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        for name in (ADDRESS, "gateway.lan"):
            assert handshake(context, name) == "trusted"
        assert handshake(context, "other.lan") == "refused"
        assert handshake(ssl.create_default_context(), ADDRESS) == "refused"
    finally:
        with host.sudo():
            host.run("systemctl stop tls-test")


def handshake(context: ssl.SSLContext, name: str) -> str:
    import socket

    for _ in range(50):
        try:
            connection = socket.create_connection((ADDRESS, PORT), timeout=3)
        except ConnectionRefusedError:
            time.sleep(0.1)
            continue
        with connection:
            try:
                with context.wrap_socket(connection, server_hostname=name):
                    return "trusted"
            except ssl.SSLCertVerificationError:
                return "refused"
    raise AssertionError("the server did not start")


def test_ca_signs_servers_and_no_other_ca(host):
    text = host.check_output(f"openssl x509 -noout -text -in {TLS}/ca.crt")
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text


def test_what_ends_soon_is_renewed_with_the_same_key(host):
    """It was made for 90 days: to a run that wants 100, it ends soon."""
    before, ca = serial(host), host.file(f"{TLS}/ca.crt").content_string
    with host.sudo():
        key = host.file(f"{TLS}/server.key").sha256sum
    again = converge(tls_certificates_validity_days=365, tls_certificates_renew_days=100)
    assert again.returncode == 0, again.stdout
    assert serial(host) != before
    with host.sudo():
        assert host.file(f"{TLS}/server.key").sha256sum == key
    assert host.file(f"{TLS}/ca.crt").content_string == ca, "clients would have to trust another CA"
    assert host.run(f"openssl x509 -noout -checkend {360 * 86400} -in {TLS}/server.crt").rc == 0


NEW_CA = (
    r"printf '[req]\ndistinguished_name=dn\n[dn]\n' > /root/ca.cnf && "
    f"openssl req -config /root/ca.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 3650 "
    f"-keyout {TLS}/ca.key -out {TLS}/ca.crt -subj '/CN=AI-IDP private CA/O=role-test' "
    f"-addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign "
    f"&& chmod 600 {TLS}/ca.key"
)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (f"rm {TLS}/server.key", "server.key is missing"),
        (f"chmod 644 {TLS}/ca.key", "ca.key has the mode 0644, not 0600"),
        (f"cp {TLS}/ca.crt {TLS}/server.crt", "server.crt is not"),
        (NEW_CA, "A strict client refuses"),
    ],
    ids=["deleted", "other mode", "other certificate", "other CA"],
)
def test_damage_is_found_by_a_check_and_repaired(host, damage, said):
    with host.sudo():
        host.check_output(damage)
    check = converge("--check")
    assert check.returncode == 0, check.stdout
    # Lines are wrapped, and coloured one by one.
    assert said in " ".join(re.sub(r"\x1b\[[0-9;]*m", "", check.stdout).split()), check.stdout
    assert "changed=0 " not in check.stdout, check.stdout
    again = converge()
    assert again.returncode == 0, again.stdout
    with host.sudo():
        assert host.run(f"openssl verify -x509_strict -CAfile {TLS}/ca.crt {TLS}/server.crt").rc == 0
        assert host.file(f"{TLS}/ca.key").mode == 0o600
    assert CA.read_text().strip() == host.file(f"{TLS}/ca.crt").content_string.strip()


def test_another_name_makes_another_certificate(host):
    again = converge(tls_certificates_names=["role-test", "door.lan"])
    assert again.returncode == 0, again.stdout
    names = host.check_output(f"openssl x509 -noout -ext subjectAltName -in {TLS}/server.crt")
    assert "DNS:door.lan" in names
    assert "gateway.lan" not in names


def test_files_of_the_owner_are_taken_and_a_wrong_key_is_refused(host):
    with host.sudo():
        for name in ("mine", "other"):
            host.check_output(
                f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 400 -subj /CN=role-test "
                f"-addext subjectAltName=DNS:role-test -keyout /root/{name}.key -out /root/{name}.crt"
            )
    files = {
        "tls_certificates_source": "files",
        "tls_certificates_names": ["role-test"],
        "tls_certificates_addresses": [],
        "tls_certificates_file_certificate": "/root/mine.crt",
        "tls_certificates_file_ca": "/root/mine.crt",
    }
    before = serial(host)
    refused = converge(**files, tls_certificates_file_key="/root/other.key")
    assert refused.returncode != 0
    assert "does not belong to" in refused.stdout
    assert serial(host) == before
    taken = converge(**files, tls_certificates_file_key="/root/mine.key")
    assert taken.returncode == 0, taken.stdout
    assert serial(host) != before


def test_settings_that_do_not_fit_are_told():
    refused = converge(tls_certificates_renew_days=400, tls_certificates_names=["not a name"])
    assert refused.returncode != 0
    assert "tls_certificates_renew_days is 400" in refused.stdout
    assert "'not a name' is no DNS name" in " ".join(refused.stdout.split())
