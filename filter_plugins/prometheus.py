# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role prometheus checks of its settings, and the files that it makes of them."""

from __future__ import annotations

import re
from typing import Any

ENGINES = ("vllm", "llama_cpp", "edge_llama_cpp")


def prometheus_credential_files(jobs: list[dict[str, Any]], folder: str, group: str) -> list[dict[str, Any]]:
    """Give the credentials of each job a file that root writes and Prometheus reads.

    Args:
        jobs: as in ``prometheus_scrape_jobs``.
        folder: where the files lie; each is called as its job.
        group: Prometheus' group.

    Returns:
        files, as host_state takes them.
    """
    return [
        {
            "path": f"{folder}/{job['name']}",
            "content": str(job["credentials"]),
            "group": group,
            "mode": "0640",
            "secret": True,
        }
        for job in jobs
        if job.get("credentials")
    ]


def prometheus_rule_files(names: list[str], folder: str, promtool: str) -> list[dict[str, Any]]:
    """Give each group of rules its file, which promtool must accept.

    Args:
        names: names of templates in ``templates/rules``, without ``.yml.j2``.
        folder: where the files lie.
        promtool: path of the program.

    Returns:
        files, as host_state takes them.
    """
    return [
        {
            "path": f"{folder}/{name}.yml",
            "template": f"rules/{name}.yml.j2",
            "validate": f"{promtool} check rules %s",
        }
        for name in names
    ]


def prometheus_problems(settings: dict[str, Any]) -> list[str]:
    """Say what Prometheus could not work with.

    Args:
        settings: the role's variables, without ``prometheus_`` before their names.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if not re.match(r"https?://[^/\s]+(/\S*)?$", settings["external_url"]):
        problems.append(
            f"prometheus_external_url: '{settings['external_url']}' is no address such as "
            "https://gateway.example/prometheus/"
        )
    if int(settings["retention_days"]) < 1:
        problems.append(f"prometheus_retention_days: '{settings['retention_days']}' is less than 1")
    if not re.match(r"[1-9]\d*(MB|GB|TB)$", settings["retention_size"]):
        problems.append(f"prometheus_retention_size: '{settings['retention_size']}' is no size such as 20GB")
    if not 1 <= int(settings["evaluation_interval_s"]) <= int(settings["scrape_interval_s"]):
        problems.append(
            f"prometheus_evaluation_interval_s: '{settings['evaluation_interval_s']}' is not between 1 and "
            f"prometheus_scrape_interval_s ({settings['scrape_interval_s']})"
        )
    names = [job["name"] for job in settings["scrape_jobs"]]
    if len(set(names)) != len(names):
        problems.append("prometheus_scrape_jobs names a job twice")
    for job in settings["scrape_jobs"]:
        problems += [f"prometheus_scrape_jobs: {problem}" for problem in _job_problems(job)]
    problems += [
        f"prometheus_alertmanagers: '{address}' is no address and port such as 127.0.0.1:9093"
        for address in settings["alertmanagers"]
        if not re.match(r"[^/\s]+:\d{1,5}(/\S*)?$", address)
    ]
    claims = settings["alert_baseline_claims"]
    problems += [
        f"prometheus_alert_baseline_claims: no claim is named for {engine}"
        for engine in ENGINES
        if not re.match(r"[a-z0-9.-]+$", claims.get(engine) or "")
    ]
    return problems


def _job_problems(job: dict[str, Any]) -> list[str]:
    problems = []
    if not re.match(r"[a-z][a-z0-9_]*$", job["name"]):
        problems.append(f"'{job['name']}' is no name of lower case letters, digits and _")
    for target in job["targets"]:
        where = f"target '{target['address']}' of {job['name']}"
        if job.get("probe_exporter"):
            if not target.get("module") or not re.match(r"[a-z]+://|[^/]+:\d+$", target["address"]):
                problems.append(f"{where} needs a URL and the module that opens it")
        elif not re.match(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}$", target["address"]):
            problems.append(f"{where} is no address and port such as 192.168.1.11:9100")
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {
            "prometheus_credential_files": prometheus_credential_files,
            "prometheus_rule_files": prometheus_rule_files,
            "prometheus_problems": prometheus_problems,
        }
