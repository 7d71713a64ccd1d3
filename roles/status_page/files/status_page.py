#!/usr/bin/python3
"""Writes the status page from what Prometheus knows: one file of plain HTML, for phones and large screens alike.

    status_page.py --config FILE --page FILE --state FILE

When Prometheus does not answer, the page says so and shows what was known last, with its time.
"""

from __future__ import annotations

import argparse
import datetime
import html
import http.client
import json
import os
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 4
# Larger than any figure of a page, and the last second that a calendar has.
MOST = 1e30
LATEST = datetime.datetime(9999, 12, 30, tzinfo=datetime.UTC).timestamp()
UNKNOWN = "not known"

NAMES = {
    "vllm": "vLLM",
    "llama_cpp": "llama.cpp",
    "triton": "Triton",
    "dcgm": "GPU metrics (DCGM)",
    "node": "Machine metrics",
    "nginx": "Gateway (nginx)",
    "gateway": "Requests by client",
    "blackbox": "Checks from outside",
    "prometheus": "Prometheus",
    "alertmanager": "Alertmanager",
    "grafana": "Grafana",
    "jetson": "Jetson metrics",
    "edge_llama_cpp": "llama.cpp at the edge",
    "mlflow": "MLflow",
    "n8n": "n8n",
    "knowledge_vault": "Commits to notes",
}
"""What people call the jobs."""

QUERIES = {
    # Of what is only tried from outside, the try counts.
    "up": "min by (job, host) (probe_success or up)",
    "replayed": 'count by (job, host) ({__name__=~"DCGM_FI_DEV_GPU_TEMP",replay="true"})',
    "probes": 'min by (host, instance) (probe_success{job="blackbox"})',
    "boot": "max by (host) (node_boot_time_seconds)",
    "load": 'max by (host) (node_load1) / count by (host) (node_cpu_seconds_total{mode="idle"})',
    "memory": "1 - max by (host) (node_memory_MemAvailable_bytes) / max by (host) (node_memory_MemTotal_bytes)",
    "disk": '1 - min by (host) (node_filesystem_avail_bytes{mountpoint="/"})'
    ' / min by (host) (node_filesystem_size_bytes{mountpoint="/"})',
    "gpu_temperature": "max by (host, gpu, modelName, replay) (DCGM_FI_DEV_GPU_TEMP < 1000)",
    "gpu_memory": "max by (host, gpu) (DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE))",
    "certificates": 'min by (instance) (probe_ssl_earliest_cert_expiry{job="blackbox"})',
    "builds": '{__name__=~".+_build_info",version!=""}',
    "systems": "max by (host, pretty_name) (node_os_info)",
}

VERDICTS = {
    "confirmed": ("good", "confirmed"),
    "within_expected": ("good", "within what was expected"),
    "meets_80_percent": ("warn", "at least 80 % of what was expected"),
    "below": ("warn", "below, or the interval straddles"),
    "refuted": ("bad", "refuted"),
    "impossible": ("bad", "impossible on this hardware"),
    "not_measured": ("none", "not measured"),
}
"""How a verdict is shown, in this order."""

ALERT = ("name", "severity", "host", "summary")
"""What the page shows of an alert."""


class NoAnswer(Exception):
    """Prometheus can't be reached, or says nothing that can be read."""


