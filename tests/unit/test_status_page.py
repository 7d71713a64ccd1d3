"""The status page: what it says of what Prometheus knows, of what it does not know, and when it does not answer."""

import datetime
import importlib.util
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_790_000_000.0
UTC = datetime.UTC
CONFIG = {
    "title": "AI-IDP",
    "environment": "lab",
    "prometheus_url": "http://127.0.0.1:9/prometheus",
    "interval": 15,
    "machines": [{"name": "server", "role": "Inference"}, {"name": "edge", "role": None}],
    "services": [{"job": "vllm", "host": "server"}, {"job": "grafana", "host": "server", "link": "/grafana/"}],
    "links": [{"name": "Grafana", "url": "/grafana/"}],
    "versions": [{"name": "vLLM", "version": "v0.30.0"}],
    "findings_file": "",
    "certificate_warn_days": 30,
}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("status_page", ROOT / "roles/status_page/files/status_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = script()


def series(value: float, **labels: str) -> dict[str, Any]:
    return {"labels": labels, "value": value}


def known(**changes: Any) -> dict[str, Any]:
    up = {("node", "server"): 1, ("node", "edge"): 1, ("vllm", "server"): 1, ("grafana", "server"): 1}
    told: dict[str, Any] = {name: [] for name in [*page.QUERIES, "alerts"]}
    told["up"] = [series(value, job=job, host=host) for (job, host), value in up.items()]
    told["boot"] = [series(NOW - 3 * 86400, host="server")]
    told["memory"] = [series(0.42, host="server")]
    told["gpu_temperature"] = [series(61, host="server", gpu="0", modelName="RTX 5070 Ti", replay="true")]
    told["gpu_memory"] = [series(0.97, host="server", gpu="0")]
    told["certificates"] = [series(NOW + 10 * 86400, instance="https://gateway/")]
    told["builds"] = [series(1, __name__="prometheus_build_info", version="2.53.3")]
    return {**told, "at": NOW - 5, **changes}


def render(told: dict[str, Any], problem: str = "", findings: list[dict[str, Any]] | None = None, **config: Any) -> str:
    text: str = page.render({**CONFIG, **config}, told, findings or [], NOW, problem, UTC)
    return text


def words(text: str) -> str:
    """The page as a person reads it."""
    body = text.partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def headline(text: str) -> str:
    found = re.search(r'<p class="headline \w+" role="status">([^<]*)', text)
    assert found
    return found[1]


def down(job: str, host: str) -> list[dict[str, Any]]:
    return [series(0 if one["labels"] == {"job": job, "host": host} else 1, **one["labels"]) for one in known()["up"]]


def test_all_is_well() -> None:
    text = render(known())
    said = words(text)
    assert headline(text) == "Everything is up"
    assert "data from" in said
    assert "up for 3 days" in said
    assert "Memory 42%" in said
    assert "RTX 5070 Ti: 61 °C replayed" in said
    assert "10 days left" in said
    assert "vLLM v0.30.0" in said
    assert "prometheus 2.53.3" in said
    assert "Alerts" not in said
    assert "No benchmark has been run yet" in said


def test_a_service_that_is_down_comes_first_and_is_named_above() -> None:
    text = render(known(up=down("vllm", "server")))
    assert headline(text) == "vLLM is down"
    services = text.partition("<h2>Services</h2>")[2]
    assert services.index("vLLM") < services.index("Grafana")
    assert "Machine metrics" not in services, "the machines are above"


def test_a_machine_that_is_down_says_nothing_of_its_time() -> None:
    text = render(known(up=down("node", "server")))
    assert "server" in headline(text)
    assert "up for" not in words(text)


def test_what_nobody_knows_is_neither_up_nor_down() -> None:
    without = [one for one in known()["up"] if one["labels"]["job"] != "grafana"]
    assert headline(render(known(up=without))) == "Nothing is known of Grafana"


def test_a_failed_check_from_outside_is_a_service_that_is_down() -> None:
    text = render(known(probes=[series(0, host="server", instance="https://gateway/")]))
    assert headline(text) == "Check of https://gateway/ is down"


def test_when_prometheus_does_not_answer_the_page_says_so_and_from_when_it_is() -> None:
    text = render(known(at=NOW - 600), "connection refused")
    assert headline(text) == "The state is not known"
    said = words(text)
    then = datetime.datetime.fromtimestamp(NOW - 600, UTC)
    assert f"data from {then:%H:%M:%S}" in said
    assert "Prometheus does not answer" in said
    assert f"What is below was true at {then:%H:%M:%S}" in said


def test_a_page_without_any_data_is_a_page() -> None:
    text = render({}, "no route to host")
    assert "no data yet" in words(text)
    assert "Nothing was known before" in words(text)


def test_alerts_are_told_in_words() -> None:
    alert = {"name": "EngineDown", "severity": "critical", "host": "server", "summary": "vLLM is down", "since": ""}
    assert "vLLM is down EngineDown · server critical" in words(render(known(alerts=[alert])))


def test_an_ended_certificate_says_so() -> None:
    said = words(render(known(certificates=[series(NOW - 86400, instance="x")])))
    assert "has ended" in said


def test_findings_are_counted_and_listed() -> None:
    file = ROOT / "tests/golden/benchmark_findings/constructed-week1.json"
    rows = json.loads(file.read_text())["findings"]
    said = words(render(known(), findings=rows))
    assert f"{len(rows)} findings" in said
    for verdict in {row["verdict"] for row in rows}:
        assert page.VERDICTS[verdict][1] in said
    assert "82.3 tok/s 81.2 to 83.4" in said


class Strict(HTMLParser):
    """Every element that is opened is closed, in order."""

    void = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("told", [{}, known(), known(up=down("vllm", "server"))])
def test_the_page_is_well_formed_and_loads_nothing(told: dict[str, Any]) -> None:
    text = render(told, findings=[{"claim_id": "a", "verdict": "unheard of"}])
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    for word in ("<script", "<link", "<img", "src=", "@import", "url(", "style="):
        assert word not in text


def test_nothing_that_comes_from_elsewhere_is_markup() -> None:
    evil = "<script>alert('x')</script>\""
    text = render(
        known(
            up=[series(1, job=evil, host=evil)],
            builds=[series(1, __name__=evil, version=evil)],
            alerts=[{"name": evil, "severity": evil, "host": evil, "summary": evil, "since": ""}],
            certificates=[series(NOW, instance=evil)],
            gpu_temperature=[series(1, host="server", gpu=evil, modelName=evil)],
        ),
        evil,
        [{"claim_id": evil, "description": evil, "host": evil, "unit": evil, "documented": evil, "measured_mean": 1}],
        title=evil,
        machines=[{"name": evil, "role": evil}],
    )
    assert "<script" not in text
    assert "x')</script>\"" not in text


class Prometheus(BaseHTTPRequestHandler):
    """Answers like Prometheus' HTTP API."""

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        if parts.path.endswith("/alerts"):
            firing = {"labels": {"alertname": "A", "severity": "warning"}, "annotations": {"summary": "s"}}
            data: Any = {"alerts": [{**firing, "state": "firing"}, {**firing, "state": "pending"}]}
        else:
            query = urllib.parse.parse_qs(parts.query)["query"][0]
            value = "NaN" if "load1" in query else "1"
            data = {
                "resultType": "vector",
                "result": [{"metric": {"job": "node", "host": "edge"}, "value": [0, value]}],
            }
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Prometheus) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/prometheus"
        server.shutdown()
        thread.join(timeout=5)


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> str:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    options = [f"--config={tmp_path}/config.json", f"--page={tmp_path}/index.html", f"--state={tmp_path}/state.json"]
    monkeypatch.setattr("sys.argv", ["status_page.py", *options])
    assert page.main() == 0
    return (tmp_path / "index.html").read_text()


