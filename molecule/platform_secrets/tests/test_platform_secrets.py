"""Keys on the controller: their strength, their mode, and what happens to them later."""

import json
import os
import re
import string
import subprocess
from pathlib import Path

import pytest
import yaml

FILE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets.yml"
CONVERGE = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "converge.yml"


def keys() -> dict[str, str]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def converge(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", CONVERGE, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def before() -> dict[str, str]:
    return keys()


def test_keys_are_256_bits_and_for_their_owner_alone(before: dict[str, str]) -> None:
    assert set(before) == {"first_key", "second_key"}
    for key in before.values():
        assert len(key) == 64
        assert set(key) <= set(string.hexdigits.lower())
    assert before["first_key"] != before["second_key"]
    assert FILE.stat().st_mode & 0o777 == 0o600


def test_what_the_owner_adds_is_kept(before: dict[str, str]) -> None:
    FILE.write_text(FILE.read_text() + "hugging_face_token: mine\n")
    converge("-e", '{"platform_secrets_generate": ["first_key", "third_key"]}')
    after = keys()
    assert after["hugging_face_token"] == "mine"
    assert after["first_key"] == before["first_key"]
    assert len(after["third_key"]) == 64


def test_rotation_replaces_and_shows_nothing(before: dict[str, str]) -> None:
    output = converge("-e", '{"platform_secrets_rotate": true}', "--diff")
    after = keys()
    assert after["first_key"] != before["first_key"]
    assert not any(key in output for key in {*before.values(), *after.values()} - {"mine"})


def test_a_key_may_overlap_with_the_one_before_and_is_replaced_once(before: dict[str, str]) -> None:
    """A run that was cut off in between: whoever has the former key is still let in, and the next run completes it."""
    variables = {
        "platform_secrets_generate": ["first_key"],
        "platform_secrets_kept": ["third_key", "kept_key"],
        "platform_secrets_overlapping": ["first_key"],
        "platform_secrets_rotate": True,
    }
    converge("-e", json.dumps(variables))
    rotated = keys()
    assert rotated["first_key_before"] == before["first_key"] != rotated["first_key"]
    # What is kept is made, and not replaced.
    assert (rotated["third_key"], len(rotated["kept_key"])) == (before["third_key"], 64)
    converge("-e", json.dumps(variables))
    assert keys() == rotated
    variables["platform_secrets_rotate"] = False
    converge("-e", json.dumps(variables))
    assert keys() == rotated
    # Nobody presents it any more, and it may be let in somewhere still: it is not replaced anew.
    retire = {**variables, "platform_secrets_retire": ["first_key"], "platform_secrets_rotate": True}
    assert re.search(r"overlapping\W+first_key\b", converge("-e", json.dumps(retire), "-v", ANSIBLE_FORCE_COLOR="0"))
    left = {name: key for name, key in rotated.items() if name != "first_key_before"}
    retired = {**left, "first_key_retired": rotated["first_key_before"]}
    assert keys() == retired
    converge("-e", json.dumps(retire))
    assert keys() == retired
    forget = {**variables, "platform_secrets_forget": ["first_key"]}
    said = converge("-e", json.dumps(forget), "-v", ANSIBLE_FORCE_COLOR="0")
    assert re.search(r"forgotten\W+first_key\b", said)
    assert keys() == left


def test_a_key_that_was_replaced_is_taken_back(before: dict[str, str]) -> None:
    variables = {"platform_secrets_overlapping": ["first_key"], "platform_secrets_rotate": True}
    converge("-e", json.dumps(variables))
    rotated = keys()
    assert rotated["first_key"] != before["first_key"]
    back = {"platform_secrets_generate": [], "platform_secrets_take_back": ["first_key", "second_key"]}
    converge("-e", json.dumps(back))
    assert keys() == {**before, "second_key": rotated["second_key"]}
    assert "changed=0" in converge("-e", json.dumps(back))


def test_a_vault_password_encrypts_the_file(before: dict[str, str], tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("for this test\n")
    variables = ["-e", f"platform_secrets_vault_password_file={password}"]
    converge(*variables, ANSIBLE_VAULT_PASSWORD_FILE=str(password))
    assert FILE.read_text().startswith("$ANSIBLE_VAULT;")
    assert "changed=0" in converge(*variables, ANSIBLE_VAULT_PASSWORD_FILE=str(password))
    shown = subprocess.run(
        ["ansible-vault", "view", "--vault-password-file", password, FILE], capture_output=True, text=True, check=True
    )
    assert yaml.safe_load(shown.stdout) == before
    # Nothing is written in clear text by a run that can only read the file.
    encrypted = FILE.read_text()
    converge("-e", '{"platform_secrets_overlapping": ["first_key"], "platform_secrets_rotate": true}', *variables,
             ANSIBLE_VAULT_PASSWORD_FILE=str(password))  # fmt: skip
    refused = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", CONVERGE, "-e", '{"platform_secrets_forget": ["first_key"]}'],
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(password)},
        capture_output=True,
        text=True,
    )
    assert refused.returncode != 0
    assert "first_key_before, which is to go" in " ".join(refused.stdout.split())
    assert FILE.read_text().startswith("$ANSIBLE_VAULT;")
    assert FILE.read_text() != encrypted


def test_absent_removes_the_file() -> None:
    converge("-e", "platform_secrets_state=absent")
    assert not FILE.exists()
