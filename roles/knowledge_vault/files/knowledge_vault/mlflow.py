"""The runs of a day, asked of MLflow."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from typing import Any
from urllib.parse import quote

from .asking import send

TIMEOUT_SECONDS = 10
# MLflow takes up to 1000 and gives the rest by a token.
PAGE = 500
# By this tag MLflow's client itself says which commit of a work tree a run is of.
COMMIT_TAG = "mlflow.source.git.commit"


def runs_of(day: str, settings: dict[str, str], ca_file: str = "") -> list[dict[str, str]]:
    """List the runs that began on a day: name, experiment, status, address and commit, which is empty for none.

    Args:
        day: as ``YYYY-MM-DD``, in the zone of the vault.
        settings: ``url``, ``public_url``, ``user`` and ``password``.
        ca_file: certificates to trust, where MLflow is asked by HTTPS.

    Raises:
        OSError, ValueError, KeyError, TypeError: MLflow did not tell.
    """
    start = time.mktime(time.strptime(day, "%Y-%m-%d"))
    # A day is not always 24 hours long.
    end = time.mktime((*time.strptime(day, "%Y-%m-%d")[:2], time.strptime(day, "%Y-%m-%d")[2] + 1, 0, 0, 0, 0, 0, -1))

    def ask(path: str, content: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the owner's own address
            f"{settings['url'].rstrip('/')}/api/2.0/mlflow/{path}",
            data=json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        if settings.get("user"):
            pair = f"{settings['user']}:{settings.get('password', '')}".encode()
            request.add_header("Authorization", "Basic " + base64.b64encode(pair).decode())
        with send(request, TIMEOUT_SECONDS, ca_file) as reply:
            told: dict[str, Any] = json.load(reply)
        return told

    def paged(path: str, kind: str, content: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            told = ask(path, {**content, "max_results": PAGE, **({"page_token": token} if token else {})})
            found += told.get(kind, [])
            former, token = token, str(told.get("next_page_token") or "")
            if token in ("", former):
                return found

    experiments = {one["experiment_id"]: one["name"] for one in paged("experiments/search", "experiments", {})}
    if not experiments:
        return []
    bounds = f"attributes.start_time >= {int(start * 1000)} AND attributes.start_time < {int(end * 1000)}"
    found = paged("runs/search", "runs", {"experiment_ids": list(experiments), "filter": bounds})
    public = (settings.get("public_url") or settings["url"]).rstrip("/")
    return [
        {
            "name": str(info.get("run_name") or info["run_id"]),
            "experiment": str(experiments.get(info["experiment_id"], "")),
            "status": str(info.get("status", "")),
            "url": f"{public}/#/experiments/{quote(info['experiment_id'])}/runs/{quote(info['run_id'])}",
            "commit": next((str(tag.get("value", "")) for tag in tags if tag.get("key") == COMMIT_TAG), ""),
        }
        for info, tags in ((run["info"], run.get("data", {}).get("tags", [])) for run in found)
    ]