def fetch(url: str) -> Any:
    """Ask Prometheus' HTTP API.

    Raises:
        NoAnswer: it did not answer with data.
    """
    # Past any proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            told = json.load(answer)
        if told["status"] != "success":
            raise NoAnswer(str(told.get("error", "no success")))
        return told["data"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NoAnswer(str(getattr(error, "reason", error)) or type(error).__name__) from error


def ask(prometheus: str) -> dict[str, Any]:
    """Ask everything that the page shows.

    Returns:
        By the name of the query its series (``labels`` and ``value``), and the alerts that fire.

    Raises:
        NoAnswer: it did not answer with data, or with other data than its API has.
    """
    try:
        found = _asked(prometheus)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise NoAnswer(f"it tells something else than Prometheus' API does ({type(error).__name__})") from error
    if not _is_known(found):
        raise NoAnswer("it tells something else than Prometheus' API does")
    return found


def _asked(prometheus: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, query in QUERIES.items():
        data = fetch(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        series = [{"labels": one["metric"], "value": float(one["value"][1])} for one in data["result"]]
        found[name] = [one for one in series if _is_figure(one["value"])]
    found["alerts"] = [
        {
            "name": alert["labels"].get("alertname", "?"),
            "severity": alert["labels"].get("severity", ""),
            "host": alert["labels"].get("host", ""),
            "summary": alert.get("annotations", {}).get("summary", ""),
            "since": alert.get("activeAt", ""),
        }
        for alert in fetch(f"{prometheus}/api/v1/alerts")["alerts"]
        if alert.get("state") == "firing"
    ]
    return found


def _is_known(told: Any) -> bool:
    """Whether something is what `ask` returns; somebody may have edited what was kept, or a full disk cut it off."""
    if not isinstance(told, dict) or not all(isinstance(told.get(name, []), list) for name in [*QUERIES, "alerts"]):
        return False
    series = [one for name in QUERIES for one in told.get(name, [])]
    return all(
        isinstance(one, dict) and _is_figure(one.get("value")) and _are_texts(one.get("labels")) for one in series
    ) and all(_are_texts(alert) and {*ALERT} <= {*alert} for alert in told.get("alerts", []))


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def _is_figure(value: Any) -> bool:
    """Whether a value is a number that can be shown; to Python true is one, and so are a thousand digits and NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def remembered(path: Path) -> dict[str, Any]:
    """Read what was known last, with its time (``at``); nothing where there is none that can be shown."""
    told = load(path, {})
    return told if _is_known(told) and _is_figure(told.get("at")) and 0 <= told["at"] < LATEST else {}


def finding_rows(path: Path | None) -> list[dict[str, Any]]:
    """Read the rows of the last benchmark, without what is no row and without figures that are no numbers."""
    told = load(path, {})
    rows = told.get("findings") if isinstance(told, dict) else None
    figures = ("measured_mean", "ci95_low", "ci95_high")
    return [
        {key: value for key, value in row.items() if key not in figures or _is_figure(value)}
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    ]


def service_rows(config: dict[str, Any], known: dict[str, Any]) -> list[dict[str, str]]:
    """List every service with its state: those that should be there first, then what Prometheus knows besides."""
    values = {(one["labels"].get("job", ""), one["labels"].get("host", "")): one["value"] for one in known["up"]}
    replayed = {(one["labels"].get("job", ""), one["labels"].get("host", "")) for one in known["replayed"]}
    rows = []
    expected = [(service["job"], service["host"]) for service in config["services"]]
    links = {(service["job"], service["host"]): service for service in config["services"]}
    # A machine's own metrics are the machine's state already.
    machines = {("node", machine["name"]) for machine in config["machines"]}
    for pair in expected + sorted(values.keys() - set(expected) - machines):
        job, host = pair
        own = links.get(pair, {})
        rows.append(
            {
                "name": own.get("name") or NAMES.get(job, job),
                "host": host,
                "link": own.get("link") or "",
                "state": UNKNOWN if pair not in values else "up" if values[pair] else "down",
                "note": "replayed" if pair in replayed else "",
            }
        )
    for one in known["probes"]:
        rows.append(
            {
                "name": f"Check of {one['labels'].get('instance', '?')}",
                "host": one["labels"].get("host", ""),
                "link": "",
                "state": "up" if one["value"] else "down",
                "note": "",
            }
        )
    return rows


def machine_rows(config: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]]:
    """List every machine with what it is doing. A machine is up when its metrics are read."""

    def by_host(name: str) -> dict[str, float]:
        return {one["labels"].get("host", ""): one["value"] for one in known[name]}

    up = {one["labels"].get("host", ""): one["value"] for one in known["up"] if one["labels"].get("job") == "node"}
    systems = {one["labels"].get("host", ""): one["labels"].get("pretty_name", "") for one in known["systems"]}
    memory = {(one["labels"].get("host"), one["labels"].get("gpu")): one["value"] for one in known["gpu_memory"]}
    figures = {name: by_host(name) for name in ("boot", "load", "memory", "disk")}
    rows = []
    for machine in config["machines"]:
        name = machine["name"]
        gpus = [
            {
                "name": one["labels"].get("modelName") or f"GPU {one['labels'].get('gpu', '?')}",
                "temperature": one["value"],
                "memory": memory.get((name, one["labels"].get("gpu"))),
                "replayed": one["labels"].get("replay") == "true",
            }
            for one in known["gpu_temperature"]
            if one["labels"].get("host") == name
        ]
        rows.append(
            {
                "name": name,
                "role": machine.get("role") or "",
                "system": systems.get(name, ""),
                "state": UNKNOWN if name not in up else "up" if up[name] else "down",
                **{figure: values.get(name) for figure, values in figures.items()},
                "gpus": gpus,
            }
        )
    return rows


def versions(config: dict[str, Any], known: dict[str, Any]) -> list[tuple[str, str]]:
    """Say which version of what runs: what the programs tell of themselves, then what was set up."""
    found: dict[str, set[str]] = {}
    for one in known["builds"]:
        name = one["labels"].get("__name__", "").removesuffix("_build_info").replace("_", " ")
        found.setdefault(name, set()).add(one["labels"].get("version", ""))
    told = [(name, ", ".join(sorted(each))) for name, each in sorted(found.items()) if name]
    return [(entry["name"], entry["version"]) for entry in config["versions"]] + told


def text(value: Any) -> str:
    """Write what may come from anywhere as text of a page."""
    return html.escape(str(value), quote=True)


def duration(seconds: float) -> str:
    """Say how long, in one unit."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} seconds"


def clock(moment: float, zone: datetime.tzinfo | None) -> str:
    """Say when, as the gateway's clock does."""
    told = datetime.datetime.fromtimestamp(moment, zone)
    exact = told.astimezone(datetime.UTC).isoformat(timespec="seconds")
    return f'<time datetime="{exact}">{told:%H:%M:%S}</time>'


def pill(state: str, words: str = "") -> str:
    """Show a state by colour, sign and word."""
    kind, sign = {"up": ("good", "●"), "down": ("bad", "▲"), UNKNOWN: ("none", "?")}[state]
    return f'<span class="pill {kind}"><span aria-hidden="true">{sign}</span> {text(words or state)}</span>'


def gauge(words: str, share: float | None) -> str:
    """Show a share of something as words and a bar."""
    if share is None:
        return ""
    level = "bad" if share >= 0.95 else "warn" if share >= 0.85 else "good"
    return (
        f'<div class="gauge"><span>{text(words)}</span><progress class="{level}" max="1" value="{min(share, 1):.3f}">'
        f"</progress><span>{share:.0%}</span></div>"
    )


def machine_card(row: dict[str, Any], now: float) -> str:
    """One machine."""
    lines = []
    if row["boot"] is not None and row["state"] == "up":
        lines.append(
            f"<p>up for {duration(now - row['boot'])}{' · ' + text(row['system']) if row['system'] else ''}</p>"
        )
    lines += [gauge("CPU load", row["load"]), gauge("Memory", row["memory"]), gauge("Disk", row["disk"])]
    for gpu in row["gpus"]:
        note = ' <span class="note">replayed</span>' if gpu["replayed"] else ""
        lines.append(f"<p>{text(gpu['name'])}: {gpu['temperature']:.0f} °C{note}</p>")
        lines.append(gauge("GPU memory", gpu["memory"]))
    return (
        f'<article class="card"><header><h3>{text(row["name"])}</h3>{pill(row["state"])}</header>'
        f'<p class="quiet">{text(row["role"])}</p>{"".join(lines)}</article>'
    )


def service_list(rows: list[dict[str, str]]) -> str:
    """All services, those that are down first."""
    order = {"down": 0, UNKNOWN: 1, "up": 2}
    lines = []
    for row in sorted(rows, key=lambda row: order[row["state"]]):
        name = f'<a href="{text(row["link"])}">{text(row["name"])}</a>' if row["link"] else text(row["name"])
        note = f' <span class="note">{text(row["note"])}</span>' if row["note"] else ""
        lines.append(
            f'<li><span>{name}{note} <span class="quiet">{text(row["host"])}</span></span>{pill(row["state"])}</li>'
        )
    return f'<ul class="rows">{"".join(lines)}</ul>' if lines else '<p class="quiet">None is known yet.</p>'


def alert_list(alerts: list[dict[str, str]]) -> str:
    """The alerts that fire."""
    if not alerts:
        return ""
    lines = [
        f'<li><span>{text(alert["summary"] or alert["name"])}<br><span class="quiet">{text(alert["name"])}'
        f"{' · ' + text(alert['host']) if alert['host'] else ''}</span></span>"
        f'<span class="pill {"bad" if alert["severity"] == "critical" else "warn"}">'
        f"{text(alert['severity'] or 'alert')}</span></li>"
        for alert in alerts
    ]
    return f'<h2>Alerts</h2><ul class="rows">{"".join(lines)}</ul>'


def certificate_list(known: dict[str, Any], now: float, warn_days: float) -> str:
    """The certificates that are seen from outside, the next to end first."""
    lines = []
    for one in sorted(known["certificates"], key=lambda one: one["value"]):
        left = one["value"] - now
        kind = "bad" if left < 0 else "warn" if left < warn_days * 86400 else "good"
        words = f"{duration(left)} left" if left >= 0 else "has ended"
        # Beyond the calendar's end or its beginning there is no day.
        within = min(max(one["value"], 0), LATEST)
        day = datetime.datetime.fromtimestamp(within, datetime.UTC)
        lines.append(
            f'<li><span>{text(one["labels"].get("instance", "?"))}<br><span class="quiet">until {day:%Y-%m-%d}</span>'
            f'</span><span class="pill {kind}">{words}</span></li>'
        )
    return f'<ul class="rows">{"".join(lines)}</ul>' if lines else '<p class="quiet">None is known yet.</p>'


def number(value: Any) -> str:
    """Write a measured number with three digits that count."""
    return "" if value is None else f"{float(value):.3g}" if abs(float(value)) < 1000 else f"{float(value):,.0f}"


def finding_table(findings: list[dict[str, Any]]) -> str:
    """The last benchmark: how many of each verdict, and the findings behind them."""
    if not findings:
        return '<p class="quiet">No benchmark has been run yet.</p>'
    order = list(VERDICTS)
    counts = [
        f'<span class="pill {VERDICTS[verdict][0]}">{count} {VERDICTS[verdict][1]}</span>'
        for verdict in order
        if (count := sum(1 for row in findings if row.get("verdict") == verdict))
    ]
    last = max(str(row.get("measured_at") or "") for row in findings)[:10]
    lines = []
    for row in sorted(findings, key=lambda row: order.index(row["verdict"]) if row.get("verdict") in order else 99):
        kind, words = VERDICTS.get(str(row.get("verdict")), ("none", str(row.get("verdict"))))
        measured = ""
        if row.get("measured_mean") is not None:
            measured = f"{number(row['measured_mean'])} {text(row.get('unit') or '')}"
            if row.get("ci95_low") is not None and row.get("ci95_high") is not None:
                measured += f"<br><span class='quiet'>{number(row['ci95_low'])} to {number(row['ci95_high'])}</span>"
        lines.append(
            f"<tr><td>{text(row.get('description') or row.get('claim_id'))}<br>"
            f'<span class="quiet">{text(row.get("host") or "")} · {text(row.get("environment") or "")}</span></td>'
            f"<td>{text(row.get('documented') or '')}</td><td>{measured}</td>"
            f'<td><span class="pill {kind}">{text(words)}</span></td></tr>'
        )
    when = f' <span class="quiet">last measured {text(last)}</span>' if last else ""
    return (
        f'<p>{" ".join(counts)}{when}</p><details><summary>{len(findings)} findings</summary><div class="wide">'
        "<table><thead><tr><th>Claim</th><th>Promised</th><th>Measured, 95 % interval</th><th>Verdict</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def headline(machines: list[dict[str, Any]], services: list[dict[str, str]], problem: str) -> tuple[str, str]:
    """Say in one line how it is: a kind and words."""
    if problem:
        return "none", "The state is not known"
    down = [row["name"] for row in [*machines, *services] if row["state"] == "down"]
    unknown = [row["name"] for row in [*machines, *services] if row["state"] == UNKNOWN]
    if down:
        return "bad", f"{', '.join(dict.fromkeys(down))} {'is' if len(set(down)) == 1 else 'are'} down"
    if unknown:
        return "warn", f"Nothing is known of {', '.join(dict.fromkeys(unknown))}"
    return "good", "Everything is up"


STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--quiet:#57606a;--line:#d8dee4;
--good:#116329;--good-ground:#dafbe1;--bad:#a40e26;--bad-ground:#ffebe9;--warn:#7d4e00;--warn-ground:#fff3c4;
--none:#424a53;--none-ground:#eaeef2;--link:#0550ae}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--ink:#e6edf3;--quiet:#9198a1;--line:#30363d;
--good:#7ee787;--good-ground:#12301b;--bad:#ffa198;--bad-ground:#48151a;--warn:#f2cc60;--warn-ground:#3b2b00;
--none:#b1bac4;--none-ground:#262c36;--link:#79c0ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.45 system-ui,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.75rem 0 .6rem}h3{font-size:1rem;margin:0}
p{margin:.35rem 0}a{color:var(--link)}
.top{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:baseline;justify-content:space-between}
.headline,.warning{margin:.9rem 0;padding:.8rem 1rem;border-radius:.6rem;overflow-wrap:anywhere}
.headline{font-size:1.15rem;font-weight:600}
.quiet{color:var(--quiet);font-size:.875rem}
.grid{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr))}
.two{display:grid;gap:0 1.6rem;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));align-items:start}
.card,.rows,.wide{background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.card{padding:.8rem 1rem}.card header{display:flex;justify-content:space-between;gap:.5rem;align-items:center}
.rows{list-style:none;margin:0;padding:0}
.rows li{display:flex;justify-content:space-between;gap:.8rem;align-items:center;padding:.5rem 1rem}
.rows li>span:first-child{overflow-wrap:anywhere}
.rows li+li{border-top:1px solid var(--line)}
.pill{display:inline-block;white-space:nowrap;padding:.1rem .6rem;border-radius:1rem;font-size:.875rem;font-weight:600}
.note{border:1px solid var(--line);border-radius:.3rem;padding:0 .3rem;font-size:.75rem;color:var(--quiet)}
.good{color:var(--good);background:var(--good-ground)}.bad{color:var(--bad);background:var(--bad-ground)}
.warn{color:var(--warn);background:var(--warn-ground)}.none{color:var(--none);background:var(--none-ground)}
.gauge{display:grid;grid-template-columns:6.5rem 1fr 3rem;gap:.6rem;align-items:center;font-size:.875rem}
.gauge span:last-child{text-align:right}
progress{appearance:none;width:100%;height:.5rem;border:0;border-radius:.25rem;overflow:hidden;background:var(--none-ground)}
progress::-webkit-progress-bar{background:var(--none-ground)}
progress::-webkit-progress-value{background:currentColor}progress::-moz-progress-bar{background:currentColor}
.wide{overflow-x:auto;margin-top:.6rem}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.5rem .8rem}tbody tr{border-top:1px solid var(--line)}
td .pill{white-space:normal}p .pill{margin:.1rem 0}
@media(max-width:40rem){table,tbody,tr,td{display:block}thead{display:none}td{padding:.2rem .8rem}
tr{padding:.5rem 0}td[data-of]::before{content:attr(data-of) ": ";color:var(--quiet);font-size:.875rem}}
summary{cursor:pointer;padding:.3rem 0}nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.2rem 1rem;margin:0;padding:.7rem 1rem;overflow-wrap:anywhere}
dt{color:var(--quiet)}dd{margin:0}
"""


def render(
    config: dict[str, Any],
    known: dict[str, Any],
    findings: list[dict[str, Any]],
    now: float,
    problem: str,
    zone: datetime.tzinfo | None = None,
) -> str:
    """Write the page.

    Args:
        config: what should be there.
        known: what Prometheus said last, and when (``at``); may be empty.
        findings: rows of the last benchmark.
        now: seconds since 1970.
        problem: why Prometheus does not answer; empty when it does.
        zone: time zone of the page; the machine's own when None.
    """
    data = {**{name: [] for name in [*QUERIES, "alerts"]}, **known}
    machines, services = machine_rows(config, data), service_rows(config, data)
    kind, words = headline(machines, services, problem)
    since = f"data from {clock(known['at'], zone)}" if "at" in known else "no data yet"
    warning = ""
    if problem:
        shown = (
            f"What is below was true at {clock(known['at'], zone)}." if "at" in known else "Nothing was known before."
        )
        warning = (
            f'<p class="warning bad" role="alert">Prometheus does not answer ({clock(now, zone)}: {text(problem)}). '
            f"{shown}</p>"
        )
    links = "".join(f'<a href="{text(link["url"])}">{text(link["name"])}</a>' for link in config["links"])
    told = "".join(f"<dt>{text(name)}</dt><dd>{text(version)}</dd>" for name, version in versions(config, data))
    told = f"<dl>{told}</dl>" if told else '<p class="quiet">None is known yet.</p>'
    environment = f' <span class="note">{text(config["environment"])}</span>' if config.get("environment") else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{max(5, int(config["interval"]))}">
<title>{text(words)} · {text(config["title"])}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<div class="top"><h1>{text(config["title"])}{environment}</h1><span class="quiet">{since}</span></div>
{f"<nav>{links}</nav>" if links else ""}
<p class="headline {kind}" role="status">{text(words)}</p>
{warning}
{alert_list(data["alerts"])}
<h2>Machines</h2>
<div class="grid">{"".join(machine_card(row, now) for row in machines)}</div>
<div class="two">
<section><h2>Services</h2>{service_list(services)}</section>
<section><h2>Certificates</h2>{certificate_list(data, now, float(config["certificate_warn_days"]))}
<h2>Versions</h2><div class="rows">{told}</div></section>
</div>
<h2>Benchmarks</h2>
{finding_table(findings)}
</main>
</body>
</html>
"""


def load(path: Path | None, default: Any) -> Any:
    """Read a JSON file; the default where there is none, or none that can be read."""
    if path is None:
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return default


def write(path: Path, content: str) -> None:
    """Write a file whole or not at all, for everybody to read."""
    temporary = path.with_name(f".{path.name}.new")
    # Half a character, as JSON may hold one, is none in a text.
    temporary.write_text(content, encoding="utf-8", errors="replace")
    temporary.chmod(0o644)
    os.replace(temporary, path)  # noqa: PTH105 - one step, whatever was there


def main() -> int:
    """Ask, remember, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text(encoding="utf-8"))
    now = datetime.datetime.now(datetime.UTC).timestamp()
    known, problem = remembered(arguments.state), ""
    try:
        known = {**ask(config["prometheus_url"].rstrip("/")), "at": now}
        write(arguments.state, json.dumps(known))
    except NoAnswer as error:
        problem = str(error)
        # The journal takes the number for the message's level.
        print(f"<4>Prometheus does not answer: {problem}", file=sys.stderr)
    rows = finding_rows(Path(config["findings_file"])) if config.get("findings_file") else []
    write(arguments.page, render(config, known, rows, now, problem))
    return 0


if __name__ == "__main__":
    sys.exit(main())
