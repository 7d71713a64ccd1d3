# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tells whether keys and certificates of a server, and of the private CA that signs them, are as they must be.

openssl reads them, because it is on every host; its words are taken apart here.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import re
import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible.module_utils.ai_idp.programs import Answer, run

OPENSSL_TIMEOUT_SECONDS = 30.0
DAY_SECONDS = 86400
# Object identifiers of the curves as they stand in a public key.
CURVES = {"P-256": bytes.fromhex("2a8648ce3d030107"), "P-384": bytes.fromhex("2b81040022")}
SERVER_EXTENSIONS = {
    "Basic Constraints": (True, {"CA:FALSE"}),
    "Key Usage": (True, {"Digital Signature"}),
    "Extended Key Usage": (False, {"TLS Web Server Authentication"}),
}
AUTHORITY_EXTENSIONS = {
    "Basic Constraints": (True, {"CA:TRUE", "pathlen:0"}),
    "Key Usage": (True, {"Certificate Sign", "CRL Sign"}),
}


@dataclass(frozen=True)
class Server:
    """What a server is to have.

    Attributes:
        key, certificate: paths.
        ca: path of the certificate that clients trust; empty where the system's authorities do.
        names, addresses: what clients connect to.
        renew_days: a certificate with fewer days left ends soon.
        private: whether the private CA signs it, so that owners, modes, curve, names and usages are this project's.
        client: whether a strict client's checks are made.
    """

    key: str
    certificate: str
    ca: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    renew_days: int = 0
    private: bool = False
    client: bool = True


@dataclass(frozen=True)
class Authority:
    """What a private CA is to have on its host.

    Attributes:
        key, certificate: paths.
        issued: path of what it has signed for the server.
        common_name, organization: its name.
        renew_days: a certificate with fewer days left ends soon.
    """

    key: str
    certificate: str
    issued: str
    common_name: str
    organization: str
    renew_days: int


