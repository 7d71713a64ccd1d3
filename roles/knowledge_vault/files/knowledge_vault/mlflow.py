"""The runs of a day, asked of MLflow."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.request
from typing import Any
from urllib.parse import quote

TIMEOUT_SECONDS = 10


def runs_of(day: str, settings: dict[str, str], ca_file: str = "") -> list[dict[str, str]]:
    """List the runs that began on a day.

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
        context = ssl.create_default_context(cafile=ca_file or None) if request.type == "https" else None
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as reply:  # noqa: S310
            told: dict[str, Any] = json.load(reply)
        return told

    experiments = {
        one["experiment_id"]: one["name"]
        for one in ask("experiments/search", {"max_results": 500}).get("experiments", [])
    }
    if not experiments:
        return []
    bounds = f"attributes.start_time >= {int(start * 1000)} AND attributes.start_time < {int(end * 1000)}"
    found = ask("runs/search", {"experiment_ids": list(experiments), "filter": bounds, "max_results": 100})
    public = (settings.get("public_url") or settings["url"]).rstrip("/")
    return [
        {
            "name": str(info.get("run_name") or info["run_id"]),
            "experiment": str(experiments.get(info["experiment_id"], "")),
            "status": str(info.get("status", "")),
            "url": f"{public}/#/experiments/{quote(info['experiment_id'])}/runs/{quote(info['run_id'])}",
        }
        for info in (run["info"] for run in found.get("runs", []))
    ]
