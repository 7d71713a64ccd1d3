"""What the role postgresql refuses, whom it admits, and what its module does to a server."""

import json
from pathlib import Path
from typing import Any

import postgresql as filters
import pytest
import yaml
from ansible.module_utils.ai_idp import postgresql
from test_part_of_the_hosts import PLAYBOOKS, ROOT, Site

SALT = b"0123456789abcdef"
DATABASE = {"name": "mlflow", "owner": "mlflow_owner", "password": "0123456789ab"}
SETTINGS: dict[str, Any] = {
    "client_networks": ["172.18.0.0/16"],
    "databases": [DATABASE],
    "listen_addresses": ["127.0.0.1", "10.77.0.12"],
    "port": 5432,
    "version": "17",
}


def test_good_settings_are_accepted() -> None:
    assert filters.postgresql_problems(SETTINGS) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"version": ""}, "postgresql_version: '' is no major version"),
        ({"listen_addresses": []}, "postgresql_listen_addresses is empty"),
        ({"listen_addresses": ["0.0.0.0"]}, "postgresql_listen_addresses: '0.0.0.0' is not one address"),
        ({"listen_addresses": ["*"]}, "postgresql_listen_addresses: '*' is not one address"),
        ({"client_networks": ["0.0.0.0/0"]}, "postgresql_client_networks: '0.0.0.0/0' is no network"),
        ({"client_networks": ["10.0.0.1/8"]}, "postgresql_client_networks: '10.0.0.1/8' is no network"),
        ({"port": 80}, "postgresql_port: '80' is no port"),
        ({"databases": [{**DATABASE, "name": "My-Data"}]}, "the name 'My-Data' has to be lower case"),
        ({"databases": [{**DATABASE, "name": "template1"}]}, "the name 'template1' has to be"),
        ({"databases": [{**DATABASE, "owner": "postgres"}]}, "the owner 'postgres' has to be"),
        ({"databases": [{**DATABASE, "owner": "pg_monitor"}]}, "the owner 'pg_monitor' has to be"),
        ({"databases": [{**DATABASE, "password": "hidden"}]}, "the password of mlflow_owner is too short"),
        ({"databases": [{**DATABASE, "password": "has hidden ' quotes"}]}, "the password of mlflow_owner is too short"),
        ({"databases": [DATABASE, {**DATABASE, "owner": "b"}]}, "the name 'mlflow' is there twice"),
        ({"databases": [DATABASE, {**DATABASE, "name": "b"}]}, "the owner 'mlflow_owner' is there twice"),
    ],
)
def test_each_bad_setting_is_named_and_no_password_shown(wrong: dict[str, Any], words: str) -> None:
    (problem,) = filters.postgresql_problems({**SETTINGS, **wrong})
    assert words in problem
    assert "hidden" not in problem


def test_the_host_itself_and_the_clients_are_admitted() -> None:
    assert filters.postgresql_networks(["127.0.0.1", "::1"], ["10.0.0.0/24", "127.0.0.1/32"]) == [
        "127.0.0.1/32",
        "::1/128",
        "10.0.0.0/24",
    ]
    assert filters.postgresql_release("trixie") == "17"
    assert filters.postgresql_release("sid") == ""


def test_a_server_of_somebody_else_is_refused() -> None:
    assert filters.postgresql_foreign("/etc/postgresql/17/main", False) == []
    (problem,) = filters.postgresql_foreign("/etc/postgresql/17/main", True)
    assert problem.startswith("this host has a PostgreSQL that somebody else made (/etc/postgresql/17/main); take")


# Made by PostgreSQL 17.12 (Debian trixie) of CREATE ROLE x LOGIN PASSWORD '...', and read from pg_authid.
CAPTURED = (
    "Correct.Horse-Battery~9",
    "SCRAM-SHA-256$4096:mA6jOZqU/tjtl2bGh7Zxqg==$xYXBKrWmUjuxlWOHXYWUr1ds1XHH+HlbOsFEC5qmSxc=:"
    "VSfaAukPoNXo+IaaHJlLxe5D8qgCsKJwPe2h4n8ELEk=",
)


def test_a_verifier_is_what_postgresql_itself_makes() -> None:
    password, verifier = CAPTURED
    assert postgresql.is_of(password, verifier)
    assert not postgresql.is_of(f"{password}x", verifier)
    assert postgresql.is_of("word", postgresql.scram_verifier("word", SALT))


@pytest.mark.parametrize("kept", ["", "md5" + "0" * 32, "SCRAM-SHA-256$4096:%$a:b"])
def test_what_is_no_verifier_is_of_no_password(kept: str) -> None:
    assert not postgresql.is_of("word", kept)


def steps(server: postgresql.Server, *databases: dict[str, str]) -> list[str]:
    found = postgresql.steps_to(server, list(databases) or [DATABASE], lambda: SALT)
    assert not any(DATABASE["password"] in step.statement for step in found)
    return [step.words for step in found]


def test_what_is_missing_is_made() -> None:
    assert steps(postgresql.Server()) == [
        "make the login mlflow_owner",
        "make the database mlflow",
        "close mlflow to others",
    ]


def test_a_database_is_of_utf_8_whatever_the_cluster_is() -> None:
    """With the locale of a cluster in Latin-1, PostgreSQL refuses the encoding."""
    [made] = [
        step.statement
        for step in postgresql.steps_to(postgresql.Server(), [DATABASE], lambda: SALT)
        if step.statement.startswith("CREATE DATABASE")
    ]
    assert "ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8' TEMPLATE template0" in made


