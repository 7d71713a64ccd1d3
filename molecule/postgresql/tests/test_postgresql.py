"""PostgreSQL on the test host, asked by the owners of its databases and by strangers."""

import os

from testinfra.backend.base import CommandResult
from testinfra.host import Host

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]
PASSWORD = "not-a-secret-of-the-role-test"


def ask(
    host: Host,
    statement: str,
    *,
    owner: str = "experiments_owner",
    database: str = "experiments",
    address: str = "127.0.0.1",
    password: str = PASSWORD,
) -> CommandResult:
    """Ask a database as somebody."""
    return host.run(
        f"PGPASSWORD={password} psql --no-password --tuples-only --no-align --host={address} --port=15432"
        f" --username={owner} --dbname={database} --command=%s",
        statement,
    )


def test_an_owner_makes_a_table_and_reads_it(host: Host) -> None:
    said = ask(host, "CREATE TABLE runs (name text); INSERT INTO runs VALUES ('\N{SNOWMAN}'); SELECT name FROM runs")
    assert said.rc == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "\N{SNOWMAN}"
    assert ask(host, "SELECT 1", address=ADDRESS).rc == 0


def test_nobody_else_gets_in(host: Host) -> None:
    assert "password authentication failed" in ask(host, "SELECT 1", password="wrong").stderr
    assert "no pg_hba.conf entry" in ask(host, "SELECT 1", database="other").stderr
    assert "no pg_hba.conf entry" in ask(host, "SELECT 1", owner="postgres", database="postgres").stderr
    other = ask(host, "SELECT 1", owner="other_owner", password="not-a-secret-of-the-other")
    assert "no pg_hba.conf entry" in other.stderr


def test_it_listens_where_it_was_asked_to(host: Host) -> None:
    listeners = host.check_output("ss -Hltn 'sport = :15432'").splitlines()
    assert {line.split()[3] for line in listeners} == {"127.0.0.1:15432", f"{ADDRESS}:15432"}


def test_an_owner_is_no_administrator(host: Host) -> None:
    said = ask(host, "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user")
    assert said.stdout.strip() == "f"


def test_no_password_is_where_others_look(host: Host) -> None:
    with host.sudo():
        logs = host.check_output("cat /var/log/postgresql/*.log")
        settings = host.check_output("cat /etc/postgresql/17/main/*.conf /etc/postgresql/17/main/conf.d/*.conf")
        kept = host.check_output(
            "runuser -u postgres -- psql -p 15432 -Atc %s", "SELECT rolpassword FROM pg_authid WHERE rolpassword != ''"
        )
    for text in (logs, settings, kept):
        assert "not-a-secret" not in text
    assert all(line.startswith("SCRAM-SHA-256$") for line in kept.splitlines())


def test_it_comes_back_after_a_boot(host: Host) -> None:
    assert host.service("postgresql.service").is_enabled
    assert host.service("postgresql@17-main.service").is_running
