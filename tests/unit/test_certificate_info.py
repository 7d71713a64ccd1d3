"""Keys and certificates that are as they must be are recognised in one look, and each damage is named."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import certificate_info
import pytest
from ansible.module_utils.ai_idp.certificate_info import Authority, Inspector, Server, parse_certificate, written
from ansible.module_utils.testing import patch_module_args

DAY = 86400
SERVER_EXTENSIONS = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
)

# Captured from OpenSSL 3.0.19.
PRINTED = """\
subject=
    organizationName          = a, b
    commonName                = röle
notAfter=Dec 31 22:00:07 2027 GMT
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMB0DCJ4HZG2tj/511xUqyVsd/ahR
5nbzGbqKkoKCAZdkotNhb96T5ypsilvY5vN+Q+PKdQyl2xT4mTP4BU46AQ==
-----END PUBLIC KEY-----
X509v3 Basic Constraints: critical
    CA:TRUE
X509v3 Subject Alternative Name:\x20
    DNS:role-test, IP Address:FD00:0:0:0:0:0:0:2
"""


def openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_key(path: Path, curve: str) -> None:
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", path)
    path.chmod(0o600)


def make_authority(folder: Path) -> None:
    make_key(folder / "ca.key", "secp384r1")
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"]
    extensions += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    subject = ["-subj", "/O=gateway/CN=Our CA", "-days", "3650"]
    # Without it, the distribution's own settings would add extensions of theirs.
    (folder / "empty.cnf").write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    config = ["-config", folder / "empty.cnf"]
    openssl(
        "req", "-x509", "-new", "-key", folder / "ca.key", *config, *subject, *extensions, "-out", folder / "ca.crt"
    )
    (folder / "ca.crt").chmod(0o644)


def sign(folder: Path, names: str = "DNS:door.lan,IP:10.0.0.2", extensions: str = SERVER_EXTENSIONS) -> None:
    request = folder / "server.csr"
    openssl("req", "-new", "-key", folder / "server.key", "-subj", "/CN=door.lan", "-out", request)
    (folder / "ext").write_text(
        f"{extensions}subjectAltName={names}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    (folder / "issued").mkdir(mode=0o755, exist_ok=True)
    issued = folder / "issued" / "gateway.crt"
    ca = ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", request, *ca, "-days", "90", "-extfile", folder / "ext", "-out", issued)
    issued.chmod(0o644)
    shutil.copy(issued, folder / "server.crt")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    make_authority(folder)
    make_key(folder / "server.key", "prime256v1")
    sign(folder)
    return folder


@pytest.fixture
def tls(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    shutil.copytree(made, folder)
    return folder


def server(folder: Path) -> Server:
    key, certificate, ca = (str(folder / name) for name in ("server.key", "server.crt", "ca.crt"))
    return Server(key, certificate, ca, ("door.lan",), ("10.0.0.2",), renew_days=30, private=True)


def authority(folder: Path) -> Authority:
    key, certificate, issued = (str(folder / name) for name in ("ca.key", "ca.crt", "issued/gateway.crt"))
    return Authority(key, certificate, issued, "Our CA", "gateway", 730)


def problems(folder: Path, wanted: Server | None = None, days_later: float = 0) -> list[str]:
    inspector = Inspector(now=time.time() + days_later * DAY, owner=os.geteuid())
    inspector.authority(authority(folder))
    inspector.server(wanted or server(folder))
    return inspector.problems


def test_a_package_that_is_gone_is_a_problem(
    tls: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_info, "package_names", lambda names: names[:1])
    files = {"key": f"{tls}/server.key", "certificate": f"{tls}/server.crt", "client": False}
    with (
        patch_module_args({"server": files, "packages": ["openssl", "python3-cryptography"]}),
        pytest.raises(SystemExit),
    ):
        certificate_info.main()
    assert json.loads(capsys.readouterr().out)["problems"] == ["python3-cryptography is not installed"]


def test_openssl_s_words_are_read() -> None:
    certificate = parse_certificate(PRINTED)
    assert certificate.subject == {"organizationName": "a, b", "commonName": "röle"}
    assert certificate.ends == "Dec 31 22:00:07 2027 GMT"
    assert certificate.names == {"DNS:role-test", "IP:fd00::2"}
    assert certificate.extensions["Basic Constraints"] == (True, {"CA:TRUE"})


def test_a_name_is_compared_in_one_way_of_writing() -> None:
    assert written("IP Address:FD00:0:0:0:0:0:0:2") == written("IP:fd00::2")
    assert written("DNS:Door.LAN") == "DNS:door.lan"


def test_what_is_right_has_no_problem(tls: Path) -> None:
    assert problems(tls) == []


@pytest.mark.parametrize("name", ["server.key", "server.crt", "ca.crt", "ca.key", "issued/gateway.crt"])
def test_each_file_that_is_gone_is_named_once(tls: Path, name: str) -> None:
    (tls / name).unlink()
    assert problems(tls).count(f"{tls / name} is missing") == 1


@pytest.mark.parametrize("name", ["server.key", "server.crt", "ca.crt", "ca.key", "issued/gateway.crt", "issued", "."])
def test_each_other_mode_is_found(tls: Path, name: str) -> None:
    (tls / name).chmod(0o700 if (tls / name).is_dir() else 0o666)
    assert any(f"{tls / name} has the mode" in problem for problem in problems(tls))


def test_another_owner_is_found(tls: Path) -> None:
    inspector = Inspector(owner=os.geteuid() + 1)
    inspector.server(server(tls))
    assert f"{tls}/server.key is not root's" in inspector.problems


@pytest.mark.parametrize(
    "change",
    [
        lambda wanted: replace(wanted, names=("door.lan", "second.lan")),
        lambda wanted: replace(wanted, addresses=("10.0.0.3",)),
        lambda wanted: replace(wanted, addresses=()),
    ],
)
def test_other_names_are_found(tls: Path, change: Callable[[Server], Server]) -> None:
    assert any(
        "server.crt is for DNS:door.lan, IP:10.0.0.2, not" in found for found in problems(tls, change(server(tls)))
    )


def test_what_ends_soon_is_found(tls: Path) -> None:
    assert problems(tls, days_later=59) == []
    assert any("server.crt ends soon" in problem for problem in problems(tls, days_later=61))
    assert any("ca.crt ends soon" in problem for problem in problems(tls, days_later=3000))


def test_another_ca_is_found(tls: Path) -> None:
    make_authority(tls)
    assert any("A strict client refuses" in problem for problem in problems(tls))


def test_another_certificate_of_the_ca_is_found(tls: Path) -> None:
    shutil.copy(tls / "server.crt", tls / "ca.crt")
    found = " ".join(problems(tls))
    assert "ca.key does not belong" in found
    assert "has not the wanted Basic Constraints, Key Usage" in found


def test_a_key_of_something_else_is_found(tls: Path) -> None:
    make_key(tls / "server.key", "prime256v1")
    assert any("server.key does not belong to the certificate" in problem for problem in problems(tls))


def test_a_key_of_another_curve_is_found(tls: Path) -> None:
    make_key(tls / "server.key", "secp384r1")
    sign(tls)
    assert problems(tls) == [f"{tls}/server.key is no key of the curve P-256"]


def test_other_usages_are_found(tls: Path) -> None:
    sign(tls, extensions=SERVER_EXTENSIONS.replace("digitalSignature", "digitalSignature,keyEncipherment"))
    assert any("has not the wanted Key Usage" in problem for problem in problems(tls))


def test_a_spoiled_file_is_no_certificate(tls: Path) -> None:
    (tls / "server.crt").write_text("nonsense")
    assert any("server.crt is no certificate that can be read" in problem for problem in problems(tls))


def test_an_owner_s_certificate_may_have_any_names_and_modes_but_must_hold(tls: Path) -> None:
    (tls / "server.key").chmod(0o640)
    given = replace(server(tls), private=False, names=("door.lan",), addresses=())

    def look(days_later: float, wanted: Server = given) -> Inspector:
        inspector = Inspector(now=time.time() + days_later * DAY, owner=os.geteuid())
        inspector.server(wanted)
        return inspector

    assert (look(0).problems, look(0).ends_soon) == ([], False)
    assert (look(61).problems, look(61).ends_soon) == ([], True)
    assert any("has ended" in problem for problem in look(91).problems)
    assert "hostname mismatch" in " ".join(look(0, replace(given, names=("other.lan",))).problems).lower()