def test_only_the_roles_own_cluster_may_hold_its_port() -> None:
    """Another version's server is a process named postgres, too."""
    tasks = yaml.safe_load((ROOT / "roles/postgresql/tasks/preflight.yml").read_text(encoding="utf-8"))
    [port] = [task["vars"]["__port"] for task in tasks if "__port" in task.get("vars", {})]
    assert port["owner_unit"] == "{{ __postgresql_unit }}"
    assert "owner_processes" not in port


@pytest.mark.parametrize(
    ("kept", "owner", "public", "wanted"),
    [
        (postgresql.scram_verifier(DATABASE["password"], SALT), "mlflow_owner", "false", []),
        (postgresql.scram_verifier("another", SALT), "mlflow_owner", "false", ["set the password of mlflow_owner"]),
        ("", "mlflow_owner", "false", ["set the password of mlflow_owner"]),
        (
            postgresql.scram_verifier(DATABASE["password"], SALT),
            "postgres",
            "true",
            ["give mlflow to mlflow_owner", "close mlflow to others"],
        ),
    ],
)
def test_only_what_differs_is_done(kept: str, owner: str, public: str, wanted: list[str]) -> None:
    said = f"login\tpostgres\t\t\nlogin\tmlflow_owner\t{kept}\t\ndatabase\tmlflow\t{owner}\t{public}\n"
    assert steps(postgresql.read_server(said)) == wanted


def test_an_error_tells_the_reason_and_no_statement() -> None:
    said = (
        "ERROR:  role \"x\" already exists\nLINE 1: CREATE ROLE x PASSWORD 'hidden'\n            ^\nSTATEMENT: hidden\n"
    )
    assert postgresql.last_line(said) == 'ERROR:  role "x" already exists'
    assert postgresql.last_line("\n") == "no reason was given"


def test_a_host_without_postgresql_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(postgresql.PostgresqlError, match=r"5432 does not do what it is asked for: there is no pro"):
        postgresql.administer("SELECT 1", 5432)


def week5(site: Site, *options: str) -> dict[str, Any]:
    """What week 5 would check and set up, by its own expressions, and with which variables."""
    plays = yaml.safe_load((PLAYBOOKS / "week5.yml").read_text(encoding="utf-8"))
    tasks = [task for play in plays for task in play.get("tasks", [])]
    [checked] = [task["vars"]["__roles"] for task in tasks if "__roles" in task.get("vars", {})]
    [set_up] = [task["loop"] for task in tasks if "postgresql" in task.get("tags", []) and "loop" in task]
    told = {
        **{"checked": checked, "set_up": set_up, "keys": "{{ ai_idp_knowledge_keys }}"},
        **{"uri": "{{ mlflow_backend_store_uri }}", "databases": "{{ postgresql_databases }}"},
        **{"networks": "{{ postgresql_client_networks }}", "addresses": "{{ postgresql_listen_addresses }}"},
        "elsewhere": "{{ backup_elsewhere }}",
        "doors": "{{ host_baseline_firewall_allow | selectattr('port', 'eq', postgresql_port) }}",
    }
    copy = {"dest": "{{ inventory_dir }}/told.json", "mode": "0600", "content": "{{ told | to_json }}"}
    play = {
        **{"hosts": "1e3", "gather_facts": False, "vars": {"told": told, "ansible_host": "192.0.2.7"}},
        **{"tasks": [{"ansible.builtin.copy": copy}]},
    }
    secrets = {"ai_idp_secrets": {"n8n_encryption_key": "k", "mlflow_database_password": "of-the-database"}}
    done = site.run(yaml.safe_dump([play]), "-e", json.dumps(secrets), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((site.inventory / "told.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "roles").symlink_to(ROOT / "roles")
    return Site(tmp_path)


def test_week_5_has_no_postgresql_unless_it_is_asked_for(site: Site) -> None:
    found = week5(site)
    assert "postgresql" not in found["checked"]
    # One role in the one task, as without PostgreSQL.
    assert found["set_up"] == ["docker_engine"]
    assert (found["uri"], found["databases"], found["doors"], found["elsewhere"]) == ("", [], [], [])
    assert "mlflow_database_password" not in found["keys"]


def test_week_5_keeps_runs_in_postgresql_where_that_is_asked_for(site: Site) -> None:
    found = week5(site, "-e", "ai_idp_mlflow_in_postgresql=true")
    assert "postgresql" in found["checked"]
    assert found["set_up"] == ["docker_engine", "postgresql"]
    assert found["keys"][-1] == "mlflow_database_password"
    # A copy without the runs would be none.
    [sentence] = found["elsewhere"]
    assert "pg_dump" in sentence
    [database] = found["databases"]
    assert found["uri"] == f"postgresql+psycopg2://mlflow:{database['password']}@192.0.2.7:5432/mlflow"
    assert (database["password"], found["addresses"]) == ("of-the-database", ["127.0.0.1", "192.0.2.7"])
    # Nobody but Docker's own networks, by the firewall and by PostgreSQL.
    pools = yaml.safe_load((ROOT / "roles/docker_engine/defaults/main.yml").read_text(encoding="utf-8"))
    networks = [pool["base"] for pool in pools["docker_engine_address_pools"]]
    assert found["networks"] == networks
    assert [door["sources"] for door in found["doors"]] == [networks]


def test_week_5_makes_other_databases_and_takes_postgresql_away(site: Site) -> None:
    databases = json.dumps({"postgresql_databases": [DATABASE]})
    found = week5(site, "-e", databases)
    assert (found["set_up"], found["uri"]) == (["docker_engine", "postgresql"], "")
    assert week5(site, "-e", "postgresql_state=absent")["set_up"] == ["docker_engine", "postgresql"]
