"""Runs are logged in MLflow once, whole or marked as failed, and whatever MLflow answers ends in one sentence."""

import json
from typing import Any

import pytest
from ansible.module_utils.ai_idp import mlflow_runs
from ansible.module_utils.ai_idp.http_exchange import Exchange, NoAnswer
from ansible.module_utils.ai_idp.mlflow_runs import MlflowError, Wanted

RUN = Wanted(
    "week1-lab-gpu",
    {f"p/{number}": number for number in range(150)},
    {"m/tokens": 12.5, "m/tokens_ci95_low": 11.0},
    {"host": "gpu"},
    {"findings.csv": "claim,verdict\n", "a b.txt": "x"},
)


class Mlflow:
    """As much of an MLflow as the module asks for."""

    def __init__(self, **broken: Exchange) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.experiments: dict[str, dict[str, str]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.broken = broken

    def __call__(self, method: str, path: str, body: bytes | None) -> Exchange:
        name = path.removeprefix("api/2.0/mlflow/").partition("?")[0]
        for part, answer in self.broken.items():
            if part.replace("_", "-") in name:
                return answer
        if method == "PUT":
            self.files[path.removeprefix("api/2.0/mlflow-artifacts/artifacts/")] = body or b""
            return Exchange(200, b"{}", {})
        told = json.loads(body or b"{}")
        self.asked.append((method, name, told))
        if name == "experiments/get-by-name":
            found = self.experiments.get(path.partition("=")[2].replace("+", " "))
            return Exchange(200, json.dumps({"experiment": found}).encode(), {}) if found else Exchange(404, b"{}", {})
        answer: dict[str, Any] = {}
        if name == "experiments/create":
            self.experiments[told["name"]] = {"experiment_id": "7", "lifecycle_stage": "active"}
            answer = {"experiment_id": "7"}
        elif name == "runs/create":
            self.runs["r1"] = {**told, "metrics": {}, "params": {}}
            info = {"run_id": "r1", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts"}
            answer = {"run": {"info": info}}
        elif name == "runs/log-batch":
            assert len(told.get("params", [])) <= 100
            for kind in ("metrics", "params"):
                self.runs["r1"][kind] |= {row["key"]: row["value"] for row in told.get(kind, [])}
        elif name == "runs/update":
            self.runs["r1"]["status"] = told["status"]
        elif name == "runs/search":
            finished = [run for run in self.runs.values() if run.get("status") == "FINISHED"]
            answer = {"runs": [run for run in finished if run["tags"][0]["value"] in told["filter"]]}
        return Exchange(200, json.dumps(answer).encode(), {})


def log(server: Mlflow, *runs: Wanted, check: bool = False) -> list[str]:
    return mlflow_runs.log_missing(mlflow_runs.Client(server), "ai-idp week 1", runs or [RUN], check=check)


def test_a_run_is_logged_whole_and_once() -> None:
    server = Mlflow()
    assert log(server) == ["week1-lab-gpu"]
    run = server.runs["r1"]
    assert run["status"] == "FINISHED"
    assert (run["metrics"], len(run["params"])) == (RUN.metrics, 150)
    assert server.files == {"7/r1/artifacts/findings.csv": b"claim,verdict\n", "7/r1/artifacts/a%20b.txt": b"x"}
    assert log(server) == []


def test_what_was_measured_anew_is_another_run_and_a_new_table_is_none() -> None:
    server = Mlflow()
    log(server)
    assert log(server, Wanted(RUN.name, RUN.params, RUN.metrics, RUN.tags, {"findings.csv": "other"})) == []
    assert log(server, Wanted(RUN.name, RUN.params, {"m/tokens": 13.0}, RUN.tags, {})) == ["week1-lab-gpu"]


def test_a_check_logs_nothing() -> None:
    server = Mlflow()
    assert log(server, check=True) == ["week1-lab-gpu"]
    assert (server.experiments, server.runs) == ({}, {})


@pytest.mark.parametrize("broken", ["log_batch", "artifacts"])
def test_a_run_that_is_not_whole_is_failed_and_logged_again(broken: str) -> None:
    server = Mlflow(**{broken: Exchange(500, b"no room", {})})
    with pytest.raises(MlflowError, match="500"):
        log(server)
    assert server.runs["r1"]["status"] == "FAILED"
    server.broken = {}
    assert log(server) == ["week1-lab-gpu"]


def test_a_deleted_experiment_keeps_its_name() -> None:
    server = Mlflow()
    server.experiments["ai-idp week 1"] = {"experiment_id": "7", "lifecycle_stage": "deleted"}
    with pytest.raises(MlflowError, match="'ai-idp week 1' was deleted and keeps its name: restore it"):
        log(server)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"experiment": []}', b'{"experiment": {"a": 1}}'])
def test_an_answer_in_another_form_is_one_sentence(body: bytes) -> None:
    with pytest.raises(MlflowError, match=r"another form|answer has no experiment\."):
        log(Mlflow(get_by_name=Exchange(200, body, {})))


def test_nobody_there_is_one_sentence() -> None:
    def away(_method: str, _path: str, _body: bytes | None) -> Exchange:
        raise NoAnswer("connection refused")

    with pytest.raises(MlflowError, match="MLflow does not answer: connection refused"):
        mlflow_runs.log_missing(mlflow_runs.Client(away), "e", [RUN], check=False)


def test_artifacts_that_lie_elsewhere_are_refused() -> None:
    client = mlflow_runs.Client(Mlflow())
    with pytest.raises(MlflowError, match="artifacts lie in s3://bucket"):
        client._put("s3://bucket/7", "a", "x")
