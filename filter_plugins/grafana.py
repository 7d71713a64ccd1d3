# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role grafana checks of its settings and dashboards, before Grafana shows one empty or not at all."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
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
    except (ValueError, RecursionError) as error:
        return [f"{name}: no JSON ({error})"]
    if not isinstance(dashboard, dict):
        return [f"{name}: a dashboard is an object"]
    try:
        return [f"{name}: {error}" for error in _of_all(dashboard, text, datasource_uid)]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return [f"{name}: no dashboard as Grafana exports it ({type(error).__name__}); export it again"]


def _of_all(dashboard: dict[str, Any], text: str, datasource_uid: str) -> list[str]:
    found = _of_dashboard(dashboard, text)
    panels = [panel for panel in dashboard.get("panels") or [] if isinstance(panel, dict)]
    if not panels:
        found.append("it has no panels")
    numbers = [panel.get("id") for panel in panels]
    if len(set(numbers)) != len(numbers):
        found.append("two panels have the same id")
    for panel in panels:
        found += [f"panel '{panel.get('title')}': {error}" for error in _of_panel(panel, datasource_uid)]
    return found + _of_places(panels)


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


def grafana_dashboard_files(names: list[str], folder: str, extra: list[str]) -> dict[str, str]:
    """Say where on the controller each dashboard lies.

    Args:
        names: the project's own dashboards.
        folder: where these lie.
        extra: paths of the owner's; one with the name of one of the project's takes its place.

    Returns:
        paths by the name that the file has on the host.
    """
    own = {f"{name}.json": f"{folder}/{name}.json" for name in names}
    return own | {Path(path).name: str(path) for path in extra}


def grafana_host_files(files: dict[str, str], folder: str) -> list[dict[str, str]]:
    """Give each dashboard its place on the host, as host_state takes it."""
    return [{"path": f"{folder}/{name}", "source": path} for name, path in files.items()]


def grafana_dashboard_uids(files: dict[str, str]) -> list[str]:
    """Read the uid of each dashboard; they were checked before."""
    return [json.loads(Path(path).read_text(encoding="utf-8"))["uid"] for path in files.values()]


def grafana_dashboard_problems(files: dict[str, str], datasource_uid: str) -> list[str]:
    """Say what is wrong with each dashboard, and which of them can't be told apart.

    Args:
        files: paths on the controller by name.
        datasource_uid: uid of the one datasource that is provisioned.
    """
    problems: list[str] = []
    uids: set[str] = set()
    for name, path in files.items():
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
            problems.append(f"{name}: can't be read ({why}: {path})")
            continue
        wrong = dashboard_errors(text, name, datasource_uid)
        problems += wrong
        if wrong:
            continue
        uid = json.loads(text)["uid"]
        if uid in uids:
            problems.append(f"{name}: another dashboard has the uid '{uid}' already")
        uids.add(uid)
    return problems


def grafana_problems(settings: dict[str, Any], distribution: str, extra: list[str]) -> list[str]:
    """Say what Grafana could not work with. The password itself is never in it.

    Args:
        settings: the role's variables, without ``grafana_`` before their names.
        distribution: the host's.
        extra: dashboards that were found in the owner's folder.

    Returns:
        a sentence for each problem.
    """
    problems = _running_problems(settings, distribution) if settings["source"] != "none" else []
    for name, pattern, words in (
        ("version", r"(\d+\.\d+\.\d+([+~.-][\w.+~-]*)?)?$", "is no version such as 13.2.3"),
        ("root_url", r"https?://[^/\s]+/(\S*/)?$", "is no http(s) address that ends with a slash"),
        ("prometheus_url", r"https?://[^/\s]+(/\S*)?$", "is no http(s) address"),
        ("prometheus_scrape_interval", r"[1-9]\d*(ms|s|m)$", "is no interval such as 15s"),
    ):
        if not re.match(pattern, settings[name]):
            problems.append(f"grafana_{name}: '{settings[name]}' {words}")
    if not settings["dashboards"]:
        problems.append("grafana_dashboards is empty; the overview is the home page and must be there")
    elif "overview" not in settings["dashboards"]:
        problems.append("grafana_dashboards lacks overview, which is the home page")
    if settings["extra_dashboards_dir"] and not extra:
        problems.append(
            f"grafana_extra_dashboards_dir: '{settings['extra_dashboards_dir']}' is no folder with dashboards (*.json) "
            "on the controller"
        )
    return problems


def _running_problems(settings: dict[str, Any], distribution: str) -> list[str]:
    problems = []
    password = settings["admin_password"]
    if not re.match(r"[A-Za-z0-9._~-]{12,}$", password):
        problems.append(
            f"grafana_admin_password is {'too short or has other characters' if password else 'empty'}; it needs 12 or "
            "more letters, digits or ._~- (make one with: openssl rand -hex 32)"
        )
    if settings["source"] == "package" and distribution not in ("Debian", "Ubuntu"):
        problems.append(
            f"the host runs {distribution}, for which Grafana's repository has no package; set grafana_source to image"
        )
    if settings["source"] == "image" and not re.match(r"\S+/\S+:(?!latest$)[\w][\w.-]*$", settings["image"]):
        problems.append(
            f"grafana_image: '{settings['image']}' is no whole name with a tag other than latest, such as "
            "docker.io/grafana/grafana:13.2.3"
        )
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {
            "grafana_dashboard_files": grafana_dashboard_files,
            "grafana_dashboard_problems": grafana_dashboard_problems,
            "grafana_dashboard_uids": grafana_dashboard_uids,
            "grafana_host_files": grafana_host_files,
            "grafana_problems": grafana_problems,
        }
