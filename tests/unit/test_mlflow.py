"""What the role mlflow refuses, by which names its server may be called, and what it takes for an MLflow that works."""

from typing import Any

import last_words
import mlflow
import pytest
from ansible.module_utils.ai_idp import mlflow_check
from ansible.module_utils.ai_idp.http_ask import Reply

SETTINGS: dict[str, Any] = {
    "admin_password": "0123456789ab",
    "admin_username": "admin",
    "allowed_hosts": ["gateway.example", "10.77.0.12", "[fd00::1]:8443"],
    "backend_store_uri": "",
    "bind_address": "127.0.0.1",
    "dir": "/srv/mlflow",
    "flask_secret_key": "0" * 32,
    "image": "ghcr.io/mlflow/mlflow:v3.17.0-full",
    "log_max_size": "20m",
    "memory_limit": "3g",
    "path": "/mlflow/",
    "port": 5500,
    "project": "ai-idp-mlflow",
    "start_timeout": 180,
    "workers": 1,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"project": "on"},
        {"project": 8},
        {"memory_limit": ""},
        {"backend_store_uri": "postgresql+psycopg2://mlflow:word@database.lan/mlflow"},
    ],
)
def test_good_settings_are_accepted(more: dict[str, Any]) -> None:
    assert mlflow.mlflow_problems({**SETTINGS, **more}) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"admin_password": ""}, "mlflow_admin_password is empty; it needs 12"),
        ({"admin_password": "has hidden spaces"}, "mlflow_admin_password is too short or has other characters"),
        ({"flask_secret_key": "hidden"}, "mlflow_flask_secret_key is too short"),
        ({"admin_username": "a b"}, "mlflow_admin_username: 'a b' has characters other than"),
        ({"image": "ghcr.io/mlflow/mlflow:latest-full"}, "with a tag other than latest"),
        ({"image": "mlflow"}, "mlflow_image: 'mlflow' is no whole name"),
        ({"memory_limit": "lots"}, "mlflow_memory_limit: 'lots' is no number with b, k, m or g behind it"),
        ({"log_max_size": "lots"}, "mlflow_log_max_size: 'lots' is no number with b, k, m or g behind it"),
        ({"log_max_size": ""}, "mlflow_log_max_size: '' is no number"),
        ({"project": "Mine: x"}, "mlflow_project: 'Mine: x' is not of lower-case letters"),
        ({"dir": "/srv"}, "mlflow_dir: '/srv' is no absolute path"),
        ({"dir": "/srv/with blanks"}, "mlflow_dir: '/srv/with blanks' is no absolute path"),
        ({"bind_address": "0.0.0.0"}, "mlflow_bind_address: '0.0.0.0' is not one IPv4 address"),
        ({"bind_address": "::1"}, "mlflow_bind_address: '::1' is not one IPv4 address"),
        ({"port": 80}, "mlflow_port: '80' is no port from 1024"),
        ({"path": "mlflow"}, "mlflow_path: 'mlflow' is no path that begins and ends with a slash"),
        ({"allowed_hosts": ["*"]}, "mlflow_allowed_hosts: '*' is no name or address"),
        ({"backend_store_uri": "postgresql://a:hidden@b/c"}, "such as postgresql+psycopg2://"),
        ({"backend_store_uri": "mysql://hidden"}, "mlflow_backend_store_uri is no address"),
        ({"workers": 0}, "mlflow_workers: '0' is no number from 1 on"),
        ({"start_timeout": 0}, "mlflow_start_timeout: '0' is no number from 1 on"),
    ],
)
def test_each_bad_setting_is_named_and_no_secret_shown(wrong: dict[str, Any], words: str) -> None:
    (problem,) = mlflow.mlflow_problems({**SETTINGS, **wrong})
    assert words in problem
    assert "hidden" not in problem


def test_names_of_the_gateway_count_with_and_without_the_port_of_https() -> None:
    assert mlflow.mlflow_hosts(["127.0.0.1"], 5500, ["gateway.example", "gateway.example:8443", "[fd00::1]"]) == [
        "127.0.0.1:5500",
        "localhost:5500",
        "gateway.example",
        "gateway.example:8443",
        "[fd00::1]",
        "gateway.example:443",
        "[fd00::1]:443",
    ]


def test_last_words_are_told_without_secrets() -> None:
    said = {"stdout": "no database at postgresql://a:word@b\n", "stderr": " word of honour "}
    assert last_words.last_words(said, ["word", "postgresql://a:word@b", ""]) == "no database at ***\n*** of honour"
    # In check mode the command is skipped.
    assert last_words.last_words({"skipped": True}, []) == "nothing"


GOOD = {
    "health": 200,
    "anonymous": 401,
    "users": 200,
    "known": 200,
    "stranger": 403,
}


def asked(answers: dict[str, int], path: str, login: bool, host: str) -> Reply:
    if path == "health":
        return Reply(answers["health"], "")
    if "users/get" in path:
        assert login
        assert path.endswith("username=an%20owner")
        return Reply(answers["users"], "")
    if host:
        return Reply(answers["stranger"], "")
    return Reply(answers["known" if login else "anonymous"], "")


@pytest.mark.parametrize(
    ("wrong", "words", "refused"),
    [
        ({}, "", False),
        ({"health": 503}, "it is not healthy (status 503)", False),
        ({"anonymous": 200}, "it does not ask somebody without a password for one (status 200)", False),
        ({"users": 401}, "it refuses the password of an owner", True),
        ({"users": 404}, "it does not know an owner as its administrator (status 404)", False),
        ({"known": 500}, "it does not tell an owner its experiments (status 500)", False),
        ({"stranger": 200}, "it answers by a name that is not its own (status 200)", False),
    ],
)
def test_an_mlflow_that_does_not_work_is_found(wrong: dict[str, int], words: str, refused: bool) -> None:
    answers = {**GOOD, **wrong}

    def ask(path: str, login: bool = True, host: str = "") -> Reply:
        return asked(answers, path, login, host)

    assert mlflow_check.check(ask, "an owner", patience=0) == mlflow_check.Finding(words, refused)
