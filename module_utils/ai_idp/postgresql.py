# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases and their owners in a PostgreSQL of this host."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ITERATIONS = 4096
"""As many as PostgreSQL itself takes."""
TIMEOUT_SECONDS = 60.0
LOGIN_SECONDS = "10"
VERIFIER = re.compile(r"SCRAM-SHA-256\$(?P<iterations>\d+):(?P<salt>[^$]+)\$(?P<stored>[^:]+):(?P<server>.+)")


class PostgresqlError(Exception):
    """PostgreSQL did not do what it was asked for; the text says what, and holds no password."""


def scram_verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Make of a password what PostgreSQL keeps of it (RFC 5802, SCRAM-SHA-256).

    Args:
        password: ASCII letters, digits and signs, which SASLprep leaves as they are.
        salt: 16 random bytes.
        iterations: how often it is hashed.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    texts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{texts[0]}${texts[1]}:{texts[2]}"


def is_of(password: str, verifier: str) -> bool:
    """Whether PostgreSQL would take a password, by what it keeps."""
    found = VERIFIER.fullmatch(verifier)
    if not found:
        return False
    try:
        salt = base64.b64decode(found["salt"], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(scram_verifier(password, salt, int(found["iterations"])).encode(), verifier.encode())


@dataclass
class Server:
    """What there is: what is kept of each login's password, each database's owner, and who may connect to it."""

    logins: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)


ASK = """
SELECT 'login', rolname, CASE WHEN rolcanlogin THEN coalesce(rolpassword, '') ELSE '' END, '' FROM pg_authid
UNION ALL
SELECT 'database', datname, pg_get_userbyid(datdba), has_database_privilege('public', oid, 'CONNECT')::text
FROM pg_database;
"""


def read_server(text: str) -> Server:
    """Read what PostgreSQL answers to ``ASK``: four fields to a line, with tabs between.

    Raises:
        PostgresqlError: it answers something else.
    """
    server = Server()
    for line in text.split("\n"):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 4 or fields[0] not in ("login", "database"):
            # The line may hold what is kept of a password.
            raise PostgresqlError("PostgreSQL does not tell its logins and databases as four fields to a line")
        kind, name, value, public = fields
        if kind == "login":
            server.logins[name] = value
        else:
            server.owners[name] = value
            if public == "true":
                server.public.add(name)
    return server


@dataclass(frozen=True)
class Step:
    """One change: what it is in words, and the statement that makes it."""

    words: str
    statement: str


def steps_to(server: Server, databases: list[dict[str, Any]], salt: Callable[[], bytes]) -> list[Step]:
    """List what has to be done, in order. Names were checked, so they need no quotes that could end.

    Args:
        server: what there is.
        databases: ``name``, ``owner`` and ``password`` of each.
        salt: gives 16 random bytes.
    """
    steps = []
    for one in databases:
        name, owner = one["name"], one["owner"]
        verifier = scram_verifier(one["password"], salt())
        if owner not in server.logins:
            steps.append(Step(f"make the login {owner}", f"CREATE ROLE \"{owner}\" LOGIN PASSWORD '{verifier}';"))
        elif not is_of(one["password"], server.logins[owner]):
            steps.append(Step(f"set the password of {owner}", f"ALTER ROLE \"{owner}\" LOGIN PASSWORD '{verifier}';"))
        if name not in server.owners:
            # The cluster's own locale may be one that has no UTF-8.
            how = "ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8' TEMPLATE template0"
            made = f'CREATE DATABASE "{name}" OWNER "{owner}" {how};'
            steps.append(Step(f"make the database {name}", made))
        elif server.owners[name] != owner:
            steps.append(Step(f"give {name} to {owner}", f'ALTER DATABASE "{name}" OWNER TO "{owner}";'))
        if name not in server.owners or name in server.public:
            closed = f'REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC;'
            steps.append(Step(f"close {name} to others", closed))
    return steps


def _psql(argv: list[str], text: str, environment: dict[str, str]) -> str:
    """Run psql, and hand it a text in a pipe.

    Raises:
        PostgresqlError: it failed, with the reason alone as the text.
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        )
    except FileNotFoundError as error:
        raise PostgresqlError(f"there is no program {error.filename}") from None
    except OSError as error:
        raise PostgresqlError(f"{argv[0]} can't be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise PostgresqlError(f"it did not answer within {TIMEOUT_SECONDS:g} s") from None
    if done.returncode != 0:
        raise PostgresqlError(last_line(done.stderr))
    return done.stdout


def administer(statements: str, port: int) -> str:
    """Run statements as the account postgres, by the socket.

    Raises:
        PostgresqlError: it failed.
    """
    argv = ["runuser", "--user", "postgres", "--", "psql", "--no-psqlrc", "--no-align", "--tuples-only", "--quiet"]
    argv += ["--field-separator", "\t", "--set", "ON_ERROR_STOP=1", "--port", str(port), "--dbname", "postgres"]
    try:
        return _psql([*argv, "--file", "-"], statements, {})
    except PostgresqlError as error:
        raise PostgresqlError(f"PostgreSQL on port {port} does not do what it is asked for: {error}") from None


def last_line(text: str) -> str:
    """The last line that says something, without statements, in which a verifier may stand."""
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"LINE \d|STATEMENT|\s*\^", line)]
    return lines[-1].strip() if lines else "no reason was given"


def log_in(one: dict[str, Any], address: str, port: int) -> None:
    """Log in as an owner would, over TCP.

    Raises:
        PostgresqlError: it is refused.
    """
    argv = ["psql", "--no-psqlrc", "--no-password", "--host", address, "--port", str(port)]
    argv += ["--username", one["owner"], "--dbname", one["name"], "--command", "SELECT 1"]
    try:
        _psql(argv, "", {"PGPASSWORD": one["password"], "PGCONNECT_TIMEOUT": LOGIN_SECONDS})
    except PostgresqlError as error:
        raise PostgresqlError(f"{one['owner']} can not log in to {one['name']} at {address}:{port}: {error}") from None


def new_salt() -> bytes:
    """16 random bytes."""
    return secrets.token_bytes(16)
