# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs that others have measured, logged in MLflow once each, by its REST API."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from ansible.module_utils.ai_idp.http_exchange import Exchange, NoAnswer, direct, exchange

DIGEST = "ai_idp.digest"
# What MLflow takes in one request.
METRICS_AT_ONCE = 1000
PAIRS_AT_ONCE = 100
VALUE_LIMIT = 6000
TIMEOUT_SECONDS = 60
ARTIFACTS = "mlflow-artifacts:/"

# Method, path and body in, answer out.
Send = Callable[[str, str, "bytes | None"], Exchange]


class MlflowError(Exception):
    """MLflow did not do it; the message says what it answered."""


@dataclass(frozen=True)
class Wanted:
    """A run: its name, what was set, what came of it, what it is about, and files by name."""

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, Any]
    artifacts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """What tells it from others. Files are left out: a report that is drawn anew is no new measurement."""
        text = json.dumps([self.name, self.params, self.metrics, self.tags], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def sender(url: str, username: str, password: str) -> Send:
    """Give what sends requests to an MLflow below its address."""
    login = base64.b64encode(f"{username}:{password}".encode()).decode()

    def send(method: str, path: str, body: bytes | None) -> Exchange:
        request = urllib.request.Request(
            f"{url.rstrip('/')}/{path}",
            data=body,
            method=method,
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        return exchange(lambda: direct().open(request, timeout=TIMEOUT_SECONDS))

    return send


class Client:
    """The part of MLflow's API that is needed."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def _answer(self, method: str, path: str, body: bytes | None) -> Exchange:
        try:
            return self._send(method, path, body)
        except NoAnswer as error:
            raise MlflowError(f"MLflow does not answer: {error}") from error

    def _called(self, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._answer("POST", f"api/2.0/mlflow/{name}", json.dumps(content).encode())
        if answer.status != 200:
            raise MlflowError(f"{name} answers {answer.status}: {' '.join(answer.text.split())[:200]}")
        return self._object(name, answer)

    @staticmethod
    def _object(name: str, answer: Exchange) -> dict[str, Any]:
        try:
            told = json.loads(answer.body or b"{}")
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise MlflowError(f"{name} answers in another form than is known")
        return told

    def _part(self, told: Mapping[str, Any], *keys: str) -> str:
        found: Any = told
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        if not isinstance(found, str) or not found:
            raise MlflowError(f"MLflow's answer has no {'.'.join(keys)}")
        return found

    def experiment(self, name: str) -> str | None:
        """Find an experiment by its name; returns its id.

        Raises:
            MlflowError: somebody deleted it, and it keeps the name.
        """
        query = urlencode({"experiment_name": name})
        answer = self._answer("GET", f"api/2.0/mlflow/experiments/get-by-name?{query}", None)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise MlflowError(f"experiments/get-by-name answers {answer.status}: {' '.join(answer.text.split())[:200]}")
        told = self._object("experiments/get-by-name", answer)
        if self._part(told, "experiment", "lifecycle_stage") == "deleted":
            raise MlflowError(
                f"the experiment '{name}' was deleted and keeps its name: restore it in MLflow (mlflow experiments "
                "restore), or take it away for good (mlflow gc)"
            )
        return self._part(told, "experiment", "experiment_id")

    def make_experiment(self, name: str) -> str:
        """Make an experiment; returns its id."""
        return self._part(self._called("experiments/create", {"name": name}), "experiment_id")

    def has(self, experiment: str, wanted: Wanted) -> bool:
        """Tell whether a run is there and was logged to its end."""
        told = self._called(
            "runs/search",
            {
                "experiment_ids": [experiment],
                "filter": f"tags.`{DIGEST}` = '{wanted.digest}' AND attributes.status = 'FINISHED'",
                "max_results": 1,
            },
        )
        return bool(told.get("runs"))

    def log(self, experiment: str, wanted: Wanted) -> str:
        """Log a run; returns its id. One that is not whole is marked as failed."""
        now = int(time.time() * 1000)
        created = self._called(
            "runs/create",
            {
                "experiment_id": experiment,
                "run_name": wanted.name,
                "start_time": now,
                "tags": [{"key": DIGEST, "value": wanted.digest}],
            },
        )
        run = self._part(created, "run", "info", "run_id")
        status = "FAILED"
        try:
            self._fill(run, wanted, now)
            where = self._part(created, "run", "info", "artifact_uri")
            for name, content in wanted.artifacts.items():
                self._put(where, name, content)
            status = "FINISHED"
        finally:
            self._called("runs/update", {"run_id": run, "status": status, "end_time": int(time.time() * 1000)})
        return run

    def _fill(self, run: str, wanted: Wanted, now: int) -> None:
        metrics = [{"key": name, "value": value, "timestamp": now, "step": 0} for name, value in wanted.metrics.items()]
        pairs = {"params": _pairs(wanted.params), "tags": _pairs(wanted.tags)}
        for kind, rows, at_once in (
            ("metrics", metrics, METRICS_AT_ONCE),
            ("params", pairs["params"], PAIRS_AT_ONCE),
            ("tags", pairs["tags"], PAIRS_AT_ONCE),
        ):
            for start in range(0, len(rows), at_once):
                self._called("runs/log-batch", {"run_id": run, kind: rows[start : start + at_once]})

    def _put(self, where: str, name: str, content: str) -> None:
        if not where.startswith(ARTIFACTS):
            raise MlflowError(f"artifacts lie in {where}, and not with MLflow's server (--serve-artifacts)")
        path = f"api/2.0/mlflow-artifacts/artifacts/{where.removeprefix(ARTIFACTS).lstrip('/')}/{quote(name)}"
        answer = self._answer("PUT", path, content.encode())
        if answer.status != 200:
            raise MlflowError(f"the artifact {name} was answered with {answer.status}")


def _pairs(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": name, "value": str(value)[:VALUE_LIMIT]} for name, value in values.items()]


def log_missing(client: Client, experiment: str, wanted: Sequence[Wanted], *, check: bool) -> list[str]:
    """Log the runs that are not there yet.

    Args:
        client: of MLflow.
        experiment: name of the experiment, which is made where there is none.
        wanted: the runs.
        check: only tell.

    Returns:
        names of the runs that were, or would be, logged.

    Raises:
        MlflowError: MLflow did not do it.
    """
    number = client.experiment(experiment)
    missing = [one for one in wanted if number is None or not client.has(number, one)]
    if missing and not check:
        number = number or client.make_experiment(experiment)
        for one in missing:
            client.log(number, one)
    return [one.name for one in missing]
