"""What a dashboard asks of Prometheus, asked the way Grafana asks it."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

# What Grafana puts in for a range of half an hour, drawn with one point in 15 s, scraped every 15 s.
RANGE_S = 1800
STEP_S = 15
BUILT_IN = {"__rate_interval": "60s", "__interval": f"{STEP_S}s", "__range": f"{RANGE_S}s"}
VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>[A-Za-z_]\w*))")
LABEL_VALUES = re.compile(r"^label_values\((?P<selector>.+),\s*(?P<label>\w+)\)$")


@dataclass(frozen=True)
class Asked:
    """One query of one panel.

    Attributes:
        where: dashboard, panel and letter of the query, for a person to find it.
        instant: asked for now, not over a range.
    """

    where: str
    expr: str
    instant: bool


@dataclass(frozen=True)
class Server:
    """Prometheus' HTTP API.

    Attributes:
        client: an HTTP client whose base address is Prometheus', path prefix included.
    """

    client: httpx.Client

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the answer's data.

        Raises:
            ValueError: Prometheus refused the query; the message is Prometheus' own.
        """
        answer = self.client.get(f"api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['errorType']}: {answer['error']}")
        return answer["data"]

    def label_values(self, selector: str, label: str, now: float) -> list[str]:
        """Values that a label has in the series of a selector, within the range."""
        found = self.get(f"label/{label}/values", **{"match[]": selector, "start": now - RANGE_S, "end": now})
        return [str(value) for value in found]

    def has_data(self, asked: Asked, now: float) -> bool:
        """Whether a query brings at least one value that is a number."""
        if asked.instant:
            series = self.get("query", query=asked.expr, time=now)["result"]
            return any(not math.isnan(float(one["value"][1])) for one in series)
        series = self.get("query_range", query=asked.expr, start=now - RANGE_S, end=now, step=STEP_S)["result"]
        return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def substitute(text: str, values: dict[str, str]) -> str:
    """Put values into a query the way Grafana does; a name that is no variable stays as it is."""
    return VARIABLE.sub(lambda match: values.get(match["braced"] or match["plain"], match[0]), text)


def resolve(dashboard: dict[str, Any], server: Server, now: float) -> dict[str, str]:
    """Values of the dashboard's variables with all of them chosen: a regular expression of what Prometheus has.

    Raises:
        ValueError: a variable finds no value, so that its menu would be empty.
    """
    values = dict(BUILT_IN)
    for variable in dashboard.get("templating", {}).get("list", []):
        query = substitute(variable["query"]["query"], values)
        match = LABEL_VALUES.match(query)
        if not match:
            raise ValueError(f"${variable['name']}: {query} is no label_values(selector, label)")
        found = server.label_values(match["selector"], match["label"], now)
        if not found:
            raise ValueError(f"${variable['name']}: {query} finds nothing")
        # Backslashes are doubled, because they stand in a string of PromQL.
        values[variable["name"]] = "(" + "|".join(re.escape(one).replace("\\", "\\\\") for one in found) + ")"
    return values


def asked_by(dashboard: dict[str, Any], values: dict[str, str]) -> Iterator[tuple[str, Asked]]:
    """Every query of every panel: as it is written, and as it is asked."""
    row = ""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", []):
            where = f"{dashboard['title']} / {row} / {panel['title']} / {target['refId']}"
            yield (
                target["expr"],
                Asked(where, substitute(target["expr"], values), bool(target.get("instant"))),
            )