@dataclass(frozen=True)
class Certificate:
    """A certificate as openssl prints it; extensions by name, each critical or not, with their values."""

    subject: dict[str, str]
    ends: str
    public_key: str
    extensions: dict[str, tuple[bool, set[str]]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names and addresses that it is for, in one way of writing."""
        return {written(value) for value in self.extensions.get("Subject Alternative Name", (False, set()))[1]}

    @property
    def has_end(self) -> bool:
        """Whether it says when it ends, in a way that can be read."""
        try:
            ssl.cert_time_to_seconds(self.ends)
        except ValueError:
            return False
        return True

    def days_left(self, now: float) -> float:
        return (ssl.cert_time_to_seconds(self.ends) - now) / DAY_SECONDS


def written(name: str) -> str:
    """Write a name such as ``DNS:Door.lan`` or ``IP Address:FD00:0:0:0:0:0:0:2`` in the one way to compare it."""
    kind, _, value = name.partition(":")
    if kind in ("IP", "IP Address"):
        with contextlib.suppress(ValueError):
            value = str(ipaddress.ip_address(value))
        return f"IP:{value}"
    return f"{kind}:{value.lower()}"


def public_key_of(text: str) -> str:
    """The public key in what openssl prints; empty where there is none."""
    found = re.search(r"-----BEGIN PUBLIC KEY-----\s(.+?)\s-----END PUBLIC KEY-----", text, re.DOTALL)
    return "".join(found[1].split()) if found else ""


def parse_certificate(text: str) -> Certificate:
    """Read what ``openssl x509 -subject -nameopt multiline -enddate -pubkey -ext ...`` prints."""
    subject: dict[str, str] = {}
    extensions: dict[str, tuple[bool, set[str]]] = {}
    ends, name = "", ""
    for line in text.splitlines():
        header = re.match(r"X509v3 ([A-Za-z ]+): ?(critical)?\s*$", line)
        if header:
            name = header[1]
            extensions[name] = (header[2] is not None, set())
        elif line.startswith("notAfter="):
            ends = line.partition("=")[2].strip()
        elif line.startswith("    ") and name:
            extensions[name][1].update(value.strip() for value in line.split(","))
        elif line.startswith("    ") and " = " in line:
            key, _, value = line.partition("=")
            subject[key.strip()] = value.strip()
        else:
            name = ""
    return Certificate(subject, ends, public_key_of(text), extensions)


def place_problem(path: str, mode: int, owner: int = 0) -> str | None:
    """Say what is wrong with a file's or folder's kind, owner and mode; missing is wrong too."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"{path} is missing"
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        return f"{path} is no plain file"
    if stat.S_IMODE(info.st_mode) != mode:
        return f"{path} has the mode {stat.S_IMODE(info.st_mode):04o}, not {mode:04o}"
    if (info.st_uid, info.st_gid) != (owner, owner):
        return f"{path} is not root's"
    return None


def text_of(path: str) -> str:
    """The text of a certificate; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


class Inspector:
    """Collects what is wrong.

    Args:
        now: seconds since 1970.
        owner: whom the files must belong to.
        program: runs a program with a time limit.
    """

    def __init__(
        self, now: float | None = None, owner: int = 0, program: Callable[[list[str], float], Answer] = run
    ) -> None:
        self.now = time.time() if now is None else now
        self.owner = owner
        self.problems: list[str] = []
        self.ends = ""
        self.ends_soon = False
        self._program = program

    def server(self, wanted: Server) -> None:
        """Look at a server's key and certificate."""
        if wanted.private:
            self._places({os.path.dirname(wanted.key): 0o755})
            self._places({wanted.key: 0o600, wanted.certificate: 0o644, wanted.ca: 0o644})
        certificate = self._pair(wanted.key, wanted.certificate, "P-256" if wanted.private else "")
        if certificate is None:
            return
        self.ends = certificate.ends
        self.ends_soon = certificate.days_left(self.now) < wanted.renew_days
        if certificate.days_left(self.now) <= 0:
            self.problems.append(f"{wanted.certificate} has ended ({certificate.ends})")
        elif self.ends_soon and wanted.private:
            self._soon(wanted.certificate, certificate)
        if wanted.private:
            self._private(wanted, certificate)
        if wanted.client:
            self._client(wanted)

    def authority(self, wanted: Authority) -> None:
        """Look at a private CA, and at what it has signed for the server."""
        self._places({wanted.key: 0o600, wanted.certificate: 0o644, wanted.issued: 0o644})
        self._places({os.path.dirname(wanted.issued): 0o755})
        certificate = self._pair(wanted.key, wanted.certificate, "P-384")
        if certificate is None:
            return
        if certificate.days_left(self.now) < wanted.renew_days:
            self._soon(wanted.certificate, certificate)
        name = {"commonName": wanted.common_name, "organizationName": wanted.organization}
        if certificate.subject != name:
            self.problems.append(f"{wanted.certificate} has the name {certificate.subject}, not {name}")
        self._extensions(wanted.certificate, certificate, AUTHORITY_EXTENSIONS)
        self._verify(["-CAfile", wanted.certificate, wanted.certificate], wanted.certificate)
        self._verify(["-CAfile", wanted.certificate, wanted.issued], wanted.issued)

    def _places(self, modes: dict[str, int]) -> None:
        found = [place_problem(path, mode, self.owner) for path, mode in modes.items()]
        self.problems += [problem for problem in found if problem is not None and problem not in self.problems]

    def _soon(self, path: str, certificate: Certificate) -> None:
        self.problems.append(f"{path} ends soon ({certificate.ends})")

    def _openssl(self, *arguments: str) -> Answer:
        return self._program(["openssl", *arguments], OPENSSL_TIMEOUT_SECONDS)

    def _pair(self, key: str, path: str, curve: str) -> Certificate | None:
        """Read a certificate and see whether its key is the one that is there.

        Args:
            key, path: paths of both.
            curve: curve that the key must be of; empty for any.
        """
        shown = "subjectAltName,basicConstraints,keyUsage,extendedKeyUsage"
        options = ["-subject", "-nameopt", "multiline,-esc_msb,utf8", "-enddate", "-pubkey", "-ext", shown]
        answer = self._openssl("x509", "-noout", *options, "-in", path)
        certificate = parse_certificate(answer.output)
        if answer.rc != 0 or not certificate.public_key or not certificate.has_end:
            self._add(path, "is no certificate that can be read")
            return None
        public = public_key_of(self._openssl("pkey", "-pubout", "-in", key).output)
        if not public:
            self._add(key, "is no key that can be read")
        elif public != certificate.public_key:
            self.problems.append(
                f"The key {key} does not belong to the certificate {path}, of which the first in the file counts"
            )
        elif curve and CURVES[curve] not in base64.b64decode(public):
            self.problems.append(f"{key} is no key of the curve {curve}")
        return certificate

    def _add(self, path: str, words: str) -> None:
        """Say what is wrong with a file, unless it was said already that the file is missing."""
        missing = f"{path} is missing"
        if missing not in self.problems:
            self.problems.append(f"{path} {words}" if os.path.exists(path) else missing)

    def _extensions(self, path: str, certificate: Certificate, wanted: dict[str, tuple[bool, set[str]]]) -> None:
        wrong = [name for name, value in wanted.items() if certificate.extensions.get(name) != value]
        if wrong:
            self.problems.append(f"{path} has not the wanted {', '.join(wrong)}")

    def _private(self, wanted: Server, certificate: Certificate) -> None:
        """What the private CA's own certificates are, to the letter."""
        subject = {"commonName": (wanted.names + wanted.addresses)[0]}
        if certificate.subject != subject:
            self.problems.append(f"{wanted.certificate} has the name {certificate.subject}, not {subject}")
        names = {written(f"DNS:{name}") for name in wanted.names} | {written(f"IP:{ip}") for ip in wanted.addresses}
        if certificate.names != names:
            self.problems.append(
                f"{wanted.certificate} is for {', '.join(sorted(certificate.names))}, not {', '.join(sorted(names))}"
            )
        self._extensions(wanted.certificate, certificate, SERVER_EXTENSIONS)

    def _client(self, wanted: Server) -> None:
        """The checks that a client makes, by the strict rules that Python and others apply by default."""
        trusted = ["-CAfile", wanted.ca] if wanted.ca else []
        given = [("-verify_hostname", name.replace("*", "any")) for name in wanted.names]
        given += [("-verify_ip", address) for address in wanted.addresses]
        chain = ["-purpose", "sslserver", "-untrusted", wanted.certificate]
        for option, value in given:
            self._verify([*chain, option, value, *trusted, wanted.certificate], f"{wanted.certificate} for {value}")

    def _verify(self, arguments: list[str], what: str) -> None:
        if f"{arguments[-1]} is missing" in self.problems:
            return
        answer = self._openssl("verify", "-x509_strict", *arguments)
        if answer.rc != 0:
            said = re.findall(r"error \d+ at \d+ depth lookup: ?(.*)", answer.output)
            words = "; ".join(dict.fromkeys(said)) or answer.output.strip()
            self.problems.append(f"A strict client refuses {what}: {words}")
