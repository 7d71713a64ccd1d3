"""What the role prometheus refuses, writes, and takes for a Prometheus that works."""

import json
import os
from pathlib import Path
from typing import Any

import prometheus
import pytest
from ansible.module_utils.ai_idp import prometheus_check
from ansible.module_utils.ai_idp.http_ask import Reply, retried

SETTINGS: dict[str, Any] = {
    "external_url": "https://gateway.example/prometheus/",
    "retention_days": 90,
    "retention_size": "20GB",
    "scrape_interval_s": 15,
    "evaluation_interval_s": "10",
    "scrape_jobs": [
        {
            "name": "node",
            "targets": [{"host": "a", "address": "10.0.0.1:9100"}, {"host": "b", "address": "[::1]:9100"}],
        },
        {"name": "vllm", "credentials": "key", "targets": []},
        {
            "name": "blackbox",
            "probe_exporter": "127.0.0.1:9115",
            "targets": [{"host": "a", "address": "https://gateway.example/", "module": "https_ok"}],
        },
    ],
    "alertmanagers": ["127.0.0.1:9093"],
    "alert_baseline_claims": {"vllm": "a", "llama_cpp": "b.1", "edge_llama_cpp": "c-2"},
}
METRICS = "# HELP x\nprometheus_config_last_reload_success_timestamp_seconds 1.7e+09\n"


def job(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "node", "targets": [], **more}]


def test_good_settings_are_accepted() -> None:
    assert prometheus.prometheus_problems(SETTINGS) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"external_url": "gateway.example"}, "prometheus_external_url: 'gateway.example' is no address"),
        ({"retention_days": 0}, "prometheus_retention_days: '0' is less than 1"),
        ({"retention_size": "20G"}, "prometheus_retention_size: '20G' is no size"),
        ({"evaluation_interval_s": 16}, "is not between 1 and prometheus_scrape_interval_s (15)"),
        ({"scrape_jobs": job() + job()}, "names a job twice"),
        ({"scrape_jobs": job(name="Node")}, "'Node' is no name"),
        ({"scrape_jobs": job(targets=[{"address": "http://a:1/"}])}, "target 'http://a:1/' of node is no address"),
        ({"scrape_jobs": job(targets=[{"address": "https://a/"}], probe_exporter="x:1")}, "the module that opens it"),
        ({"alertmanagers": ["127.0.0.1"]}, "prometheus_alertmanagers: '127.0.0.1' is no address and port"),
        ({"alert_baseline_claims": {"vllm": "a", "llama_cpp": "b"}}, "no claim is named for edge_llama_cpp"),
    ],
)
def test_each_bad_setting_is_named(wrong: dict[str, Any], words: str) -> None:
    (problem,) = prometheus.prometheus_problems({**SETTINGS, **wrong})
    assert words in problem


def test_credentials_are_files_that_prometheus_alone_reads() -> None:
    (file,) = prometheus.prometheus_credential_files(SETTINGS["scrape_jobs"], "/c", "prometheus")
    assert file == {"path": "/c/vllm", "content": "key", "group": "prometheus", "mode": "0640", "secret": True}


def test_promtool_looks_at_every_rule() -> None:
    (file,) = prometheus.prometheus_rule_files(["gpu"], "/r", "/usr/bin/promtool")
    assert (file["path"], file["template"]) == ("/r/gpu.yml", "rules/gpu.yml.j2")
    assert file["validate"] == "/usr/bin/promtool check rules %s"


def test_the_newest_of_files_and_of_what_folders_hold_counts(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    for name, when in (("a.yml", 100), ("rules/b.yml", 300), ("rules", 200), ("future", 9000)):
        path = tmp_path / name
        if not path.exists():
            path.write_text("")
        os.utime(path, (when, when))
    os.utime(tmp_path / "rules", (200, 200))
    paths = [str(tmp_path / name) for name in ("a.yml", "rules", "future", "missing")]
    assert prometheus_check.newest(paths, now=1000) == 300
    assert prometheus_check.newest([], now=1000) == 0


@pytest.mark.parametrize(
    ("reply", "since", "words"),
    [
        (Reply(200, METRICS), 1.7e9 - 1, ""),
        (Reply(200, METRICS), 1.7e9 + 1, "has not taken its new settings over"),
        (Reply(200, ""), 1, "has not taken its new settings over"),
        (Reply(0, "refused"), 1, "does not tell its own figures (refused)"),
    ],
)
def test_settings_are_in_force_when_they_were_taken_over_later(reply: Reply, since: float, words: str) -> None:
    problem = prometheus_check.not_taken_over(reply, since)
    assert words in problem
    assert bool(words) == bool(problem)


class Server:
    """Answers as Prometheus does; its targets come with the second question."""

    def __init__(self, health: str = "ok") -> None:
        self.health = health
        self.asked: list[str] = []

    def __call__(self, path: str) -> Reply:
        self.asked.append(path)
        if path == "/metrics":
            return Reply(200, METRICS)
        if path.startswith("/api/v1/targets"):
            return Reply(200, json.dumps({"data": {"activeTargets": [{}] * (self.asked.count(path) // 2)}}))
        rules = [{"name": "a", "health": "ok"}, {"name": "b", "health": self.health, "lastError": "many to many"}]
        return Reply(200, json.dumps({"data": {"groups": [{"rules": rules}]}}))


def test_it_is_asked_until_its_targets_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_check, "retried", lambda problem, seconds: retried(problem, seconds, 0))
    server = Server()
    assert prometheus_check.check(server, targets=1, since=1.6e9, seconds=10) == ""
    assert [path.rpartition("/")[2].partition("?")[0] for path in server.asked] == [
        "metrics",
        "targets",
        "targets",
        "rules",
    ]


def test_without_new_settings_only_targets_and_rules_count() -> None:
    server = Server()
    assert prometheus_check.check(server, targets=0, since=0, seconds=0) == ""
    assert "/metrics" not in server.asked


def test_what_is_wrong_is_told() -> None:
    assert prometheus_check.check(Server(), 5, 0, 0) == "it watches 0 targets instead of 5"
    assert prometheus_check.check(Server(), 0, 1.8e9, 0).startswith("it has not taken its new settings over")
    assert prometheus_check.check(Server("err"), 0, 0, 0) == "it can't compute b (many to many)"
    assert prometheus_check.wrong_targets(Reply(200, "<html>"), 1) == "it does not tell its targets (status 200)"
    assert prometheus_check.failing_rules(Reply(503, "")) == "it does not tell its rules (status 503)"


def test_time_is_up_at_last() -> None:
    now = iter(range(10))
    looks: list[float] = []
    assert retried(lambda: "still", 3, 1, looks.append, lambda: next(now)) == "still"
    assert len(looks) == 2
