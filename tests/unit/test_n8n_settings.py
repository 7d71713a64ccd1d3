"""What the role n8n refuses before it changes anything."""

import json
from pathlib import Path
from typing import Any

import n8n as n8n_filters
import n8n_info
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from jinja2 import Environment

ROLE = Path(__file__).resolve().parents[2] / "roles" / "n8n"

SETTINGS: dict[str, Any] = {
    "broker_port": 5679,
    "ca_file": "",
    "concurrency": 10,
    "credentials": [{"id": "aiIdpModel1", "name": "Model", "type": "httpHeaderAuth", "data": {}}],
    "dir": "/srv/n8n",
    "encryption_key": "0" * 64,
    "files_dir": "",
    "image": "docker.io/n8nio/n8n:2.41.1",
    "keep_executions_hours": 336,
    "listen_address": "127.0.0.1",
    "log_max_size": "20m",
    "memory_limit": "2g",
    "owner_email": "owner@ai-idp.lan",
    "owner_password": "0123456789ab",
    "port": 5678,
    "project": "ai-idp-n8n",
    "public_url": "https://gateway.example/n8n/",
    "reachable_names": ["gateway.lan"],
    "reachable_networks": ["127.0.0.1/32", "fd00::/8"],
    "start_timeout": 180,
    "timezone": "Etc/UTC",
    "workflows": [{"id": "aiIdpCommitToNote", "name": "Notes", "content": {}}],
}


@pytest.mark.parametrize("matches", [None, True])
def test_good_settings_are_accepted(matches: bool | None) -> None:
    assert n8n_filters.n8n_problems(SETTINGS, {"encryption_key_matches": matches}) == []


def test_another_key_than_that_of_the_data_is_refused() -> None:
    (problem,) = n8n_filters.n8n_problems(SETTINGS, {"encryption_key_matches": False})
    assert problem.startswith("n8n_encryption_key is not the one that /srv/n8n/data was made with")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"owner_password": ""}, "n8n_owner_password is empty; it needs 12 to 72"),
        ({"owner_password": "has hidden spaces"}, "n8n_owner_password is too short, too long or has other"),
        ({"owner_password": "hidden" * 13}, "n8n_owner_password is too short, too long or has other"),
        ({"encryption_key": "hidden"}, "n8n_encryption_key is too short"),
        ({"owner_email": "owner"}, "n8n_owner_email: 'owner' is no e-mail address"),
        ({"image": "docker.io/n8nio/n8n:3.0.0"}, "is no whole name with a tag of version 2"),
        ({"memory_limit": "lots"}, "n8n_memory_limit: 'lots' is no number with b, k, m or g behind it"),
        ({"log_max_size": "lots"}, "n8n_log_max_size: 'lots' is no number with b, k, m or g behind it"),
        ({"project": "Mine: x"}, "n8n_project: 'Mine: x' is not of lower-case letters"),
        ({"dir": "/srv/with blanks"}, "n8n_dir: '/srv/with blanks' is no absolute path"),
        ({"files_dir": "files"}, "n8n_files_dir: 'files' is no absolute path"),
        ({"ca_file": "house.crt"}, "n8n_ca_file: 'house.crt' is no absolute path"),
        ({"listen_address": "0.0.0.0"}, "n8n_listen_address: '0.0.0.0' is not one IPv4 address"),
        ({"port": 80}, "n8n_port: '80' is no port from 1024"),
        ({"broker_port": 65536}, "n8n_broker_port: '65536' is no port from 1024"),
        ({"public_url": "gateway/n8n"}, "n8n_public_url: 'gateway/n8n' is no http(s) address that ends with a slash"),
        ({"public_url": "https://gateway/$HOME/"}, "n8n_public_url: 'https://gateway/$HOME/' is no http(s) address"),
        ({"reachable_networks": ["10.0.0.1"]}, "n8n_reachable_networks: '10.0.0.1' is no network"),
        ({"reachable_networks": ["10.0.0.1/8"]}, "n8n_reachable_networks: '10.0.0.1/8' is no network"),
        ({"reachable_names": ["a b"]}, "n8n_reachable_names: 'a b' is no name"),
        ({"timezone": "Mars; rm"}, "n8n_timezone: 'Mars; rm' is no time zone"),
        ({"concurrency": 0}, "n8n_concurrency: '0' is no number from 1 on"),
        ({"workflows": [{"id": "1", "name": "Mine"}]}, "n8n_workflows: the id '1' of Mine is not of 8 to 36"),
        ({"credentials": [{"id": "longerThanN8nTakes", "name": "Yours"}]}, "of Yours is not of 8 to 16"),
    ],
)
def test_each_bad_setting_is_named_and_no_secret_shown(wrong: dict[str, Any], words: str) -> None:
    (problem,) = n8n_filters.n8n_problems({**SETTINGS, **wrong}, {"encryption_key_matches": None})
    assert words in problem
    assert "hidden" not in problem


def test_the_authority_is_read_before_anything_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"dir": str(tmp_path), "user": "root", "encryption_key": "0" * 64, "ca_file": str(tmp_path / "ca.crt")}

    def look(**more: Any) -> dict[str, Any]:
        with patch_module_args({**given, **more}), pytest.raises(SystemExit):
            n8n_info.main()
        return dict(json.loads(capsys.readouterr().out))

    assert "ca.crt can't be read" in look()["msg"]
    # In a check of a bare host nobody has made it yet.
    assert look(_ansible_check_mode=True)["authority"] == ""
    (tmp_path / "ca.crt").write_text("PEM\n")
    assert look()["authority"] == "UEVNCg=="
    assert look(ca_file="")["authority"] == ""


def test_compose_finds_no_variable_in_the_owners_name() -> None:
    environment = Environment(trim_blocks=True, autoescape=False)
    environment.filters["to_json"] = json.dumps
    given = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    given |= {"n8n_owner_first_name": 'A$AP "the" $HOME', "n8n_owner_last_name": "O'Na${x}sh"}
    given |= {"__n8n_numbers": ["1", "1"], "__n8n_found": {}, "__n8n_public": {}, "__n8n_reference": "n8n"}
    template = (ROLE / "templates" / "compose.yml.j2").read_text(encoding="utf-8")
    compose = yaml.safe_load(environment.from_string(template).render(given))
    told = compose["services"]["n8n"]["environment"]
    # As Compose reads it: a pair is the character, and a single one would begin a variable.
    for name in ("first_name", "last_name"):
        text = told[f"N8N_INSTANCE_OWNER_{name.upper()}"]
        assert text.replace("$$", "") == given[f"n8n_owner_{name}"].replace("$", "")
        assert text.replace("$$", "$") == given[f"n8n_owner_{name}"]
