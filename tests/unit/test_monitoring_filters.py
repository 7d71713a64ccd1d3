"""What the roles of the monitoring refuse before they change anything."""

from typing import Any

import alertmanager
import monitoring_daemon
import pytest
import status_page

MAIL = {"name": "mail", "email_to": "a@b", "email_from": "c@d", "smtp_server": "mail.example:587"}
HOOK = {"name": "owner", "webhook_url": "https://hooks.example/x", "smtp_password": ""}


@pytest.mark.parametrize(
    ("address", "port", "wrong"),
    [
        ("127.0.0.1", 9090, []),
        ("::1", "9090", []),
        ("gateway.example", 65535, []),
        ("0.0.0.0", 9090, ["is every address"]),
        ("::", 9090, ["is every address"]),
        ("", 0, ["is every address", "toy_port: '0' is no port"]),
        ("127.0.0.1", 65536, ["is no port"]),
    ],
)
def test_a_program_listens_on_one_address_and_a_port(address: str, port: int | str, wrong: list[str]) -> None:
    problems = monitoring_daemon.listen_problems(address, "toy", port)
    assert len(problems) == len(wrong)
    for problem, words in zip(problems, wrong, strict=True):
        assert words in problem


def test_who_is_not_root_listens_on_no_low_port() -> None:
    assert monitoring_daemon.listen_problems("127.0.0.1", "toy", 1024, 1024) == []
    (problem,) = monitoring_daemon.listen_problems("127.0.0.1", "toy", 80, 1024)
    assert problem == "toy_port: '80' is no port from 1024 to 65535"


def test_an_archive_needs_address_and_checksum() -> None:
    assert monitoring_daemon.archive_problems("package", "toy", "", "") == []
    good = "sha256:" + "a" * 64
    assert monitoring_daemon.archive_problems("archive", "toy", "https://x/y.tar.gz", good) == []
    problems = monitoring_daemon.archive_problems("archive", "toy", "", "sha256:a")
    assert [problem.split(" ")[0] for problem in problems] == ["toy_archive_url", "toy_archive_checksum"]


@pytest.mark.parametrize(
    ("receivers", "wrong"),
    [
        ([], ""),
        ([HOOK, MAIL], ""),
        ([HOOK, HOOK], "alertmanager_receivers names a receiver twice"),
        ([{**HOOK, "name": "Owner"}], "'Owner' is no name of lower case letters"),
        ([{"name": "owner"}], "has neither webhook_url nor email_to"),
        ([{**HOOK, "webhook_url": "hooks.example"}], "has a webhook_url that does not begin with"),
        ([{**MAIL, "email_from": ""}], "has email_to, but no email_from"),
        ([{**MAIL, "smtp_server": "mail.example"}], "no smtp_server such as mail.example:587"),
        ([{**MAIL, "smtp_user": "u"}], "has an smtp_user without smtp_password"),
    ],
)
def test_each_receiver_can_be_told(receivers: list[dict[str, Any]], wrong: str) -> None:
    problems = alertmanager.alertmanager_problems(receivers, "https://gateway.example/alertmanager/", "12")
    assert len(problems) == bool(wrong)
    assert wrong in "".join(problems)


def test_alertmanager_needs_an_address_and_a_patience() -> None:
    problems = alertmanager.alertmanager_problems([], "gateway.example", 0)
    assert [problem.split(":")[0] for problem in problems] == ["alertmanager_external_url", "alertmanager_repeat_hours"]


def test_secrets_of_receivers_are_files_that_alertmanager_alone_reads() -> None:
    receivers = [HOOK, {**MAIL, "smtp_password": "p"}]
    files = alertmanager.alertmanager_secret_files(receivers, "/s", "alertmanager")
    assert [(file["path"], file["content"]) for file in files] == [
        ("/s/owner.webhook_url", "https://hooks.example/x"),
        ("/s/mail.smtp_password", "p"),
    ]
    assert all((file["group"], file["mode"], file["secret"]) == ("alertmanager", "0640", True) for file in files)


def test_the_status_page_needs_a_folder_an_address_and_time() -> None:
    good = ("/var/lib/page", "http://127.0.0.1:9090/prometheus", "5")
    assert status_page.status_page_problems(*good) == []
    problems = status_page.status_page_problems("/var", "127.0.0.1:9090", 4)
    assert [problem.partition(" ")[0].rstrip(":") for problem in problems] == [
        "status_page_prometheus_url",
        "status_page_interval",
        "status_page_dir",
    ]
