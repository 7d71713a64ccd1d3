"""What is wrong with a dashboard, told before Grafana sees it, which would show it empty or not at all."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

COLUMNS = 24


def dashboard_errors(text: str, name: str, datasource_uid: str) -> list[str]:
    """Everything that is wrong with one dashboard's JSON; empty where nothing is.

    Args:
        text: the file's content.
        name: what the dashboard is called in the messages.
        datasource_uid: uid of the one datasource that is provisioned.
    """
    try:
        dashboard = json.loads(text)
    except ValueError as error:
        return [f"{name}: no JSON ({error})"]
    if not isinstance(dashboard, dict):
        return [f"{name}: a dashboard is an object"]
    found = _of_dashboard(dashboard, text)
    panels = [panel for panel in dashboard.get("panels") or [] if isinstance(panel, dict)]
    if not panels:
        found.append("it has no panels")
    numbers = [panel.get("id") for panel in panels]
    if len(set(numbers)) != len(numbers):
        found.append("two panels have the same id")
    for panel in panels:
        found += [f"panel '{panel.get('title')}': {error}" for error in _of_panel(panel, datasource_uid)]
    found += _of_places(panels)
    return [f"{name}: {error}" for error in found]


def _of_dashboard(dashboard: dict[str, Any], text: str) -> list[str]:
    errors = []
    if dashboard.get("id", 0) is not None:
        errors.append("id must be null, since Grafana gives a provisioned dashboard its number")
    errors += [
        f"{key} is missing" for key in ("uid", "title", "description", "schemaVersion") if not dashboard.get(key)
    ]
    if "__inputs" in dashboard or "${DS_" in text:
        errors.append("names of datasources (__inputs, ${DS_...}) are not filled in by provisioning")
    return errors


def _of_panel(panel: dict[str, Any], datasource_uid: str) -> list[str]:
    errors = [f"{key} is missing" for key in ("id", "type", "title", "gridPos") if not panel.get(key)]
    if panel.get("type") in ("row", "text"):
        return errors
    if not panel.get("description"):
        errors.append("description is missing")
    if not ((panel.get("fieldConfig") or {}).get("defaults") or {}).get("unit"):
        errors.append("unit is missing")
    targets = panel.get("targets") or []
    if not targets:
        errors.append("it asks nothing")
    letters = [target.get("refId") for target in targets]
    if len(set(letters)) != len(letters) or not all(letters):
        errors.append("its queries need a refId each")
    if not all((target.get("expr") or "").strip() for target in targets):
        errors.append("a query is empty")
    used = {(asking.get("datasource") or {}).get("uid") for asking in [panel, *targets]}
    if used != {datasource_uid}:
        errors.append(f"its datasource must be {datasource_uid}, not {', '.join(sorted(map(str, used)))}")
    return errors


def _of_places(panels: list[dict[str, Any]]) -> list[str]:
    errors = []
    places = [(panel.get("title"), panel["gridPos"]) for panel in panels if panel.get("gridPos")]
    for title, place in places:
        if place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > COLUMNS:
            errors.append(f"panel '{title}' is wider than the {COLUMNS} columns, or has no size")
    for (title, one), (other_title, other) in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        if not (beside or above):
            errors.append(f"panels '{title}' and '{other_title}' overlap")
    return errors


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"dashboard_errors": dashboard_errors}