def test_prometheus_is_asked_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prometheus: str) -> None:
    text = run(tmp_path, monkeypatch, prometheus_url=prometheus)
    assert "1 hours" not in text
    told = json.loads((tmp_path / "state.json").read_text())
    assert told["load"] == [], "not a number is no figure"
    assert len(told["alerts"]) == 1, "what is pending does not fire"
    # Prometheus goes away.
    text = run(tmp_path, monkeypatch, prometheus_url="http://127.0.0.1:9/")
    assert "Prometheus does not answer" in words(text)
    assert "data from" in words(text)
    assert (tmp_path / "index.html").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "index.html", "state.json"]


KEPT = known()
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "state",
    [
        *("", "{", "[]", "null", '"x"', DEEP, "9" * 5000, "{}"),
        json.dumps({**KEPT, "up": {}}),
        json.dumps({**KEPT, "up": [1]}),
        json.dumps({**KEPT, "up": [{"labels": [], "value": 1}]}),
        json.dumps({**KEPT, "boot": [{"labels": {"host": "server"}, "value": "x"}]}),
        json.dumps({**KEPT, "load": [{"labels": {"host": "server"}, "value": 10**400}]}),
        json.dumps({**KEPT, "up": [{"labels": {"job": ["node"]}, "value": 1}]}),
        json.dumps({**KEPT, "alerts": [{"name": "A"}]}),
        json.dumps({**KEPT, "at": "x"}),
        json.dumps({**KEPT, "at": 1e20}),
    ],
)
def test_a_state_that_is_none_is_as_good_as_no_state(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.json").write_text(state)
    assert "Nothing was known before." in words(run(tmp_path, monkeypatch))


def test_a_state_that_knows_a_query_less_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that shows more than the one before it still shows what that one kept."""
    (tmp_path / "state.json").write_text(json.dumps({key: value for key, value in KEPT.items() if key != "probes"}))
    assert "What is below was true at" in words(run(tmp_path, monkeypatch))


def test_a_certificate_beyond_the_calendar_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [series(value, instance="https://gateway/") for value in (1e20, -1e20)]
    (tmp_path / "state.json").write_text(json.dumps({**KEPT, "certificates": told}))
    text = words(run(tmp_path, monkeypatch))
    assert "until 9999-12-30" in text
    assert "has ended" in text


@pytest.mark.parametrize(
    "findings",
    [
        *("", "[]", DEEP, '{"findings": {"a": 1}}', '{"findings": [1, null, []]}'),
        '{"findings": [{"description": "\\ud800", "measured_mean": "x", "ci95_low": [], "verdict": ["below"]}]}',
        json.dumps({"findings": [{"measured_mean": 10**400, "measured_at": 3}]}),
    ],
)
def test_findings_that_are_none_stop_no_page(findings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "findings.json").write_text(findings)
    assert "Benchmarks" in words(run(tmp_path, monkeypatch, findings_file=f"{tmp_path}/findings.json"))


@pytest.mark.parametrize(
    "data", [None, [], {"result": None}, {"result": [{}]}, {"result": [{"metric": {"job": 1}, "value": [0, "1"]}]},
             {"result": [{"metric": [], "value": [0, "1"]}]}, {"result": [{"metric": {}, "value": []}]}],
)  # fmt: skip
def test_an_answer_that_is_not_prometheus_s_is_none(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "fetch", lambda url: data if "query" in url else {"alerts": []})
    with pytest.raises(page.NoAnswer, match="something else than Prometheus"):
        page.ask("http://p")


def test_what_speaks_no_http_is_no_answer() -> None:
    def greet(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(page.NoAnswer, match="SSH"):
            page.fetch(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(timeout=5)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(59, "59 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7200, "2 hours"), (-5, "0 seconds")],
)
def test_times_are_told_in_one_unit(seconds: float, said: str) -> None:
    assert page.duration(seconds) == said
