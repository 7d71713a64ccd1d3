"""What the role grafana refuses, and what it takes for a Grafana that works."""

import json
from pathlib import Path
from typing import Any

import grafana
import pytest
from ansible.module_utils.ai_idp import grafana_check
from ansible.module_utils.ai_idp.http_ask import Reply

DASHBOARDS = Path(__file__).resolve().parents[2] / "roles" / "grafana" / "files" / "dashboards"
UID = "ai-idp-prometheus"
SETTINGS: dict[str, Any] = {
    "source": "package",
    "version": "",
    "image": "",
    "root_url": "https://gateway.example/grafana/",
    "admin_password": "0123456789ab",
    "prometheus_url": "http://127.0.0.1:9090/prometheus",
    "prometheus_scrape_interval": "15s",
    "dashboards": ["overview", "gpu"],
    "extra_dashboards_dir": "",
}


def test_good_settings_are_accepted() -> None:
    assert grafana.grafana_problems(SETTINGS, "Ubuntu", []) == []
    assert grafana.grafana_problems({**SETTINGS, "source": "none", "admin_password": ""}, "Fedora", []) == []
    image = {"source": "image", "image": "docker.io/grafana/grafana:13.2.3"}
    assert grafana.grafana_problems({**SETTINGS, **image}, "Fedora", []) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"admin_password": ""}, "grafana_admin_password is empty; it needs 12"),
        ({"admin_password": "with spaces in it"}, "grafana_admin_password is too short or has other characters"),
        ({"source": "image", "image": "a/b:latest"}, "grafana_image: 'a/b:latest' is no whole name with a tag other"),
        ({"version": "13"}, "grafana_version: '13' is no version"),
        ({"root_url": "https://gateway.example/grafana"}, "is no http(s) address that ends with a slash"),
        ({"prometheus_url": "127.0.0.1:9090"}, "grafana_prometheus_url: '127.0.0.1:9090' is no http(s) address"),
        ({"prometheus_scrape_interval": "15"}, "grafana_prometheus_scrape_interval: '15' is no interval"),
        ({"dashboards": []}, "grafana_dashboards is empty"),
        ({"dashboards": ["gpu"]}, "grafana_dashboards lacks overview"),
        ({"extra_dashboards_dir": "/mine"}, "grafana_extra_dashboards_dir: '/mine' is no folder with dashboards"),
    ],
)
def test_each_bad_setting_is_named_and_no_password_shown(wrong: dict[str, Any], words: str) -> None:
    (problem,) = grafana.grafana_problems({**SETTINGS, **wrong}, "Debian", [])
    assert words in problem
    assert "with spaces" not in problem


def test_a_distribution_without_a_package_is_named() -> None:
    (problem,) = grafana.grafana_problems(SETTINGS, "Fedora", [])
    assert "the host runs Fedora" in problem


def test_the_owner_s_dashboards_come_beside_or_in_place_of_the_project_s() -> None:
    files = grafana.grafana_dashboard_files(["overview", "gpu"], "/p", ["/mine/gpu.json", "/mine/new.json"])
    assert files == {"overview.json": "/p/overview.json", "gpu.json": "/mine/gpu.json", "new.json": "/mine/new.json"}
    assert grafana.grafana_host_files({"gpu.json": "/mine/gpu.json"}, "/d") == [
        {"path": "/d/gpu.json", "source": "/mine/gpu.json"}
    ]


def test_dashboards_are_checked_and_told_apart(tmp_path: Path) -> None:
    files = grafana.grafana_dashboard_files(["overview", "gpu"], str(DASHBOARDS), [])
    assert grafana.grafana_dashboard_uids(files) == ["ai-idp-overview", "ai-idp-gpu"]
    assert grafana.grafana_dashboard_problems(files, UID) == []
    (tmp_path / "torn.json").write_text("{")
    more = {"again.json": files["gpu.json"], "torn.json": str(tmp_path / "torn.json"), "gone.json": str(tmp_path / "g")}
    problems = grafana.grafana_dashboard_problems({**files, **more}, UID)
    assert problems[0] == "again.json: another dashboard has the uid 'ai-idp-gpu' already"
    assert problems[1].startswith("torn.json: no JSON")
    assert problems[2].startswith("gone.json: can't be read")


class Server:
    """Answers as Grafana does, unless told otherwise."""

    def __init__(self, **other: Reply) -> None:
        self.other = other
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, path: str, login: bool = True) -> Reply:
        self.asked.append((path, login))
        name = path.partition("?")[0].partition("/")[2].split("/")[0]
        if name == "search" and not login:
            return self.other.get("anonymous", Reply(401, ""))
        answers = {"health": {}, "user": {}, "datasources": {"status": "OK"}, "search": [{"uid": "a"}, {"uid": "mine"}]}
        return self.other.get(name, Reply(200, json.dumps(answers[name])))


def test_a_grafana_that_works_is_well() -> None:
    server = Server()
    assert grafana_check.check(server, UID, ["a"], 0) == grafana_check.Finding("")
    assert server.asked == [
        ("api/health", False),
        ("api/user", True),
        ("api/search", False),
        (f"api/datasources/uid/{UID}/health", True),
        (grafana_check.SEARCH, True),
    ]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"health": Reply(0, "refused")}, "it is not healthy (refused)"),
        ({"user": Reply(500, "")}, "it does not say whether the password of the user admin is right (status 500)"),
        ({"anonymous": Reply(200, "[]")}, "it answers somebody without a password (status 200)"),
        ({"datasources": Reply(200, '{"status": "ERROR", "message": "no route"}')}, "reach Prometheus (no route)"),
        ({"datasources": Reply(404, "")}, "its datasource does not reach Prometheus (status 404)"),
        ({"search": Reply(200, '[{"uid": "mine"}]')}, "it does not show a"),
        ({"search": Reply(200, "<html>")}, "it does not tell its dashboards (status 200)"),
    ],
)
def test_what_is_wrong_is_told(other: dict[str, Reply], words: str) -> None:
    finding = grafana_check.check(Server(**other), UID, ["a"], 0)
    assert words in finding.problem
    assert not finding.refused


def test_a_wrong_password_is_tried_once_and_nothing_after_it() -> None:
    server = Server(user=Reply(401, ""))
    assert grafana_check.check(server, UID, ["a"], 0).refused
    assert [path for path, _ in server.asked] == ["api/health", "api/user"]
